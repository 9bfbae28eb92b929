// Addresses: each view has a path, each filter stands in the query, so that a link shows what its sender saw.
//
//   /?state=&task=&model=&after=          models and jobs
//   /jobs/{id}?outcome=&after=            one job

let onChange = () => {};

/** Where the page is. */
export function here() {
  const query = Object.fromEntries(new URLSearchParams(location.search));
  const job = location.pathname.match(/^\/jobs\/([^/]+)$/);
  return job ? { view: "job", id: decodeURIComponent(job[1]), query } : { view: "overview", query };
}

/** The address of the view at `path` with `query`, empty values left out. */
export function link(path, query = {}) {
  const text = new URLSearchParams(Object.entries(query).filter(([, value]) => value)).toString();
  return text ? `${path}?${text}` : path;
}

export const jobPath = (id) => `/jobs/${encodeURIComponent(id)}`;

/** Goes there, as a click on a link does. */
export function go(address) {
  history.pushState(null, "", address);
  onChange(here());
}

/** Calls `change` whenever the address changes, and takes clicks on links to our own views. */
export function watch(change) {
  onChange = change;
  window.addEventListener("popstate", () => onChange(here()));
  document.addEventListener("click", (event) => {
    const a = event.target.closest?.("a[href]");
    const isPlain = event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
    if (!a || !isPlain || event.defaultPrevented || a.target || a.hasAttribute("download")) return;
    const url = new URL(a.href);
    const isView = url.origin === location.origin && (url.pathname === "/" || /^\/jobs\/[^/]+$/.test(url.pathname));
    if (!isView || (url.hash && url.pathname === location.pathname && url.search === location.search)) return;
    event.preventDefault();
    go(url.pathname + url.search);
  });
}
