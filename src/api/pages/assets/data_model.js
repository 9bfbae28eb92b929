// The extracted data model of a schema job: the diagram, the same in words, how much is covered, the exports.

import { ask } from "./api.js";
import { diagram } from "./diagram.js";
import { h, render } from "./dom.js";
import { erGraph, relationshipInWords, sizeInWords } from "./er_graph.js";
import { count, plural, words } from "./format.js";
import { review } from "./review.js";
import { link } from "./route.js";
import { title } from "./section.js";

const FORMATS = [
  ["json", "JSON"],
  ["mermaid", "Mermaid"],
  ["turtle", "OWL (Turtle)"],
  ["r2rml", "R2RML"],
  ["shacl", "SHACL"],
  ["csv", "CSV"],
  ["dbt", "dbt"],
  ["dot", "GraphViz"],
];
const SCHEMA_TASKS = ["concept", "relationship", "attribute", "data_model"];
/** While the job runs, the export is read again no more often than this, and a large one less often than it takes. */
const EVERY_MS = 4000;
const TIMES = 4;

function coverageInWords(coverage) {
  const of = (part, whole, name) => `${count(part)} of ${plural(whole, name)}`;
  return [
    of(coverage.tables_covered, coverage.tables, "table"),
    of(coverage.columns_covered, coverage.columns, "column"),
    of(coverage.keys_covered, coverage.keys, "key"),
  ].join(", ");
}

export const hasDataModel = (job) => SCHEMA_TASKS.includes(job.task);

/** Lives in `parent`. `look(job)` reads the export again if something ended since. */
export function dataModel(parent, id) {
  let text = "";
  let seen = "";
  let picture = null;
  let timer = 0;
  let nextRead = 0;
  let abort = null;
  /** Where the reader draws the line for review; empty: where the job does. */
  let line = "";

  async function read(mark, name) {
    const began = Date.now();
    abort?.abort();
    abort = new AbortController();
    let model;
    try {
      model = await ask(link(`/v1/jobs/${id}/export`, { format: "json", review_below: line }), { signal: abort.signal });
    } catch (error) {
      // seen is left as it is: the next look reads again
      if (error.name !== "AbortError")
        render(
          parent,
          title("model-title", "Data model"),
          h("p", { class: "trouble" }, `The data model cannot be read: ${error.message}`),
        );
      picture = null;
      return;
    } finally {
      nextRead = Date.now() + Math.max(EVERY_MS, TIMES * (Date.now() - began));
    }
    seen = mark;
    const next = JSON.stringify(model);
    if (next === text && picture) return;
    text = next;
    show(model, name);
  }

  function show(model, name) {
    const graph = erGraph(model);
    const formats = FORMATS.map(([format, label]) =>
      h(
        "a",
        { key: format, href: link(`/v1/jobs/${id}/export`, { format, review_below: line }), download: "" },
        label,
      ),
    );
    render(
      parent,
      title(
        "model-title",
        "Data model",
        `${sizeInWords(graph)} · covers ${coverageInWords(model.coverage)}`,
        h("nav", { class: "exports", "aria-label": "Exports" }, formats),
      ),
      graph.entities.length === 0 ? h("p", { key: "none", class: "nothing" }, "No table has been answered yet.") : null,
      graph.entities.length > 0 ? h("div", { key: "picture", class: "picture" }) : null,
      graph.entities.length > 0 ? review(model, (below) => redraw(below, name)) : null,
      graph.entities.length > 0 ? inWords(graph) : null,
      model.uncovered.length > 0 ? uncovered(model.uncovered) : null,
    );
    const place = parent.querySelector(".picture");
    if (!place) {
      picture = null;
      return;
    }
    if (!picture || place.childElementCount === 0) picture = diagram(place);
    picture.show(graph, name);
  }

  function redraw(below, name) {
    line = String(below);
    read(seen, name);
  }

  function inWords(graph) {
    return h(
      "details",
      { key: "words", class: "in-words" },
      h("summary", null, "The diagram in words"),
      h(
        "ul",
        null,
        graph.entities.map((entity, at) =>
          h(
            "li",
            { key: at },
            h("button", { type: "button", class: "link", onclick: () => picture.find(at) }, entity.name),
            h("span", { class: "muted" }, ` ${entity.kind} of ${entity.tables.join(", ")}. `),
            entity.description,
            entity.attributes.length > 0
              ? h("span", { class: "muted" }, ` Attributes: ${entity.attributes.map((one) => one.name).join(", ")}.`)
              : null,
            h(
              "ul",
              null,
              graph.relationships.map((key, index) =>
                key.from === at
                  ? h("li", { key: index }, h("em", null, key.name), `: ${relationshipInWords(graph, key)}`)
                  : null,
              ),
            ),
          ),
        ),
      ),
    );
  }

  function uncovered(list) {
    return h(
      "details",
      { key: "uncovered", class: "uncovered" },
      h("summary", null, `${plural(list.length, "part")} of the schema not covered`),
      h(
        "ul",
        null,
        list
          .slice(0, 200)
          .map((part, at) =>
            h(
              "li",
              { key: at },
              `${part.what} `,
              h("code", null, [part.table, ...(part.columns || [])].join(".")),
              `: ${words(part.reason)}`,
              part.code ? h("code", null, ` ${part.code}`) : null,
            ),
          ),
      ),
      list.length > 200 ? h("p", { class: "muted" }, `and ${count(list.length - 200)} more, in the JSON export`) : null,
    );
  }

  return {
    look(job) {
      const mark = `${job.state} ${job.counts.succeeded} ${job.counts.failed} ${job.counts.total}`;
      if (mark === seen) return;
      clearTimeout(timer);
      timer = setTimeout(() => read(mark, `adit-${job.id}`), Math.max(0, nextRead - Date.now()));
    },
    close() {
      clearTimeout(timer);
      abort?.abort();
    },
  };
}
