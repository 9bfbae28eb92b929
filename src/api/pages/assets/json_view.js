// JSON as a person reads it: indented, keys and kinds of values told apart. Text only.

import { h } from "./dom.js";

/** Characters that are shown before one asks for the rest. */
const MOST = 20000;

export function jsonView(value) {
  const text = JSON.stringify(value, null, 2);
  const shown = text.length > MOST ? `${text.slice(0, MOST)}\n…` : text;
  return h(
    "pre",
    { class: "json", tabindex: "0" },
    tokens(shown),
    text.length > MOST
      ? h("span", { class: "muted" }, `\n${text.length - MOST} characters more: read them by the API`)
      : null,
  );
}

/** Strings (those that a colon follows are keys), literals, and what is between. */
function tokens(text) {
  const parts = [];
  let from = 0;
  for (const match of text.matchAll(
    /("(?:[^"\\]|\\.)*")(\s*:)?|\b(?:true|false|null)\b|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g,
  )) {
    if (match.index > from) parts.push(text.slice(from, match.index));
    const kind = match[2] ? "key" : match[1] ? "string" : "literal";
    parts.push(h("span", { class: `json-${kind}` }, match[1] || match[0]), match[2] || null);
    from = match.index + match[0].length;
  }
  parts.push(text.slice(from));
  return parts;
}

/** The beginning of a value, in one line. */
export function glimpse(value, most = 140) {
  const text = typeof value === "string" ? value : JSON.stringify(value);
  const line = text.slice(0, most * 2).replace(/\s+/g, " ");
  return line.length > most ? `${line.slice(0, most)}…` : line;
}
