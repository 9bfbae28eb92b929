// The facts that somebody should look at, least sure first, and where the line is drawn.

import { h } from "./dom.js";
import { count, percent, plural } from "./format.js";

const LINES = [0.3, 0.5, 0.7, 0.9];
const MOST = 200;

/** All facts marked for review, those without a confidence first. */
function doubtful(model) {
  const of = (kind, list, name, rests) =>
    list.filter((fact) => fact.review).map((fact) => ({ kind, name: name(fact), rests: rests(fact), sure: fact.confidence }));
  return [
    ...of("concept", model.concepts, (one) => one.name, (one) => one.source_tables.join(", ")),
    ...of(
      "relationship",
      model.relationships,
      (one) => `${one.from} ${one.name} ${one.to}`,
      (one) => [one.from_table, ...one.from_columns].join("."),
    ),
    ...of(
      "attribute",
      model.attributes,
      (one) => `${one.concept}: ${one.name}`,
      (one) => `${one.source_table}.${one.source_column}`,
    ),
  ].sort((a, b) => (a.sure ?? -1) - (b.sure ?? -1));
}

/** `choose(line)` is told of another line. */
export function review(model, choose) {
  const facts = doubtful(model);
  const { below } = model.review;
  const lines = LINES.includes(below) ? LINES : [...LINES, below].sort((a, b) => a - b);
  return h(
    "details",
    { key: "review", class: "review-list" },
    h("summary", null, `${plural(facts.length, "fact")} for review`),
    h(
      "label",
      null,
      "Less sure than ",
      h(
        "select",
        { name: "review_below", value: String(below), onchange: (event) => choose(Number(event.target.value)) },
        lines.map((line) => h("option", { key: line, value: String(line) }, percent(line))),
      ),
    ),
    h(
      "ol",
      null,
      facts
        .slice(0, MOST)
        .map((fact, at) =>
          h(
            "li",
            { key: at },
            h("span", { class: "sure" }, fact.sure === null ? "not judged" : percent(fact.sure)),
            ` ${fact.kind} `,
            h("strong", null, fact.name),
            " of ",
            h("code", null, fact.rests),
          ),
        ),
    ),
    facts.length > MOST ? h("p", { class: "muted" }, `and ${count(facts.length - MOST)} more, in the JSON export`) : null,
  );
}
