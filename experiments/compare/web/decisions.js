// Tabs of charts with a line for each row, on what can be decided by a network.

import { baseline, data, fixed, shown, signed } from "./data.js";
import { choice, classLegend, controls, el, estimate, nameColumn } from "./elements.js";
import { note, numeric, svg, table } from "./elements.js";
import { band, chart, path, sample, sampleLine } from "./charts.js";

const SIZE = { width: 640, height: 360 };
const NO_ROW = "None of the rows shown has this chart.";

// The lines of rows: one in front with its interval, that of the baseline dashed, the others thin.
function linesOf(rows, front, xs, curveOf) {
  return (sx, sy) => {
    const line = (kind, row) => {
      const drawn = path(kind, xs, curveOf(row).mean, sx, sy);
      drawn.append(svg("title", {}, row.name));
      return drawn;
    };
    const others = rows.filter((row) => row !== front && row !== baseline);
    const { low, high } = curveOf(front);
    return [
      ...others.map((row) => line("other", row)),
      band("range", xs, low, high, sx, sy),
      rows.includes(baseline) && baseline !== front && line("reference", baseline),
      line("mean", front),
    ].filter(Boolean);
  };
}

function linesKey(rows, front) {
  const compared = rows.includes(baseline) && baseline !== front;
  const area = svg("rect", { class: "range", x: 0, y: 0, width: 26, height: 12 });
  return el(
    "p",
    { class: "note" },
    sampleLine("mean", front.name),
    sample(area, `its 95 % interval over ${data.group}s`),
    compared && sampleLine("reference", baseline.name),
    rows.length > 1 + compared && sampleLine("other", "other rows"),
  );
}

// Marks that are cut off at the frame of the chart.
const within =
  ([left, right], [low, high], marks) =>
  (sx, sy) => {
    const [x, y] = [sx(left), sy(high)];
    const [width, height] = [sx(right) - x, sy(low) - y];
    const frame = { x, y, width, height, viewBox: `${x} ${y} ${width} ${height}` };
    return [svg("svg", frame, ...marks(sx, sy))];
  };

function framed(rows, front, marks, axes) {
  const drawn = chart({ ...axes, ...SIZE, marks: within(axes.x, axes.y, marks) });
  return [linesKey(rows, front), el("figure", { class: "wide" }, drawn)];
}

const tenths = (n) => Array.from({ length: n + 1 }, (_, i) => [i / 10, fixed(i / 10, 1)]);
const steps = (low, high, step) =>
  Array.from({ length: Math.round((high - low) / step) + 1 }, (_, i) => low + i * step);
const upTo = (values, step) => Math.max(step, Math.ceil(Math.max(...values) / step) * step);

// A column with the values of curves at one place, and their intervals over lesions.
function columnAt(title, at, curveOf, write) {
  return {
    title,
    value: (row) => curveOf(row).mean[at],
    cell: (row) => {
      const { mean: values, low, high } = curveOf(row);
      return estimate(values[at], low[at] == null ? null : [low[at], high[at]], null, write);
    },
  };
}

const RISK =
  "Share of errors (vertical) among the images of which the network is most confident, by their " +
  "share of the test images (horizontal): a person would decide the others. Mean over the seeds. " +
  "AURC is the area under the curve; less is better. Classes are as frequent as among the test " +
  "images.";
const AREA = {
  ...numeric("AURC", (row) => row.metrics.aurc.mean),
  cell: ({ metrics: { aurc } }) => estimate(aurc.mean, aurc.lesions, aurc.seeds),
};

function benefitNotes({ positive, prevalence, of_data_set: ofDataSet }) {
  const [source, percent] = [ofDataSet ? "data set" : "test images", fixed(100 * prevalence, 1)];
  return [
    `Net benefit (vertical) of treating every image whose probability of ${positive} reaches a ` +
      "threshold t (horizontal): true positives per image, less t / (1 − t) times the false " +
      "positives per image. At 0.1, a true positive outweighs nine false ones. A row is useful " +
      "where it lies above treating all and treating none. Mean over the seeds.",
    `Each class is weighted by its frequency in the ${source}: ${percent} % are ${positive}. ` +
      "Elsewhere, net benefit is different. Probabilities must be calibrated for these " +
      "frequencies: the mean probability is then near this share. Those of networks trained with " +
      "resampling, class weights or logit adjustment suit even frequencies; choose their " +
      "correction. A row with “+ decision” treats what is decided for the class, at any threshold.",
  ].map(note);
}

export const decisions = {
  "Risk and coverage"() {
    const rows = shown().filter((row) => row.risk_coverage);
    if (!rows.length) return [note(RISK), note(NO_ROW)];
    const names = rows.map((row) => row.name);
    const [index, select] = choice("Row in front", names, 0, "risk");
    const curveOf = (row) => row.risk_coverage;
    const y = [
      0,
      upTo(
        rows.flatMap((row) => curveOf(row).high.concat(curveOf(row).mean)),
        0.1,
      ),
    ];
    const titles = { xTitle: "coverage", yTitle: "share of errors" };
    const axes = { x: [0, 1], y, xLabels: tenths(10), yTicks: steps(...y, 0.1), ...titles };
    const columns = [0.5, 0.8, 0.9, 1].map((coverage) =>
      columnAt(`errors at ${100 * coverage} %`, data.coverages.indexOf(coverage), curveOf),
    );
    return [
      controls(select),
      note(RISK),
      ...framed(rows, rows[index], linesOf(rows, rows[index], data.coverages, curveOf), axes),
      table(rows, [nameColumn, AREA, ...columns], "Risk and coverage"),
    ];
  },

  "Net benefit"() {
    const { prevalence, thresholds, treat_all: all } = data.treatment;
    const rows = shown().filter((row) => row.net_benefit);
    const kinds = ["as predicted", "corrected from even class frequencies"];
    const [corrected, probabilities] = choice("Probabilities", kinds);
    if (!rows.length) return [...benefitNotes(data.treatment), note(NO_ROW)];
    const names = rows.map((row) => row.name);
    const [index, select] = choice("Row in front", names, 0, "benefit");
    const curveOf = (row) => (corrected && row.net_benefit_corrected) || row.net_benefit;
    const y = [
      -0.05,
      upTo(
        rows.flatMap((row) => curveOf(row).mean.concat(prevalence)),
        0.05,
      ),
    ];
    const lines = linesOf(rows, rows[index], thresholds, curveOf);
    const marks = (sx, sy) => [
      path("seeds", thresholds, all, sx, sy),
      path("seeds", [0, 0.5], [0, 0], sx, sy),
      svg("text", { x: sx(0.002), y: sy(0) + 12 }, "treat none"),
      svg("text", { x: sx(0.002), y: sy(all[0]) - 6 }, "treat all"),
      ...lines(sx, sy),
    ];
    const titles = { xTitle: "threshold", yTitle: "net benefit" };
    const axes = { x: [0, 0.5], y, xLabels: tenths(5), yTicks: steps(...y, 0.05), ...titles };
    const columns = [0.05, 0.1, 0.2, 0.3].map((threshold) => {
      const at = thresholds.indexOf(threshold);
      return columnAt(`at ${threshold} (treat all ${signed(all[at])})`, at, curveOf, signed);
    });
    const title = `mean probability (calibrated: ${fixed(prevalence)})`;
    const likely = numeric(title, (row) => row.mean_probability?.[corrected]);
    return [
      controls(select, probabilities),
      ...benefitNotes(data.treatment),
      ...framed(rows, rows[index], marks, axes),
      table(rows, [nameColumn, likely, ...columns], "Net benefit"),
      classLegend(),
    ];
  },
};
