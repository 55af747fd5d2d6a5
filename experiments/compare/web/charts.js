// Charts that several tabs draw.

import { baseline, data, fixed, shown } from "./data.js";
import { el, note, shade, svg } from "./elements.js";

// An estimate: a wide bar over lesions, a thin one over seeds, a dot at the mean; `bar` fills from
// the left edge to the mean. Intervals beyond the range end at its edge.
export function whisker(estimate, [low, high], mark, bar) {
  const width = 150;
  const share = (value) => Math.max(0, Math.min(1, (value - low) / (high - low || 1)));
  const x = (value) => 5 + share(value) * (width - 10);
  const line = (bounds, kind) =>
    bounds && svg("line", { class: kind, x1: x(bounds[0]), x2: x(bounds[1]), y1: 9, y2: 9 });
  const at = mark == null ? null : x(mark);
  return svg(
    "svg",
    { class: "whisker", viewBox: `0 0 ${width} 18`, "aria-hidden": "true" },
    at == null ? null : svg("line", { class: "reference", x1: at, x2: at, y1: 0, y2: 18 }),
    bar && svg("rect", { class: "bar", x: 5, y: 3, width: x(estimate.mean) - 5, height: 12 }),
    line(estimate.lesions, "lesions"),
    line(estimate.seeds, "seeds"),
    svg("circle", { class: "dot", cx: x(estimate.mean), cy: 9, r: 3.5 }),
  );
}
export const whiskerTitle = ([low, high]) => `plot, ${fixed(low, 2)} to ${fixed(high, 2)}`;

// A mark and its explanation.
export const sample = (mark, text) =>
  el("span", { class: "key" }, svg("svg", { viewBox: "0 0 26 12", width: 26 }, mark), ` ${text}`);
export const sampleLine = (kind, text) =>
  sample(svg("line", { class: kind, x1: 0, x2: 26, y1: 6, y2: 6 }), text);

export function key({ bar = false, seeds = true, reference = true, group = data.group } = {}) {
  const box = svg("rect", { class: "bar", x: 0, y: 0, width: 26, height: 12 });
  return el(
    "p",
    { class: "note" },
    sample(svg("circle", { class: "dot", cx: 13, cy: 6, r: 3.5 }), "mean over seeds"),
    bar && sample(box, "from 0 to the mean"),
    sampleLine("lesions", `95 % interval over ${group}s [ ]`),
    seeds && sampleLine("seeds", "95 % interval over seeds ±"),
    reference && baseline && sampleLine("reference", `mean of ${baseline.name}`),
  );
}

// A range that contains the estimates and their intervals over lesions, in steps of 0.05.
export function rangeOf(estimates) {
  const ends = estimates.flatMap(({ mean, lesions }) => [mean, ...(lesions ?? [])]);
  const [low, high] = [Math.min(...ends) - 0.05, Math.max(...ends) + 0.05];
  return [Math.max(0, Math.floor(low * 20) / 20), Math.min(1, Math.ceil(high * 20) / 20)];
}

