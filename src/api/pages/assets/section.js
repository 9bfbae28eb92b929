// What sections are made of: a title with a line about it, and a table that may be wider than the window.

import { h } from "./dom.js";

/** A heading, a line in small, and what stands at the end of the line. */
export function title(id, name, about, ...end) {
  return h(
    "div",
    { key: "title", class: "title" },
    h("h2", { id }, name),
    about ? h("p", { class: "muted" }, about) : null,
    end,
  );
}

/** `head` is a list of `[name, class]`; an empty name is that of the buttons' column. */
export function table({ name, caption, kind, head }, rows) {
  const cells = head.map(([text, look], at) =>
    h("th", { key: at, scope: "col", class: look || null }, text || h("span", { class: "unseen" }, "Actions")),
  );
  return h(
    "div",
    { key: "table", class: "wide", tabindex: "0", role: "region", "aria-label": `${name}, scrolls sideways` },
    h(
      "table",
      { class: kind },
      h("caption", { class: "unseen" }, caption),
      h("thead", null, h("tr", null, cells)),
      h("tbody", null, rows),
    ),
  );
}
