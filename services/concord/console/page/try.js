// Ask a site: draw, upload, or give the numbers. The console passes the question on; the page knows no site's address.

import { $, choose, el, say } from "./dom.js";
import { blank, lay, pictureOf, sample } from "./inputs.js";
import * as format from "./format.js";

const PAD = 200;
const PEN = 20;
const PAUSE = 350;
const MOST_BYTES = 8 << 20;

export class Try {
  constructor(store) {
    this.store = store;
    this.box = $("try");
    this.picker = $("try-site");
    this.picture = null;
    this.asked = 0;
    this.build();
    this.picker.addEventListener("change", () => store.select(this.picker.value));
    store.subscribe((change) => this.update(change));
  }

  update(change) {
    if (change.kind === "snapshot") this.picker.replaceChildren(...[...this.store.sites.keys()].map((site) => el("option", {}, site)));
    if (!this.store.selected) return;
    const moved = this.picker.value !== this.store.selected;
    this.picker.value = this.store.selected;
    if (!this.shape && !this.learning) this.learn();
    if (moved && change.kind === "selection" && this.dirty) this.ask();
  }

  /** Learns the shape of the input from the chosen site: with the first answer that has a model in it. */
  async learn() {
    const site = this.store.sites.get(this.store.selected);
    if (site.version === 0 || site.state === "silent" || site.state === "waiting") return;
    this.learning = true;
    try {
      const found = await (await fetch(`/api/sites/${encodeURIComponent(this.store.selected)}/models`)).json();
      const model = found.models?.[0];
      if (model) {
        this.shape = model.input_shape;
        this.picture = pictureOf(site.task, this.shape);
        this.box.dataset.ready = "true";
        this.mode(this.picture ? "draw" : "numbers");
        say(this.hint, this.picture ? `The model takes ${this.picture.width} × ${this.picture.height} pixels.` : `The model takes rows of ${this.shape.join(" × ")} numbers.`);
      }
    } catch { /* asked again with the next message */ }
    this.learning = false;
  }

  build() {
    this.pad = blank(PAD, PAD);
    this.pad.className = "pad";
    this.pad.tabIndex = 0;
    this.pad.setAttribute("role", "img");
    this.pad.setAttribute("aria-label", "Drawing area. Draw with pointer or finger; by keyboard, arrow keys move the pen and hold Space to draw.");
    this.seen = blank(8, 8);
    this.seen.className = "seen";
    this.seen.setAttribute("role", "img");
    this.seen.setAttribute("aria-label", "What the model sees");
    this.hint = el("p", { class: "muted", id: "try-hint" }, "No site has a model yet.");
    this.file = el("input", { type: "file", accept: "image/*", id: "try-file", onchange: () => this.upload() });
    this.numbers = el("textarea", { id: "try-numbers", rows: "6", spellcheck: "false", placeholder: "[[0.0, 0.5, 1.0]]" });
    this.result = el("div", { class: "result", role: "status" }, el("p", { class: "empty" }, "Draw, upload or type something, and a site tells what it takes it for."));
    this.drawing = el(
      "div", { class: "drawing" }, this.pad,
      el("div", { class: "side" }, el("span", { class: "muted" }, "What the model sees"), this.seen,
        el("div", { class: "buttons" }, el("button", { type: "button", onclick: () => this.ask() }, "Ask"), el("button", { type: "button", class: "quiet", onclick: () => this.clear() }, "Clear"),
          el("label", { class: "button quiet", for: "try-file" }, "Upload"), this.file)),
    );
    this.typing = el(
      "div", { class: "typing", hidden: true }, el("label", { for: "try-numbers" }, "Rows of numbers, as JSON"), this.numbers,
      el("div", { class: "buttons" }, el("button", { type: "button", onclick: () => this.askNumbers() }, "Ask"), el("button", { type: "button", class: "quiet", onclick: () => this.takeDrawing() }, "Take the drawing")),
    );
    this.box.append(
      el("div", { class: "choice", role: "group", "aria-label": "Input as" },
        el("button", { type: "button", id: "try-draw", "aria-pressed": "true" }, "Picture"), el("button", { type: "button", id: "try-type", "aria-pressed": "false" }, "Numbers")),
      el("div", { class: "asking" }, el("div", { class: "inputs" }, this.drawing, this.typing, this.hint), this.result),
    );
    choose({ draw: "try-draw", numbers: "try-type" }, (mode) => this.mode(mode));
    this.listen();
  }

  mode(mode) {
    this.drawing.hidden = mode !== "draw";
    this.typing.hidden = mode === "draw";
    $("try-draw").setAttribute("aria-pressed", String(mode === "draw"));
    $("try-type").setAttribute("aria-pressed", String(mode !== "draw"));
  }

  // --- the pad -------------------------------------------------------------------------------------------------

