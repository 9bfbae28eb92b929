// A bar of parts: how much of the whole each has.

import { h } from "./dom.js";

/**
 * `parts` are `{ kind, value, label }`; what they leave of `total` stays empty. `label` is the whole in words, which is
 * what a screen reader reads.
 */
export function bar(parts, total, label, extra = "") {
  const whole = Math.max(
    total,
    parts.reduce((sum, part) => sum + part.value, 0),
    1e-9,
  );
  return h(
    "div",
    { class: `bar ${extra}`, role: "img", "aria-label": label, title: label },
    parts
      .filter((part) => part.value > 0)
      .map((part) =>
        h("span", {
          key: part.kind,
          class: `part ${part.kind}`,
          title: part.label || null,
          style: { width: `${(100 * part.value) / whole}%` },
        }),
      ),
  );
}

/** What the colours of a bar mean, with figures. */
export function legend(parts) {
  return h(
    "ul",
    { class: "legend" },
    parts.map((part) =>
      h("li", { key: part.kind }, h("span", { class: `swatch ${part.kind}`, "aria-hidden": "true" }), part.label),
    ),
  );
}
