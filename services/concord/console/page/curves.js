// The metric of all sites against rounds or seconds: thin lines per site, a thick one for their mean, the reference
// run's mean dashed, and training on all data in one place dotted.

import { $, choose, el } from "./dom.js";
import { palette } from "./colours.js";
import * as format from "./format.js";

const LEAST_PAUSE = 400;

export class Curves {
  constructor(store) {
    this.store = store;
    this.canvas = $("curves");
    this.axis = "rounds";
    this.colours = palette();
    this.hover = null;
    choose({ rounds: "by-rounds", seconds: "by-seconds" }, (axis) => { this.axis = axis; this.draw(); });
    new ResizeObserver(() => this.draw()).observe(this.canvas.parentElement);
    this.canvas.addEventListener("pointermove", (event) => { this.hover = event.offsetX; this.draw(); });
    this.canvas.addEventListener("pointerleave", () => { this.hover = null; this.draw(); });
    store.subscribe((change) => this.soon(change));
  }

  restyle() {
    this.colours = palette();
    this.draw();
  }

  soon(change) {
    if (change.kind === "snapshot") this.key();
    this.timer ??= setTimeout(() => { this.timer = null; this.draw(); }, change.kind === "delta" ? LEAST_PAUSE : 0);
  }

  get column() { return this.axis === "rounds" ? 1 : 0; }

  draw() {
    const box = this.canvas.parentElement, width = box.clientWidth, height = box.clientHeight;
    if (!width || !height) return;
    const ratio = Math.min(devicePixelRatio || 1, 2);
    if (this.canvas.width !== Math.round(width * ratio) || this.canvas.height !== Math.round(height * ratio)) {
      this.canvas.width = Math.round(width * ratio);
      this.canvas.height = Math.round(height * ratio);
    }
    const paint = this.canvas.getContext("2d");
    paint.setTransform(ratio, 0, 0, ratio, 0, 0);
    paint.clearRect(0, 0, width, height);
    const curves = [...this.store.points].filter(([, points]) => points.length);
    const mean = average(curves.map(([, points]) => points), this.column);
    const reference = this.referenceMean();
    const view = this.view(width, height, curves, reference);
    this.drawGrid(paint, view);
    if (!curves.length) return this.empty(paint, view);
    const many = curves.length > 20;
    paint.globalAlpha = many ? 0.25 : 0.5;
    for (const [, points] of curves) this.line(paint, view, points.map((point) => [point[this.column], point[2]]), this.colours.accent, 1);
    paint.globalAlpha = 1;
    if (reference.length > 1) this.line(paint, view, reference, this.colours.reference, 2, [6, 4]);
    this.drawPooled(paint, view);
    this.line(paint, view, mean, this.colours.accent, 3);
    if (mean.length === 1) this.dot(paint, view, mean[0]);
    const chosen = this.store.points.get(this.store.selected);
    if (chosen?.length) this.line(paint, view, chosen.map((point) => [point[this.column], point[2]]), this.colours.text, 1.75);
    this.drawHover(paint, view, mean, reference);
    const end = mean[mean.length - 1];
    this.canvas.setAttribute("aria-label", `Mean ${this.store.metric} of ${curves.length} sites: ${format.metric(this.store.metric, end[1])} after ${format.count(Math.round(end[0]))} ${this.axis}` + (this.store.pooled === null ? "" : `; all data in one place: ${format.metric(this.store.metric, this.store.pooled)}`));
  }

  referenceMean() {
    const reference = this.store.reference;
    if (!reference || reference.ends_only) return [];
    return average(Object.values(reference.sites).filter((points) => points.length), this.column);
  }

  view(width, height, curves, reference) {
    let right = 1, low = Infinity, high = -Infinity;
    const see = (x, y) => { right = Math.max(right, x); low = Math.min(low, y); high = Math.max(high, y); };
    for (const [, points] of curves) for (const point of points) see(point[this.column], point[2]);
    for (const [x, y] of reference) see(this.axis === "rounds" ? x : 0, y);
    if (this.store.pooled !== null) see(0, this.store.pooled);
    if (this.axis === "rounds") for (const site of this.store.sites.values()) right = Math.max(right, site.rounds ?? site.round);
    if (low > high) [low, high] = [0, 1];
    if (high - low < 0.02) [low, high] = [low - 0.01, high + 0.01];
    const step = nice((high - low) / 4);
    low = Math.floor(low / step) * step;
    high = Math.ceil(high / step - 1e-9) * step;
    if (this.store.metric === "accuracy") high = Math.min(high, 1);
    const frame = { left: 52, right: width - 14, top: 12, bottom: height - 28 };
    return {
      ...frame, low, high, end: right, step,
      x: (value) => frame.left + (value / right) * (frame.right - frame.left),
      y: (value) => frame.bottom - ((value - low) / (high - low)) * (frame.bottom - frame.top),
    };
  }

  drawGrid(paint, view) {
    paint.font = "12px system-ui, sans-serif";
    paint.lineWidth = 1;
    paint.fillStyle = this.colours.muted;
    paint.strokeStyle = this.colours.grid;
    paint.textBaseline = "middle";
    paint.textAlign = "right";
    for (let value = view.low; value <= view.high + view.step / 100; value += view.step) {
      const y = Math.round(view.y(value)) + 0.5;
      stroke(paint, [[view.left, y], [view.right, y]]);
      const text = this.store.metric === "accuracy" ? `${Number((100 * value).toFixed(1))} %` : format.small(value);
      paint.fillText(text, view.left - 8, y);
    }
    paint.textBaseline = "top";
    const step = nice(view.end / Math.max(2, Math.floor((view.right - view.left) / 90)));
    for (let value = 0; value <= view.end + step / 100; value += step) {
      const x = view.x(value);
      paint.textAlign = x > view.right - 20 ? "right" : "center";
      paint.fillText(this.axis === "rounds" ? format.count(value) : format.seconds(value).replace(".0 s", " s"), x, view.bottom + 8);
    }
  }

