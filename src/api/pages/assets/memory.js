// Memory: of the device as a whole, and of one model. A base that models share is drawn and counted once.

import { bar, legend } from "./bar.js";
import { h } from "./dom.js";
import { bytes } from "./format.js";

/** The device: what each base with its adapters takes, what is only planned so far, what else is used, what is free. */
export function deviceMemory(list) {
  const memory = list.memory;
  if (!memory) return null;
  const parts = bases(list.data).map((base, at) => ({
    kind: `base tone-${at % 4}`,
    value: base.bytes,
    label: `${base.names.join(" + ")} ${bytes(base.bytes)}`,
  }));
  const ahead = Math.max(0, memory.planned_bytes - memory.in_use_bytes);
  if (ahead > 0) parts.push({ kind: "planned", value: ahead, label: `planned, not held ${bytes(ahead)}` });
  const total = memory.total_bytes;
  if (total) {
    const free = Math.max(0, memory.available_bytes - ahead);
    const other = Math.max(0, total - memory.available_bytes - memory.in_use_bytes);
    parts.push({ kind: "other", value: other, label: `everything else ${bytes(other)}` });
    parts.push({ kind: "free", value: free, label: `free ${bytes(free)}` });
  }
  const words =
    `Models hold ${bytes(memory.in_use_bytes)}${total ? ` of ${bytes(total)}` : ""}, ` +
    `${bytes(memory.planned_bytes)} are planned for them`;
  return h(
    "div",
    { class: "device" },
    h("h3", null, "Device memory"),
    h("p", { class: "figure", "data-memory": memory.in_use_bytes }, words),
    bar(
      parts.filter((part) => part.kind !== "free"),
      total || memory.planned_bytes,
      words,
      "tall",
    ),
    legend(parts),
  );
}

/** Models by the base that is charged to one of them: each base once. */
function bases(models) {
  const found = new Map();
  for (const model of models) {
    if (!model.memory) continue;
    const name = model.memory.charged_to || model.id;
    const base = found.get(name) || { names: [], bytes: 0 };
    base.names.push(model.id);
    base.bytes += model.memory.in_use_bytes;
    found.set(name, base);
  }
  return [...found.values()].filter((base) => base.bytes > 0);
}

/** One model: what it needs or would need by kind, beside what it may use, and what it holds. */
export function modelMemory(model) {
  const { plan, memory } = model;
  if (!plan) return h("p", { class: "muted" }, "Memory unknown: the checkpoint's headers cannot be read yet.");
  const parts = [
    ["weights", plan.weights_bytes],
    ["adapter", plan.adapter_bytes],
    ["merged", plan.merged_bytes],
    ["KV", plan.kv_bytes],
    ["activations", plan.activation_bytes],
    ["reserve", plan.reserve_bytes],
  ]
    .filter(([, value]) => value > 0)
    .map(([name, value]) => ({ kind: `of-${name}`, value, label: `${name} ${bytes(value)}` }));
  const shared = memory?.charged_to || plan.shares_base_with;
  const held = memory ? `holds ${bytes(memory.in_use_bytes)}` : "holds nothing";
  // what a loaded model needs is no part of what is left for others, hence not compared with it
  const room = memory ? "" : ` of ${bytes(plan.budget_bytes)} it may use`;
  const words = `${memory ? "planned" : "needs"} ${bytes(plan.needed_bytes)}${room}, ${held}`;
  const all = shared && plan.needed_bytes === 0 ? "nothing beyond the base" : words;
  return h(
    "div",
    { class: "memory" },
    h(
      "div",
      { class: "fact" },
      h("span", { class: "label" }, "Memory"),
      h("span", null, all, !plan.fits && !memory ? h("strong", { class: "bad" }, ": does not fit") : null),
    ),
    parts.length > 0
      ? bar(parts, memory ? plan.needed_bytes : Math.max(plan.budget_bytes, plan.needed_bytes), words)
      : null,
    parts.length > 0 ? legend(parts) : null,
    shared ? h("p", { class: "shared" }, "Base counted once, at ", h("strong", null, shared)) : null,
    !shared && model.shares_base_with.length > 0 && memory
      ? h("p", { class: "shared" }, "Base also serves ", h("strong", null, model.shares_base_with.join(", ")))
      : null,
  );
}
