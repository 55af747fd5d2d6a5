const drawings = {
  Learning() {
    const kinds = ["validation", "training"];
    const titles = ["Validation balanced accuracy", "Training loss"];
    const [at, select] = choice("Quantity", titles);
    const curve = (row) => row.learning?.[kinds[at]];
    const known = data.rows.map(curve).filter((one) => one?.epoch.length);
    if (!known.length) return [controls(select), note("No run recorded it.")];
    const x = [0, Math.max(1, ...known.flatMap((one) => one.epoch))];
    const y = at ? [0, Math.max(...known.flatMap((one) => one.high))] : [0, 1];
    const marks = (own) => (sx, sy) => {
      const other = baseline && curve(baseline);
      const outline = [
        ...own.epoch.map((e, i) => [e, own.high[i]]),
        ...own.epoch.map((e, i) => [e, own.low[i]]).reverse(),
      ].map(([e, v]) => `${sx(e).toFixed(1)},${sy(v).toFixed(1)}`);
      return [
        svg("polygon", { class: "range", points: outline.join(" ") }),
        other && path("reference", other.epoch, other.mean, sx, sy),
        path("mean", own.epoch, own.mean, sx, sy),
      ].filter(Boolean);
    };
    const rows = shown().filter((row) => curve(row)?.epoch.length);
    const explained = `Mean over the seeds, and from the lowest to the highest seed${dashed()}`;
    const one = (row) =>
      chart({ x, y, xTitle: "epoch", yTitle: titles[at], marks: marks(curve(row)) });
    return [controls(select), note(explained), figures(rows, one)];
  },

  Confusion() {
    const explained =
      "Images of each true class (row) given to each class (column), mean over the seeds; " +
      "the shade is the share of the row.";
    return [note(explained), figures(judged("confusion"), confusion)];
  },

  "Precision and recall"() {
    const [c, select] = choice("Class", data.classes);
    const marks = (row) => (sx, sy) =>
      [
        baseline?.precision && path("reference", data.levels, baseline.precision[c], sx, sy),
        path("mean", data.levels, row.precision[c], sx, sy),
      ].filter(Boolean);
    const unit = [0, 1];
    const one = (row) =>
      chart({ x: unit, y: unit, xTitle: "recall", yTitle: "precision", marks: marks(row) });
    const explained = `Precision (upwards) at each recall, mean over the seeds${dashed()}`;
    return [controls(select), note(explained), figures(judged("precision"), one)];
  },

  Reliability() {
    const [at, select] = choice("Probability of", ["the likeliest", ...data.classes]);
    const index = (at || data.classes.length + 1) - 1;
    const unit = [0, 1];
    const marks = (bins) => (sx, sy) => [
      svg("line", { class: "reference", x1: sx(0), y1: sy(0), x2: sx(1), y2: sy(1) }),
      path("mean", bins.said, bins.found, sx, sy),
      ...bins.said.map((said, i) => {
        const r = 1.5 + 6 * Math.sqrt(bins.images[i] / Math.max(...bins.images));
        const both = `said ${fixed(said)}, found ${fixed(bins.found[i])}`;
        const place = { class: "dot", cx: sx(said), cy: sy(bins.found[i]), r, opacity: 0.7 };
        return svg("circle", place, svg("title", {}, `${bins.images[i]} images: ${both}`));
      }),
    ];
    const one = (row) =>
      chart({
        x: unit,
        y: unit,
        xTitle: "probability said",
        yTitle: "share found",
        marks: marks(row.reliability[index]),
      });
    const explained =
      "Share found (upwards) for each probability said; on the dashed line they agree. A dot's " +
      "area is the number of images, all seeds together.";
    const caption = (row) => `${row.name}, ECE ${fixed(mean(row, "ece"))}`;
    return [controls(select), note(explained), figures(judged("reliability"), one, caption)];
  },

  Compression() {
    const kinds = ["bits_per_pixel", "values_ratio", "psnr"];
    const titles = ["bits per pixel", "values, original to latent", "PSNR"];
    const [at, select] = choice("Over", titles);
    const rows = shown().filter((row) => row.metrics[kinds[at]]);
    if (!rows.length) return [controls(select), note("No such row has any.")];
    const log = kinds[at] !== "psnr"; // rates are compared by their ratio; decibels are logarithms
    const across = (row) => (log ? Math.log2 : Number)(mean(row, kinds[at]));
    const left = log ? Math.floor(Math.min(...rows.map(across))) : 0;
    const right = Math.max(left + 1, Math.ceil(Math.max(...rows.map(across))));
    const powers = Array.from({ length: right - left + 1 }, (_, i) => [left + i, 2 ** (left + i)]);
    const y = reach([...rows, baseline ?? rows[0]].map((row) => row.metrics.balanced_accuracy));
    const marks = (sx, sy) => {
      const level = baseline && sy(mean(baseline, "balanced_accuracy"));
      const place = (row) => [sx(across(row)), sy(mean(row, "balanced_accuracy"))];
      const beside = labels(rows.map(place), [left, right].map(sx), [y[1], y[0]].map(sy));
      const start = alike(rows.map((row) => row.name));
      const dots = rows.flatMap((row) => {
        const { mean: value, lesions } = row.metrics.balanced_accuracy;
        const [cx, cy] = place(row);
        const said = `${row.name}: ${fixed(value)} at ${fixed(mean(row, kinds[at]), 2)}`;
        const [low, high] = (lesions ?? [value, value]).map(sy);
        return [
          svg("line", { class: "lesions", x1: cx, x2: cx, y1: low, y2: high }),
          svg("circle", { class: "dot", cx, cy, r: 3.5 }, svg("title", {}, said)),
          svg("text", beside(cx, cy, row.name.slice(start)), row.name.slice(start)),
        ];
      });
      const mark = { class: "reference", x1: sx(left), x2: sx(right), y1: level, y2: level };
      return [baseline && svg("line", mark), ...dots].filter(Boolean);
    };
    const explained = `Balanced accuracy (upwards) with its 95 % interval over lesions${dashed()}`;
    const [xTitle, yTitle] = [titles[at], "balanced accuracy"];
    const [x, xLabels] = [[left, right], log ? powers : undefined];
    const drawn = chart({ x, y, xTitle, yTitle, marks, xLabels, width: 640, height: 360 });
    return [controls(select), note(explained), el("figure", { class: "wide" }, drawn)];
  },

  Saliency() {
    const names = [...new Set(data.images.map(([run]) => run))];
    const [at, select] = choice("Run", names);
    const own = data.images.filter(([run]) => run === names[at]);
    const images = own.map(([, file, jpeg]) =>
      el(
        "figure",
        {},
        el("img", { src: `data:image/jpeg;base64,${jpeg}`, alt: `Saliency map ${file}` }),
        el("figcaption", {}, file.replace(/\.\w+$/, "")),
      ),
    );
    const left = data.images_left_out;
    return [
      controls(select),
      left ? note(`${left} images of all runs found no room in this page.`) : null,
      el("div", { class: "thumbnails" }, ...images),
    ].filter(Boolean);
  },
};