  drawPooled(paint, view) {
    const curve = this.store.reference?.pooled ?? [];
    if (!curve.length) return;
    if (this.axis === "rounds" && curve.length > 1) this.line(paint, view, curve, this.colours.muted, 1.5, [2, 3]);
    const y = view.y(curve[curve.length - 1][1]);
    paint.setLineDash([2, 3]);
    paint.strokeStyle = this.colours.muted;
    paint.lineWidth = 1.5;
    if (!(this.axis === "rounds" && curve.length > 1)) stroke(paint, [[view.left, y], [view.right, y]]);
    paint.setLineDash([]);
  }

  drawHover(paint, view, mean, reference) {
    if (this.hover === null || this.hover < view.left || this.hover > view.right) return;
    const at = ((this.hover - view.left) / (view.right - view.left)) * view.end;
    const value = valueAt(mean, at), other = valueAt(reference, at);
    if (value === null) return;
    paint.strokeStyle = this.colours.muted;
    paint.lineWidth = 1;
    stroke(paint, [[this.hover, view.top], [this.hover, view.bottom]]);
    const where = this.axis === "rounds" ? `round ${format.count(Math.round(at))}` : format.seconds(at);
    const text = `${where}: mean ${format.metric(this.store.metric, value)}` + (other === null ? "" : `, reference ${format.metric(this.store.metric, other)}`);
    paint.font = "600 12px system-ui, sans-serif";
    const wide = paint.measureText(text).width;
    const left = Math.min(Math.max(this.hover + 8, view.left), view.right - wide - 8);
    paint.fillStyle = this.colours.surface;
    paint.fillRect(left - 4, view.bottom - 30, wide + 8, 22);
    paint.fillStyle = this.colours.text;
    paint.textAlign = "left";
    paint.textBaseline = "middle";
    paint.fillText(text, left, view.bottom - 19);
  }

  line(paint, view, points, colour, wide, dash = []) {
    if (!points.length) return;
    paint.save();
    paint.beginPath();
    paint.rect(view.left, view.top - 4, view.right - view.left + 4, view.bottom - view.top + 4);
    paint.clip();
    paint.setLineDash(dash);
    paint.strokeStyle = colour;
    paint.lineWidth = wide;
    paint.lineJoin = "round";
    stroke(paint, points.map(([x, y]) => [view.x(x), view.y(y)]));
    paint.restore();
  }

  dot(paint, view, [x, y]) {
    paint.fillStyle = this.colours.accent;
    paint.beginPath();
    paint.arc(view.x(x), view.y(y), 4, 0, 2 * Math.PI);
    paint.fill();
  }

  empty(paint, view) {
    paint.fillStyle = this.colours.muted;
    paint.textAlign = "center";
    paint.textBaseline = "middle";
    paint.fillText("No measurements yet", (view.left + view.right) / 2, (view.top + view.bottom) / 2);
  }

  key() {
    const reference = this.store.reference;
    const entry = (kind, text) => el("span", { class: "entry" }, el("span", { class: `stroke ${kind}`, "aria-hidden": "true" }), text);
    const parts = [entry("mean", "mean of all sites"), entry("single", "each site"), entry("chosen", "chosen site")];
    if (reference && !reference.ends_only) parts.push(entry("other", `mean of ${reference.name}`));
    if (this.store.pooled !== null) parts.push(entry("pooled", "all data in one place"));
    $("curves-key").replaceChildren(...parts);
  }
}

/** The mean of curves over the x that all have reached, at up to 120 places. */
function average(curves, column) {
  if (!curves.length) return [];
  const end = Math.min(...curves.map((points) => points[points.length - 1][column]));
  const begin = Math.max(...curves.map((points) => points[0][column]));
  if (end <= begin) return [[end, curves.reduce((sum, points) => sum + points[points.length - 1][2], 0) / curves.length]];
  const places = Math.min(120, Math.max(2, ...curves.map((points) => points.length)));
  const at = curves.map(() => 0), mean = [];
  for (let i = 0; i < places; i++) {
    const x = begin + ((end - begin) * i) / (places - 1);
    let sum = 0;
    curves.forEach((points, k) => {
      while (at[k] + 1 < points.length && points[at[k] + 1][column] <= x) at[k]++;
      sum += between(points, at[k], x, column);
    });
    mean.push([x, sum / curves.length]);
  }
  return mean;
}

function between(points, index, x, column) {
  const here = points[index], next = points[index + 1];
  if (!next || next[column] === here[column]) return here[2];
  return here[2] + ((next[2] - here[2]) * (x - here[column])) / (next[column] - here[column]);
}

function valueAt(line, x) {
  let found = null;
  for (const [at, value] of line) if (at <= x) found = value;
  return found;
}

function stroke(paint, points) {
  paint.beginPath();
  points.forEach(([x, y], i) => (i ? paint.lineTo(x, y) : paint.moveTo(x, y)));
  paint.stroke();
}

/** 1, 2 or 5 times a power of ten, not under `rough`. */
function nice(rough) {
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map((times) => times * power).find((step) => step >= rough * 0.999);
}
