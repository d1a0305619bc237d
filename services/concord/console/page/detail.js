// One site: what it says of itself, its classes, its edges, and the version it serves.

import { $, el } from "./dom.js";
import * as format from "./format.js";

export class Detail {
  constructor(store) {
    this.store = store;
    this.box = $("detail");
    this.picker = $("site");
    this.served = null;
    this.picker.addEventListener("change", () => store.select(this.picker.value));
    store.subscribe((change) => this.update(change));
  }

  update(change) {
    const name = this.store.selected;
    if (change.kind === "snapshot") this.picker.replaceChildren(...[...this.store.sites.keys()].map((site) => el("option", {}, site)));
    if (!name) return;
    this.picker.value = name;
    if (name !== this.shown) {
      this.shown = name;
      this.ask(name);
    }
    if (change.kind !== "delta" || change.sites.has(name)) this.draw(name, this.store.sites.get(name));
  }

  /** What the site serves now: asked when it is chosen, and no more. */
  async ask(name) {
    this.served = null;
    try {
      const answer = await fetch(`/api/sites/${encodeURIComponent(name)}/models`);
      const found = await answer.json();
      if (this.shown === name && answer.ok) this.served = found.models ?? [];
    } catch { /* the site does not answer: its state says so */ }
    if (this.shown === name && this.store.sites.has(name)) this.draw(name, this.store.sites.get(name));
  }

  draw(name, site) {
    const of = site.rounds ? ` of ${format.count(site.rounds)}` : "";
    const facts = [
      ["State", format.STATES[site.state]],
      ["Round", `${format.count(site.round)}${of}`],
      [site.metric, format.metric(site.metric, site.value)],
      ["Loss", format.small(site.loss)],
      ["Steps a second", format.count(Math.round(site.steps_per_second))],
      ["Lives", format.count(site.incarnation)],
      ["Updates refused", format.count(site.refused)],
      ["Went back", `${format.count(site.rollbacks)} times`],
      ["Redis", site.mailbox],
      ["Published", site.version ? `version ${format.count(site.version)}` : "–"],
      ["Served", this.servedText()],
      ["Parameters", format.count(site.parameters)],
    ];
    this.box.replaceChildren(
      ...(site.problem ? [el("p", { class: "problem" }, site.problem)] : []),
      el("dl", { class: "facts" }, ...facts.map(([term, value]) => el("div", {}, el("dt", {}, term), el("dd", {}, value)))),
      ...this.classes(site.classes ?? {}),
      this.edges(site),
    );
  }

  servedText() {
    if (!this.served) return "–";
    if (!this.served.length) return "nothing yet";
    const [model] = this.served;
    return `version ${format.count(model.version)}, round ${format.count(model.round)}`;
  }

  classes(counts) {
    const entries = Object.entries(counts);
    if (!entries.length) return [];
    const most = Math.max(1, ...entries.map(([, count]) => count));
    const held = entries.filter(([, count]) => count > 0).length;
    return [
      el("h3", {}, `Own data: ${held} of ${entries.length} classes`),
      el("ul", { class: "classes" }, ...entries.slice(0, 40).map(([name, count]) => {
        const bar = el("i", { "aria-hidden": "true" });
        bar.style.height = `${Math.round((28 * count) / most)}px`;
        return el("li", { class: count ? "" : "none", title: `${name}: ${format.count(count)} samples` }, bar, el("span", {}, name), el("span", { class: "unseen" }, `: ${count} samples`));
      })),
    ];
  }

  edges(site) {
    const rows = Object.entries(site.edges).map(([neighbour, edge]) => el(
      "tr", {}, el("th", { scope: "row" }, neighbour),
      ...[format.count(edge.sent), format.count(edge.received), format.seconds(edge.staleness_seconds), format.small(edge.distance), format.count(edge.refused)].map((text) => el("td", {}, text)),
    ));
    const columns = ["Edge to", "Sent", "Received", "Age", "Apart", "Refused"];
    return el(
      "div", { class: "scroll", role: "region", "aria-label": "Edges", tabindex: "0" },
      el("table", {}, el("thead", {}, el("tr", {}, ...columns.map((text) => el("th", { scope: "col" }, text)))), el("tbody", {}, ...rows)),
    );
  }
}
