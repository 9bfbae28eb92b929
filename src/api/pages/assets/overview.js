// The first view: models and jobs, live.

import { announce } from "./announce.js";
import { heard, isFresh, show } from "./contact.js";
import { h, render } from "./dom.js";
import { plural, shortId, words } from "./format.js";
import { filters, jobTable } from "./job_table.js";
import { deviceMemory } from "./memory.js";
import { modelCard, stateOf, summary } from "./model_card.js";
import { link } from "./route.js";
import { title } from "./section.js";
import { follow } from "./stream.js";

/** Jobs of a page. */
const PAGE = "30";

export function openOverview(main, firstQuery) {
  let query = firstQuery;
  let models = null;
  let jobs = null;
  let stream = null;
  let refusal = null;
  document.title = "adit";

  function draw() {
    render(
      main,
      h("h1", { key: "title", class: "unseen" }, "Models and jobs"),
      h(
        "section",
        { key: "models", "aria-labelledby": "models-title" },
        title("models-title", "Models", models ? summary(models.data) : ""),
        models ? deviceMemory(models) : h("p", { class: "muted" }, "Reading …"),
        models
          ? h(
              "div",
              { class: "cards" },
              models.data.map((model) => modelCard(model, isFresh(), draw)),
            )
          : null,
        models && models.data.length === 0
          ? h("p", { class: "nothing" }, "No model is configured: adit doctor says how.")
          : null,
      ),
      h(
        "section",
        { key: "jobs", "aria-labelledby": "jobs-title" },
        title("jobs-title", "Jobs", jobs ? jobsInWords() : "", filters(query, models?.data || [])),
        refusal
          ? h("p", { key: "refusal", class: "trouble" }, refusal, " ", h("a", { href: "/" }, "Show all jobs"))
          : null,
        jobs
          ? jobTable(jobs, query, isFresh())
          : refusal
            ? null
            : h("p", { key: "reading", class: "muted" }, "Reading …"),
      ),
    );
  }

  function jobsInWords() {
    const open = jobs.jobs.filter((job) => ["queued", "running"].includes(job.state)).length;
    return `${plural(jobs.jobs.length, "job")} shown${open > 0 ? `, ${open} open` : ""}`;
  }

  function onEvent(name, data) {
    if (name === "models") {
      tellModels(data);
      models = data;
    } else if (name === "jobs") {
      tellJobs(data);
      jobs = data;
    }
    heard();
    draw();
  }

  function tellModels(next) {
    for (const model of next.data) {
      const old = models?.data.find((other) => other.id === model.id);
      if (old && stateOf(old) !== stateOf(model)) announce(`Model ${model.id} is ${words(stateOf(model))}`);
    }
  }

  function tellJobs(next) {
    for (const job of next.jobs) {
      const old = jobs?.jobs.find((other) => other.id === job.id);
      if (old && old.state !== job.state) announce(`Job ${shortId(job.id)} is ${job.state}`);
    }
  }

  function open() {
    stream?.close();
    const { state, task, model, after } = query;
    stream = follow(link("/v1/events", { state, task, model, after, limit: PAGE }), {
      onEvent,
      onBeat: heard,
      endsAway: (name) => name === "jobs",
      onState(next) {
        refusal = next.kind === "refused" ? next.reason : null;
        show(next, () => stream.again());
        draw();
      },
    });
  }

  draw();
  open();
  // ages grow although nothing happens
  const clock = setInterval(() => {
    if (!document.hidden) draw();
  }, 5000);
  return {
    change(next) {
      query = next;
      jobs = null;
      draw();
      open();
    },
    close() {
      clearInterval(clock);
      stream.close();
    },
  };
}