// `xLabels` are pairs of a place and its text, and `yTicks` places; by default both ends and the
// middle are labelled.
export function chart(options) {
  const { x, y, xTitle, yTitle, marks, xLabels, yTicks, width = 260, height = 180 } = options;
  const [left, bottom] = [34, 30];
  const scale =
    ([low, high], start, end) =>
    (value) =>
      start + ((value - low) / (high - low || 1)) * (end - start);
  const [sx, sy] = [scale(x, left, width - 8), scale(y, height - bottom, 8)];
  const digits = y[1] - y[0] < 0.5 ? 2 : 1;
  const halves = ([low, high]) => [low, (low + high) / 2, high];
  const written = (v) => (x[1] <= 1 ? fixed(v, 1) : Number.isInteger(v) ? v : "");
  const below = (xLabels ?? halves(x).map((v) => [v, written(v)])).map(([at, label]) => {
    const anchor = at === x[0] ? "start" : at === x[1] ? "end" : "middle";
    return svg("text", { x: sx(at), y: height - 17, "text-anchor": anchor }, label);
  });
  const beside = (yTicks ?? halves(y)).flatMap((v) => [
    svg("line", { class: "frame", x1: left, x2: width - 8, y1: sy(v), y2: sy(v) }),
    svg("text", { x: left - 4, y: sy(v) + 3, "text-anchor": "end" }, fixed(v, digits)),
  ]);
  const middle = (left + width) / 2;
  return svg(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${yTitle} by ${xTitle}` },
    ...below,
    ...beside,
    svg("text", { x: middle, y: height - 4, "text-anchor": "middle" }, xTitle),
    ...marks(sx, sy),
  );
}

export const path = (kind, xs, ys, sx, sy) => {
  const known = xs.map((x, i) => [x, ys[i]]).filter(([, y]) => y != null);
  const points = known.map(([x, y]) => `${sx(x).toFixed(1)},${sy(y).toFixed(1)}`).join(" ");
  return svg("polyline", { class: kind, points });
};

// The area between two lines.
export const band = (kind, xs, low, high, sx, sy) => {
  const outline = [
    ...xs.map((x, i) => [x, high[i]]),
    ...xs.map((x, i) => [x, low[i]]).toReversed(),
  ].filter(([, y]) => y != null);
  const points = outline.map(([x, y]) => `${sx(x).toFixed(1)},${sy(y).toFixed(1)}`).join(" ");
  return svg("polygon", { class: kind, points });
};

// Length of the longest common beginning of the names that ends with a dash.
export function commonPrefix(names) {
  let n = 0;
  if (names.length < 2) return 0;
  while (names.every((name) => name[n] && name[n] === names[0][n])) n++;
  return names[0].lastIndexOf("-", n - 1) + 1;
}

// Returns a function that places a name beside its dot: at the nearest place within the frame that
// covers neither a dot nor another name.
export function placeLabels(dots, [left, right], [top, bottom]) {
  const taken = dots.map(([x, y]) => [x - 4, y - 4, x + 4, y + 4]);
  const meets = (a) => (b) => a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];
  const offsets = [3, -5, 11, -13, 19, -21, 27, -29, 35];
  const near = offsets.flatMap((dy) => [1, -1].map((side) => [side, dy]));
  return (cx, cy, name) => {
    const width = 6.3 * name.length;
    const boxes = near.map(([side, dy]) => {
      const x = side > 0 ? cx + 6 : cx - 6 - width;
      return [x, cy + dy - 8, x + width, cy + dy + 2];
    });
    const within = boxes.filter(
      ([x, y, end, low]) => x >= left && end <= right && y >= top && low <= bottom,
    );
    const box = within.find((candidate) => !taken.some(meets(candidate))) ?? within[0] ?? boxes[0];
    taken.push(box);
    return { x: box[0], y: box[3] - 2 };
  };
}

// A figure for each of the rows shown for which `exists`.
export function figures(exists, chartOf, caption = (row) => row.name) {
  const rows = shown().filter(exists);
  const drawn = rows.map((row) =>
    el("figure", {}, chartOf(row), el("figcaption", {}, caption(row))),
  );
  return drawn.length
    ? el("div", { class: "figures" }, ...drawn)
    : note("None of the rows shown has this chart.");
}

export function confusion(row) {
  const [k, left, top, size] = [data.classes.length, 36, 14, 32];
  const text = (attributes, content, help) =>
    svg("text", attributes, content, help && svg("title", {}, help));
  const whole = row.confusion.flat().every(Number.isInteger);
  const written = (count) => (count === 0 ? "0" : fixed(count, whole ? 0 : 1));
  const cells = row.confusion.flatMap((counts, i) => {
    const total = counts.reduce((sum, count) => sum + count, 0) || 1;
    return counts.flatMap((count, j) => {
      const [x, y] = [left + j * size, top + i * size];
      const style = `fill: ${shade(count / total)}`;
      return [
        svg("rect", { class: "cell", x, y, width: size, height: size, style }),
        text({ class: "count", x: x + size / 2, y: y + size / 2 + 4 }, written(count)),
      ];
    });
  });
  const labels = data.classes.flatMap((name, i) => {
    const beside = { x: left - 4, y: top + (i + 0.5) * size + 4, "text-anchor": "end" };
    const above = { x: left + (i + 0.5) * size, y: top - 4, "text-anchor": "middle" };
    return [beside, above].map((place) => text(place, name, data.class_titles[name]));
  });
  const viewBox = `0 0 ${left + k * size} ${top + k * size}`;
  const label = `Confusion matrix of ${row.name}`;
  return svg("svg", { viewBox, role: "img", "aria-label": label }, ...labels, ...cells);
}
export const dashed = () => (baseline ? `; dashed: ${baseline.name}.` : ".");
