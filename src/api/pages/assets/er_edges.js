// Lines of relationships: where they leave and reach the boxes, their curves, their crow's feet, their labels.

const FOOT = 12;
const SPREAD = 6;
const LOOP = 68;

/**
 * For each edge `{ path, feet, label: { x, y } }`; `feet` is the path of both ends' signs, after the crow's foot
 * notation: at `from`, many or one; at `to`, exactly or at most one.
 */
export function lines(boxes, vias, edges) {
  const ends = edges.map((edge, at) => sides(boxes, vias[at], edge));
  spread(boxes, edges, ends);
  const taken = [];
  return edges.map((edge, at) => {
    const { from, to } = ends[at];
    const stops = edge.from === edge.to ? null : [from, ...vias[at], to];
    const path = stops ? curve(stops) : loop(from, to);
    const spot = stops ? middle(stops) : { x: from.x + 0.75 * LOOP, y: (from.y + to.y) / 2 };
    // labels make room for each other
    while (taken.some((other) => Math.abs(other.x - spot.x) < 90 && Math.abs(other.y - spot.y) < 13)) spot.y += 13;
    taken.push(spot);
    return {
      path,
      feet: edge.many === null ? "" : foot(from, edge.many, true) + foot(to, false, !edge.isRequired),
      label: spot,
    };
  });
}

/** The side of each box that an edge uses: `out` is 1 to the right, -1 to the left. */
function sides(boxes, via, edge) {
  const [a, b] = [boxes[edge.from], boxes[edge.to]];
  if (edge.from === edge.to) {
    return { from: { node: edge.from, out: 1, aim: a.y }, to: { node: edge.to, out: 1, aim: a.y + 1 } };
  }
  const centre = (box) => box.x + box.width / 2;
  const first = via[0] ? via[0].left : centre(b);
  const last = via.at(-1) ? via.at(-1).left : centre(a);
  const middleY = (box) => box.y + box.height / 2;
  return {
    from: { node: edge.from, out: first < centre(a) ? -1 : 1, aim: via[0]?.y ?? middleY(b) },
    to: { node: edge.to, out: last < centre(b) ? -1 : 1, aim: via.at(-1)?.y ?? middleY(a) },
  };
}

/** Ends on one side of a box stand apart, in the order of where they go. */
function spread(boxes, edges, ends) {
  const bySide = new Map();
  for (const { from, to } of ends) {
    for (const end of [from, to]) {
      const side = `${end.node} ${end.out}`;
      if (!bySide.has(side)) bySide.set(side, []);
      bySide.get(side).push(end);
    }
  }
  for (const group of bySide.values()) {
    group.sort((a, b) => a.aim - b.aim);
    group.forEach((end, at) => {
      const box = boxes[end.node];
      const room = Math.min(box.height - 20, 34 * (group.length - 1));
      end.x = end.out > 0 ? box.x + box.width : box.x;
      end.y = box.y + box.height / 2 + (group.length > 1 ? room * (at / (group.length - 1) - 0.5) : 0);
    });
  }
}

const round = (n) => Math.round(n * 10) / 10;

/** Level at every stop, so that it meets boxes and feet squarely. */
function curve(stops) {
  const points = [];
  stops.forEach((stop) => {
    if (stop.left === undefined) points.push([stop.x, stop.y]);
    else {
      const isLeftward = points[0][0] > stop.left;
      points.push([isLeftward ? stop.right : stop.left, stop.y], [isLeftward ? stop.left : stop.right, stop.y]);
    }
  });
  const [from, to] = [stops[0], stops.at(-1)];
  let path = `M${round(points[0][0])} ${round(points[0][1])}`;
  for (let at = 1; at < points.length; at += 1) {
    const [[x1, y1], [x2, y2]] = [points[at - 1], points[at]];
    const reach = Math.max(40, Math.abs(x2 - x1) / 2);
    const out = at === 1 ? from.out : Math.sign(x2 - x1) || 1;
    const into = at === points.length - 1 ? to.out : -(Math.sign(x2 - x1) || 1);
    path += `C${round(x1 + out * reach)} ${round(y1)} ${round(x2 + into * reach)} ${round(y2)} ${round(x2)} ${round(y2)}`;
  }
  return path;
}

/** Between the two stops that are nearest to the middle of the way. */
function middle(stops) {
  const at = Math.floor((stops.length - 1) / 2);
  const [a, b] = [stops[at], stops[at + 1]];
  const xOf = (stop, other) => {
    if (stop.left === undefined) return stop.x;
    return Math.abs(stop.left - (other.x ?? other.left)) < Math.abs(stop.right - (other.x ?? other.right))
      ? stop.left
      : stop.right;
  };
  return { x: (xOf(a, b) + xOf(b, a)) / 2, y: (a.y + b.y) / 2 };
}

function loop(from, to) {
  const right = round(from.x + LOOP);
  return `M${round(from.x)} ${round(from.y)}C${right} ${round(from.y)} ${right} ${round(to.y)} ${round(to.x)} ${round(to.y)}`;
}

/** Many: three toes at the box; one: a bar across. Then a ring if there may be none, else a bar. */
function foot(end, isMany, mayBeNone) {
  const x = (distance) => round(end.x + end.out * distance);
  const y = (distance) => round(end.y + distance);
  const across = (distance) => `M${x(distance)} ${y(-SPREAD)}V${y(SPREAD)}`;
  const near = isMany
    ? `M${x(FOOT)} ${y(0)}L${x(0)} ${y(-SPREAD)}M${x(FOOT)} ${y(0)}L${x(0)} ${y(SPREAD)}`
    : across(FOOT - 5);
  const ring = `M${x(FOOT + 1)} ${y(0)}a3.5 3.5 0 1 0 ${7 * end.out} 0a3.5 3.5 0 1 0 ${-7 * end.out} 0`;
  return near + (mayBeNone ? ring : across(FOOT + 1));
}
