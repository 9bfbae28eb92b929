// One job, live: how far, how fast, why it waits, what failed, what came out.

import { announce } from "./announce.js";
import { ask } from "./api.js";
import { forget, heard, isFresh, show } from "./contact.js";
import { dataModel, hasDataModel } from "./data_model.js";
import { h, render } from "./dom.js";
import { errorGroups } from "./errors.js";
import { count, duration, moment, percent, plural, rate, shortId, words } from "./format.js";
import { canRetry, cancelJob, deleteJob, isFinal, retryJob } from "./job_actions.js";
import { legend } from "./bar.js";
import { loadModel } from "./model_actions.js";
import { pill } from "./pill.js";
import { ended, inWords, parts, progressBar } from "./progress.js";
import { results } from "./results.js";
import { go, link } from "./route.js";
import { sparklines } from "./sparkline.js";
import { follow } from "./stream.js";

/** Throughput and errors are read again no more often than this, and large ones less often than they take to read. */
const EVERY_MS = 2000;
const TIMES = 4;

export function openJob(main, id, firstQuery) {
  let query = firstQuery;
  let job = null;
  let history = null;
  let errors = [];
  let errorsOf = "";
  let problem = null;
  let stream = null;
  let timer = 0;
  let nextRead = 0;
  const path = `/v1/jobs/${encodeURIComponent(id)}`;
  document.title = `Job ${shortId(id)} · adit`;

  // parts that read for themselves, in places of their own
  const top = document.createElement("div");
  const modelPlace = section("data-model", "model-title");
  const resultsPlace = section("results-view", "results-title");
  main.append(top, modelPlace, resultsPlace);
  const model = dataModel(modelPlace, id);
  const list = results(resultsPlace, id);

  function draw() {
    modelPlace.hidden = !job || !hasDataModel(job);
    resultsPlace.hidden = !job;
    if (problem) {
      render(top, crumbs(), h("h1", { key: "h" }, "No such job"), h("p", { key: "p", class: "trouble" }, problem), h("p", { key: "back" }, h("a", { href: "/" }, "All jobs")));
      return;
    }
    if (!job) {
      render(top, crumbs(), h("h1", { key: "h" }, "Job"), h("p", { key: "p", class: "muted" }, "Reading …"));
      return;
    }
    render(top, crumbs(), head(), waiting(), h("div", { key: "grid", class: "grid" }, progress(), speed()), errorGroups(job, errors, isFresh(), () => { stream.again(); readMore(); }));
  }

  const crumbs = () => h("nav", { key: "crumbs", class: "crumbs", "aria-label": "Breadcrumb" }, h("a", { href: "/" }, "Jobs"), " / ", h("span", { class: "id" }, shortId(id)));

  function head() {
    const facts = [`made ${moment(job.created_at)}`];
    if (job.started_at) facts.push(`begun ${moment(job.started_at)}`);
    if (job.finished_at) facts.push(`ended ${moment(job.finished_at)}`);
    if (job.expires_at) facts.push(`expires ${moment(job.expires_at)}`);
    if (job.retried_at) facts.push(`failed items sent back ${moment(job.retried_at)}`);
    const act = (name, text, kind, action) => h("button", { key: name, type: "button", class: kind, disabled: !isFresh(), onclick: action }, text);
    return h("header", { key: "head", class: "job-head" },
      h("div", null, h("h1", null, words(job.task), " ", h("span", { class: "id", title: job.id }, shortId(job.id))), pill(job.state)),
      h("div", { class: "actions" },
        isFinal(job) ? null : act("cancel", "Cancel", "", () => cancelJob(job)),
        canRetry(job) ? act("retry", "Retry all failed", "", async () => { if (await retryJob(job)) stream.again(); }) : null,
        isFinal(job) ? act("delete", "Delete", "danger-quiet", async () => { if (await deleteJob(job)) go("/"); }) : null),
      h("p", { class: "muted facts" }, facts.join(" · "), ` · ${job.class}`, job.weight === 100 ? "" : ` · share ${job.weight} %`, " · ",
        h("span", null, job.models.map((name, at) => [at > 0 ? ", " : "", h("a", { key: name, href: link("/", { model: name }) }, name)]))),
      job.error ? h("p", { class: "trouble" }, h("code", null, job.error.code), ` ${job.error.message}`) : null);
  }

  function waiting() {
    if (job.waiting_for.length === 0 || isFinal(job)) return null;
    const isCalm = job.waiting_for.every((wait) => wait.reason === "queued");
    return h("section", { key: "waiting", class: `why${isCalm ? " calm" : ""}`, "aria-labelledby": "waiting-title" },
      h("h2", { id: "waiting-title" }, "Why is it waiting?"),
      h("ul", null, job.waiting_for.map((wait) => h("li", { key: wait.model, class: wait.reason === "queued" ? "" : "warn", "data-reason": wait.reason },
        h("strong", null, plural(wait.items, "item")), ` ${wait.items === 1 ? "waits" : "wait"} for `, h("a", { href: link("/", { model: wait.model }) }, wait.model), ` (${words(wait.model_state)}): `, wait.detail,
        ["model_not_loaded", "model_error"].includes(wait.reason)
          ? [" ", h("button", { type: "button", class: "small", disabled: !isFresh(), onclick: () => loadModel(wait.model) }, `Load ${wait.model}`)] : null))));
  }

  function progress() {
    const counts = job.counts;
    const share = counts.total > 0 ? ended(counts) / counts.total : 0;
    const several = job.stages.length > 1;
    return h("section", { key: "progress", "aria-labelledby": "progress-title" },
      h("div", { class: "title" }, h("h2", { id: "progress-title" }, "Progress"), h("p", { class: "muted" }, `${count(ended(counts))} of ${plural(counts.total, "item")}`)),
      h("p", { class: "big" }, h("span", { "data-progress": ended(counts) }, percent(share)), h("span", { class: "eta" }, eta())),
      progressBar(counts, "tall"), legend(parts(counts)),
      several ? h("ol", { class: "job-stages" }, job.stages.map((stage, at) => h("li", { key: `${stage.stage} ${stage.model} ${at}`, class: stage.begun ? "" : "ahead" },
        h("span", null, words(stage.stage), h("span", { class: "muted" }, ` by ${stage.model}`)),
        stage.begun ? progressBar(stage.counts) : h("span", { class: "muted" }, "after the stage before"),
        h("span", { class: "figure", title: inWords(stage.counts) }, stage.begun ? `${count(ended(stage.counts))} / ${count(stage.counts.total)}` : "")))) : null);
  }

  function eta() {
    const left = job.throughput?.eta_s;
    if (isFinal(job)) {
      if (!job.finished_at || !job.started_at) return job.state;
      return `${job.state} in ${duration((new Date(job.finished_at) - new Date(job.started_at)) / 1000)}`;
    }
    if (left === undefined) return job.state === "queued" ? "not begun" : "no end can be told yet";
    return job.stages.some((stage) => !stage.begun) ? `${duration(left)} left in this stage` : `${duration(left)} left`;
  }

  function speed() {
    const now = job.throughput;
    const used = job.usage;
    const share = (part, whole) => (whole > 0 ? ` (${percent(part / whole)})` : "");
    return h("section", { key: "speed", "aria-labelledby": "speed-title" },
      h("div", { class: "title" }, h("h2", { id: "speed-title" }, "Throughput"),
        now ? h("p", { class: "muted" }, `${rate(now.items_per_s)} items/s · ${rate(now.prompt_tokens_per_s)} + ${rate(now.output_tokens_per_s)} tokens/s`) : null),
      sparklines(history, isFinal(job)),
      h("p", { class: "muted" }, `${count(used.prompt_tokens)} prompt tokens, ${count(used.prefix_hit_tokens)} cached${share(used.prefix_hit_tokens, used.prompt_tokens)}`
        + ` · ${count(used.output_tokens)} answered, ${count(used.forced_tokens)} forced${share(used.forced_tokens, used.output_tokens)}`));
  }

  /** What the stream does not carry. */
  async function readMore() {
    const began = Date.now();
    nextRead = Infinity;
    // groups change with the number of failures, and with the stage that can be tried again
    const mark = job ? `${job.counts.failed} ${job.state} ${job.retried_at} ${job.stages.filter((stage) => stage.begun).length}` : "";
    const none = { errors: [] };
    const [speeds, groups] = await Promise.allSettled([
      ask(`${path}/throughput?intervals=80`),
      !job || job.counts.failed === 0 ? none : mark === errorsOf ? { errors } : ask(`${path}/errors`),
    ]);
    if (speeds.status === "fulfilled") history = speeds.value;
    if (groups.status === "fulfilled") [errors, errorsOf] = [groups.value.errors, mark];
    nextRead = Date.now() + Math.max(EVERY_MS, TIMES * (Date.now() - began));
    draw();
  }

  function readMoreSoon() {
    clearTimeout(timer);
    // what is being read may be old already: then it is read once more
    if (nextRead === Infinity) timer = setTimeout(readMoreSoon, EVERY_MS);
    else timer = setTimeout(readMore, Math.max(0, nextRead - Date.now()));
  }

  function onEvent(name, data) {
    heard();
    if (name === "gone") {
      job = null;
      problem = "The job was deleted.";
      announce(problem);
      stream.close();
    } else {
      if (job && job.state !== data.state) announce(`Job ${shortId(id)} is ${data.state}, ${inWords(data.counts)}`);
      job = data;
      problem = null;
      readMoreSoon();
      list.look(job, query);
      if (hasDataModel(job)) model.look(job);
    }
    draw();
  }

  function section(name, label) {
    const node = document.createElement("section");
    node.className = name;
    node.setAttribute("aria-labelledby", label);
    return node;
  }

  draw();
  stream = follow(`${path}/events`, {
    onEvent,
    onBeat: heard,
    isLast: (name) => name === "end" || name === "gone",
    onState(next) {
      if (next.kind === "refused") problem = next.reason;
      show(next, () => stream.again());
      draw();
    },
  });
  const clock = setInterval(() => {
    if (document.hidden || !job || isFinal(job)) return;
    // the chart goes on although nothing ends
    if (isFresh() && job.state === "running") readMoreSoon();
    draw();
  }, 5000);
  return {
    change(next) {
      query = next;
      if (job) list.look(job, query);
    },
    close() {
      clearInterval(clock);
      clearTimeout(timer);
      stream.close();
      model.close();
      list.close();
      forget();
    },
  };
}
