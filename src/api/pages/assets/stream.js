// A stream of server-sent events that says honestly how it stands.
//
// Read by `fetch` and not by EventSource: that one hides the comments which break a silence, so that it cannot tell
// a quiet server from a dead one, and it hides why a connection was refused.

import { withKey } from "./key.js";

const FIRST_RETRY_MS = 500;
const MAX_RETRY_MS = 5000;
/** Of a connection that has not told its own. */
const HEARTBEAT_MS = 15000;
/** A page that nobody has looked at for so long gives its place among the streams to others. */
const HIDDEN_MS = 20000;
/** No event of the server has this name. */
const BEAT = ":";

/**
 * Follows `url` until `close()` is called. `onEvent(name, data)` for each event, `onBeat()` for a sign of life that says
 * "nothing new"; `onState({ kind, … })` when the
 * connection's state changes: `connecting`, `live`, `away` (the server lives, its database does not answer),
 * `lost` (with `reason` and `retryAt`), `paused` (nobody looks), `refused` (trying again cannot help), `ended`
 * (`isLast` of the event's name: the server has said the last there is to say; it is asked again after `againMs`).
 * Only an event of which `endsAway` is true shows that the database answers again.
 */
export function follow(
  url,
  { onEvent, onState, onBeat = () => {}, isLast = () => false, endsAway = () => true, againMs = 10000 },
) {
  let isClosed = false;
  let abort = null;
  let failures = 0;
  let timer = 0;
  let hideTimer = 0;
  let kind = "";
  let isPaused = false;

  const tell = (state) => {
    kind = state.kind;
    if (!isClosed) onState(state);
  };

  async function connect() {
    clearTimeout(timer);
    abort = new AbortController();
    const own = abort;
    // what was told of an old connection holds until the new one has brought something
    if (kind === "" || kind === "live") tell({ kind: "connecting" });
    let reason = "the server closed the connection";
    let isOver = false;
    let watchdog = 0;
    try {
      const response = await fetch(url, {
        signal: own.signal,
        cache: "no-store",
        headers: withKey({ accept: "text/event-stream" }),
      });
      if (!response.ok) {
        const problem = await response.json().catch(() => null);
        if (response.status >= 400 && response.status < 500 && response.status !== 408) {
          return tell({ kind: "refused", status: response.status, reason: problem?.detail || String(response.status) });
        }
        throw new Error(problem?.detail || `the server answered ${response.status}`);
      }
      const silenceMs = 2 * (Number(response.headers.get("heartbeat-ms")) || HEARTBEAT_MS) + 1000;
      const beat = () => {
        clearTimeout(watchdog);
        watchdog = setTimeout(() => {
          reason = "the server has fallen silent";
          own.abort();
        }, silenceMs);
      };
      beat();
      for await (const event of events(response.body, beat)) {
        if (isClosed || own !== abort) return;
        failures = 0;
        if (event.name === BEAT) {
          if (kind === "live") onBeat();
          continue;
        }
        if (event.name === "unavailable") {
          tell({ kind: "away" });
          continue;
        }
        if (kind !== "live" && (kind !== "away" || endsAway(event.name))) tell({ kind: "live" });
        onEvent(event.name, event.data);
        isOver = isLast(event.name);
      }
    } catch (error) {
      if (!own.signal.aborted) reason = error instanceof TypeError ? "the server cannot be reached" : error.message;
    } finally {
      clearTimeout(watchdog);
    }
    if (isClosed || isPaused || own !== abort) return;
    if (isOver) {
      tell({ kind: "ended" });
      timer = setTimeout(connect, againMs);
      return;
    }
    const wait = Math.min(MAX_RETRY_MS, FIRST_RETRY_MS * 2 ** failures) * (0.8 + 0.4 * Math.random());
    failures += 1;
    tell({ kind: "lost", reason, retryAt: Date.now() + wait });
    timer = setTimeout(connect, wait);
  }

  function again() {
    if (isClosed || kind === "live") return;
    isPaused = false;
    failures = 0;
    abort?.abort();
    connect();
  }

  function onVisibility() {
    clearTimeout(hideTimer);
    if (document.hidden) {
      hideTimer = setTimeout(() => {
        clearTimeout(timer);
        isPaused = true;
        tell({ kind: "paused" });
        abort?.abort();
      }, HIDDEN_MS);
    } else if (kind !== "live") again();
  }

  document.addEventListener("visibilitychange", onVisibility);
  window.addEventListener("online", again);
  connect();
  return {
    again,
    close() {
      isClosed = true;
      clearTimeout(timer);
      clearTimeout(hideTimer);
      abort?.abort();
      document.removeEventListener("visibilitychange", onVisibility);
      window.removeEventListener("online", again);
    },
  };
}

/** Events out of a body; `beat` is called for every piece, comments included. */
async function* events(body, beat) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    beat();
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const event = parse(block);
      if (event) yield event;
    }
  }
}

function parse(block) {
  let name = "message";
  const data = [];
  for (const line of block.split("\n")) {
    if (line.startsWith("event:")) name = line.slice(6).trim();
    else if (line.startsWith("data:")) data.push(line.slice(5).trimStart());
  }
  if (data.length === 0) return block.startsWith(":") ? { name: BEAT } : null;
  return { name, data: JSON.parse(data.join("\n")) };
}
