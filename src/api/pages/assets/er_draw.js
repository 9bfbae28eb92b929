// Entities and relationships as SVG: names are text nodes, cut where they do not fit and whole in their tooltip.

import { h } from "./dom.js";
import { lines } from "./er_edges.js";
import { layout } from "./er_layout.js";

const ROW = 20;
const HEAD = 40;
const PAD = 10;
const TAG = 26;
const MOST_ROWS = 16;
const [NARROWEST, WIDEST] = [150, 290];
const FAMILY = "system-ui, sans-serif";
export const DETAILS = { all: "All attributes", keys: "Keys only", names: "Names only" };

const pen = document.createElement("canvas").getContext("2d");

function widthOf(text, size, weight = 400) {
  pen.font = `${weight} ${size}px ${FAMILY}`;
  return pen.measureText(text.slice(0, 200)).width;
}

/** As much of `text` as `width` has room for. */
function cut(text, width, size, weight) {
  if (text.length <= 200 && widthOf(text, size, weight) <= width) return text;
  let [lo, hi] = [0, Math.min(text.length, 200)];
  while (lo < hi) {
    const middle = Math.ceil((lo + hi) / 2);
    if (widthOf(`${text.slice(0, middle)}…`, size, weight) <= width) lo = middle;
    else hi = middle - 1;
  }
  return `${text.slice(0, lo)}…`;
}

/** Control characters and marks that turn the reading direction would let a name disguise itself. */
function plain(text) {
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "�");
}

const tagOf = (attribute) =>
  attribute.isIdentifier ? "PK" : attribute.isReference ? "FK" : attribute.isUnique ? "UK" : "";

const weightOf = (attribute) => (attribute.isIdentifier ? 600 : 400);

function rowsOf(entity, detail) {
  if (detail === "names") return { rows: [], more: 0 };
  const wanted = entity.attributes.filter((attribute) => detail === "all" || tagOf(attribute) !== "");
  return wanted.length > MOST_ROWS
    ? { rows: wanted.slice(0, MOST_ROWS - 1), more: wanted.length - MOST_ROWS + 1 }
    : { rows: wanted, more: 0 };
}

function sizeOf(entity, detail) {
  const { rows, more } = rowsOf(entity, detail);
  const widths = rows.map((row) => TAG + widthOf(plain(row.name), 12, weightOf(row)) + 14 + widthOf(row.type, 11));
  const name = widthOf(plain(entity.name), 13, 600);
  const width = Math.min(WIDEST, Math.max(NARROWEST, name + 2 * PAD, ...widths.map((width) => width + 2 * PAD)));
  const lines = rows.length + (more > 0 ? 1 : 0);
  return { width: Math.ceil(width), height: HEAD + (lines > 0 ? lines * ROW + 8 : 0) };
}

/** Where everything stands: `{ boxes, lines, width, height }`. Takes its time with hundreds of entities. */
export function arrange(graph, detail) {
  const { boxes, vias, width, height } = layout(
    graph.entities.map((entity) => sizeOf(entity, detail)),
    graph.relationships,
  );
  return { boxes, lines: lines(boxes, vias, graph.relationships), width, height };
}

/** What stands inside the `svg`; what the chosen entity is not linked to stands back. */
export function draw(graph, arranged, detail, chosen) {
  const near = new Set([chosen]);
  for (const key of graph.relationships) {
    if (key.from === chosen) near.add(key.to);
    if (key.to === chosen) near.add(key.from);
  }
  const faint = (isNear) => (chosen !== null && !isNear ? " faint" : "");
  const edges = graph.relationships.map((key, at) =>
    edge(graph, key, arranged.lines[at], at, faint(key.from === chosen || key.to === chosen)),
  );
  const boxes = graph.entities.map((entity, at) =>
    box(entity, arranged.boxes[at], at, detail, faint(near.has(at)), at === chosen),
  );
  const labels = graph.relationships.map((key, at) =>
    label(key, arranged.lines[at], at, faint(key.from === chosen || key.to === chosen)),
  );
  return [...edges, ...boxes, ...labels];
}

