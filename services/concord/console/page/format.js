// Numbers and times as people read them.

const counts = new Intl.NumberFormat("en");

export const count = (value) => (value === null || value === undefined ? "–" : counts.format(value));

/** A metric: shares as percentages, anything else with three digits. */
export function metric(name, value) {
  if (value === null || value === undefined) return "–";
  return name === "accuracy" ? `${(100 * value).toFixed(1)} %` : Number(value.toPrecision(4)).toString();
}

export function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 10) return `${value.toFixed(1)} s`;
  if (value < 120) return `${value.toFixed(0)} s`;
  if (value < 7200) return `${(value / 60).toFixed(0)} min`;
  return `${(value / 3600).toFixed(1)} h`;
}

export const small = (value) => (value === null || value === undefined ? "–" : Number(value.toPrecision(3)).toString());

export const clock = (unixSeconds) =>
  new Date(1000 * unixSeconds).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });

export const STATES = {
  waiting: "not heard yet", joining: "joining", training: "training", finished: "finished", stalled: "stalled",
  silent: "silent",
};