  listen() {
    const at = (event) => [(event.offsetX * PAD) / this.pad.clientWidth, (event.offsetY * PAD) / this.pad.clientHeight];
    let last = null;
    this.pad.addEventListener("pointerdown", (event) => {
      this.pad.setPointerCapture(event.pointerId);
      last = at(event);
      this.stroke(last, last);
    });
    this.pad.addEventListener("pointermove", (event) => {
      if (!last) return;
      const next = at(event);
      this.stroke(last, next);
      last = next;
    });
    for (const end of ["pointerup", "pointercancel"]) this.pad.addEventListener(end, () => { last = null; });
    this.pen = [PAD / 2, PAD / 3];
    this.penDown = false;
    this.pad.addEventListener("keyup", (event) => { if (event.key === " ") this.penDown = false; });
    this.pad.addEventListener("blur", () => { this.penDown = false; });
    this.pad.addEventListener("keydown", (event) => this.key(event));
  }

  key(event) {
    const step = { ArrowLeft: [-10, 0], ArrowRight: [10, 0], ArrowUp: [0, -10], ArrowDown: [0, 10] }[event.key];
    if (event.key === "Enter") this.ask();
    if (event.key === " ") {
      this.penDown = true;
      this.stroke(this.pen, this.pen);
    }
    if (!step && event.key !== " ") return;
    event.preventDefault();
    if (!step) return;
    const next = this.pen.map((value, i) => Math.min(PAD - 8, Math.max(8, value + step[i])));
    if (this.penDown) this.stroke(this.pen, next);
    this.pen = next;
  }

  stroke(from, to) {
    const paint = this.pad.getContext("2d");
    paint.strokeStyle = "#fff";
    paint.lineWidth = PEN;
    paint.lineCap = "round";
    paint.beginPath();
    paint.moveTo(...from);
    paint.lineTo(to[0] + 0.01, to[1]);
    paint.stroke();
    this.changed();
  }

  changed() {
    this.dirty = true;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.ask(), PAUSE);
    this.preview();
  }

  preview() {
    if (!this.picture) return null;
    const { values, small } = sample(this.pad, this.picture);
    this.seen.width = small.width;
    this.seen.height = small.height;
    this.seen.getContext("2d").drawImage(small, 0, 0);
    return values;
  }

  clear() {
    const paint = this.pad.getContext("2d");
    paint.fillStyle = "#000";
    paint.fillRect(0, 0, PAD, PAD);
    clearTimeout(this.timer);
    this.preview();
    this.dirty = false;
    this.result.replaceChildren(el("p", { class: "empty" }, "Cleared."));
  }

  async upload() {
    const [file] = this.file.files;
    this.file.value = "";
    if (!file || !this.picture) return;
    if (file.size > MOST_BYTES) return this.fail("The file is larger than 8 MB; choose a smaller picture.");
    try {
      lay(this.pad, await createImageBitmap(file), this.picture);
      this.changed();
    } catch {
      this.fail("The file is not a picture that this browser can read.");
    }
  }

  takeDrawing() {
    const values = this.preview();
    if (values) this.numbers.value = JSON.stringify([values]);
  }

  // --- asking --------------------------------------------------------------------------------------------------

  ask() {
    clearTimeout(this.timer);
    const values = this.preview();
    if (!values) return this.fail("The sites have no model yet, or it takes no pictures.");
    if (this.dirty) this.send([values]);
  }

  askNumbers() {
    try {
      const found = JSON.parse(this.numbers.value);
      this.send(found.inputs ?? found);
    } catch (error) {
      this.fail(`This is not JSON: ${error.message}`);
    }
  }

  async send(inputs) {
    const site = this.store.selected, turn = ++this.asked;
    try {
      const answer = await fetch(`/api/sites/${encodeURIComponent(site)}/predict`, {
        method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ inputs }),
      });
      const found = await answer.json();
      if (turn !== this.asked) return;
      if (answer.ok) this.show(site, found);
      else this.fail(found.expected ? `${site} expected ${found.expected}` : found.error ?? `the answer was ${answer.status}`);
    } catch {
      if (turn === this.asked) this.fail("The console does not answer.");
    }
  }

  fail(text) { this.result.replaceChildren(el("p", { class: "problem" }, text)); }

  show(site, { predictions, model }) {
    const [first] = predictions;
    const about = `${site}, version ${format.count(model.version)}, round ${format.count(model.round)}`;
    if (first.probabilities === undefined) {
      this.result.replaceChildren(el("p", { class: "verdict" }, JSON.stringify(first.outputs)), el("p", { class: "muted" }, about));
      return;
    }
    const classes = Object.keys(this.store.sites.get(site)?.classes ?? {});
    const name = (index) => classes[index] ?? String(index);
    const ranked = first.probabilities.map((share, index) => [share, index]).sort((a, b) => b[0] - a[0]).slice(0, 4);
    const own = this.store.sites.get(site)?.classes?.[first.label];
    const never = own === 0 ? ` It has no “${first.label}” of its own to learn from.` : "";
    this.result.dataset.label = first.label;
    this.result.replaceChildren(
      el("p", { class: "verdict" }, el("strong", {}, String(first.label ?? first.class)), ` ${format.metric("accuracy", first.probability)}`),
      el("p", { class: "muted" }, `${about}.${never}`),
      el("ul", { class: "shares", "aria-label": "Most probable classes" }, ...ranked.map(([share, index]) => {
        const bar = el("i");
        bar.style.transform = `scaleX(${share})`;
        return el("li", {}, el("span", {}, name(index)), el("span", { class: "bar run", "aria-hidden": "true" }, bar), el("span", { class: "number" }, format.metric("accuracy", share)));
      })),
    );
  }
}
