// Puts the page together: one store, its views, and the stream of events that feeds it.

import { $, choose, say } from "./dom.js";
import { Bars } from "./bars.js";
import { Curves } from "./curves.js";
import { Detail } from "./detail.js";
import { Events } from "./events.js";
import { Graph } from "./graph.js";
import { Store } from "./store.js";
import { Try } from "./try.js";
import * as format from "./format.js";

const store = new Store();
const graph = new Graph(store);
new Bars(store);
const curves = new Curves(store);
new Detail(store);
new Events(store);
new Try(store);
store.subscribe(summary);

// --- the stream --------------------------------------------------------------------------------------------------

/** The browser comes back by itself, with the id of the last message; only if it was refused we have to begin anew. */
function listen() {
  const stream = new EventSource("/api/events");
  stream.addEventListener("snapshot", (event) => { linked(); store.snapshot(JSON.parse(event.data)); });
  stream.addEventListener("delta", (event) => { linked(); store.delta(JSON.parse(event.data)); });
  stream.addEventListener("open", linked);
  stream.addEventListener("error", () => {
    lost();
    if (stream.readyState === EventSource.CLOSED) setTimeout(listen, 3000);
  });
}

function linked() {
  $("link").dataset.state = "live";
  say($("link-text"), "Live");
  $("banner").hidden = true;
}

function lost() {
  $("link").dataset.state = "lost";
  say($("link-text"), "Not connected");
  say($("banner"), "The console does not answer. What you see is from before; it goes on as soon as the console is back.");
  $("banner").hidden = false;
}

// --- the head ----------------------------------------------------------------------------------------------------

function summary(change) {
  if (change.kind === "selection") return;
  const sites = [...store.sites.values()];
  const known = sites.filter((site) => site.federation), values = known.map((site) => site.value).filter((value) => value !== null);
  const title = store.title || known[0]?.federation || "Concord";
  say($("title"), title);
  document.title = `${title} · Concord console`;
  say($("subtitle"), known.length ? `${known[0].task} · ${known[0].algorithm} · ${sites.length} sites` : `Waiting for ${sites.length} sites`);
  const mean = values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
  say($("mean-label"), `Mean ${store.metric}`);
  say($("mean"), format.metric(store.metric, mean));
  say($("worst"), format.metric(store.metric, values.length ? Math.min(...values) : null));
  const rounds = known.map((site) => site.round), goal = known[0]?.rounds;
  const span = known.length ? [Math.min(...rounds), Math.max(...rounds)] : [];
  const reached = span[0] === span[1] ? format.count(span[0]) : `${format.count(span[0])}–${format.count(span[1])}`;
  say($("rounds"), known.length ? `${reached}${goal ? ` / ${format.count(goal)}` : ""}` : "–");
  const quiet = sites.filter((site) => site.state === "silent" || site.state === "stalled" || site.state === "waiting").length;
  say($("answering"), `${sites.length - quiet} / ${sites.length}`);
  $("answering").classList.toggle("bad", quiet > 0);
  if (!$("graph-table").hidden) $("graph-table").replaceChildren(graph.table());
}

// --- theme and table ---------------------------------------------------------------------------------------------

const dark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";

function restyle() {
  say($("theme"), isDark() ? "Light" : "Dark");
  $("theme").setAttribute("aria-label", isDark() ? "Use the light theme" : "Use the dark theme");
  graph.restyle();
  curves.restyle();
}

$("theme").addEventListener("click", () => {
  const next = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  try { localStorage.setItem("concord-theme", next); } catch { /* then it holds for this page only */ }
  restyle();
});
dark.addEventListener("change", restyle);

choose({ graph: "as-graph", table: "as-table" }, (kind) => {
  $("graph").hidden = $("legend").hidden = kind === "table";
  $("graph-table").hidden = kind !== "table";
  if (kind === "table") $("graph-table").replaceChildren(graph.table());
  else graph.update({ kind: "selection", sites: new Set() });
});

restyle();
listen();
