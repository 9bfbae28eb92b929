// Where entities stand and how relationships run between them. Pure: sizes in, places out, the same for the same.

import { arrows, columns, components, order, settle } from "./er_ranks.js";

const GAP_Y = 36;
const GAP_X = 120;
/** Between parts of the drawing that nothing connects. */
const GAP_PART = 56;
/** Width to height, of the drawing as a whole. */
const SHAPE = 1.9;

/**
 * `sizes[i]` is `{ width, height }` of entity i; edges are `{ from, to }`. Returns boxes `{ x, y, width, height }`, for
 * each edge the points that it passes (the ends excluded, empty for one that connects an entity with itself), and
 * the size of all.
 */
export function layout(sizes, edges) {
  const parts = components(sizes.length, edges).map((nodes) => part(nodes, sizes, edges));
  // what nothing connects stands together, last
  parts.sort((a, b) => (b.nodes.length > 1) - (a.nodes.length > 1) || b.height - a.height || a.nodes[0] - b.nodes[0]);
  const area = parts.reduce((sum, one) => sum + (one.width + GAP_PART) * (one.height + GAP_PART), 0);
  const widest = Math.max(Math.sqrt(area * SHAPE), ...parts.map((one) => one.width));
  const boxes = [];
  const vias = edges.map(() => []);
  let [x, y, shelf, width] = [0, 0, 0, 0];
  for (const one of parts) {
    if (x > 0 && x + one.width > widest) [x, y, shelf] = [0, y + shelf + GAP_PART, 0];
    for (const [node, box] of one.boxes) boxes[node] = { ...box, x: box.x + x, y: box.y + y };
    for (const [edge, points] of one.vias)
      vias[edge] = points.map((point) => ({ left: point.left + x, right: point.right + x, y: point.y + y }));
    x += one.width + GAP_PART;
    shelf = Math.max(shelf, one.height);
    width = Math.max(width, x - GAP_PART);
  }
  return { boxes, vias, width, height: y + shelf };
}

/** Entities that relationships connect. */
function part(nodes, sizes, edges) {
  const heights = new Map(nodes.map((node) => [node, sizes[node].height]));
  const own = edges.filter((edge) => heights.has(edge.from));
  const pairs = arrows(nodes, own);
  const column = columns(nodes, pairs, heights, GAP_Y, tallest(nodes, sizes));
  const { layers, links, chains } = withBends(nodes, pairs, column);
  const ordered = order(layers, links);
  const heightOf = (node) => heights.get(node) ?? 0;
  const tops = place(ordered, links, heightOf);
  const widths = ordered.map((layer) => Math.max(...layer.map((node) => sizes[node]?.width ?? 0)));
  const lefts = [];
  widths.reduce((sum, width, at) => {
    lefts[at] = sum;
    return sum + width + GAP_X;
  }, 0);
  const least = Math.min(...nodes.map((node) => tops.get(node)));
  const boxes = new Map();
  const at = new Map();
  ordered.forEach((layer, index) => layer.forEach((node) => at.set(node, index)));
  for (const node of nodes) {
    const { width, height } = sizes[node];
    // in the middle of its column
    boxes.set(node, {
      x: lefts[at.get(node)] + (widths[at.get(node)] - width) / 2,
      y: tops.get(node) - least,
      width,
      height,
    });
  }
  const vias = new Map();
  edges.forEach((edge, index) => {
    if (!heights.has(edge.from) || edge.from === edge.to) return;
    const isForward = chains.has(`${edge.to} ${edge.from}`);
    const chain = chains.get(isForward ? `${edge.to} ${edge.from}` : `${edge.from} ${edge.to}`) || [];
    const points = chain.map((bend) => ({
      left: lefts[at.get(bend)],
      right: lefts[at.get(bend)] + widths[at.get(bend)],
      y: tops.get(bend) - least,
    }));
    // from `from` to `to`
    vias.set(index, isForward ? points.reverse() : points);
  });
  const bottom = Math.max(...nodes.map((node) => tops.get(node) - least + sizes[node].height), 0);
  return { nodes, boxes, vias, width: lefts.at(-1) + widths.at(-1), height: bottom };
}

/** A column's height with which the part has about the wanted shape. */
function tallest(nodes, sizes) {
  const height = nodes.reduce((sum, node) => sum + sizes[node].height + GAP_Y, 0);
  const width = nodes.reduce((sum, node) => sum + sizes[node].width, 0) / nodes.length + GAP_X;
  const count = Math.max(1, Math.sqrt((SHAPE * height) / width));
  return Math.max((height / count) * 1.1, ...nodes.map((node) => sizes[node].height + GAP_Y));
}

/** Long relationships bend in each column they pass, so that nothing stands in their way. */
function withBends(nodes, pairs, column) {
  const layers = [];
  const add = (node, at) => {
    (layers[at] ||= []).push(node);
  };
  for (const node of nodes) add(node, column.get(node));
  const links = [];
  const chains = new Map();
  for (const [left, right] of pairs) {
    const bends = [];
    for (let at = column.get(left) + 1; at < column.get(right); at += 1) {
      const bend = `${left} ${right} ${at}`;
      add(bend, at);
      bends.push(bend);
    }
    const stops = [left, ...bends, right];
    for (let step = 1; step < stops.length; step += 1) links.push([stops[step - 1], stops[step]]);
    chains.set(`${left} ${right}`, bends);
  }
  return { layers: layers.map((layer) => layer || []).filter((layer) => layer.length > 0), links, chains };
}

/** Tops of all nodes: each near the middle of its neighbours. */
function place(layers, links, heightOf) {
  const near = new Map(layers.flat().map((node) => [node, []]));
  for (const [left, right] of links) {
    near.get(left).push(right);
    near.get(right).push(left);
  }
  const tops = new Map();
  for (const layer of layers) {
    settle(
      layer.map(() => 0),
      layer.map(heightOf),
      GAP_Y,
    ).forEach((top, at) => tops.set(layer[at], top));
  }
  const middle = (node) => tops.get(node) + heightOf(node) / 2;
  for (let turn = 0; turn < 16; turn += 1) {
    const way = turn % 2 === 0 ? layers : [...layers].reverse();
    for (const layer of way) {
      const wished = layer.map((node) => {
        const others = near.get(node);
        if (others.length === 0) return tops.get(node);
        return others.reduce((sum, other) => sum + middle(other), 0) / others.length - heightOf(node) / 2;
      });
      settle(wished, layer.map(heightOf), GAP_Y).forEach((top, at) => tops.set(layer[at], top));
    }
  }
  return tops;
}
