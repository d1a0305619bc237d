// Places for the sites of a graph in a unit box: a circle for a ring and for small graphs, springs for the others.

/** Positions as Map name -> [x, y], each from 0 to 1; equal graphs get equal places. */
export function layout(names, edges) {
  const near = new Map(names.map((name) => [name, new Set()]));
  for (const [left, right] of edges) {
    near.get(left)?.add(right);
    near.get(right)?.add(left);
  }
  const ring = asRing(names, near);
  if (ring) return circle(ring);
  const hub = asStar(names, near);
  if (hub) return new Map([...circle(names.filter((name) => name !== hub)), [hub, [0.5, 0.5]]]);
  return names.length <= 12 ? circle(names) : springs(names, edges, near);
}

function circle(names) {
  return new Map(names.map((name, i) => {
    const angle = (2 * Math.PI * i) / names.length - Math.PI / 2;
    return [name, [0.5 + 0.5 * Math.cos(angle), 0.5 + 0.5 * Math.sin(angle)]];
  }));
}

/** The sites in the order of the ring they form, or null. */
function asRing(names, near) {
  if (names.length < 3 || names.some((name) => near.get(name).size !== 2)) return null;
  const order = [names[0]];
  const seen = new Set(order);
  for (;;) {
    const last = order[order.length - 1];
    const onward = [...near.get(last)].find((name) => !seen.has(name));
    if (onward === undefined) return order.length === names.length ? order : null;
    order.push(onward);
    seen.add(onward);
  }
}

function asStar(names, near) {
  const hubs = names.filter((name) => near.get(name).size > 1);
  return names.length > 3 && hubs.length === 1 ? hubs[0] : null;
}

/** Fruchterman and Reingold (1991), from a circle, cooling; without chance. */
function springs(names, edges, near) {
  const start = circle(order(names, near));
  const index = new Map(names.map((name, i) => [name, i]));
  const x = names.map((name) => start.get(name)[0]), y = names.map((name) => start.get(name)[1]);
  const pairs = edges.map(([left, right]) => [index.get(left), index.get(right)]).filter(([l, r]) => l !== undefined && r !== undefined);
  const wanted = 0.9 / Math.sqrt(names.length);
  const steps = 260;
  for (let step = 0; step < steps; step++) {
    const dx = new Float64Array(names.length), dy = new Float64Array(names.length);
    for (let i = 0; i < names.length; i++) {
      for (let j = i + 1; j < names.length; j++) {
        const ax = x[i] - x[j], ay = y[i] - y[j];
        const square = Math.max(ax * ax + ay * ay, 1e-6);
        const push = (wanted * wanted) / square;
        dx[i] += ax * push; dy[i] += ay * push; dx[j] -= ax * push; dy[j] -= ay * push;
      }
    }
    for (const [i, j] of pairs) {
      const ax = x[i] - x[j], ay = y[i] - y[j];
      const pull = Math.hypot(ax, ay) / wanted;
      dx[i] -= ax * pull; dy[i] -= ay * pull; dx[j] += ax * pull; dy[j] += ay * pull;
    }
    const heat = 0.08 * (1 - step / steps);
    for (let i = 0; i < names.length; i++) {
      const length = Math.hypot(dx[i], dy[i]) || 1;
      x[i] += (dx[i] / length) * Math.min(length, heat);
      y[i] += (dy[i] / length) * Math.min(length, heat);
    }
  }
  return fit(names, x, y);
}

/** Neighbours beside each other, as far as a walk finds them. */
function order(names, near) {
  const left = new Set(names), walk = [];
  while (left.size) {
    let name = left.values().next().value;
    while (name !== undefined) {
      walk.push(name);
      left.delete(name);
      name = [...near.get(name)].find((other) => left.has(other));
    }
  }
  return walk;
}

function fit(names, x, y) {
  const [left, right] = [Math.min(...x), Math.max(...x)], [top, bottom] = [Math.min(...y), Math.max(...y)];
  return new Map(names.map((name, i) => [name, [(x[i] - left) / (right - left || 1), (y[i] - top) / (bottom - top || 1)]]));
}
