const tables = {
  Table() {
    const [first, ...others] = data.columns;
    const range = reach(data.rows.map((row) => row.metrics[first.name]));
    const columns = [
      named,
      { title: "seeds", value: (row) => row.seeds.length },
      {
        title: first.title,
        value: (row) => mean(row, first.name),
        cell: (row) => {
          const { mean: value, lesions, seeds } = row.metrics[first.name];
          return within(value, lesions, seeds ? ` ± ${fixed(seeds[1] - value)}` : "");
        },
      },
      {
        title: `${fixed(range[0], 2)} to ${fixed(range[1], 2)}`,
        cell: (row) => whisker(row.metrics[first.name], range, reference(first.name)),
      },
      ...(baseline ? differences : []),
      ...others.map(metric),
    ];
    return [legend(), table(shown(), columns, "All rows")];
  },

  Classes() {
    const kinds = ["recall", "precision", "f1"];
    const [at, select] = choice("Metric", ["Recall", "Precision", "F1"]);
    const columns = data.classes.map((name) => {
      const value = (row) => mean(row, `${kinds[at]}_${name}`);
      return { ...numeric(name, value), style: (row) => `background: ${shade(value(row))}` };
    });
    return [controls(select), table(shown(), [named, ...columns], "By class")];
  },

  "Many to Few"() {
    const shots = [["many", "Many"], ["medium", "Medium"], ["few", "Few"]];
    const columns = shots.flatMap(([shot, title]) => {
      const name = `${shot}_accuracy`;
      return [
        {
          title,
          value: (row) => mean(row, name),
          cell: (row) => within(mean(row, name), row.metrics[name]?.lesions),
        },
        {
          title: "0 to 1",
          cell: (row) =>
            row.metrics[name] && whisker(row.metrics[name], [0, 1], reference(name), true),
        },
      ];
    });
    const members = note("Mean recall of nv; of mel, bkl and bcc; of akiec, vasc and df.");
    return [members, legend(), table(shown(), [named, ...columns], "Many, Medium and Few")];
  },

  Subgroups() {
    const rows = judged("groups");
    if (!data.groups.length) return [note("Nothing is known of the test images but their class.")];
    if (!rows.length) return [note("No such row.")];
    const [at, select] = choice("Row", rows.map((row) => row.name));
    const scores = rows[at].groups;
    const [low, high] = reach(scores.map(balanced));
    const lines = data.groups.map((group, i) => ({ ...group, ...scores[i] }));
    const columns = [
      { title: "group", text: true, value: (line) => `${line.kind}: ${line.name}` },
      { title: "images", value: (line) => line.images },
      { title: "lesions", value: (line) => line.lesions },
      {
        title: "classes",
        value: (line) => data.classes.length - line.lacking.length,
        cell: (line) => {
          const title = line.lacking.length ? `lacks ${line.lacking.join(", ")}` : null;
          const there = data.classes.length - line.lacking.length;
          return el("span", { title }, `${there} of ${data.classes.length}`);
        },
      },
      {
        title: "balanced accuracy",
        value: (line) => line.balanced_accuracy[0],
        cell: (line) => within(...line.balanced_accuracy),
      },
      {
        title: `${fixed(low, 2)} to ${fixed(high, 2)}`,
        cell: (line) => whisker(balanced(line), [low, high]),
      },
      ...data.classes.map((name) => recallOf(name)),
    ];
    const explained =
      "Mean over the seeds, with the 95 % interval over lesions. Balanced accuracy is of the " +
      "classes that the group has (recalls: – for those that it lacks); where it lacks some, do " +
      "not set it against that of another group. Too few lesions have no interval.";
    return [controls(select), note(explained), table(lines, columns, "Subgroups")];
  },

  Cost() {
    const of = (name, scale = 1) => (row) => row.cost[name] && row.cost[name] / scale;
    const columns = [
      named,
      { title: "seeds", value: (row) => row.seeds.length },
      numeric("parameters, millions", of("parameters", 1e6), 2),
      numeric("epochs", of("epochs"), 0),
      numeric("seconds per epoch", of("seconds_per_epoch"), 1),
      numeric("images per second", of("images_per_second"), 0),
      numeric("memory, GB", of("memory_gb"), 2),
      numeric("hours per seed", of("hours"), 2),
    ];
    const explained =
      "Medians over epochs; validation is not counted. Compare times only of runs on one machine " +
      "that did nothing else.";
    const rows = shown().filter((row) => !row.decided);
    return [note(explained), table(rows, columns, "Cost")];
  },

  Options() {
    const names = data.runs.map((run) => run.name);
    const other = Math.max(0, data.runs.findIndex((run) => run.row !== data.runs[0].row));
    const [a, one] = choice("One run", names);
    const [b, two] = choice("Another run", names, other);
    const [left, right] = [data.runs[a].options, data.runs[b].options];
    const differing = [...new Set([...Object.keys(left), ...Object.keys(right)])]
      .filter((name) => left[name] !== right[name])
      .sort()
      .map((name) => ({ name, left: left[name] ?? "–", right: right[name] ?? "–" }));
    const columns = [
      { title: "option", text: true, value: (line) => line.name },
      { title: "one", text: true, cell: (line) => line.left },
      { title: "another", text: true, cell: (line) => line.right },
    ];
    const content = differing.length
      ? table(differing, columns, "Options that differ")
      : note("They have the same options.");
    return [controls(one, two), content];
  },
};

const differences = [
  {
    title: `Δ to ${data.baseline}`,
    value: (row) => row.difference?.mean,
  cell: ({ difference: found }) => {
      const bounds = found && el("small", {}, ` ${interval(found.lesions)}`);
      return found ? el("span", {}, signed(found.mean), bounds) : "–";
    },
  },
  {
    title: "p",
    help: "Bootstrap over lesions, Holm's correction",
    value: (row) => row.difference?.p_holm,
    cell: (row) => pValue(row.difference?.p_holm),
  },
  {
    title: "better : worse",
    help: "Lesions that this row, or the baseline, has right more often",
    value: (row) => row.difference && row.difference.better - row.difference.worse,
    cell: ({ difference: found }) => (found ? `${found.better} : ${found.worse}` : "–"),
  },
  {
    title: "p McNemar",
    help: "Exact, of these lesions, Holm's correction",
    value: (row) => row.difference?.p_mcnemar_holm,
    cell: (row) => pValue(row.difference?.p_mcnemar_holm),
  },
];
const balanced = ({ balanced_accuracy: [value, bounds] }) => ({ mean: value, lesions: bounds });
const recallOf = (name) => ({
  title: name,
  value: (line) => line.recall[name]?.[0],
  cell: (line) => {
    const [value, bounds] = line.recall[name] ?? [];
    return el("span", { title: interval(bounds) }, fixed(value, 2));
  },
});
