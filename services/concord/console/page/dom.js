// Making elements, and one tab stop for a group of buttons. Text is always set as text, never as markup.

export const $ = (id) => document.getElementById(id);

/** An element; `props` are attributes, `class`, or `on...` listeners; children are nodes or texts. */
export function el(tag, props = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** Sets a text only if it differs, so that nothing is laid out for nothing. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** A pair of pressed buttons of which one holds. */
export function choose(pairs, then) {
  const buttons = Object.entries(pairs).map(([value, id]) => [value, $(id)]);
  for (const [value, button] of buttons) {
    button.addEventListener("click", () => {
      for (const [, other] of buttons) other.setAttribute("aria-pressed", String(other === button));
      then(value);
    });
  }
}

/** Keeps one tab stop in a group: arrow keys move the focus as `next(current, key)` says. */
export function roving(group, selector, next) {
  group.addEventListener("keydown", (event) => {
    const current = event.target.closest(selector);
    const goal = current && next(current, event.key);
    if (!goal) return;
    event.preventDefault();
    goal.focus();
  });
  group.addEventListener("focusin", (event) => {
    const current = event.target.closest(selector);
    if (current) keepStop(group, selector, current);
  });
}

/** Makes `current`, or else the first, the tab stop of its group. */
export function keepStop(group, selector, current) {
  const all = group.querySelectorAll(selector);
  for (const one of all) one.tabIndex = -1;
  const stop = current ?? all[0];
  if (stop) stop.tabIndex = 0;
}
