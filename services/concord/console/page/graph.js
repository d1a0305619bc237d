// The topology: still parts are drawn once per change and copied per frame, so that only pulses cost anything; frames
// are asked for only while a pulse is under way. A button over each node makes the picture work by keyboard and aloud.

import { $, el, keepStop, roving, say } from "./dom.js";
import { age, ageing, css, DASHES, inkOn, palette, stale, viridis } from "./colours.js";
import { layout } from "./layout.js";
import * as format from "./format.js";

const TRAVEL = 900;
const MOST_PULSES = 400;
const calm = matchMedia("(prefers-reduced-motion: reduce)");

export class Graph {
  constructor(store) {
    this.store = store;
    this.box = $("graph");
    this.canvas = this.box.querySelector("canvas");
    this.still = document.createElement("canvas");
    this.nodes = $("nodes");
    this.buttons = new Map();
    this.places = new Map();
    this.pulses = [];
    this.begun = 0;
    this.hovered = null;
    this.shape = "";
    this.colours = palette();
    this.frame = this.frame.bind(this);
    new ResizeObserver(() => this.resize()).observe(this.box);
    roving(this.nodes, "button", (button, key) => this.neighbourOf(button, key));
    store.subscribe((change) => this.update(change));
  }

  restyle() {
    this.colours = palette();
    this.draw();
    this.legend();
  }

  update(change) {
    if (this.box.hidden) return;
    const shape = this.edgeList().map(([left, right]) => `${left}\t${right}`).join("\n") + "\0" + [...this.store.sites.keys()].join("\n");
    if (shape !== this.shape) {
      this.shape = shape;
      this.arrange();
    }
    for (const name of change.sites) this.label(name);
    if (change.kind === "selection") for (const name of this.buttons.keys()) this.label(name);
    $("graph-empty").hidden = [...this.store.sites.values()].some((site) => site.state !== "waiting");
    this.draw();
    if (change.kind !== "selection") this.legend();
    if (change.arrived?.length) this.send(change.arrived);
  }

  edgeList() {
    const found = new Map();
    for (const [name, site] of this.store.sites) {
      for (const neighbour of Object.keys(site.edges)) {
        if (!this.store.sites.has(neighbour)) continue;
        const pair = name < neighbour ? [name, neighbour] : [neighbour, name];
        found.set(pair.join("\t"), pair);
      }
    }
    return [...found.values()];
  }

  // --- places --------------------------------------------------------------------------------------------------

  arrange() {
    const names = [...this.store.sites.keys()];
    this.edges = this.edgeList();
    this.unit = layout(names, this.edges);
    this.nodes.replaceChildren(...names.map((name) => this.button(name)));
    for (const name of [...this.buttons.keys()]) if (!this.store.sites.has(name)) this.buttons.delete(name);
    for (const name of names) this.label(name);
    keepStop(this.nodes, "button", this.buttons.get(this.store.selected));
    this.resize();
  }

  button(name) {
    let made = this.buttons.get(name);
    if (!made) {
      made = el("button", {
        type: "button",
        onclick: () => this.store.select(name),
        onpointerenter: () => { this.hovered = name; this.draw(); },
        onpointerleave: () => { this.hovered = null; this.draw(); },
      });
      this.buttons.set(name, made);
    }
    return made;
  }

  label(name) {
    const site = this.store.sites.get(name), button = this.buttons.get(name);
    if (!site || !button) return;
    const of = site.rounds ? ` of ${site.rounds}` : "";
    const text = `${name}: ${format.STATES[site.state]}, round ${site.round}${of}, ${site.metric} ${format.metric(site.metric, site.value)}`;
    if (button.getAttribute("aria-label") !== text) {
      button.setAttribute("aria-label", text);
      button.title = text;
      button.dataset.state = site.state;
    }
    button.setAttribute("aria-pressed", String(name === this.store.selected));
  }

  resize() {
    const width = this.box.clientWidth, height = this.box.clientHeight;
    if (!width || !height || !this.unit) return;
    const ratio = Math.min(devicePixelRatio || 1, 2);
    for (const canvas of [this.canvas, this.still]) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    this.ratio = ratio;
    this.size = [width, height];
    const count = this.unit.size;
    this.radius = count <= 10 ? 23 : count <= 20 ? 17 : count <= 48 ? 10 : 6.5;
    if (width < 480) this.radius = Math.min(this.radius, count <= 10 ? 20 : 14);
    const margin = this.radius + (count <= 20 ? 30 : 26);
    const round = count <= 12 ? Math.min(width, height * 1.5) : width;
    const inner = [Math.min(width, round) - 2 * margin, height - 2 * margin];
    const left = (width - inner[0]) / 2;
    for (const [name, [x, y]] of this.unit) this.places.set(name, [left + x * inner[0], margin + y * inner[1]]);
    this.spacing = spacing([...this.unit.keys()].map((name) => this.places.get(name)));
    const target = Math.max(12, Math.min(2 * this.radius + 10, this.spacing));
    for (const [name, button] of this.buttons) {
      const [x, y] = this.places.get(name);
      button.style.width = button.style.height = `${target}px`;
      button.style.transform = `translate(${x - target / 2}px, ${y - target / 2}px)`;
    }
    this.draw();
  }

