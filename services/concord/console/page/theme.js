// Runs before the first paint, so that a chosen theme does not flash. The choice is kept in this browser.
"use strict";
{
  let chosen = null;
  try { chosen = localStorage.getItem("concord-theme"); } catch { /* storage may be forbidden */ }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
}
