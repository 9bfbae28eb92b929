// The dashboard: one view at a time, each with one stream.

import { forget } from "./contact.js";
import { openJob } from "./job_page.js";
import { openOverview } from "./overview.js";
import { here, watch } from "./route.js";

let view = null;
let current = null;

/** A view is `{ change(query), close() }`; a new query of the same view keeps what it has. */
function show(place) {
  const isSame = current && current.view === place.view && current.id === place.id;
  current = place;
  if (isSame) {
    view.change(place.query);
    return;
  }
  const isFirst = view === null;
  view?.close();
  forget();
  const main = document.getElementById("main");
  main.replaceChildren();
  view = place.view === "job" ? openJob(main, place.id, place.query) : openOverview(main, place.query);
  const home = document.querySelector("nav a[href='/']");
  if (place.view === "overview") home.setAttribute("aria-current", "page");
  else home.removeAttribute("aria-current");
  if (!isFirst) {
    // a reader of the screen learns that the page is another one
    main.focus({ preventScroll: true });
    window.scrollTo(0, 0);
  }
}

watch(show);
show(here());
