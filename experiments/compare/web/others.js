// Tabs about other data sets and about subgroups of the test images.

import { byId, data, fixed, interval, listed, signed } from "./data.js";
import { choice, classLegend, controls, el, estimate, note, table } from "./elements.js";
import { key, rangeOf, whisker, whiskerTitle } from "./charts.js";

const words = () => byId("filter").value.toLowerCase().split(/\s+/);
const named = (name) => words().every((word) => name.toLowerCase().includes(word));
const measured = (value) => value && estimate(value[0], value[1]);
const balanced = (line) => {
  const [value, bounds] = line.balanced_accuracy ?? [];
  return { mean: value, lesions: bounds };
};
const tooltip = (title, text) => el("span", { title }, text);

const recallColumn = (name) => ({
  title: name,
  help: data.class_titles[name],
  value: (line) => line.recall?.[name]?.[0],
  cell: (line) => {
    const [value, bounds] = line.recall?.[name] ?? [];
    return tooltip(interval(bounds), fixed(value, 2));
  },
});

function groupColumns(lines, unit) {
  const scored = lines.filter((line) => line.balanced_accuracy);
  const range = rangeOf(scored.map(balanced));
  const occurring = (line) => data.classes.length - line.lacking.length;
  const auroc = {
    title: `AUROC of ${data.positive}`,
    value: (line) => line.auroc?.[0],
    cell: (line) => measured(line.auroc) ?? "–",
  };
  return [
    { title: "group", text: true, value: (line) => `${line.kind}: ${line.name}` },
    { title: "images", value: (line) => line.images },
    { title: `${unit}s`, value: (line) => line.lesions },
    {
      title: "classes",
      value: occurring,
      cell: (line) => {
        const title = line.lacking.length ? `lacks ${listed(line.lacking)}` : null;
        return tooltip(title, `${occurring(line)} of ${data.classes.length}`);
      },
    },
    {
      title: "balanced accuracy",
      value: (line) => line.balanced_accuracy?.[0],
      cell: (line) => measured(line.balanced_accuracy) ?? "too few",
    },
    {
      title: scored.length ? whiskerTitle(range) : "plot",
      cell: (line) => line.balanced_accuracy && whisker(balanced(line), range),
    },
    {
      title: "minus the rest",
      value: (line) => line.difference?.[0],
      cell: ({ difference: found, shared }) =>
        found ? estimate(...found, null, signed, `${shared.length} classes`) : "–",
    },
    ...(scored.some((line) => line.auroc) ? [auroc] : []),
    ...data.classes.map(recallColumn),
  ];
}

const gapColumns = [
  { title: "groups by", text: true, value: (gap) => gap.kind },
  { title: "best", text: true, value: (gap) => gap.best },
  { title: "worst", text: true, value: (gap) => gap.worst },
  { title: "gap", value: (gap) => gap.value[0], cell: (gap) => measured(gap.value) },
  {
    title: "classes",
    value: (gap) => gap.classes.length,
    cell: (gap) => tooltip(listed(gap.classes), `${gap.classes.length}`),
  },
];

function changeColumns(test) {
  const range = rangeOf(test.rows.flatMap((row) => [row.own, row.other]));
  const column = (title, name, write) => ({
    title,
    value: (row) => row[name].mean,
    cell: (row) => estimate(row[name].mean, row[name].lesions, row[name].seeds, write),
  });
  return [
    { title: "name", text: true, value: (row) => row.name },
    { title: "seeds", value: (row) => row.seeds },
    column("own test", "own"),
    column(`on ${test.name}`, "other"),
    { title: whiskerTitle(range), cell: (row) => whisker(row.other, range, row.own.mean) },
    column("change", "difference", signed),
    ...data.classes.map((name) => ({
      title: name,
      help: data.class_titles[name],
      value: (row) => row.recall[name]?.mean,
      cell: (row) => {
        const found = row.recall[name];
        return tooltip(interval(found?.lesions), fixed(found?.mean, 2));
      },
    })),
  ];
}

export const others = {
  "Other data sets"() {
    const [index, select] = choice(
      "Data set",
      data.external.map((test) => test.name),
    );
    const test = data.external[index];
    const rows = test.rows.filter((row) => named(row.name));
    if (!rows.length) return [controls(select), note("No row is shown.")];
    const reference = note("The vertical line in the plot is the own test.");
    const whole = table(rows, changeColumns({ ...test, rows }), "Other data sets");
    const explained = [note(test.legend), note(data.change_legend), reference];
    return [controls(select), ...explained, whole, classLegend()];
  },

  Subgroups() {
    const tests = data.subgroups.filter((test) => test.groups.length);
    if (!tests.length) return [note("The predictions contain no metadata of the images.")];
    const [at, chooseTest] = choice(
      "Test",
      tests.map((test) => test.test),
    );
    const test = tests[at];
    const names = Object.keys(test.scores).filter(named);
    if (!names.length) return [note("No row is shown.")];
    const [index, select] = choice("Row", names);
    const scores = test.scores[names[index]];
    const lines = test.groups.map((group, i) => ({ ...group, ...scores[i] }));
    const unit = test.group;
    const explained =
      `Balanced accuracy with its 95 % interval over ${unit}s, and recall of each class; means ` +
      `over the seeds. Groups of fewer than ${data.min_lesions} ${unit}s are counted, not scored. ` +
      "Balanced accuracy averages the classes that occur in the group, so groups that lack " +
      "different classes cannot be compared with each other. “Minus the rest” can be: it is the " +
      "difference from all images of other groups, over the classes that both have.";
    const whole = table(lines, groupColumns(lines, unit), "Subgroups");
    const marks = key({ seeds: false, reference: false, group: unit });
    const gaps = test.gaps[names[index]];
    const warned =
      "Gap: best minus worst group, over the classes that occur in all scored groups. Both were " +
      "chosen for their scores, so a gap is above 0 by chance alone.";
    const differences = gaps.length ? [note(warned), table(gaps, gapColumns, "Gaps")] : [];
    const parts = [note(explained), marks, whole, ...differences, classLegend()];
    return [controls(chooseTest, select), ...parts];
  },
};
