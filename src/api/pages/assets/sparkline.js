// How fast a job went, from its first claim to its end or to now: two small charts.

import { h } from "./dom.js";
import { clock, duration, rate } from "./format.js";

const [WIDTH, HEIGHT] = [480, 72];

const CHARTS = [
  { name: "Items per second", short: "Items/s", of: (rates) => rates.items_per_s },
  {
    name: "Tokens per second",
    short: "Tokens/s",
    of: (rates) => rates.prompt_tokens_per_s + rates.output_tokens_per_s,
  },
];

/** `history` is what `GET /v1/jobs/{id}/throughput` answers. */
export function sparklines(history, isOver) {
  if (!history || history.intervals.length === 0) return h("p", { class: "muted" }, "Nothing has been claimed yet.");
  const span = (new Date(history.until) - new Date(history.from)) / 1000;
  return h(
    "div",
    { class: "charts" },
    CHARTS.map((chart) => {
      const values = history.intervals.map(chart.of);
      const peak = Math.max(...values);
      const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
      const last = isOver ? `mean ${rate(mean)}` : `now ${rate(values.at(-1))}`;
      const text = `${chart.name} over ${duration(span)}: ${last}, peak ${rate(peak)}`;
      return h(
        "figure",
        { key: chart.name },
        h("figcaption", null, chart.short, h("span", { class: "figure" }, `${last} · peak ${rate(peak)}`)),
        h(
          "svg",
          {
            class: "sparkline",
            viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
            preserveAspectRatio: "none",
            role: "img",
            "aria-label": text,
          },
          h("path", { class: "area", d: `${steps(values, peak)}V${HEIGHT}H0Z` }),
          h("path", { class: "line", d: steps(values, peak), "vector-effect": "non-scaling-stroke" }),
        ),
        h(
          "p",
          { class: "axis" },
          h("span", null, clock(history.from)),
          h("span", null, isOver ? clock(history.until) : "now"),
        ),
      );
    }),
  );
}

/** One level step for each interval: what happened within it is not known. */
function steps(values, peak) {
  const y = (value) => (HEIGHT - 2 - (peak > 0 ? value / peak : 0) * (HEIGHT - 6)).toFixed(1);
  const x = (at) => ((WIDTH * at) / values.length).toFixed(1);
  return values.map((value, at) => `${at === 0 ? "M0 " : "V"}${y(value)}H${x(at + 1)}`).join("");
}
