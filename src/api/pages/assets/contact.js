// How far what is shown can be trusted: the sign in the header, the banner, and the mark on data that is old.

import { h, render } from "./dom.js";
import { ago, clock } from "./format.js";
import { look } from "./sign_in.js";
import { announce } from "./announce.js";

let state = { kind: "connecting" };
/** When the server last told something. */
let asOf = 0;
let tryNow = () => {};
let wasTold = "";

/** Something came from the server just now. */
export function heard() {
  // of a part only, while the database is away
  if (state.kind !== "away") asOf = Date.now();
  draw();
}

/** The state of the page's stream, see stream.js; `retry` tries at once. */
export function show(next, retry) {
  state = next;
  tryNow = retry;
  look(next, retry);
  if (state.kind === "live") asOf = Date.now();
  draw();
}

/** Whether actions make sense: the last word of the server is not old. */
export function isFresh() {
  return state.kind === "live" || state.kind === "ended";
}

/** A new page has nothing of the old one's. */
export function forget() {
  asOf = 0;
  state = { kind: "connecting" };
  draw();
}

function sign() {
  switch (state.kind) {
    case "live":
      return ["live", "Live", `as of ${clock(asOf)}`];
    case "ended":
      return ["live", "Up to date", `as of ${clock(asOf)}`];
    case "connecting":
      return ["busy", "Connecting", ""];
    case "paused":
      return ["busy", "Paused", "while hidden"];
    case "away":
      return ["bad", "Database away", asOf ? `data of ${clock(asOf)}` : ""];
    case "refused":
      return ["bad", "Refused", ""];
    default:
      return ["bad", "Connection lost", asOf ? `data of ${clock(asOf)}` : ""];
  }
}

function banner() {
  const from = asOf ? ` What you see is from ${clock(asOf)}, ${ago(asOf)}.` : " Nothing has been read yet.";
  if (state.kind === "lost") {
    const left = Math.max(0, Math.ceil((state.retryAt - Date.now()) / 1000));
    return [
      h("strong", null, "Connection lost: "),
      `${state.reason}.${from} `,
      h("span", { class: "retry" }, left > 0 ? `Trying again in ${left} s.` : "Trying again …"),
      " ",
      h("button", { type: "button", class: "small", onclick: () => tryNow() }, "Try now"),
    ];
  }
  if (state.kind === "away") {
    return [
      h("strong", null, "The database does not answer: "),
      `models are live, jobs are not.${from} The server tries again by itself.`,
    ];
  }
  if (state.kind === "paused") return [`Updates were paused while this page was hidden.${from}`];
  return null;
}

function draw() {
  const [kind, word, detail] = sign();
  render(
    document.getElementById("contact"),
    h("span", { class: `dot ${kind}`, "aria-hidden": "true" }),
    h("span", { class: "word" }, word),
    detail ? h("span", { class: "detail" }, detail) : null,
  );
  const text = banner();
  const box = document.getElementById("banner");
  box.hidden = text === null;
  render(box, text);
  document.documentElement.classList.toggle("stale", text !== null);
  // once for each change, not for every second that counts down
  if (state.kind !== wasTold) {
    if (state.kind === "lost") announce(`Connection lost. Data is from ${asOf ? clock(asOf) : "nowhere"}.`, true);
    if (state.kind === "away") announce("The database does not answer. Jobs shown may be old.", true);
    if (state.kind === "live" && (wasTold === "lost" || wasTold === "away")) announce("Connected again. Data is live.");
    if (state.kind !== "connecting") wasTold = state.kind;
  }
}

setInterval(() => {
  if (!document.hidden) draw();
}, 1000);
