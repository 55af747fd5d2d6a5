// Tabs that are tables: each function returns the nodes of its tab.

import { baseline, data, listed, mean, pValue, shown, signed } from "./data.js";
import { choice, classColumn, classLegend, controls, el, estimate } from "./elements.js";
import { nameColumn, note, numeric, seedsColumn, shade, table } from "./elements.js";
import { key, rangeOf, whisker, whiskerTitle } from "./charts.js";

const capitalized = (word) => word[0].toUpperCase() + word.slice(1);
const ofBaseline = (name) => baseline && mean(baseline, name);

// Which seeds a difference is of, if not of all of both rows.
function pairing(seeds, { shared_seeds: shared }) {
  if (!shared.length) return "no shared seed";
  const all = shared.length === seeds.length && shared.length === baseline.seeds.length;
  return all ? null : `shared: seed${shared.length > 1 ? "s" : ""} ${listed(shared)}`;
}

function differenceColumns() {
  return [
    {
      title: `difference from ${data.baseline}`,
      value: (row) => row.difference?.mean,
      cell: ({ seeds, difference: found }) =>
        found
          ? estimate(found.mean, found.lesions, found.seeds, signed, pairing(seeds, found))
          : "–",
    },
    {
      title: "p (Holm)",
      value: (row) => row.difference?.p_holm,
      cell: (row) => pValue(row.difference?.p_holm),
    },
    {
      title: `${data.group}s better : worse`,
      value: (row) => row.difference && row.difference.better - row.difference.worse,
      cell: ({ difference: found }) => (found ? `${found.better} : ${found.worse}` : "–"),
    },
    {
      title: "p McNemar (Holm)",
      value: (row) => row.difference?.p_mcnemar_holm,
      cell: (row) => pValue(row.difference?.p_mcnemar_holm),
    },
  ];
}

// A dotted name that may break after a dot or an underscore.
const breakable = (name) =>
  el("span", {}, ...name.split(/(?<=[._])/).flatMap((part) => [part, el("wbr")]));

function otherColumn({ name, title, interval: shownToo }) {
  const column = numeric(title, (row) => mean(row, name));
  const metric = (row) => row.metrics[name];
  const cell = (row) => (metric(row) ? estimate(metric(row).mean, metric(row).lesions) : "–");
  return shownToo ? { ...column, cell } : column;
}

export const tables = {
  Table() {
    const [first, ...others] = data.columns;
    const range = rangeOf(data.rows.map((row) => row.metrics[first.name]));
    const columns = [
      nameColumn,
      {
        title: first.title,
        value: (row) => mean(row, first.name),
        cell: ({ metrics: { [first.name]: found } }) =>
          estimate(found.mean, found.lesions, found.seeds),
      },
      {
        title: whiskerTitle(range),
        cell: (row) => whisker(row.metrics[first.name], range, ofBaseline(first.name)),
      },
      ...(baseline ? differenceColumns() : []),
      seedsColumn,
      ...others.map(otherColumn),
    ];
    const explained = data.difference_legend.map(note);
    return [key(), table(shown(), columns, "All rows"), ...explained];
  },

  Classes() {
    const titles = { recall: "Recall", precision: "Precision", f1: "F1" };
    if (data.rows.some((row) => row.metrics.coverage)) titles.coverage = "Coverage of the sets";
    const kinds = Object.keys(titles);
    const [index, select] = choice("Metric", Object.values(titles));
    const columns = data.classes.map((name) => {
      const value = (row) => mean(row, `${kinds[index]}_${name}`);
      const style = (row) => `background: ${shade(value(row))}`;
      return { ...classColumn(name, value), style };
    });
    const explained = note("Mean over the seeds; the shade is the value, from 0 to 1.");
    const classes = classLegend();
    return [
      controls(select),
      explained,
      table(shown(), [nameColumn, ...columns], "Classes"),
      classes,
    ];
  },

  "Many to Few"() {
    const columns = Object.keys(data.shots).flatMap((shot) => {
      const name = `${shot}_accuracy`;
      const title = capitalized(shot);
      const metric = (row) => row.metrics[name];
      return [
        {
          title,
          value: (row) => mean(row, name),
          cell: (row) => metric(row) && estimate(metric(row).mean, metric(row).lesions),
        },
        {
          title: `${title}, 0 to 1`,
          cell: (row) => metric(row) && whisker(metric(row), [0, 1], ofBaseline(name), true),
        },
      ];
    });
    const members = Object.entries(data.shots).map(
      ([shot, names]) => `${capitalized(shot)}: ${listed(names)}`,
    );
    const explained = note(
      `Mean recall of the classes with many to few images. ${members.join("; ")}.`,
    );
    const whole = table(shown(), [nameColumn, ...columns], "Many to few");
    return [explained, key({ bar: true }), whole, classLegend()];
  },

  Resources() {
    const of =
      (name, scale = 1) =>
      (row) =>
        row.resources[name] && row.resources[name] / scale;
    const columns = [
      nameColumn,
      seedsColumn,
      numeric("parameters, millions", of("parameters", 1e6), 2),
      numeric("epochs", of("epochs"), 0),
      numeric("seconds per epoch", of("seconds_per_epoch"), 1),
      numeric("images per second", of("images_per_second"), 0),
      numeric("memory, GB", of("memory_gb"), 2),
      numeric("hours per seed", of("hours"), 2),
    ];
    const explained =
      "Medians over epochs, without validation. Times can only be compared between runs on the " +
      "same machine without other load.";
    const rows = shown().filter((row) => !row.decided);
    return [note(explained), table(rows, columns, "Resources")];
  },

  Options() {
    const names = data.runs.map((run) => run.name);
    const other = data.runs.findIndex((run) => run.row !== data.runs[0].row);
    const [a, first] = choice("First run", names);
    const [b, second] = choice("Second run", names, Math.max(0, other));
    const [left, right] = [data.runs[a].options, data.runs[b].options];
    const differing = [...new Set([...Object.keys(left), ...Object.keys(right)])]
      .filter((name) => left[name] !== right[name])
      .toSorted()
      .map((name) => ({ name, left: left[name] ?? "–", right: right[name] ?? "–" }));
    const columns = [
      {
        title: "option",
        text: true,
        value: (line) => line.name,
        cell: (line) => breakable(line.name),
      },
      { title: "first run", text: true, cell: (line) => breakable(line.left) },
      { title: "second run", text: true, cell: (line) => breakable(line.right) },
    ];
    const content = differing.length
      ? table(differing, columns, "Options that differ")
      : note("The options of these runs are identical.");
    return [controls(first, second), content];
  },
};
