// Tells a screen reader what has changed, without moving the focus.

/** Changes within this time are read together. */
const TOGETHER_MS = 700;

let waiting = [];
let timer = 0;

export function announce(text, isUrgent = false) {
  if (isUrgent) {
    document.getElementById("alerts").textContent = text;
    return;
  }
  document.getElementById("alerts").textContent = "";
  waiting.push(text);
  clearTimeout(timer);
  timer = setTimeout(() => {
    document.getElementById("changes").textContent = waiting.slice(-5).join(". ");
    waiting = [];
  }, TOGETHER_MS);
}
