// One job, live: how far, how fast, why it waits, what failed, what came out.

import { announce } from "./announce.js";
import { ask } from "./api.js";
import { forget, heard, isFresh, show } from "./contact.js";
import { dataModel, hasDataModel } from "./data_model.js";
import { h, render } from "./dom.js";
import { errorGroups } from "./errors.js";
import { shortId } from "./format.js";
import { isFinal } from "./job_actions.js";
import { crumbs, jobHead, waiting } from "./job_head.js";
import { jobProgress, jobSpeed } from "./job_progress.js";
import { inWords } from "./progress.js";
import { results } from "./results.js";
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
      render(
        top,
        crumbs(id),
        h("h1", { key: "h" }, "No such job"),
        h("p", { key: "p", class: "trouble" }, problem),
        h("p", { key: "back" }, h("a", { href: "/" }, "All jobs")),
      );
    } else if (!job) {
      render(top, crumbs(id), h("h1", { key: "h" }, "Job"), h("p", { key: "p", class: "muted" }, "Reading …"));
    } else {
      const again = () => {
        stream.again();
        readMore();
      };
      render(
        top,
        crumbs(id),
        jobHead(job, isFresh(), again),
        waiting(job, isFresh()),
        h("div", { key: "grid", class: "grid" }, jobProgress(job), jobSpeed(job, history)),
        errorGroups(job, errors, isFresh(), again),
      );
    }
  }

  /** What the stream does not carry. */
  async function readMore() {
    const began = Date.now();
    nextRead = Infinity;
    // groups change with the number of failures, and with the stage that can be tried again
    const mark = job
      ? JSON.stringify([job.counts.failed, job.state, job.retried_at, job.stages.map((one) => one.begun)])
      : "";
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
