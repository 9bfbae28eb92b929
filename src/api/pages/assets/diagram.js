// The diagram with its tools: how much of each entity, find, move, magnify, save.

import { h, render } from "./dom.js";
import { arrange, DETAILS, draw } from "./er_draw.js";
import { download, standalone } from "./er_save.js";
import { sizeInWords } from "./er_graph.js";
import { viewport } from "./viewport.js";

const KEYS = "Arrow keys move, plus and minus magnify, 0 shows all.";

/** Lives in `parent`, which it fills. `show(graph, name)` draws; what was chosen and where one looked stays. */
export function diagram(parent) {
  let graph = null;
  let title = "";
  let detail = "all";
  let chosen = null;
  let arranged = null;
  let view = null;
  let scale = 1;
  let hasMoved = false;

  const svg = () => parent.querySelector("svg.er");
  const stage = () => parent.querySelector("g.er-stage");

  function frame() {
    const button = (name, text, action) =>
      h(
        "button",
        { key: name, type: "button", class: "small", "aria-label": name, title: name, onclick: action },
        text,
      );
    render(
      parent,
      h(
        "div",
        { class: "tools", role: "toolbar", "aria-label": "Diagram tools" },
        button("Zoom out", "−", () => view.zoomOut()),
        h("output", { class: "scale", "aria-label": "Magnification" }, `${Math.round(100 * scale)} %`),
        button("Zoom in", "+", () => view.zoomIn()),
        button("Show all", "Fit", () => view.fit()),
        h(
          "label",
          null,
          "Show",
          h(
            "select",
            {
              name: "detail",
              value: detail,
              onchange: (event) => {
                detail = event.target.value;
                redraw(true);
              },
            },
            Object.entries(DETAILS).map(([value, text]) => h("option", { key: value, value }, text)),
          ),
        ),
        h(
          "label",
          null,
          "Find",
          h("input", {
            type: "search",
            name: "find",
            placeholder: "entity or table",
            autocomplete: "off",
            oninput: find,
          }),
        ),
        h("span", { class: "push" }),
        h("button", { type: "button", class: "small", onclick: save }, "Save as SVG"),
      ),
      h(
        "svg",
        {
          class: "er",
          tabindex: "0",
          role: "img",
          "aria-label": inWords(),
          "aria-describedby": "er-keys",
          onclick: choose,
        },
        h("g", { class: "er-stage" }, draw(graph, arranged, detail, chosen)),
      ),
      h("p", { id: "er-keys", class: "muted keys" }, KEYS, " Click an entity to see what it is linked to."),
    );
  }

  function inWords() {
    return `Entity-relationship diagram: ${sizeInWords(graph)}`;
  }

  function redraw(isOther) {
    arranged = arrange(graph, detail);
    frame();
    if (!view) {
      view = viewport(
        svg(),
        stage(),
        () => arranged,
        (next) => {
          scale = next;
          const output = parent.querySelector("output.scale");
          if (output) output.textContent = `${Math.round(100 * scale)} %`;
        },
      );
      for (const name of ["pointerdown", "keydown", "wheel"])
        svg().addEventListener(name, () => {
          hasMoved = true;
        });
      // the place may get its size later
      new ResizeObserver(() => {
        if (!hasMoved) view.fit();
      }).observe(svg());
    }
    if (isOther || !hasMoved) view.fit();
  }

  function choose(event) {
    const at = event.target.closest?.("[data-at]")?.dataset.at;
    const next = at === undefined ? null : Number(at);
    if (next === chosen) return;
    chosen = next;
    frame();
  }

  function find(event) {
    const text = event.target.value.trim().toLowerCase();
    const at =
      text === ""
        ? -1
        : graph.entities.findIndex((entity) =>
            [entity.name, ...entity.tables].some((name) => name.toLowerCase().includes(text)),
          );
    chosen = at < 0 ? null : at;
    frame();
    if (at >= 0) {
      hasMoved = true;
      view.centre(arranged.boxes[at]);
    }
  }

  function save() {
    const was = chosen;
    chosen = null;
    frame();
    download(standalone(stage(), arranged, `${title}: ${inWords()}`), `${title}.svg`, "image/svg+xml");
    chosen = was;
    frame();
  }

  return {
    show(next, name) {
      const isOther = graph === null || next.entities.length !== graph.entities.length;
      graph = next;
      title = name;
      if (chosen !== null && chosen >= graph.entities.length) chosen = null;
      redraw(isOther && !hasMoved);
    },
    /** Looks at one entity. */
    find(at) {
      chosen = at;
      hasMoved = true;
      frame();
      view.centre(arranged.boxes[at]);
      svg().focus();
    },
  };
}
