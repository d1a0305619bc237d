// Two scales that people with any colour vision tell apart: viridis for the metric (Smith and van der Walt, 2015), and
// blue, orange and vermilion of Okabe and Ito (2008) for staleness, which has dashes too.

const VIRIDIS = ["#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"]
  .map((text) => [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16)));

/** The colour of a share from 0 to 1, as [red, green, blue]. */
export function viridis(share) {
  const at = Math.min(Math.max(share, 0), 1) * (VIRIDIS.length - 1);
  const low = Math.min(Math.floor(at), VIRIDIS.length - 2);
  return VIRIDIS[low].map((from, i) => Math.round(from + (at - low) * (VIRIDIS[low + 1][i] - from)));
}

export const css = ([red, green, blue]) => `rgb(${red} ${green} ${blue})`;

/** Black or white, whichever reads better on a colour. */
export function inkOn(colour) {
  const [red, green, blue] = colour.map((value) => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 ? "#000" : "#fff";
}

/** How old what a site knows of a neighbour is: by so many rounds' time. */
export const AGES = ["rest", "none", "fresh", "ageing", "stale"];
export const DASHES = { rest: [], none: [2, 4], fresh: [], ageing: [7, 3], stale: [3, 5] };
export const ageing = (unit) => 4 * unit;
export const stale = (unit) => 20 * unit;

export function age(secondsOld, unit) {
  if (secondsOld === null || secondsOld === undefined) return "none";
  if (secondsOld < ageing(unit)) return "fresh";
  return secondsOld < stale(unit) ? "ageing" : "stale";
}

/** The colours of the page's present theme, by the names of its custom properties. */
export function palette() {
  const style = getComputedStyle(document.documentElement);
  const names = ["text", "muted", "line", "surface", "accent", "reference", "fresh", "ageing", "stale", "none", "rest", "pulse", "grid"];
  return Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}
