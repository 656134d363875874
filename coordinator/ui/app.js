// app: starts the page's two halves, and what belongs to neither: theme and, on a phone, which half.

import { $ } from "./text.js";
import { talkStart } from "./talk.js";
import { clusterStart } from "./cluster.js";
import { heatDraw, heatStart } from "./heat.js";
import { chartDraw } from "./chart.js";

function isDark() {
  const asked = document.documentElement.dataset.theme;
  return asked ? asked === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function redraw() {
  heatDraw();
  chartDraw();
}

function themeStart() {
  const kept = localStorage.getItem("theme");
  if (kept === "dark" || kept === "light") document.documentElement.dataset.theme = kept;
  $("theme").addEventListener("click", () => {
    const theme = isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = theme;
    localStorage.setItem("theme", theme);
    redraw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
}

function show(view) {
  document.body.dataset.view = view;
  $("show-chat").setAttribute("aria-pressed", String(view === "chat"));
  $("show-cluster").setAttribute("aria-pressed", String(view === "cluster"));
  redraw();
}

$("show-chat").addEventListener("click", () => show("chat"));
$("show-cluster").addEventListener("click", () => show("cluster"));
themeStart();
show("chat");
talkStart();
heatStart();
clusterStart();
