// What happened, newest first. Only what is serious is said aloud, at most one sentence every ten seconds.

import { $, el, say } from "./dom.js";
import * as format from "./format.js";

const MARKS = {
  silent: "✕", returned: "↩", restarted: "↻", stalled: "!", refused: "⊘", "rolled-back": "⟲", mailbox: "▣", finished: "✓", members: "⇄",
};
const PAUSE = 10000;

export class Events {
  constructor(store) {
    this.store = store;
    this.list = $("events");
    this.spokeAt = -Infinity;
    store.subscribe((change) => this.update(change));
  }

  update(change) {
    if (change.kind === "snapshot") this.list.replaceChildren(...this.store.events.map((event) => this.item(event)).reverse());
    for (const event of change.kind === "delta" ? change.events : []) this.list.prepend(this.item(event));
    while (this.list.children.length > 200) this.list.lastChild.remove();
    this.list.hidden = !this.list.children.length;
    $("events-empty").hidden = !this.list.hidden;
    this.speak(change.events?.filter((event) => event.serious) ?? []);
  }

  speak(serious) {
    if (!serious.length || performance.now() - this.spokeAt < PAUSE) return;
    this.spokeAt = performance.now();
    const more = serious.length > 1 ? `, and ${serious.length - 1} more` : "";
    say($("news"), `Site ${serious[0].site} ${serious[0].text}${more}`);
  }

  item({ at, site, kind, serious, text }) {
    const name = el("button", { type: "button", class: "plain", tabindex: "-1", onclick: () => this.store.select(site) }, site);
    return el(
      "li", { class: serious ? "serious" : "", "data-kind": kind },
      el("time", {}, format.clock(this.store.beganAt + at)),
      el("span", { class: "sign", "aria-hidden": "true" }, MARKS[kind] ?? "·"),
      el("span", {}, name, ` ${text}`),
    );
  }
}