  neighbourOf(button, key) {
    const direction = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key];
    if (!direction) return null;
    const names = [...this.buttons.keys()];
    const from = this.places.get(names.find((name) => this.buttons.get(name) === button));
    let best = null, least = Infinity;
    for (const name of names) {
      const [x, y] = this.places.get(name);
      const along = (x - from[0]) * direction[0] + (y - from[1]) * direction[1];
      const aside = Math.abs((x - from[0]) * direction[1]) + Math.abs((y - from[1]) * direction[0]);
      if (along > 1 && along + 2 * aside < least) {
        least = along + 2 * aside;
        best = this.buttons.get(name);
      }
    }
    return best;
  }

  // --- drawing -------------------------------------------------------------------------------------------------

  draw() {
    if (!this.size) return;
    const paint = this.still.getContext("2d");
    paint.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    paint.clearRect(0, 0, ...this.size);
    const focus = this.hovered;
    for (const [left, right] of this.edges) this.drawEdge(paint, left, right, focus);
    for (const name of this.unit.keys()) this.drawNode(paint, name);
    if (!this.running) this.copy(this.canvas.getContext("2d"));
  }

  copy(paint) {
    paint.setTransform(1, 0, 0, 1, 0, 0);
    paint.clearRect(0, 0, this.canvas.width, this.canvas.height);
    paint.drawImage(this.still, 0, 0);
    paint.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
  }

  edgeAge(left, right) {
    const ends = [[left, right], [right, left]].map(([a, b]) => [this.store.sites.get(a), b]);
    if (ends.some(([site]) => site.state === "silent" || site.state === "stalled")) return "stale";
    if (ends.every(([site]) => site.state === "finished")) return "rest";
    const known = ends.filter(([site, to]) => site.edges[to]).map(([site, to]) => age(site.edges[to].staleness_seconds, this.store.unit));
    return ["stale", "ageing", "none", "fresh"].find((one) => known.includes(one)) ?? "none";
  }

  drawEdge(paint, left, right, focus) {
    const how = this.edgeAge(left, right);
    const touches = focus === left || focus === right;
    paint.beginPath();
    paint.moveTo(...this.places.get(left));
    paint.lineTo(...this.places.get(right));
    paint.setLineDash(DASHES[how]);
    paint.strokeStyle = this.colours[how];
    paint.lineWidth = (this.radius > 15 ? 2.5 : 1.6) + (touches ? 1.5 : 0);
    paint.globalAlpha = focus && !touches ? 0.35 : 1;
    paint.stroke();
    paint.setLineDash([]);
    paint.globalAlpha = 1;
  }

  drawNode(paint, name) {
    const site = this.store.sites.get(name), [x, y] = this.places.get(name), radius = this.radius, colours = this.colours;
    const dead = site.state === "silent" || site.state === "stalled";
    const fill = site.value === null ? null : viridis(this.store.share(site.value));
    paint.beginPath();
    paint.arc(x, y, radius, 0, 2 * Math.PI);
    paint.fillStyle = fill && !dead ? css(fill) : colours.surface;
    paint.fill();
    paint.setLineDash(dead ? [4, 3] : []);
    paint.lineWidth = dead ? 2.5 : 1.5;
    paint.strokeStyle = dead ? colours.stale : colours.line;
    if (dead || !fill) paint.stroke();
    paint.setLineDash([]);
    if (name === this.store.selected || name === this.hovered) {
      paint.beginPath();
      paint.arc(x, y, radius + 4, 0, 2 * Math.PI);
      paint.lineWidth = 2;
      paint.strokeStyle = colours.text;
      paint.stroke();
    }
    this.writeNode(paint, name, site, fill, dead);
  }

  writeNode(paint, name, site, fill, dead) {
    const [x, y] = this.places.get(name), { radius, colours } = this;
    paint.textAlign = "center";
    paint.textBaseline = "middle";
    if (radius >= 14) {
      paint.font = `600 ${radius > 18 ? 13 : 11}px system-ui, sans-serif`;
      paint.fillStyle = dead ? colours.stale : fill ? inkOn(fill) : colours.muted;
      const percent = site.metric === "accuracy" ? `${Math.round(100 * site.value)}` : format.small(site.value);
      const text = site.state === "silent" ? "✕" : site.state === "stalled" ? "!" : site.value === null ? "…" : percent;
      paint.fillText(text, x, y + 0.5);
    } else if (dead) {
      paint.font = "700 9px system-ui, sans-serif";
      paint.fillStyle = colours.stale;
      paint.fillText("✕", x, y);
    }
    const marked = dead || name === this.store.selected || name === this.hovered;
    if (this.spacing < 22 && !marked) return;
    const [width, height] = this.size;
    const dx = x - width / 2, dy = y - height / 2, length = Math.hypot(dx, dy);
    const onCentre = length < 8;
    const out = radius + (dead ? 8 : 7);
    const [ux, uy] = onCentre ? [0, 1] : [dx / length, dy / length];
    paint.font = `${marked ? 650 : 500} ${this.unit.size <= 20 ? 13 : 11}px system-ui, sans-serif`;
    paint.textAlign = ux > 0.35 ? "left" : ux < -0.35 ? "right" : "center";
    const at = [x + ux * out, y + uy * (out + 5)];
    paint.lineWidth = 3;
    paint.strokeStyle = colours.surface;
    paint.strokeText(name, ...at);
    paint.fillStyle = dead ? colours.stale : colours.text;
    paint.fillText(name, ...at);
  }

  // --- pulses --------------------------------------------------------------------------------------------------

  /** Starts a pulse from sender to receiver for each of the updates that were absorbed, spread over half a second. */
  send(arrived) {
    this.begun += arrived.length;
    this.box.dataset.pulses = this.begun;
    if (calm.matches || document.hidden) return;
    const now = performance.now();
    for (const [from, to] of arrived) {
      if (this.pulses.length >= MOST_PULSES || !this.places.has(from)) continue;
      this.pulses.push({ from: this.places.get(from), to: this.places.get(to), begins: now + 500 * Math.random() });
    }
    if (!this.running) {
      this.running = true;
      this.box.dataset.moving = "true";
      requestAnimationFrame(this.frame);
    }
  }

  frame(now) {
    const paint = this.canvas.getContext("2d");
    this.copy(paint);
    this.pulses = this.pulses.filter((pulse) => now < pulse.begins + TRAVEL);
    const size = this.radius > 15 ? 4.5 : 3;
    paint.fillStyle = this.colours.pulse;
    paint.strokeStyle = this.colours.surface;
    paint.lineWidth = 1.5;
    paint.beginPath();
    for (const pulse of this.pulses) {
      const share = (now - pulse.begins) / TRAVEL;
      if (share < 0) continue;
      const [x, y] = along(pulse, share, this.radius);
      paint.moveTo(x + size, y);
      paint.arc(x, y, size, 0, 2 * Math.PI);
    }
    paint.fill();
    paint.stroke();
    this.running = this.pulses.length > 0;
    if (this.running) requestAnimationFrame(this.frame);
    else delete this.box.dataset.moving;
  }

  // --- legend --------------------------------------------------------------------------------------------------

  legend() {
    const unit = this.store.unit, metric = this.store.metric, [low, high] = this.store.range;
    const key = [unit, metric, low, high].join();
    if (key === this.legendKey) return;
    this.legendKey = key;
    const line = (how, text) => el("span", { class: "entry" }, el("span", { class: `stroke ${how}`, "aria-hidden": "true" }), text);
    $("legend").replaceChildren(
      el("span", { class: "entry" }, metric, " ", format.metric(metric, low), el("span", { class: "ramp", "aria-hidden": "true" }), format.metric(metric, high)),
      line("fresh", `heard within ${format.seconds(ageing(unit))}`),
      line("ageing", `within ${format.seconds(stale(unit))}`),
      line("stale", "stale or silent"),
      line("none", "nothing heard yet"),
    );
  }

  /** The same as a table, for those who would rather read. */
  table() {
    const columns = ["Site", "State", "Round", this.store.metric, "Oldest news", "Apart", "Neighbours"];
    const rows = [...this.store.sites].map(([name, site]) => {
      const edges = Object.values(site.edges);
      const most = (key) => Math.max(...edges.map((edge) => edge[key] ?? -1));
      const cells = [
        format.STATES[site.state], format.count(site.round), format.metric(site.metric, site.value),
        edges.length && most("staleness_seconds") >= 0 ? format.seconds(most("staleness_seconds")) : "–",
        edges.length && most("distance") >= 0 ? format.small(most("distance")) : "–",
        Object.keys(site.edges).join(", ") || "–",
      ];
      const pick = el("button", { type: "button", class: "plain", onclick: () => this.store.select(name) }, name);
      return el("tr", {}, el("th", { scope: "row" }, pick), ...cells.map((text) => el("td", {}, text)));
    });
    return el("table", {}, el("thead", {}, el("tr", {}, ...columns.map((text) => el("th", { scope: "col" }, text)))), el("tbody", {}, ...rows));
  }
}

function along({ from, to }, share, radius) {
  const dx = to[0] - from[0], dy = to[1] - from[1], length = Math.hypot(dx, dy) || 1;
  const eased = share * share * (3 - 2 * share);
  const reach = Math.max(0, length - 2 * radius);
  const at = (radius + reach * eased) / length;
  return [from[0] + dx * at, from[1] + dy * at];
}

/** The least distance between two sites, in pixels. */
function spacing(places) {
  let least = Infinity;
  for (let i = 0; i < places.length; i++) {
    for (let j = i + 1; j < places.length; j++) {
      least = Math.min(least, Math.hypot(places[i][0] - places[j][0], places[i][1] - places[j][1]));
    }
  }
  return least;
}
