// What can be done to a job, wherever it is shown.

import { post, remove } from "./api.js";
import { plural, shortId } from "./format.js";
import { done, refused } from "./notice.js";
import { confirm } from "./question.js";

export const isFinal = (job) => !["queued", "running"].includes(job.state);
/** A cancelled job stays so; what failed in another may be tried again. */
export const canRetry = (job) => job.state !== "cancelled" && (job.counts.failed > 0 || job.state === "failed");

export async function cancelJob(job) {
  const open = job.counts.waiting + job.counts.running;
  const text = `${plural(open, "item")} that ${open === 1 ? "has" : "have"} not ended will be cancelled. Results so far are kept.`;
  if (!(await confirm({ title: `Cancel job ${shortId(job.id)}?`, text, yes: "Cancel the job" }))) return false;
  return attempt("The job was not cancelled", async () => {
    await post(`/v1/jobs/${job.id}/cancel`);
    done(`Job ${shortId(job.id)} is cancelled`);
  });
}

/** Sends failed items back: all, or those that failed with `code`. */
export function retryJob(job, code) {
  return attempt("Nothing was sent back", async () => {
    const query = code ? `?code=${encodeURIComponent(code)}` : "";
    const { items } = await post(`/v1/jobs/${job.id}/retry${query}`);
    done(items === 0 ? "No item could be sent back" : `${plural(items, "item")} of job ${shortId(job.id)} wait again`);
  });
}

export async function deleteJob(job) {
  const text = "The job goes, with its items and all its results. This cannot be taken back.";
  if (!(await confirm({ title: `Delete job ${shortId(job.id)}?`, text, yes: "Delete" }))) return false;
  return attempt("The job was not deleted", async () => {
    await remove(`/v1/jobs/${job.id}`);
    done(`Job ${shortId(job.id)} is deleted`);
  });
}

async function attempt(what, action) {
  try {
    await action();
    return true;
  } catch (error) {
    refused(what, error);
    return false;
  }
}
