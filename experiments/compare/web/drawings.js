// Tabs that are charts: each function returns the nodes of its tab.

import { baseline, data, fixed, listed, mean, shown } from "./data.js";
import { choice, classLegend, controls, el, note, svg } from "./elements.js";
import { band, chart, commonPrefix, confusion, dashed, figures, path } from "./charts.js";
import { placeLabels, rangeOf } from "./charts.js";

const UNIT = [0, 1];

// Mean gap between predicted probability and observed frequency in the bins that are drawn.
function calibrationError({ predicted, observed, images }) {
  const gaps = images.map((n, i) => n * Math.abs(predicted[i] - observed[i]));
  const sum = (values) => values.reduce((total, value) => total + value, 0);
  return sum(gaps) / sum(images);
}

function learningMarks(curve, other) {
  return (sx, sy) =>
    [
      band("range", curve.epoch, curve.low, curve.high, sx, sy),
      other && path("reference", other.epoch, other.mean, sx, sy),
      path("mean", curve.epoch, curve.mean, sx, sy),
    ].filter(Boolean);
}

function reliabilityMarks(bins) {
  return (sx, sy) => [
    svg("line", { class: "reference", x1: sx(0), y1: sy(0), x2: sx(1), y2: sy(1) }),
    path("mean", bins.predicted, bins.observed, sx, sy),
    ...bins.predicted.map((predicted, i) => {
      const r = 1.5 + 6 * Math.sqrt(bins.images[i] / Math.max(...bins.images));
      const both = `predicted ${fixed(predicted)}, observed ${fixed(bins.observed[i])}`;
      const place = { class: "dot", cx: sx(predicted), cy: sy(bins.observed[i]), r, opacity: 0.7 };
      return svg("circle", place, svg("title", {}, `${bins.images[i]} images: ${both}`));
    }),
  ];
}

// Rates are compared by their ratio; decibels already are logarithms.
const RATES = { bits_per_pixel: "bits per pixel", values_ratio: "values, original to latent" };

function compressionMarks(rows, across, name) {
  const prefix = commonPrefix(rows.map((row) => row.name));
  return (sx, sy, frame) => {
    const place = (row) => [sx(across(row)), sy(mean(row, "balanced_accuracy"))];
    const beside = placeLabels(rows.map(place), ...frame);
    return rows.flatMap((row) => {
      const { mean: value, lesions } = row.metrics.balanced_accuracy;
      const [cx, cy] = place(row);
      const text = `${row.name}: ${fixed(value)} at ${fixed(mean(row, name), 2)}`;
      const [low, high] = (lesions ?? [value, value]).map(sy);
      const label = row.name.slice(prefix);
      return [
        svg("line", { class: "lesions", x1: cx, x2: cx, y1: low, y2: high }),
        svg("circle", { class: "dot", cx, cy, r: 3.5 }, svg("title", {}, text)),
        svg("text", beside(cx, cy, label), label),
      ];
    });
  };
}

function compressionChart(rows, name, xTitle) {
  const log = name in RATES;
  const across = (row) => (log ? Math.log2 : Number)(mean(row, name));
  const left = log ? Math.floor(Math.min(...rows.map(across))) : 0;
  const right = Math.max(left + 1, Math.ceil(Math.max(...rows.map(across))));
  const powers = Array.from({ length: right - left + 1 }, (_, i) => [left + i, 2 ** (left + i)]);
  const y = rangeOf([...rows, baseline ?? rows[0]].map((row) => row.metrics.balanced_accuracy));
  const dots = compressionMarks(rows, across, name);
  const marks = (sx, sy) => {
    const level = baseline && sy(mean(baseline, "balanced_accuracy"));
    const mark = { class: "reference", x1: sx(left), x2: sx(right), y1: level, y2: level };
    const frame = [[left, right].map(sx), [y[1], y[0]].map(sy)];
    return [baseline && svg("line", mark), ...dots(sx, sy, frame)].filter(Boolean);
  };
  const [x, xLabels] = [[left, right], log ? powers : undefined];
  const size = { width: 640, height: 360 };
  return chart({ x, y, xTitle, yTitle: "balanced accuracy", marks, xLabels, ...size });
}

