// The fleet as the server tells it: one snapshot, then what changed. Views subscribe and are called once a message.

const COLUMNS = ["epoch", "sent", "received", "neighbour_round", "staleness_seconds", "staleness_rounds", "distance", "penalty", "refused"];
const POINTS = 600;
const EVENTS = 200;

export class Store {
  constructor() {
    this.sites = new Map();
    this.points = new Map();
    this.events = [];
    this.reference = null;
    this.at = 0;
    this.unit = 0.5;
    this.beganAt = 0;
    this.title = "";
    this.columns = COLUMNS;
    this.selected = null;
    this.listeners = [];
  }

  subscribe(listener) { this.listeners.push(listener); }

  tell(change) { for (const listener of this.listeners) listener(change); }

  select(name) {
    if (!this.sites.has(name) || name === this.selected) return;
    this.selected = name;
    this.tell({ kind: "selection", sites: new Set() });
  }

  snapshot(data) {
    this.columns = data.edge_columns;
    this.sites = new Map(Object.entries(data.sites).map(([name, site]) => [name, { ...site, edges: this.edges(site.edges) }]));
    this.points = new Map(Object.entries(data.points));
    this.events = data.events;
    this.reference = data.reference;
    this.beganAt = data.began_at;
    this.title = data.title;
    this.at = data.at;
    this.unit = data.unit;
    if (!this.sites.has(this.selected)) this.selected = this.sites.keys().next().value ?? null;
    this.tell({ kind: "snapshot", sites: new Set(this.sites.keys()), arrived: [], events: [] });
  }

  delta(data) {
    const arrived = [];
    for (const [name, changed] of Object.entries(data.sites ?? {})) {
      const site = this.sites.get(name);
      if (!site) continue;
      if (changed.edges) {
        const edges = this.edges(changed.edges);
        for (const [neighbour, edge] of Object.entries(edges)) {
          const before = site.edges[neighbour]?.received ?? edge.received;
          if (edge.received > before) arrived.push([neighbour, name, edge.received - before]);
        }
        changed.edges = edges;
      }
      Object.assign(site, changed);
    }
    for (const [name, point] of Object.entries(data.points ?? {})) append(this.points, name, point);
    for (const [name, point] of Object.entries(data.reference_points ?? {})) {
      this.reference.sites[name] ??= [];
      append(new Map([[name, this.reference.sites[name]]]), name, point, (kept) => { this.reference.sites[name] = kept; });
    }
    this.at = data.at;
    this.unit = data.unit ?? this.unit;
    this.events = [...this.events, ...(data.events ?? [])].slice(-EVENTS);
    this.tell({ kind: "delta", sites: new Set(Object.keys(data.sites ?? {})), arrived, events: data.events ?? [] });
  }

  edges(rows) {
    const named = {};
    for (const [neighbour, row] of Object.entries(rows)) {
      named[neighbour] = Object.fromEntries(this.columns.map((column, i) => [column, row[i]]));
    }
    return named;
  }

  get metric() {
    for (const site of this.sites.values()) if (site.federation) return site.metric;
    return "accuracy";
  }

  /** From the least to the greatest value that the scale of the metric shows. */
  get range() {
    let low = 0, high = 1;
    for (const { value } of this.sites.values()) {
      if (value === null) continue;
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
    return [low, high];
  }

  share(value) {
    const [low, high] = this.range;
    return (value - low) / (high - low || 1);
  }

  /** What the reference run had at this site when it had done as many rounds; null if that is not known. */
  referenceAt(name, round) {
    const reference = this.reference;
    if (!reference) return null;
    const curve = reference.sites[name];
    if (!curve?.length) return reference.mean ?? null;
    if (reference.live || reference.ends_only) return curve[curve.length - 1][2];
    let low = 0, high = curve.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (curve[middle][1] <= round) low = middle;
      else high = middle - 1;
    }
    return curve[low][1] <= round ? curve[low][2] : null;
  }

  get pooled() {
    const pooled = this.reference?.pooled ?? [];
    return pooled.length ? pooled[pooled.length - 1][1] : null;
  }
}

function append(curves, name, point, replaced) {
  let curve = curves.get(name) ?? [];
  curve.push(point);
  if (curve.length > POINTS) curve = curve.filter((_, i) => i % 2 === 0 || i === curve.length - 1);
  curves.set(name, curve);
  replaced?.(curve);
}
