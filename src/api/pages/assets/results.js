// The results of a job, by page, each with what was asked and what was answered.

import { ask } from "./api.js";
import { h, render } from "./dom.js";
import { clock, count, duration, percent, plural, words } from "./format.js";
import { glimpse, jsonView } from "./json_view.js";
import { pill } from "./pill.js";
import { go, jobPath, link } from "./route.js";
import { table, title } from "./section.js";

const PAGE = 25;
const HEAD = [
  ["Item"],
  ["Stage"],
  ["Outcome"],
  ["Tries", "number"],
  ["Time", "number"],
  ["Tokens", "number"],
  ["Sure", "number"],
  ["Answer"],
];
/** Lines below which a result may be wanted for review. */
const BELOW = ["0.3", "0.5", "0.7", "0.9"];
const OUTCOMES = ["succeeded", "failed", "cancelled", "expired"];
/** A page of a running job is read again no more often than this. */
const EVERY_MS = 1500;

/** Lives in `parent`. `look(job, query)` reads the page again if something ended since. */
export function results(parent, id) {
  let page = null;
  let job = null;
  let query = {};
  let seen = "";
  let timer = 0;
  let readAt = 0;
  let abort = null;
  let trouble = "";
  /** Items whose detail is open. */
  const open = new Set();

  async function read(mark) {
    readAt = Date.now();
    abort?.abort();
    abort = new AbortController();
    const path = link(`/v1/jobs/${id}/results`, {
      input: "true",
      limit: String(PAGE),
      outcome: query.below ? "" : query.outcome,
      below: query.below,
      after: query.after,
    });
    try {
      page = await ask(path, { signal: abort.signal, isExact: true });
      seen = mark;
      trouble = "";
    } catch (error) {
      if (error.name === "AbortError") return;
      trouble = error.message;
    }
    draw();
  }

  function draw() {
    render(
      parent,
      title("results-title", "Results", page ? inWords() : "", filter()),
      trouble ? h("p", { key: "trouble", class: "trouble" }, `The results cannot be read: ${trouble}`) : null,
      page && page.results.length === 0 ? h("p", { key: "none", class: "nothing" }, none()) : null,
      page && page.results.length > 0 ? list() : null,
      page
        ? h(
            "nav",
            { key: "pages", class: "pages", "aria-label": "Pages of results" },
            query.after ? h("a", { href: link(jobPath(id), { outcome: query.outcome, below: query.below }) }, "← First") : null,
            page.next !== undefined
              ? h("a", { href: link(jobPath(id), { outcome: query.outcome, below: query.below, after: String(page.next) }) }, "Next →")
              : null,
          )
        : null,
    );
  }

  function filter() {
    const choose = (event) => go(link(jobPath(id), { outcome: event.target.value }));
    return h(
      "form",
      { class: "filters", "aria-label": "Filter results", onsubmit: (event) => event.preventDefault() },
      h(
        "label",
        null,
        "Outcome",
        h(
          "select",
          { name: "outcome", value: query.outcome || "", onchange: choose },
          h("option", { key: "", value: "" }, "any"),
          OUTCOMES.map((one) => h("option", { key: one, value: one }, one)),
        ),
      ),
      h(
        "label",
        null,
        "Less sure than",
        h(
          "select",
          {
            name: "below",
            value: query.below || "",
            onchange: (event) => go(link(jobPath(id), { below: event.target.value })),
          },
          h("option", { key: "", value: "" }, "any"),
          BELOW.map((one) => h("option", { key: one, value: one }, percent(Number(one)))),
        ),
      ),
    );
  }

  function inWords() {
    if (page.results.length === 0) return "";
    const text = `${plural(page.results.length, "result")} on this page`;
    return page.complete ? text : `${text}; more come while the job runs`;
  }

  function none() {
    if (query.below) return `No answer is less sure than ${percent(Number(query.below))}${query.after ? " beyond this" : ""}.`;
    const verb = ["failed", "succeeded", "expired"].includes(query.outcome) ? "has" : "was";
    if (query.outcome) return `No item ${verb} ${query.outcome}${query.after ? " beyond this" : ""}.`;
    return query.after ? "There is nothing beyond this." : "No item has ended yet.";
  }

  function list() {
    const about = { name: "Results", caption: "Results by item", kind: "results", head: HEAD };
    return table(
      about,
      page.results.flatMap((result) => [row(result), open.has(result.seq) ? detail(result) : null]),
    );
  }

  function row(result) {
    const isOpen = open.has(result.seq);
    const toggle = () => {
      if (!open.delete(result.seq)) open.add(result.seq);
      draw();
    };
    return h(
      "tr",
      { key: `row ${result.seq}`, "data-seq": result.seq, class: isOpen ? "is-open" : null },
      h(
        "th",
        { scope: "row" },
        h(
          "button",
          {
            type: "button",
            class: "link",
            "aria-expanded": String(isOpen),
            "aria-controls": `detail-${result.seq}`,
            onclick: toggle,
          },
          h("span", { class: "turn", "aria-hidden": "true" }, "▸"),
          `#${result.seq}`,
        ),
      ),
      h("td", null, words(result.stage)),
      h("td", null, pill(result.outcome)),
      h("td", { class: "number" }, result.attempts || "–"),
      h(
        "td",
        { class: "number", title: result.finished_at ? `ended ${clock(result.finished_at)}` : null },
        result.attempts ? duration(result.latency_ms / 1000) : "–",
      ),
      h("td", { class: "number" }, count(result.usage.output_tokens)),
      h("td", { class: "number" }, result.confidence === undefined ? "–" : percent(result.confidence)),
      h(
        "td",
        { class: "glimpse" },
        result.error
          ? h("span", { class: "bad" }, h("code", null, result.error.code), ` ${result.error.message}`)
          : result.output === undefined
            ? "–"
            : glimpse(result.output),
      ),
    );
  }

  function detail(result) {
    const used = result.usage;
    return h(
      "tr",
      { key: `detail ${result.seq}`, id: `detail-${result.seq}`, class: "detail" },
      h(
        "td",
        { colspan: "8" },
        h(
          "div",
          { class: "two" },
          h("section", null, h("h3", null, "Asked"), jsonView(result.input ?? null)),
          h(
            "section",
            null,
            h("h3", null, "Answered"),
            result.error
              ? h("p", { class: "trouble" }, h("code", null, result.error.code), ` ${result.error.message}`)
              : null,
            result.output !== undefined ? jsonView(result.output) : null,
            result.field_confidence ? fields(result.field_confidence) : null,
          ),
        ),
        h(
          "p",
          { class: "muted" },
          `${count(used.prompt_tokens)} prompt tokens, ${count(used.prefix_hit_tokens)} of them cached; ` +
            `${count(used.output_tokens)} answered, ${count(used.forced_tokens)} of them forced by the schema` +
            `${result.finished_at ? `; ended ${clock(result.finished_at)}` : ""}`,
        ),
      ),
    );
  }

  /** How sure the model was of each value of an answer, least sure first. */
  function fields(sure) {
    const list = Object.entries(sure).sort((a, b) => a[1] - b[1]);
    return h(
      "details",
      null,
      h("summary", null, "How sure the model was"),
      h(
        "ul",
        null,
        list.map(([pointer, one]) => h("li", { key: pointer }, h("code", null, pointer || "/"), ` ${percent(one)}`)),
      ),
    );
  }

  return {
    look(next, nextQuery) {
      job = next;
      const isOther = ["outcome", "below", "after"].some((one) => nextQuery[one] !== query[one]);
      query = nextQuery;
      const mark = JSON.stringify([query.outcome, query.below, query.after, job.state, job.counts, job.retried_at]);
      if (mark === seen) return;
      if (isOther) {
        page = null;
        open.clear();
        draw();
      }
      clearTimeout(timer);
      timer = setTimeout(() => read(mark), isOther ? 0 : Math.max(0, readAt + EVERY_MS - Date.now()));
    },
    close() {
      clearTimeout(timer);
      abort?.abort();
    },
  };
}
