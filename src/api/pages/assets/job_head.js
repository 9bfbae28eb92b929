// The head of a job's page: what it is, what can be done to it, and why it waits.

import { h } from "./dom.js";
import { moment, plural, shortId, words } from "./format.js";
import { canRetry, cancelJob, deleteJob, isFinal, retryJob } from "./job_actions.js";
import { loadModel } from "./model_actions.js";
import { pill } from "./pill.js";
import { go, link } from "./route.js";

const modelLink = (name) => h("a", { href: link("/", { model: name }) }, name);

export function crumbs(id) {
  return h(
    "nav",
    { key: "crumbs", class: "crumbs", "aria-label": "Breadcrumb" },
    h("a", { href: "/" }, "Jobs"),
    " / ",
    h("span", { class: "id" }, shortId(id)),
  );
}

/** `again` is called when the job has begun anew. */
export function jobHead(job, isFresh, again) {
  const retry = async () => {
    if (await retryJob(job)) again();
  };
  const remove = async () => {
    if (await deleteJob(job)) go("/");
  };
  const act = (name, look, action) =>
    h("button", { key: name, type: "button", class: look, disabled: !isFresh, onclick: action }, name);
  return h(
    "header",
    { key: "head", class: "job-head" },
    h(
      "div",
      null,
      h("h1", null, words(job.task), " ", h("span", { class: "id", title: job.id }, shortId(job.id))),
      pill(job.state),
    ),
    h(
      "div",
      { class: "actions" },
      isFinal(job) ? null : act("Cancel", "", () => cancelJob(job)),
      canRetry(job) ? act("Retry all failed", "", retry) : null,
      isFinal(job) ? act("Delete", "danger-quiet", remove) : null,
    ),
    h(
      "p",
      { class: "muted facts" },
      facts(job).join(" · "),
      " · ",
      job.models.map((name, at) => [at > 0 ? ", " : "", modelLink(name)]),
    ),
    job.error ? h("p", { class: "trouble" }, h("code", null, job.error.code), ` ${job.error.message}`) : null,
  );
}

function facts(job) {
  const times = [
    ["made", job.created_at],
    ["begun", job.started_at],
    ["ended", job.finished_at],
    ["expires", job.expires_at],
    ["failed items sent back", job.retried_at],
  ];
  const known = times.filter(([, time]) => time).map(([what, time]) => `${what} ${moment(time)}`);
  const carried = job.since ? [`made from ${shortId(job.since)}, ${plural(job.carried ?? 0, "item")} carried over`] : [];
  return [...known, ...carried, job.class, ...(job.weight === 100 ? [] : [`share ${job.weight} %`])];
}

export function waiting(job, isFresh) {
  if (job.waiting_for.length === 0 || isFinal(job)) return null;
  const isCalm = job.waiting_for.every((wait) => wait.reason === "queued");
  return h(
    "section",
    { key: "waiting", class: `why${isCalm ? " calm" : ""}`, "aria-labelledby": "waiting-title" },
    h("h2", { id: "waiting-title" }, "Why is it waiting?"),
    h(
      "ul",
      null,
      job.waiting_for.map((wait) => reason(wait, isFresh)),
    ),
  );
}

function reason(wait, isFresh) {
  const canLoad = ["model_not_loaded", "model_error"].includes(wait.reason);
  const look = wait.reason === "queued" ? null : "warn";
  return h(
    "li",
    { key: wait.model, class: look, "data-reason": wait.reason },
    h("strong", null, plural(wait.items, "item")),
    ` ${wait.items === 1 ? "waits" : "wait"} for `,
    modelLink(wait.model),
    ` (${words(wait.model_state)}): ${wait.detail} `,
    canLoad
      ? h(
          "button",
          { type: "button", class: "small", disabled: !isFresh, onclick: () => loadModel(wait.model) },
          `Load ${wait.model}`,
        )
      : null,
  );
}
