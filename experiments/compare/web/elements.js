// Elements of the page. Text is only ever set as text, so that a run's name is never markup.

import { baseline, byId, data, fixed, interval, plusMinus } from "./data.js";

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== false && value != null) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child != null && child !== false));
  return node;
}
export const el = (tag, attributes = {}, ...children) =>
  fill(document.createElement(tag), attributes, children);
export const svg = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

export const note = (text) => el("p", { class: "note" }, text);
const small = (text) => text && el("small", {}, text);

// The open tab draws itself again on this event.
export const REDRAW = "redraw";
const redraw = () => byId("panel").dispatchEvent(new Event(REDRAW));

const chosen = {}; // key of a control to the index of its option

// Returns the index of the selected option and the labelled control. Controls with the same key
// share their selection.
export function choice(label, options, initial = 0, shared = label) {
  const index = Math.min(chosen[shared] ?? initial, options.length - 1);
  const items = options.map((text, value) =>
    el("option", { value, selected: value === index && "" }, text),
  );
  const change = (event) => {
    chosen[shared] = Number(event.target.value);
    redraw();
  };
  const select = el("select", { name: label, onchange: change }, ...items);
  return [index, el("label", {}, `${label} `, select)];
}
export const controls = (...labels) => el("div", { class: "controls" }, ...labels);

// A column has a title, a value to sort by, and a cell if that is not the value. `help` is a
// tooltip, which must not be the only explanation: touch screens have none.

const sorting = {}; // label of a table to [title of a column, descending]

function heading(column, label) {
  const [title, descending] = sorting[label] ?? [];
  const sorted = column.title === title;
  const sort = () => {
    sorting[label] = [column.title, sorted ? !descending : !column.text];
    redraw();
  };
  const attributes = {
    scope: "col",
    class: column.text && "text",
    title: column.help,
    "aria-sort": sorted && (descending ? "descending" : "ascending"),
  };
  const name = `sort-${column.title}`;
  return el(
    "th",
    attributes,
    column.value
      ? el("button", { type: "button", name, onclick: sort }, column.title)
      : column.title,
  );
}

function order(a, b, descending) {
  if (a == null || b == null) return (a == null) - (b == null); // missing values come last
  const sign = descending ? -1 : 1;
  return sign * (typeof a === "string" ? a.localeCompare(b) : a - b);
}

export function table(rows, columns, label) {
  const [title, descending] = sorting[label] ?? [];
  const by = columns.find((column) => column.title === title);
  const sorted = by ? rows.toSorted((a, b) => order(by.value(a), by.value(b), descending)) : rows;
  const body = sorted.map((row) => {
    const cells = columns.map((column) => {
      const content = column.cell ? column.cell(row) : column.value(row);
      return el("td", { class: column.text && "text", style: column.style?.(row) }, content);
    });
    return el("tr", { class: baseline && row === baseline && "baseline" }, ...cells);
  });
  const head = el("tr", {}, ...columns.map((column) => heading(column, label)));
  const whole = el("table", {}, el("thead", {}, head), el("tbody", {}, ...body));
  return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label }, whole);
}

export const nameColumn = { title: "name", value: (row) => row.name, text: true };
export const seedsColumn = { title: "seeds", value: (row) => row.seeds.length };
export const numeric = (title, value, digits = 3) => ({
  title,
  value,
  cell: (row) => fixed(value(row), digits),
});
export const classColumn = (name, value, digits = 3) => ({
  ...numeric(name, value, digits),
  help: data.class_titles[name],
});
export const estimate = (value, lesions, seeds, write = fixed, more = "") =>
  el(
    "span",
    {},
    write(value),
    small(interval(lesions)),
    small(plusMinus(value, seeds)),
    small(more),
  );
export const shade = (share) =>
  `color-mix(in srgb, var(--accent) ${Math.round(60 * (share ?? 0))}%, var(--paper))`;

// Full names of the classes that have one.
export function classLegend() {
  const known = data.classes.filter((name) => data.class_titles[name] !== name);
  if (!known.length) return null;
  const names = known.map((name) =>
    el("div", {}, el("dt", {}, name), " ", el("dd", {}, data.class_titles[name])),
  );
  return el("dl", { class: "classes" }, ...names);
}
