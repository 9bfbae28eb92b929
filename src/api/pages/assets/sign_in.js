// Asks for an API key where the server wants one, and lets go of it.

import { save } from "./api.js";
import { announce } from "./announce.js";
import { drop, held, keep } from "./key.js";
import { refused } from "./notice.js";

const form = document.getElementById("sign-in");
const field = document.getElementById("key");
const out = document.getElementById("sign-out");
let tryNow = () => {};

/** What the stream says of itself, see stream.js; `retry` connects again. */
export function look(state, retry) {
  tryNow = retry;
  const isWanted = state.kind === "refused" && (state.status === 401 || state.status === 403);
  if (isWanted) {
    const reason = held() ? `The key was refused: ${state.reason}.` : "This service needs an API key.";
    document.getElementById("sign-in-reason").textContent = reason;
    if (form.hidden) announce(reason, true);
  }
  if (isWanted || state.kind === "live" || state.kind === "ended") form.hidden = !isWanted;
  out.hidden = !held();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  // a header takes nothing else
  const key = field.value.trim().replace(/[^\x21-\x7e]/g, "");
  field.value = "";
  if (!key) return;
  keep(key);
  tryNow();
});

out.addEventListener("click", () => {
  drop();
  location.reload();
});

// a link cannot send a header
const metrics = document.querySelector("nav a[href='/metrics']");
metrics.addEventListener("click", (event) => {
  if (!held()) return;
  event.preventDefault();
  save("/metrics", "metrics.txt").catch((error) => refused("Metrics were not read", error));
});
