// A state as a word with a sign: the sign's form differs, so that nobody needs its colour.

import { h } from "./dom.js";
import { words } from "./format.js";

const SIGNS = {
  // models
  not_loaded: ["off", "○"],
  loading: ["busy", "◔"],
  ready: ["good", "●"],
  draining: ["busy", "◑"],
  error: ["bad", "▲"],
  // jobs
  queued: ["off", "○"],
  running: ["busy", "◔"],
  completed: ["good", "●"],
  cancelled: ["off", "◌"],
  failed: ["bad", "▲"],
  // items
  succeeded: ["good", "●"],
  expired: ["bad", "◌"],
};

export function pill(state) {
  const [kind, sign] = SIGNS[state] || ["off", "○"];
  return h(
    "span",
    { class: `pill ${kind}`, "data-state": state },
    h("span", { "aria-hidden": "true" }, sign),
    words(state),
  );
}
