// The tab of attention maps: where the networks look.

import { data, shown } from "./data.js";
import { choice, controls, el, nameColumn, note, numeric, table } from "./elements.js";

const EXPLAINED =
  "Where the networks look (Grad-CAM, attention rollout, or the network's own attention), with " +
  "the outline of the lesion.";
const COARSE =
  "A map has only as many cells as the network's last feature map, e.g. 2 × 2 for images of " +
  "64 pixels and a stride of 32: such coarse maps say little about where a network looks.";
const SCORES =
  "Scores of the latest test, averaged over the seeds. Energy: share of the map within the lesion. Pointing: " +
  "share of the images whose highest point is within the lesion. Both have the same chance " +
  "level, the score of a uniform map or a random point: the mean lesion area.";

const GROUPS = {
  "Most confident mistakes on the test split": (file) => file.startsWith("test_mistake"),
  "Test images": (file) => file.startsWith("test_") && !file.startsWith("test_mistake"),
  "Validation images": (file) => file.startsWith("val_"),
  "Other images": (file) => !/^(?:test|val)_/.test(file),
};

const scored = (row) => row.attention?.energy != null;
const hasAttention = data.images.length > 0 || data.rows.some(scored);

function scores() {
  const rows = shown().filter(scored);
  if (!rows.length) return [];
  const columns = [
    nameColumn,
    numeric("energy", (row) => row.attention.energy),
    numeric("pointing", (row) => row.attention.pointing),
    numeric("lesion area (chance level)", (row) => row.attention.lesion_area),
  ];
  return [note(SCORES), table(rows, columns, "Attention within lesions")];
}

// The images contain their captions.
function gallery(images) {
  return Object.entries(GROUPS).flatMap(([title, contains]) => {
    const pictures = images
      .filter(([, file]) => contains(file))
      .map(([, file, jpeg]) =>
        el("img", { src: `data:image/jpeg;base64,${jpeg}`, alt: `Attention map ${file}` }),
      );
    return pictures.length
      ? [el("h2", {}, title), el("div", { class: "thumbnails" }, ...pictures)]
      : [];
  });
}

function Attention() {
  const nodes = [note(EXPLAINED), note(COARSE), ...scores()];
  if (!data.images.length) return nodes;
  const names = [...new Set(data.images.map(([run]) => run))];
  const [index, select] = choice("Run", names);
  const missing = data.images_left_out;
  return [
    ...nodes,
    controls(select),
    missing ? note(`${missing} images of all runs are left out to keep the page small.`) : null,
    ...gallery(data.images.filter(([run]) => run === names[index])),
  ];
}

export const attention = hasAttention ? { Attention } : {};
