// The drawing as a file of its own, with the colours it is shown in.

const SVG = "http://www.w3.org/2000/svg";
const MARGIN = 24;
const KEPT = [
  "fill",
  "fill-opacity",
  "stroke",
  "stroke-width",
  "stroke-dasharray",
  "stroke-linejoin",
  "paint-order",
  "opacity",
  "font-family",
  "font-size",
  "font-weight",
  "font-style",
  "letter-spacing",
];

/** The text of an SVG document that needs no style sheet. `stage` is shown, `size` is its own. */
export function standalone(stage, size, title) {
  const root = document.createElementNS(SVG, "svg");
  const [width, height] = [Math.ceil(size.width) + 2 * MARGIN, Math.ceil(size.height) + 2 * MARGIN];
  root.setAttribute("viewBox", `${-MARGIN} ${-MARGIN} ${width} ${height}`);
  root.setAttribute("width", width);
  root.setAttribute("height", height);
  const name = document.createElementNS(SVG, "title");
  name.textContent = title;
  const paper = document.createElementNS(SVG, "rect");
  paper.setAttribute("x", -MARGIN);
  paper.setAttribute("y", -MARGIN);
  paper.setAttribute("width", width);
  paper.setAttribute("height", height);
  paper.setAttribute("fill", getComputedStyle(stage.ownerSVGElement).backgroundColor);
  const copy = stage.cloneNode(true);
  copy.removeAttribute("transform");
  dress(stage, copy);
  root.append(name, paper, copy);
  return `<?xml version="1.0" encoding="UTF-8"?>\n${new XMLSerializer().serializeToString(root)}\n`;
}

/** Writes what the style sheets say onto the copy. */
function dress(original, copy) {
  const style = getComputedStyle(original);
  if (["path", "rect", "text"].includes(copy.localName)) {
    for (const name of KEPT) {
      const value = style.getPropertyValue(name);
      if (name === "fill" || name === "stroke" || (value && value !== "none")) copy.setAttribute(name, value);
    }
  } else if (style.opacity !== "1") copy.setAttribute("opacity", style.opacity);
  copy.removeAttribute("class");
  [...original.children].forEach((child, at) => dress(child, copy.children[at]));
}

export function download(text, name, type) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  const a = document.createElement("a");
  a.href = address;
  a.download = name;
  a.click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}
