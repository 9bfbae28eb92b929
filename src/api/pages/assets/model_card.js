// One model: can it serve, how far has it come, what does it take, who waits for it, what went wrong, load and unload.

import { h } from "./dom.js";
import { ago, bytes, clock, count, duration, moment, percent, plural, words } from "./format.js";
import { modelMemory } from "./memory.js";
import { giveUp, loadModel, mayUnload, unloadModel } from "./model_actions.js";
import { pill } from "./pill.js";
import { link } from "./route.js";

const STAGES = ["waiting", "download", "read", "upload", "adapter", "warm_up", "self_test"];
/** Models whose answer to a button is on its way. */
const asked = new Set();

export const stateOf = (model) => (model.draining ? "draining" : model.state);

export function modelCard(model, isFresh, redraw) {
  const state = stateOf(model);
  return h(
    "article",
    { key: model.id, class: `card ${state}`, "data-model": model.id, "aria-label": model.id },
    h("header", null, h("h3", null, model.id), pill(state), since(model)),
    h("p", { class: "path", title: model.path }, model.path),
    model.adapter ? h("p", { class: "path", title: model.adapter }, "+ ", model.adapter) : null,
    model.progress ? progress(model.progress) : null,
    model.error ? failure(model.error, "Load failed") : null,
    modelMemory(model),
    queue(model),
    replicas(model),
    // models on one base share its engine, and its counters
    model.engine && !model.memory?.charged_to ? engine(model.engine, model.load_s) : null,
    model.last_error && !model.error ? earlier(model.last_error) : null,
    h("div", { class: "actions" }, buttons(model, isFresh, redraw)),
  );
}

const fact = (label, ...what) =>
  h("div", { class: "fact" }, h("span", { class: "label" }, label), h("span", null, what));

function since(model) {
  if (!model.since) return null;
  const took = model.load_s === undefined ? null : `its load took ${duration(model.load_s)}`;
  return h("span", { class: "muted since", title: took }, `since ${moment(model.since)}`);
}

function progress(load) {
  const at = STAGES.indexOf(load.stage);
  const known = load.bytes_total > 0;
  const figures = [];
  if (known) figures.push(`${bytes(load.bytes_done)} of ${bytes(load.bytes_total)}`);
  if (load.bytes_per_s) figures.push(`${bytes(load.bytes_per_s)}/s`);
  if (load.eta_s !== undefined) figures.push(`${duration(load.eta_s)} left`);
  const text = [words(load.stage), ...figures].join(" · ");
  return h(
    "div",
    { class: "load" },
    h(
      "ol",
      { class: "stages", "aria-label": "Stages of the load" },
      STAGES.map((stage, place) =>
        h(
          "li",
          {
            key: stage,
            class: place < at ? "past" : place === at ? "now" : "",
            "aria-current": place === at ? "step" : null,
          },
          words(stage),
        ),
      ),
    ),
    h(
      "div",
      {
        class: `bar thick ${known ? "" : "endless"}`,
        role: "progressbar",
        "aria-label": "Load",
        "aria-valuemin": "0",
        "aria-valuemax": "100",
        "aria-valuetext": text,
        "aria-valuenow": known ? String(Math.floor((100 * load.bytes_done) / load.bytes_total)) : null,
      },
      h("span", {
        class: "part busy",
        style: { width: known ? `${(100 * load.bytes_done) / load.bytes_total}%` : "100%" },
      }),
    ),
    h("p", { class: "figure" }, text),
  );
}

function failure(error, title) {
  return h(
    "div",
    { class: "trouble" },
    h("p", null, h("strong", null, `${title}: `), error.message, " ", h("code", null, error.code)),
    error.hint ? h("p", { class: "hint" }, "→ ", error.hint) : null,
    h(
      "p",
      { class: "muted" },
      `attempt ${error.attempt}; `,
      error.next_retry_at ? `tried again at ${clock(error.next_retry_at)}` : "not tried again by itself",
    ),
  );
}

function earlier(error) {
  return h(
    "details",
    { class: "earlier" },
    h("summary", null, `Last error ${ago(error.at)}: `, h("code", null, error.code)),
    h("p", null, error.message),
    error.hint ? h("p", { class: "hint" }, "→ ", error.hint) : null,
  );
}

function queue(model) {
  if (model.jobs_waiting === undefined) {
    return fact("Queue", h("span", { class: "bad" }, "unknown: the database is away"));
  }
  const text =
    model.items_waiting === 0
      ? "nothing waits"
      : `${plural(model.jobs_waiting, "job")} · ${plural(model.items_waiting, "item")} waiting`;
  return fact("Queue", model.items_waiting === 0 ? text : h("a", { href: link("/", { model: model.id }) }, text));
}

function replicas(model) {
  if (model.replicas.length === 0) return null;
  const states = new Map();
  for (const replica of model.replicas) states.set(replica.state, (states.get(replica.state) || 0) + 1);
  const total = model.replicas.length;
  const text =
    states.size === 1
      ? `${total === 1 ? "" : "all "}${words([...states.keys()][0])}`
      : [...states].map(([state, n]) => `${n} ${words(state)}`).join(", ");
  const failed = model.replicas.find((replica) => replica.error);
  return fact(
    "Replicas",
    `${plural(total, "process", "processes")}, ${text}`,
    failed ? h("span", { class: "bad" }, ` · ${failed.error.code}`) : null,
  );
}

function engine(stats, loadS) {
  const share = (part, whole) => (whole > 0 ? percent(part / whole) : "–");
  return fact(
    "Engine",
    loadS === undefined ? "" : `loaded in ${duration(loadS)} · `,
    `${count(stats.output_tokens)} tokens out · prefix hits ${share(stats.prefix_hit_tokens, stats.prompt_tokens)}` +
      ` · forced ${share(stats.forced_tokens, stats.output_tokens)}`,
  );
}

function buttons(model, isFresh, redraw) {
  // not yet while a question is open: the focus comes back to the button that asked
  const act = (action, may) => async () => {
    if (may && !(await may())) return;
    asked.add(model.id);
    redraw();
    await action();
    asked.delete(model.id);
    redraw();
  };
  const button = (name, action, kind, may) =>
    h(
      "button",
      {
        key: name,
        type: "button",
        class: kind,
        disabled: model.draining || asked.has(model.id) || !isFresh,
        onclick: act(action, may),
        "aria-label": `${name} ${model.id}`,
      },
      name,
    );
  const load = (name) => button(name, () => loadModel(model.id), "primary");
  const end = button("Give up", () => giveUp(model.id), "");
  switch (model.state) {
    case "ready":
      return [
        button(
          "Unload",
          () => unloadModel(model.id),
          "",
          () => mayUnload(model),
        ),
      ];
    case "loading":
      return [end];
    case "error":
      return [load("Try again"), end];
    default:
      return [load("Load")];
  }
}

/** All models in a line: "2 ready, 1 loading". */
export function summary(models) {
  const states = new Map();
  for (const model of models) states.set(stateOf(model), (states.get(stateOf(model)) || 0) + 1);
  return [...states].map(([state, n]) => `${n} ${words(state)}`).join(", ");
}
