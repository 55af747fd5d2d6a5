"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const baseline = data.rows.find((row) => row.name === data.baseline);

// Text is only ever set as text, so that no name of a run is taken for markup.

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== false && value != null) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}
const el = (tag, attributes = {}, ...children) =>
  fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

// Half is rounded up, of the shortest decimal, as callbacks/console.py does in all tables.
function rounded(value, digits) {
  const [mantissa, exponent = "0"] = String(Math.abs(value)).split("e");
  const steps = Math.round(Number(`${mantissa}e${Number(exponent) + digits}`));
  return Math.sign(value) * Number(`${steps}e-${digits}`);
}
const fixed = (value, digits = 3) =>
  value == null ? "–" : rounded(value, digits).toFixed(digits).replace("-", "−");
const signed = (value) => (value > 0 ? "+" : "") + fixed(value);
const pValue = (p) => (p == null ? "–" : p < 0.001 ? "< 0.001" : fixed(p));
const interval = (bounds) => (bounds ? `[${fixed(bounds[0])}, ${fixed(bounds[1])}]` : "");
const mean = (row, name) => row.metrics[name]?.mean;

const chosen = {}; // what each control is set to, by its label

function choice(label, options, initial = 0) {
  const at = Math.min(chosen[label] ?? initial, options.length - 1);
  const items = options.map((text, value) =>
    el("option", { value, selected: value === at && "" }, text),
  );
  const change = (event) => {
    chosen[label] = Number(event.target.value);
    draw();
    byId("panel").querySelector(`select[name="${label}"]`).focus();
  };
  const select = el("select", { name: label, onchange: change }, ...items);
  return [at, el("label", {}, `${label} `, select)];
}
const controls = (...labels) => el("div", { class: "controls" }, ...labels);
const note = (text) => el("p", { class: "note" }, text);

function shown() {
  const words = byId("filter").value.toLowerCase().split(/\s+/);
  return data.rows.filter((row) => words.every((word) => row.name.toLowerCase().includes(word)));
}

// A column has a title, a value to sort by, and a cell if that is not the value.

const sorting = {}; // tab to [title, descending]

function table(rows, columns, label) {
  const [title, descending] = sorting[current] ?? [];
  const by = columns.find((column) => column.title === title);
  const sorted = by ? [...rows].sort((a, b) => order(by.value(a), by.value(b), descending)) : rows;
  const head = columns.map((column) => {
    const on = column === by;
    const sort = () => {
      sorting[current] = [column.title, on ? !descending : !column.text];
      draw();
      [...byId("panel").querySelectorAll("th button")]
        .find((button) => button.textContent === column.title)
        .focus();
    };
    const direction = on && (descending ? "descending" : "ascending");
    return el(
      "th",
      { scope: "col", class: column.text && "text", "aria-sort": direction, title: column.help },
      column.value ? el("button", { type: "button", onclick: sort }, column.title) : column.title,
    );
  });
  const body = sorted.map((row) => {
    const cells = columns.map((column) => {
      const content = column.cell ? column.cell(row) : column.value(row);
      return el("td", { class: column.text && "text", style: column.style?.(row) }, content);
    });
    return el("tr", { class: baseline && row === baseline && "baseline" }, ...cells);
  });
  return scroll(
    el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...body)),
    label,
  );
}
const scroll = (child, label) =>
  el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label }, child);

function order(a, b, descending) {
  if (a == null || b == null) return (a == null) - (b == null); // nothing comes last either way
  const sign = descending ? -1 : 1;
  return sign * (typeof a === "string" ? a.localeCompare(b) : a - b);
}

const named = { title: "name", value: (row) => row.name, text: true };
const numeric = (title, value, digits = 3) => ({
  title,
  value,
  cell: (row) => fixed(value(row), digits),
});
const metric = ({ name, title }) => numeric(title, (row) => mean(row, name));
const shade = (share) =>
  `color-mix(in srgb, var(--accent) ${Math.round(60 * (share ?? 0))}%, var(--paper))`;

const within = (value, bounds, more = "") =>
  el("span", {}, fixed(value), el("small", {}, ` ${interval(bounds)}${more}`));
const reference = (name) => baseline && mean(baseline, name);