export const drawings = {
  Learning() {
    const kinds = ["validation", "training"];
    const titles = ["Validation balanced accuracy", "Training loss"];
    const [index, select] = choice("Quantity", titles);
    const curve = (row) => row.learning?.[kinds[index]];
    const recorded = (row) => curve(row)?.epoch.length > 0;
    const known = data.rows.filter(recorded).map(curve);
    if (!known.length) return [controls(select), note("No run has recorded it.")];
    const x = [1, Math.max(2, ...known.flatMap(({ epoch }) => epoch))];
    const y = index ? [0, Math.max(...known.flatMap(({ high }) => high))] : UNIT;
    const other = baseline && curve(baseline);
    const chartOf = (row) => {
      const marks = learningMarks(curve(row), other);
      return chart({ x, y, xTitle: "epoch", yTitle: titles[index], marks });
    };
    const without = shown().filter((row) => !row.decided && !recorded(row));
    const missing = `Without a curve, since no training was recorded: `;
    return [
      controls(select),
      note(`Mean over the seeds; shaded from the lowest to the highest seed${dashed()}`),
      without.length ? note(`${missing}${listed(without.map((row) => row.name))}.`) : null,
      figures(recorded, chartOf),
    ];
  },

  Confusion() {
    const single = shown().every((row) => row.seeds.length === 1);
    const explained =
      "Number of images by true class (row) and predicted class (column)" +
      (single ? ". " : ", averaged over the seeds and rounded such that rows keep their sum. ") +
      "Shading: share of the row.";
    return [note(explained), figures((row) => row.confusion, confusion), classLegend()];
  },

  "Precision and recall"() {
    const [c, select] = choice("Class", data.classes);
    const marks = (row) => (sx, sy) =>
      [
        baseline?.precision && path("reference", data.levels, baseline.precision[c], sx, sy),
        path("mean", data.levels, row.precision[c], sx, sy),
      ].filter(Boolean);
    const chartOf = (row) =>
      chart({ x: UNIT, y: UNIT, xTitle: "recall", yTitle: "precision", marks: marks(row) });
    const explained = `Precision (vertical) at each recall, mean over the seeds${dashed()}`;
    const drawn = figures((row) => row.precision, chartOf);
    return [controls(select), note(explained), drawn, classLegend()];
  },

  Reliability() {
    const [index, select] = choice("Probability of", ["the most likely class", ...data.classes]);
    const at = (index || data.classes.length + 1) - 1;
    const titles = { xTitle: "predicted probability", yTitle: "observed frequency" };
    const chartOf = (row) =>
      chart({ x: UNIT, y: UNIT, ...titles, marks: reliabilityMarks(row.reliability[at]) });
    const explained =
      "Observed frequency (vertical) by predicted probability, in the bins of the expected " +
      "calibration error (ECE); a calibrated network is on the dashed line. Seeds are pooled: the " +
      "area of a dot is the number of images in the bin, over all seeds, and the error in the " +
      "caption is that of the bins drawn. The table has the mean over the seeds of each seed's " +
      "ECE, which is at least as large.";
    const error = (row) => fixed(calibrationError(row.reliability[at]));
    const caption = (row) => `${row.name}, calibration error ${error(row)}`;
    const drawn = figures((row) => row.reliability, chartOf, caption);
    return [controls(select), note(explained), drawn, classLegend()];
  },

  Compression() {
    const titles = { ...RATES, psnr: "PSNR" };
    const [index, select] = choice("Over", Object.values(titles));
    const name = Object.keys(titles)[index];
    const rows = shown().filter((row) => row.metrics[name]);
    if (!rows.length) return [controls(select), note("None of the rows shown has recorded it.")];
    const explained = `Balanced accuracy (vertical) with its 95 % interval over ${data.group}s${dashed()}`;
    const drawn = compressionChart(rows, name, titles[name]);
    return [controls(select), note(explained), el("figure", { class: "wide" }, drawn)];
  },
};
