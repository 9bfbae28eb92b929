// Columns of a layered drawing: what is referred to stands left of what refers to it (after Sugiyama, Tagawa and Toda,
// "Methods for visual understanding of hierarchical system structures", 1981; columns of bounded height as in Coffman
// and Graham, 1972). Pure functions over numbers.

/** Sets of nodes that edges connect, in the order of their first node. */
export function components(count, edges) {
  const root = Array.from({ length: count }, (_, at) => at);
  const find = (at) => (root[at] === at ? at : (root[at] = find(root[at])));
  for (const edge of edges) root[Math.max(find(edge.from), find(edge.to))] = Math.min(find(edge.from), find(edge.to));
  const sets = new Map();
  for (let at = 0; at < count; at += 1) {
    if (!sets.has(find(at))) sets.set(find(at), []);
    sets.get(find(at)).push(at);
  }
  return [...sets.values()];
}

/** Pairs `[left, right]` without repeats and circles: an edge that would close one is turned round. */
export function arrows(nodes, edges) {
  const targets = new Map(nodes.map((node) => [node, new Set()]));
  for (const edge of edges) if (edge.from !== edge.to) targets.get(edge.from).add(edge.to);
  const state = new Map();
  const pairs = new Map();
  const visit = (node) => {
    state.set(node, "open");
    for (const target of targets.get(node)) {
      const [left, right] = state.get(target) === "open" ? [node, target] : [target, node];
      if (!pairs.has(`${right} ${left}`)) pairs.set(`${left} ${right}`, [left, right]);
      if (!state.has(target)) visit(target);
    }
    state.set(node, "done");
  };
  for (const node of nodes) if (!state.has(node)) visit(node);
  return [...pairs.values()];
}

/** The column of each node, none taller than `tallest` unless one node is. */
export function columns(nodes, pairs, heights, gap, tallest) {
  const before = new Map(nodes.map((node) => [node, []]));
  const after = new Map(nodes.map((node) => [node, []]));
  for (const [left, right] of pairs) {
    before.get(right).push(left);
    after.get(left).push(right);
  }
  const column = new Map();
  const filled = [];
  const open = new Map(nodes.map((node) => [node, before.get(node).length]));
  const ready = nodes.filter((node) => open.get(node) === 0);
  while (ready.length > 0) {
    // the one that most others wait for goes first
    ready.sort((a, b) => after.get(b).length - after.get(a).length || a - b);
    const node = ready.shift();
    let at = Math.max(-1, ...before.get(node).map((left) => column.get(left))) + 1;
    while ((filled[at] || 0) > 0 && filled[at] + heights.get(node) + gap > tallest) at += 1;
    column.set(node, at);
    filled[at] = (filled[at] || 0) + heights.get(node) + gap;
    for (const right of after.get(node)) {
      open.set(right, open.get(right) - 1);
      if (open.get(right) === 0) ready.push(right);
    }
  }
  drawNear(nodes, before, after, column, filled, heights, gap, tallest);
  return column;
}

/** What only others refer to moves next to the first of them: shorter lines. */
function drawNear(nodes, before, after, column, filled, heights, gap, tallest) {
  for (const node of nodes.filter((one) => before.get(one).length === 0 && after.get(one).length > 0)) {
    const wanted = Math.min(...after.get(node).map((right) => column.get(right))) - 1;
    for (let at = wanted; at > column.get(node); at -= 1) {
      if ((filled[at] || 0) + heights.get(node) + gap > tallest) continue;
      filled[column.get(node)] -= heights.get(node) + gap;
      filled[at] = (filled[at] || 0) + heights.get(node) + gap;
      column.set(node, at);
      break;
    }
  }
}

/** Orders each column by the middle of its neighbours, to and fro, and keeps the order with the fewest crossings. */
export function order(layers, links) {
  const neighbours = new Map(layers.flat().map((node) => [node, { left: [], right: [] }]));
  for (const [left, right] of links) {
    neighbours.get(left).right.push(right);
    neighbours.get(right).left.push(left);
  }
  let best = layers.map((layer) => [...layer]);
  let fewest = crossings(best, links);
  const now = layers.map((layer) => [...layer]);
  for (let turn = 0; turn < 24 && fewest > 0; turn += 1) {
    const forward = turn % 2 === 0;
    const side = forward ? "left" : "right";
    for (let step = 1; step < now.length; step += 1) {
      const at = forward ? step : now.length - 1 - step;
      const place = new Map((now[at + (forward ? -1 : 1)] || []).map((node, index) => [node, index]));
      const wish = new Map(
        now[at].map((node, index) => {
          const near = neighbours
            .get(node)
            [side].map((other) => place.get(other))
            .filter((p) => p !== undefined);
          return [node, near.length > 0 ? near.reduce((a, b) => a + b, 0) / near.length : index];
        }),
      );
      now[at].sort((a, b) => wish.get(a) - wish.get(b));
    }
    const count = crossings(now, links);
    if (count < fewest) {
      fewest = count;
      best = now.map((layer) => [...layer]);
    }
  }
  return best;
}

function crossings(layers, links) {
  const place = new Map();
  layers.forEach((layer, at) => layer.forEach((node, index) => place.set(node, { at, index })));
  const byGap = layers.map(() => []);
  for (const [left, right] of links) byGap[place.get(left).at].push([place.get(left).index, place.get(right).index]);
  let count = 0;
  for (const gap of byGap) {
    for (let a = 0; a < gap.length; a += 1) {
      for (let b = a + 1; b < gap.length; b += 1) {
        if ((gap[a][0] - gap[b][0]) * (gap[a][1] - gap[b][1]) < 0) count += 1;
      }
    }
  }
  return count;
}

/**
 * Tops of a column's nodes, in their order and `gap` apart, as near to the wished ones as that allows: least squares
 * by pooling neighbours that would overlap (Ayer et al., 1955).
 */
export function settle(wished, heights, gap) {
  const offset = [];
  heights.reduce((sum, height, at) => {
    offset[at] = sum;
    return sum + height + gap;
  }, 0);
  const pools = [];
  wished.forEach((top, at) => {
    pools.push({ sum: top - offset[at], n: 1 });
    while (pools.length > 1 && pools.at(-2).sum / pools.at(-2).n > pools.at(-1).sum / pools.at(-1).n) {
      const last = pools.pop();
      pools.at(-1).sum += last.sum;
      pools.at(-1).n += last.n;
    }
  });
  return pools.flatMap((pool) => Array(pool.n).fill(pool.sum / pool.n)).map((base, at) => base + offset[at]);
}
