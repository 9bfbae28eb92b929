// The status page: asks for models and jobs every second while it is looked at, and says so when it cannot.
// Everything from the server enters the page as text, never as markup.
"use strict";

const EVERY_MS = 1000;
const byId = (id) => document.getElementById(id);

function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
  for (const child of children) node.append(child);
  return node;
}

function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (n >= 1024 && at < units.length - 1) { n /= 1024; at += 1; }
  return `${n.toFixed(at === 0 ? 0 : 1)} ${units[at]}`;
}

function seconds(s) {
  if (s < 90) return `${Math.round(s)} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  return `${(s / 3600).toFixed(1)} h`;
}

function bar(share, label) {
  const node = el("progress", { max: "1", value: String(Math.min(1, Math.max(0, share))) });
  node.title = label;
  return node;
}

function modelCard(model) {
  const state = model.draining ? "draining" : model.state;
  const card = el("article", { class: `card ${model.state}` },
    el("h3", {}, model.id, " ", el("span", { class: "state" }, state)));
  const note = (text) => card.append(el("p", {}, text));
  note(model.path + (model.adapter ? ` + ${model.adapter}` : ""));
  if (model.progress) {
    const p = model.progress;
    if (p.bytes_total > 0) card.append(bar(p.bytes_done / p.bytes_total, p.stage));
    let text = p.stage.replaceAll("_", " ");
    if (p.bytes_total > 0) text += `: ${bytes(p.bytes_done)} of ${bytes(p.bytes_total)}`;
    if (p.bytes_per_s) text += `, ${bytes(p.bytes_per_s)}/s`;
    if (p.eta_s !== undefined) text += `, ${seconds(p.eta_s)} left`;
    note(text);
  }
  if (model.error) {
    card.append(el("p", { class: "bad" }, `${model.error.code}: ${model.error.message}`));
    if (model.error.hint) note(model.error.hint);
    if (model.error.next_retry_at) note(`next try at ${new Date(model.error.next_retry_at).toLocaleTimeString()}`);
  }
  if (model.plan) {
    card.append(bar(model.plan.needed_bytes / Math.max(1, model.plan.budget_bytes), "memory"));
    note(`${bytes(model.plan.needed_bytes)} of ${bytes(model.plan.budget_bytes)} memory`);
  }
  if (model.shares_base_with.length > 0) note(`base shared with ${model.shares_base_with.join(", ")}`);
  if (model.load_s !== undefined) note(`loaded in ${seconds(model.load_s)}`);
  note(model.items_waiting === undefined ? "queue unknown: the database is away" : `${model.items_waiting} items wait`);
  return card;
}

function jobRow(job) {
  const c = job.counts;
  const ended = c.succeeded + c.failed + c.cancelled + c.expired;
  const names = (stages) => [...new Set(stages.map((stage) => stage.stage))]; // a stage may stand there once for each model
  const [all, begun] = [names(job.stages), names(job.stages.filter((stage) => stage.begun))];
  const progress = el("td", {}, bar(c.total > 0 ? ended / c.total : 0, `${ended} of ${c.total}`));
  if (all.length > 1) progress.append(el("small", {}, ` ${begun.length}/${all.length} ${begun.at(-1) || ""}`));
  const t = job.throughput;
  const waits = el("td", {});
  for (const w of job.waiting_for) waits.append(el("div", { class: w.reason === "queued" ? "" : "bad" }, w.detail));
  if (job.error) waits.append(el("div", { class: "bad" }, `${job.error.code}: ${job.error.message}`));
  return el("tr", {},
    el("td", {}, el("a", { href: `/v1/jobs/${job.id}` }, job.id.slice(-12))),
    el("td", {}, job.task),
    el("td", { class: job.state }, job.state),
    progress,
    el("td", { class: "number" }, `${ended} / ${c.total}`),
    el("td", { class: "number" }, String(c.failed)),
    el("td", { class: "number" }, t ? (t.prompt_tokens_per_s + t.output_tokens_per_s).toFixed(0) : "–"),
    el("td", { class: "number" }, t && t.eta_s !== undefined ? seconds(t.eta_s) : "–"),
    waits,
    el("td", {}, el("a", { href: `/v1/jobs/${job.id}/results` }, "read")));
}

async function ask(path) {
  const response = await fetch(path, { headers: { accept: "application/json" }, cache: "no-store" });
  const body = await response.json();
  if (!response.ok) throw new Error(`${body.code}: ${body.detail}`);
  return body;
}

async function draw() {
  const contact = byId("contact");
  const [models, jobs] = await Promise.allSettled([ask("/v1/models"), ask("/v1/jobs?limit=30")]);
  if (models.status === "fulfilled") byId("models").replaceChildren(...models.value.data.map(modelCard));
  if (jobs.status === "fulfilled") {
    byId("jobs").replaceChildren(...jobs.value.jobs.map(jobRow));
    byId("nojobs").hidden = jobs.value.jobs.length > 0;
  }
  const failed = [models, jobs].find((answer) => answer.status === "rejected");
  contact.className = failed ? "bad" : "";
  contact.textContent = failed
    ? `not up to date: ${failed.reason.message}`
    : `as of ${new Date().toLocaleTimeString()}`;
}

async function loop() {
  for (;;) {
    if (!document.hidden) await draw();
    await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
  }
}

loop();
