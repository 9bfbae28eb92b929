// The table of jobs, newest first, with its filters.

import { h } from "./dom.js";
import { ago, count, duration, rate, shortId, span, words } from "./format.js";
import { canRetry, cancelJob, isFinal, retryJob } from "./job_actions.js";
import { pill } from "./pill.js";
import { ended, progressBar } from "./progress.js";
import { go, jobPath, link } from "./route.js";
import { table } from "./section.js";

export const STATES = ["queued", "running", "completed", "cancelled", "failed"];
const TASKS = ["data_model", "concept", "relationship", "attribute", "custom", "chat"];

const HEAD = [
  ["Job"],
  ["Task"],
  ["State"],
  ["Progress"],
  ["Failed", "number"],
  ["Items/s", "number"],
  ["Left", "number"],
  ["Waits for"],
  ["Made"],
  [""],
];

/** The filters; each change is a new address. */
export function filters(query, models) {
  const set = (name) => (event) => go(link("/", { ...query, after: "", [name]: event.target.value }));
  const choice = (name, label, values) =>
    h(
      "label",
      { key: name },
      label,
      h(
        "select",
        { name, value: query[name] || "", onchange: set(name) },
        h("option", { key: "", value: "" }, "any"),
        values.map((value) => h("option", { key: value, value }, words(value))),
      ),
    );
  // one that an old link names stays visible although no such model is configured now
  const names = [...new Set([...models.map((model) => model.id), ...(query.model ? [query.model] : [])])];
  const isFiltered = query.state || query.task || query.model;
  return h(
    "form",
    { class: "filters", role: "search", "aria-label": "Filter jobs", onsubmit: (event) => event.preventDefault() },
    choice("state", "State", STATES),
    choice("task", "Task", TASKS),
    choice("model", "Model", names),
    isFiltered ? h("a", { key: "all", href: "/" }, "Show all") : null,
  );
}

export function jobTable(page, query, isFresh) {
  if (page.jobs.length === 0) return nothing(query);
  const about = { name: "Jobs", caption: "Jobs, newest first", kind: "jobs", head: HEAD };
  return [
    table(
      about,
      page.jobs.map((job) => row(job, isFresh)),
    ),
    h(
      "nav",
      { key: "pages", class: "pages", "aria-label": "Pages of jobs" },
      query.after ? h("a", { href: link("/", { ...query, after: "" }) }, "← Newest") : null,
      page.next ? h("a", { href: link("/", { ...query, after: page.next }) }, "Older →") : null,
    ),
  ];
}

function row(job, isFresh) {
  const counts = job.counts;
  const speed = job.throughput;
  return h(
    "tr",
    { key: job.id, "data-job": job.id },
    h("th", { scope: "row" }, h("a", { href: jobPath(job.id), class: "id", title: job.id }, shortId(job.id))),
    h("td", null, words(job.task)),
    h("td", null, pill(job.state)),
    h(
      "td",
      { class: "progress" },
      progressBar(counts),
      h("span", { class: "figure" }, `${count(ended(counts))} / ${count(counts.total)}`),
      stage(job),
    ),
    h(
      "td",
      { class: `number ${counts.failed > 0 ? "bad" : ""}` },
      counts.failed > 0 ? h("a", { href: link(jobPath(job.id), { outcome: "failed" }) }, count(counts.failed)) : "0",
    ),
    h("td", { class: "number" }, speed ? rate(speed.items_per_s) : "–"),
    left(job),
    h(
      "td",
      { class: "waits" },
      job.error
        ? h("span", { class: "bad" }, `${job.error.code}: ${job.error.message}`)
        : job.waiting_for.map((wait) =>
            h("span", { key: wait.model, class: wait.reason === "queued" ? "muted" : "warn" }, wait.detail),
          ),
    ),
    h("td", { class: "muted when", title: job.created_at }, ago(job.created_at)),
    h(
      "td",
      { class: "actions" },
      isFinal(job)
        ? null
        : h(
            "button",
            {
              key: "cancel",
              type: "button",
              class: "small",
              disabled: !isFresh,
              "aria-label": `Cancel job ${shortId(job.id)}`,
              onclick: () => cancelJob(job),
            },
            "Cancel",
          ),
      canRetry(job)
        ? h(
            "button",
            {
              key: "retry",
              type: "button",
              class: "small",
              disabled: !isFresh,
              "aria-label": `Retry failed items of job ${shortId(job.id)}`,
              onclick: () => retryJob(job),
            },
            "Retry",
          )
        : null,
    ),
  );
}

/** The time left; between which bounds, and on what it rests, as its title. */
function left(job) {
  const eta = job.eta;
  if (isFinal(job) || !eta) return h("td", { class: "number" }, "–");
  if (eta.seconds === undefined) return h("td", { class: "number", title: (eta.unknown || []).join("\n") }, "?");
  const title = [span(eta.low_s, eta.high_s), ...(eta.basis || [])].join("\n");
  return h("td", { class: "number", title }, duration(eta.seconds));
}

/** Which of several stages a job is in. A stage may stand there once for each model. */
function stage(job) {
  const names = [...new Set(job.stages.map((part) => part.stage))];
  if (names.length < 2 || isFinal(job)) return null;
  const begun = [...new Set(job.stages.filter((part) => part.begun).map((part) => part.stage))];
  return h(
    "span",
    { class: "muted" },
    `${begun.at(-1) || names[0]}, stage ${Math.max(1, begun.length)} of ${names.length}`,
  );
}

function nothing(query) {
  const isFiltered = query.state || query.task || query.model || query.after;
  return h(
    "div",
    { key: "nothing", class: "nothing" },
    isFiltered
      ? [h("p", null, "No job matches these filters."), h("p", null, h("a", { href: "/" }, "Show all jobs"))]
      : [
          h("p", null, "No jobs yet. Submit one and watch it here:"),
          h("pre", { tabindex: "0" }, "adit submit --task data_model --from schema.sql --watch"),
          h("p", null, "or by HTTP: ", h("a", { href: "/docs" }, "the API"), "."),
        ],
  );
}
