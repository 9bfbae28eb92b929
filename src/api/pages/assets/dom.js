// The page as a value: `h` describes elements, `render` makes the document equal to the description and keeps the
// elements that are there, so that focus, selection and scrolling survive every update.
//
// Whatever comes from the server enters as a text node or an attribute, never as markup.

const SVG = "http://www.w3.org/2000/svg";
/** What each element was last described as. */
const drawn = new WeakMap();
/** Properties that a user's doing changes behind the attribute's back. */
const LIVE = new Set(["value", "checked", "disabled", "hidden", "selected"]);

/** An element: `h("p", { class: "note", key: 1, onclick: f }, "text", child, [more])`. Null children are nothing. */
export function h(tag, props, ...children) {
  const { key, ...rest } = props || {};
  return { tag, key, props: rest, children: flat(children) };
}

/** Makes the children of `parent` what is described. */
export function render(parent, ...children) {
  patchChildren(parent, flat(children), parent.namespaceURI === SVG);
}

function flat(children) {
  return children
    .flat(Infinity)
    .filter((child) => child !== null && child !== undefined && child !== false)
    .map((child) => (typeof child === "object" ? child : { text: String(child) }));
}

function fits(node, vnode) {
  if (vnode.text !== undefined) return node.nodeType === Node.TEXT_NODE;
  const was = drawn.get(node);
  return was !== undefined && was.tag === vnode.tag && was.key === vnode.key;
}

function patchChildren(parent, vnodes, inSvg) {
  const old = [...parent.childNodes];
  const byKey = new Map();
  const free = [];
  for (const node of old) {
    const key = drawn.get(node)?.key;
    if (key !== undefined) byKey.set(key, node);
    else free.push(node);
  }
  const nodes = vnodes.map((vnode) => {
    if (vnode.key !== undefined) {
      const node = byKey.get(vnode.key);
      return node && fits(node, vnode) ? node : null;
    }
    const at = free.findIndex((node) => fits(node, vnode));
    return at < 0 ? null : free.splice(at, 1)[0];
  });
  const kept = new Set(nodes);
  // gone first: what stays is then in place already and need not be moved, which would take its focus
  for (const node of old) if (!kept.has(node)) node.remove();
  let next = parent.firstChild;
  vnodes.forEach((vnode, at) => {
    const node = nodes[at] || create(vnode, inSvg);
    if (nodes[at]) update(node, vnode, inSvg);
    if (node === next) next = next.nextSibling;
    else parent.insertBefore(node, next);
  });
}

function create(vnode, inSvg) {
  if (vnode.text !== undefined) return document.createTextNode(vnode.text);
  const svg = inSvg || vnode.tag === "svg";
  const node = svg ? document.createElementNS(SVG, vnode.tag) : document.createElement(vnode.tag);
  drawn.set(node, { tag: vnode.tag, key: vnode.key, props: {} });
  update(node, vnode, inSvg);
  return node;
}

function update(node, vnode, inSvg) {
  if (vnode.text !== undefined) {
    if (node.data !== vnode.text) node.data = vnode.text;
    return;
  }
  const was = drawn.get(node).props;
  for (const name of Object.keys(was)) if (!(name in vnode.props)) set(node, name, null);
  // options before the value that names one of them
  patchChildren(node, vnode.children, inSvg || vnode.tag === "svg");
  for (const [name, value] of Object.entries(vnode.props)) {
    if (was[name] !== value || LIVE.has(name)) set(node, name, value);
  }
  drawn.set(node, vnode);
}

function set(node, name, value) {
  if (name.startsWith("on")) node[name] = value;
  else if (name === "style") for (const [part, text] of Object.entries(value || {})) node.style.setProperty(part, text);
  else if (LIVE.has(name) && name in node) {
    if (node[name] !== (value ?? false)) node[name] = value ?? (name === "value" ? "" : false);
  } else if (value === null || value === undefined || value === false) node.removeAttribute(name);
  else node.setAttribute(name, value === true ? "" : value);
}
