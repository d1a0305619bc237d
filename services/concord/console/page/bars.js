// Two bars per site, as in a race: this run, and the reference run when it had done as many rounds.

import { $, el, keepStop, roving, say } from "./dom.js";
import * as format from "./format.js";

export class Bars {
  constructor(store) {
    this.store = store;
    this.list = $("bars");
    this.rows = new Map();
    roving(this.list, "button", (button, key) => {
      const item = button.closest("li");
      const other = { ArrowDown: item.nextElementSibling, ArrowUp: item.previousElementSibling }[key];
      return other?.querySelector("button");
    });
    store.subscribe((change) => this.update(change));
  }

  update(change) {
    if (change.kind === "snapshot") this.build();
    const names = change.kind === "delta" && !this.store.reference?.live ? change.sites : this.store.sites.keys();
    for (const name of names) this.fill(name);
    if (change.kind === "snapshot") this.key();
  }

  build() {
    const two = Boolean(this.store.reference);
    this.list.classList.toggle("two", two);
    this.rows = new Map([...this.store.sites.keys()].map((name) => [name, this.row(name, two)]));
    this.list.replaceChildren(...[...this.rows.values()].map((row) => row.item));
    keepStop(this.list, "button", this.rows.get(this.store.selected)?.button);
  }

  row(name, two) {
    const row = { state: el("span", { class: "state" }) };
    const bar = (kind) => {
      row[kind] = el("i");
      row[`${kind}Text`] = el("span", { class: "number" });
      return [el("span", { class: `bar ${kind}`, "aria-hidden": "true" }, row[kind], el("b", { class: "mark" })), row[`${kind}Text`]];
    };
    row.button = el(
      "button", { type: "button", class: "plain", onclick: () => this.store.select(name) },
      el("span", { class: "who" }, el("strong", {}, name), row.state),
      el("span", { class: "pair" }, ...bar("run"), ...(two ? bar("reference") : [])),
    );
    row.item = el("li", {}, row.button);
    return row;
  }

  fill(name) {
    const row = this.rows.get(name), site = this.store.sites.get(name);
    if (!row) return;
    row.item.dataset.state = site.state;
    row.item.classList.toggle("chosen", name === this.store.selected);
    row.button.setAttribute("aria-pressed", String(name === this.store.selected));
    say(row.state, site.state === "training" ? `round ${format.count(site.round)}` : format.STATES[site.state]);
    this.set(row, "run", site.value, site.metric);
    if (row.reference) this.set(row, "reference", this.store.referenceAt(name, site.round), site.metric);
    const pooled = this.store.pooled;
    for (const mark of row.item.querySelectorAll(".mark")) {
      mark.hidden = pooled === null;
      if (pooled !== null) mark.style.left = `${100 * this.store.share(pooled)}%`;
    }
  }

  set(row, kind, value, metric) {
    row[kind].style.transform = `scaleX(${value === null ? 0 : Math.max(0, Math.min(1, this.store.share(value)))})`;
    const said = format.metric(metric, value);
    say(row[`${kind}Text`], said);
  }

  key() {
    const reference = this.store.reference, parts = [el("span", { class: "entry" }, el("span", { class: "swatch run" }), "this run")];
    if (reference) {
      const when = reference.live ? "now" : reference.ends_only ? "at its end" : "at the same round";
      parts.push(el("span", { class: "entry" }, el("span", { class: "swatch reference" }), `${reference.name}, ${when}`));
    }
    if (this.store.pooled !== null) {
      parts.push(el("span", { class: "entry" }, el("span", { class: "swatch pooled" }), `all data in one place: ${format.metric(this.store.metric, this.store.pooled)}`));
    }
    $("bars-key").replaceChildren(...parts);
  }
}
