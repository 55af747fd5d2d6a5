// Opens the tabs. The open one is in the address, so that it can be linked to.

import { attention } from "./attention.js";
import { byId, data, shown } from "./data.js";
import { decisions } from "./decisions.js";
import { drawings } from "./drawings.js";
import { el, REDRAW } from "./elements.js";
import { others } from "./others.js";
import { tables } from "./tables.js";

const tabs = { ...tables, ...others, ...drawings, ...decisions, ...attention };
if (!data.rows.some((row) => row.metrics.many_accuracy)) delete tabs["Many to Few"];
if (!data.rows.some((row) => row.metrics.psnr)) delete tabs.Compression;
if (!data.treatment) delete tabs["Net benefit"];
if (!data.external.length) delete tabs["Other data sets"];
const titles = Object.keys(tabs);
const slug = (title) => title.toLowerCase().replaceAll(" ", "-");
let current = titles[0];

function draw() {
  for (const tab of byId("tabs").children) {
    const selected = tab.textContent === current;
    tab.setAttribute("aria-selected", selected);
    tab.tabIndex = selected ? 0 : -1;
    if (selected) byId("tabs").parentElement.scrollLeft = tab.offsetLeft - 60;
  }
  byId("panel").setAttribute("aria-labelledby", `tab-${slug(current)}`);
  byId("panel").replaceChildren(...tabs[current]().filter(Boolean));
  const rows = shown().length;
  byId("count").textContent = rows === data.rows.length ? "" : `${rows} of ${data.rows.length}`;
}
// Draws the open tab again, with the focus on the same control.
function drawAgain() {
  const { name } = document.activeElement ?? {};
  draw();
  if (name) [...byId("panel").querySelectorAll("[name]")].find((e) => e.name === name)?.focus();
}
function open(title) {
  current = title;
  history.replaceState(null, "", `#${slug(title)}`);
  draw();
}
function follow() {
  current = titles.find((title) => `#${slug(title)}` === location.hash) ?? titles[0];
  draw();
}
function step(event) {
  const direction = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!direction) return;
  open(titles[(titles.indexOf(current) + direction + titles.length) % titles.length]);
  byId("tabs").querySelector('[aria-selected="true"]').focus();
}
const button = (title) => {
  const attributes = { type: "button", role: "tab", id: `tab-${slug(title)}` };
  return el("button", { ...attributes, onclick: () => open(title) }, title);
};

byId("tabs").append(...titles.map(button));
byId("tabs").addEventListener("keydown", step);
byId("panel").addEventListener(REDRAW, drawAgain);
byId("filter").addEventListener("input", draw);
window.addEventListener("hashchange", follow);
follow();
