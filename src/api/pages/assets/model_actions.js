// Loading and unloading, wherever a model is shown.

import { post } from "./api.js";
import { plural } from "./format.js";
import { done, refused } from "./notice.js";
import { confirm } from "./question.js";

export const loadModel = (name) => act(name, "load", `${name} is being loaded`);

/** Ends a load, or the tries of one that failed. */
export const giveUp = (name) => act(name, "unload", `${name} was given up`);

export const unloadModel = (name) => act(name, "unload", `${name} is being unloaded`);

/** Asks, and says whom an unload leaves waiting. */
export function mayUnload(model) {
  const waiting = model.items_waiting || 0;
  const text = `Running items finish first, then memory is freed that no other model uses. ${
    waiting > 0
      ? `${plural(waiting, "item")} of ${plural(model.jobs_waiting, "job")} wait for it and will go on waiting until it is loaded again.`
      : "No item waits for it now."
  }`;
  return confirm({ title: `Unload ${model.id}?`, text, yes: "Unload" });
}

async function act(name, verb, said) {
  try {
    await post(`/v1/models/${encodeURIComponent(name)}/${verb}`);
    done(said);
  } catch (error) {
    refused(`${name} was not ${verb}ed`, error);
  }
}
