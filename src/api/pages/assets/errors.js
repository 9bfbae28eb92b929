// Failed items by code, with one click to try them again.

import { h } from "./dom.js";
import { count, plural, words } from "./format.js";
import { retryJob } from "./job_actions.js";
import { jobPath, link } from "./route.js";
import { table, title } from "./section.js";

const HEAD = [["Code"], ["Stage"], ["Items", "number"], ["What it means, and what the first says"], [""]];

/** `groups` is what `GET /v1/jobs/{id}/errors` answers. */
export function errorGroups(job, groups, isFresh, after) {
  if (groups.length === 0) return null;
  const total = groups.reduce((sum, group) => sum + group.items, 0);
  return h(
    "section",
    { key: "errors", class: "errors", "aria-labelledby": "errors-title" },
    title("errors-title", "Errors", `${plural(total, "item")} failed`),
    table(
      { name: "Errors by code", caption: "Failed items by code", head: HEAD },
      groups.map((group) => row(job, group, isFresh, after)),
    ),
  );
}

function row(job, group, isFresh, after) {
  const retry = async () => {
    if (await retryJob(job, group.code)) after();
  };
  return h(
    "tr",
    { key: `${group.stage} ${group.code}`, "data-code": group.code },
    h("th", { scope: "row" }, h("a", { href: `/docs#${group.code}` }, h("code", null, group.code))),
    h("td", null, words(group.stage)),
    h("td", { class: "number" }, h("a", { href: link(jobPath(job.id), { outcome: "failed" }) }, count(group.items))),
    h("td", null, group.about, h("span", { class: "message" }, `Item ${group.first}: ${group.message}`)),
    h(
      "td",
      { class: "actions" },
      group.can_retry
        ? h(
            "button",
            {
              type: "button",
              class: "small primary",
              disabled: !isFresh,
              onclick: retry,
              "aria-label": `Retry the ${plural(group.items, "item")} that failed with ${words(group.code)}`,
            },
            `Retry ${count(group.items)}`,
          )
        : h("span", { class: "muted" }, job.state === "cancelled" ? "cancelled" : "used by the next stage"),
    ),
  );
}