function edge(graph, key, line, at, more) {
  const [from, to] = [graph.entities[key.from].name, graph.entities[key.to].name];
  return h(
    "g",
    {
      key: `edge-${at}`,
      class: `er-edge${key.isInferred ? " inferred" : ""}${key.isForReview ? " review" : ""}${more}`,
      "data-relationship": key.name,
      "data-from": from,
      "data-to": to,
    },
    h("title", null, plain([`${from} – ${key.name} – ${to}`, key.description, key.sure].filter(Boolean).join("\n"))),
    h("path", { class: "er-hit", d: line.path }),
    h("path", { class: "er-line", d: line.path }),
    line.feet ? h("path", { class: "er-foot", d: line.feet }) : null,
  );
}

function label(key, line, at, more) {
  return h(
    "text",
    {
      key: `label-${at}`,
      class: `er-label${more}`,
      x: line.label.x,
      y: line.label.y,
      "text-anchor": "middle",
      dy: "0.32em",
    },
    cut(plain(key.name), 130, 11, 400),
  );
}

function box(entity, { x, y, width, height }, at, detail, more, isChosen) {
  const { rows, more: hidden } = rowsOf(entity, detail);
  const inner = width - 2 * PAD;
  const source = entity.source === "model" ? "" : ", from the catalog alone";
  const head = `${entity.name} (${entity.kind}${source})`;
  const about = [head, entity.tables.join(", "), entity.description, entity.sure].filter(Boolean).join("\n");
  return h(
    "g",
    {
      key: `entity-${at}`,
      class: `er-entity kind-${entity.kind}${entity.isForReview ? " review" : ""}${more}${isChosen ? " chosen" : ""}`,
      "data-entity": entity.name,
      "data-at": at,
      transform: `translate(${Math.round(x)} ${Math.round(y)})`,
    },
    h("title", null, plain(about)),
    h("rect", { class: "er-box", width, height, rx: 6 }),
    h("path", {
      class: "er-head",
      d: `M0 ${HEAD}V6a6 6 0 0 1 6 -6H${width - 6}a6 6 0 0 1 6 6V${HEAD}${height > HEAD ? "z" : `a0 0 0 0 1 0 0z`}`,
    }),
    h("text", { class: "er-name", x: PAD, y: 17 }, cut(plain(entity.name), inner, 13, 600)),
    h(
      "text",
      { class: "er-kind", x: PAD, y: 32 },
      cut(plain(`${entity.kind} · ${entity.tables.join(", ")}`), inner, 10.5),
    ),
    rows.map((row, index) => attribute(row, index, width)),
    hidden > 0
      ? h("text", { class: "er-more", x: PAD + TAG, y: HEAD + 4 + rows.length * ROW + 14 }, `and ${hidden} more`)
      : null,
  );
}

function attribute(row, index, width) {
  const y = HEAD + 4 + index * ROW + 14;
  const typeWidth = widthOf(row.type, 11);
  const tag = tagOf(row);
  const about = `${row.name}: ${row.type}${row.isRequired ? ", required" : ""}`;
  return h(
    "g",
    { key: `row-${index}`, "data-attribute": row.name, class: row.isForReview ? "review" : null },
    h("title", null, plain([about, row.column, row.description, row.sure].filter(Boolean).join("\n"))),
    tag ? h("text", { class: `er-tag ${tag}`, x: PAD, y }, tag) : null,
    h(
      "text",
      { class: `er-attribute${row.isIdentifier ? " identifier" : ""}`, x: PAD + TAG, y },
      cut(plain(row.name), width - 2 * PAD - TAG - typeWidth - 10, 12, weightOf(row)),
    ),
    h("text", { class: "er-type", x: width - PAD, y, "text-anchor": "end" }, row.type),
  );
}
