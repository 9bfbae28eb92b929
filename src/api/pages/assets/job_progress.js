// How far a job has come, stage by stage, and how fast it goes.

import { legend } from "./bar.js";
import { h } from "./dom.js";
import { count, duration, percent, plural, rate, span, words } from "./format.js";
import { isFinal } from "./job_actions.js";
import { ended, inWords, parts, progressBar } from "./progress.js";
import { title } from "./section.js";
import { sparklines } from "./sparkline.js";

export function jobProgress(job) {
  const counts = job.counts;
  const share = counts.total > 0 ? ended(counts) / counts.total : 0;
  const about = `${count(ended(counts))} of ${plural(counts.total, "item")}`;
  return h(
    "section",
    { key: "progress", "aria-labelledby": "progress-title" },
    title("progress-title", "Progress", about),
    h(
      "p",
      { class: "big" },
      h("span", { "data-progress": ended(counts) }, percent(share)),
      h("span", { class: "eta" }, eta(job)),
    ),
    basis(job),
    progressBar(counts, "tall"),
    legend(parts(counts)),
    job.stages.length > 1 ? h("ol", { class: "job-stages" }, job.stages.map(stageRow)) : null,
  );
}

function stageRow(stage, at) {
  const { counts } = stage;
  return h(
    "li",
    { key: `${stage.stage} ${stage.model} ${at}`, class: stage.begun ? null : "ahead" },
    h("span", null, words(stage.stage), h("span", { class: "muted" }, ` by ${stage.model}`)),
    stage.begun ? progressBar(counts) : h("span", { class: "muted" }, "after the stage before"),
    h(
      "span",
      { class: "figure", title: inWords(counts) },
      stage.begun ? `${count(ended(counts))} / ${count(counts.total)}` : "",
    ),
  );
}

function eta(job) {
  if (isFinal(job)) {
    if (!job.finished_at || !job.started_at) return job.state;
    return `${job.state} in ${duration((new Date(job.finished_at) - new Date(job.started_at)) / 1000)}`;
  }
  const left = job.eta?.seconds;
  if (left === undefined) return job.state === "queued" ? "not begun" : "no end can be told yet";
  return `about ${duration(left)} left (${span(job.eta.low_s, job.eta.high_s)})`;
}

/** What the end rests on, or why none can be told. */
function basis(job) {
  const why = job.eta?.unknown?.length > 0;
  const lines = (why ? job.eta.unknown : job.eta?.basis) || [];
  if (isFinal(job) || lines.length === 0) return null;
  return h(
    "details",
    { key: "basis", class: "basis" },
    h("summary", null, why ? "Why no end can be told" : "What this rests on"),
    h(
      "ul",
      null,
      lines.map((line, at) => h("li", { key: at }, line)),
    ),
  );
}

/** `history` is what `GET /v1/jobs/{id}/throughput` answers. */
export function jobSpeed(job, history) {
  const now = job.throughput;
  const used = job.usage;
  const share = (part, whole) => (whole > 0 ? ` (${percent(part / whole)})` : "");
  const about = now
    ? `${rate(now.items_per_s)} items/s · ${rate(now.prompt_tokens_per_s)} + ${rate(now.output_tokens_per_s)} tokens/s`
    : "";
  const tokens = [
    `${count(used.prompt_tokens)} prompt tokens`,
    `${count(used.prefix_hit_tokens)} cached${share(used.prefix_hit_tokens, used.prompt_tokens)}`,
    `${count(used.output_tokens)} answered`,
    `${count(used.forced_tokens)} forced${share(used.forced_tokens, used.output_tokens)}`,
  ];
  return h(
    "section",
    { key: "speed", "aria-labelledby": "speed-title" },
    title("speed-title", "Throughput", about),
    sparklines(history, isFinal(job)),
    h("p", { class: "muted" }, tokens.join(", ")),
  );
}
