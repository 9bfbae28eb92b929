// Requests to the server that the page came from.

import { download } from "./er_save.js";
import { withKey } from "./key.js";

/** What the server refused, with its problem document where it sent one. */
export class Refusal extends Error {
  constructor(status, problem) {
    super(problem?.detail || `the server answered ${status}`);
    this.status = status;
    this.problem = problem;
    this.code = problem?.code;
  }
}

/**
 * A number as it was written, where JavaScript's own would be another one and the browser can keep the text: only for
 * what is shown and not reckoned with.
 */
function exact(_, value, context) {
  const isOther = typeof value === "number" && context?.source !== undefined && String(value) !== context.source;
  return isOther && JSON.rawJSON ? JSON.rawJSON(context.source) : value;
}

export async function ask(path, { method = "GET", signal, isExact = false } = {}) {
  let response;
  try {
    const headers = withKey({ accept: "application/json" });
    response = await fetch(path, { method, signal, cache: "no-store", headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, { detail: "The server cannot be reached; nothing was changed." });
  }
  const text = await response.text();
  let body = null;
  try {
    body = text ? JSON.parse(text, isExact ? exact : undefined) : null;
  } catch {
    // not ours: a proxy's page, perhaps
  }
  if (!response.ok) throw new Refusal(response.status, body);
  return body;
}

/** Saves what a link would, for which no header can be sent. */
export async function save(path, name) {
  const response = await fetch(path, { cache: "no-store", headers: withKey({}) });
  const text = await response.text();
  if (!response.ok) throw new Refusal(response.status, null);
  download(text, name, response.headers.get("content-type") || "text/plain");
}

export const post = (path) => ask(path, { method: "POST" });
export const remove = (path) => ask(path, { method: "DELETE" });
