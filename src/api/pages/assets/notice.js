// What became of an action, at the foot of the page: refusals stay until they are closed.

import { h, render } from "./dom.js";
import { announce } from "./announce.js";
import { bytes } from "./format.js";

const DONE_MS = 6000;
let notices = [];
let serial = 0;

export function done(text) {
  const id = add({ kind: "done", text });
  setTimeout(() => close(id), DONE_MS);
}

/** A refusal in full: what was refused, why, and for a model that does not fit the plan. */
export function refused(what, error) {
  const plan = error.problem?.plan;
  const more = plan ? ` It needs ${bytes(plan.needed_bytes)} and may use ${bytes(plan.budget_bytes)}.` : "";
  add({ kind: "bad", text: `${what}: ${error.message}${more}`, code: error.code });
}

function add(notice) {
  serial += 1;
  notices.push({ id: serial, ...notice });
  notices = notices.slice(-4);
  announce(notice.text, notice.kind === "bad");
  draw();
  return serial;
}

function close(id) {
  notices = notices.filter((notice) => notice.id !== id);
  draw();
}

function draw() {
  render(
    document.getElementById("notices"),
    notices.map((notice) =>
      h(
        "li",
        { key: notice.id, class: notice.kind },
        h("span", null, notice.text, notice.code ? h("code", null, ` ${notice.code}`) : null),
        h(
          "button",
          { type: "button", class: "small quiet", "aria-label": "Close this notice", onclick: () => close(notice.id) },
          "×",
        ),
      ),
    ),
  );
}
