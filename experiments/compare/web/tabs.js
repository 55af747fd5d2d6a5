// The view is in the address, so that it can be linked to.

const views = { ...tables, ...drawings };
if (!data.rows.some((row) => row.metrics.many_accuracy)) delete views["Many to Few"];
if (!data.rows.some((row) => row.metrics.psnr)) delete views.Compression;
if (!data.images.length) delete views.Saliency;
const names = Object.keys(views);
const slug = (name) => name.toLowerCase().replaceAll(" ", "-");
let current = names[0];

function draw() {
  for (const tab of byId("tabs").children) {
    const on = tab.textContent === current;
    tab.setAttribute("aria-selected", on);
    tab.tabIndex = on ? 0 : -1;
    if (on) byId("tabs").parentElement.scrollLeft = tab.offsetLeft - 60;
  }
  byId("panel").setAttribute("aria-labelledby", `tab-${slug(current)}`);
  byId("panel").replaceChildren(...views[current]());
  const rows = shown().length;
  byId("count").textContent = rows === data.rows.length ? "" : `${rows} of ${data.rows.length}`;
}
function open(name) {
  current = name;
  history.replaceState(null, "", `#${slug(name)}`);
  draw();
}
function follow() {
  current = names.find((name) => `#${slug(name)}` === location.hash) ?? names[0];
  draw();
}
byId("tabs").append(
  ...names.map((name) =>
    el(
      "button",
      { type: "button", role: "tab", id: `tab-${slug(name)}`, onclick: () => open(name) },
      name,
    ),
  ),
);
byId("tabs").addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  open(names[(names.indexOf(current) + step + names.length) % names.length]);
  byId("tabs").querySelector('[aria-selected="true"]').focus();
});
byId("filter").addEventListener("input", draw);
window.addEventListener("hashchange", follow);
follow();
