// How far a job has come: its items by what became of them.

import { bar } from "./bar.js";
import { count } from "./format.js";

const KINDS = ["succeeded", "failed", "expired", "cancelled", "running", "waiting"];

export const ended = (counts) => counts.succeeded + counts.failed + counts.cancelled + counts.expired;

/** The parts that are not empty, for a bar and its legend. */
export function parts(counts) {
  return KINDS.filter((kind) => counts[kind] > 0).map((kind) => ({
    kind,
    value: counts[kind],
    label: `${count(counts[kind])} ${kind}`,
  }));
}

export function inWords(counts) {
  return [
    `${count(ended(counts))} of ${count(counts.total)} items ended`,
    ...parts(counts).map((part) => part.label),
  ].join(", ");
}

export function progressBar(counts, extra = "") {
  return bar(
    parts(counts).filter((part) => part.kind !== "waiting"),
    counts.total,
    inWords(counts),
    extra,
  );
}
