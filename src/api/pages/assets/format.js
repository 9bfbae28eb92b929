// Numbers, sizes and times as a person reads them.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

export function bytes(n) {
  let at = 0;
  while (n >= 1024 && at < UNITS.length - 1) {
    n /= 1024;
    at += 1;
  }
  return `${n.toFixed(at === 0 || n >= 100 ? 0 : 1)} ${UNITS[at]}`;
}

export function count(n) {
  return n.toLocaleString("en");
}

/** "1 item", "2 items". */
export function plural(n, one, many = `${one}s`) {
  return `${count(n)} ${n === 1 ? one : many}`;
}

export function rate(n) {
  if (n === 0) return "0";
  if (n < 10) return n.toFixed(n < 1 ? 2 : 1);
  return count(Math.round(n));
}

export function duration(s) {
  if (s > 0 && s < 0.1) return `${Math.max(1, Math.round(1000 * s))} ms`;
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 90) return `${Math.round(s)} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  if (s < 172800) return `${(s / 3600).toFixed(1)} h`;
  return `${Math.round(s / 86400)} d`;
}

/** "30 to 70 s": the unit once, where both have the same. */
export function span(low, high) {
  const [from, to] = [duration(low), duration(high)];
  if (from === to) return to;
  const unit = ` ${to.split(" ").at(-1)}`;
  return `${from.endsWith(unit) ? from.slice(0, -unit.length) : from} to ${to}`;
}

export function percent(share) {
  return `${Math.floor(100 * share)} %`;
}

/** Of the day, in the reader's time zone. */
export function clock(time) {
  return new Date(time).toLocaleTimeString("en-GB");
}

export function ago(time, now = Date.now()) {
  return `${duration(Math.max(0, (now - new Date(time)) / 1000))} ago`;
}

/** The day as well, if it is not today. */
export function moment(time) {
  const date = new Date(time);
  const isToday = date.toDateString() === new Date().toDateString();
  return isToday ? clock(date) : `${date.toISOString().slice(0, 10)} ${clock(date)}`;
}

/** The end of a job's id: ids begin with their time, their ends differ. */
export function shortId(id) {
  return id.slice(-12);
}

/** `warm_up` as words. */
export function words(name) {
  return name.replaceAll("_", " ");
}
