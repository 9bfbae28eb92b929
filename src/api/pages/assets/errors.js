// Failed items by code, with one click to try them again.

import { h } from "./dom.js";
import { count, plural, words } from "./format.js";
import { retryJob } from "./job_actions.js";
import { jobPath, link } from "./route.js";

/** `groups` is what `GET /v1/jobs/{id}/errors` answers. */
export function errorGroups(job, groups, isFresh, after) {
  if (groups.length === 0) return null;
  const total = groups.reduce((sum, group) => sum + group.items, 0);
  return h("section", { key: "errors", class: "errors", "aria-labelledby": "errors-title" },
    h("div", { class: "title" }, h("h2", { id: "errors-title" }, "Errors"), h("p", { class: "muted" }, `${plural(total, "item")} failed`)),
    h("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Errors by code, scrolls sideways" }, h("table", null,
      h("caption", { class: "unseen" }, "Failed items by code"),
      h("thead", null, h("tr", null, ["Code", "Stage", "Items", "What it means, and what the first says", ""].map((name, at) =>
        h("th", { key: at, scope: "col", class: at === 2 ? "number" : null }, name || h("span", { class: "unseen" }, "Actions"))))),
      h("tbody", null, groups.map((group) => row(job, group, isFresh, after))))));
}

function row(job, group, isFresh, after) {
  const retry = async () => { if (await retryJob(job, group.code)) after(); };
  return h("tr", { key: `${group.stage} ${group.code}`, "data-code": group.code },
    h("th", { scope: "row" }, h("a", { href: `/docs#${group.code}` }, h("code", null, group.code))),
    h("td", null, words(group.stage)),
    h("td", { class: "number" }, h("a", { href: link(jobPath(job.id), { outcome: "failed" }) }, count(group.items))),
    h("td", null, group.about, h("span", { class: "message" }, `Item ${group.first}: ${group.message}`)),
    h("td", { class: "actions" }, group.can_retry
      ? h("button", { type: "button", class: "small primary", disabled: !isFresh, onclick: retry,
        "aria-label": `Retry the ${plural(group.items, "item")} that failed with ${words(group.code)}` }, `Retry ${count(group.items)}`)
      : h("span", { class: "muted" }, job.state === "cancelled" ? "cancelled" : "used by the next stage")));
}
