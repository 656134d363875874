// cluster: the right side: asks the server once a second what it is doing and shows it. While the page
// is not visible it asks nothing.

import { $, make, setText } from "./text.js";
import { getJson } from "./stream.js";
import { chartAdd } from "./chart.js";
import { heatShow } from "./heat.js";
import { readStatus } from "./status.js";
import { talkModel } from "./talk.js";

const PERIOD_MS = 1000;
let last = null;

function number(x) {
  return x >= 100 ? x.toFixed(0) : x >= 10 ? x.toFixed(1) : x > 0 ? x.toFixed(2) : "0";
}

function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  for (; n >= 1024 && i < units.length - 1; i++) n /= 1024;
  return `${n.toFixed(i && n < 10 ? 1 : 0)}\u00a0${units[i]}`;
}

function fillGauge(node, share) {
  node.setAttribute("aria-valuenow", (100 * share).toFixed(0));
  node.firstChild.style.width = `${(100 * Math.min(1, share)).toFixed(1)}%`;
}

function several(n, one) {
  return n ? [`${n} ${one}${n === 1 ? "" : "s"}`] : [];
}

function showModel({ model, workers }) {
  setText($("model-name"), model.name);
  const facts = [model.family, `${model.nLayer} layers`];
  if (model.nExpert) facts.push(`${model.nExpert} experts, ${model.topK} a token`);
  setText($("model-facts"), facts.join(" · "));
  document.title = `${model.name} · sigmoe`;
  talkModel({ name: model.name, domains: model.groups.map((g) => g.name).filter(Boolean), chat: model.chat,
    nameOf: (name) => workers.find((w) => w.id === name)?.name ?? name });
}

// Since the last time it was asked: what the server counts over ten seconds shows a short answer late
// and low.
function showRate(s, before) {
  const seconds = before ? s.at - before.at : 0;
  const since = (kind) => Math.max(0, (s.tokens[kind] - before.tokens[kind]) / seconds);
  const rate = seconds > 0.2 ? since("generated") : s.rate;
  const prompt = seconds > 0.2 ? since("prompt") : s.ratePrompt;
  setText($("rate"), number(rate));
  setText($("rate-prompt"), prompt ? `${number(prompt)} of prompts` : "");
  chartAdd(rate);
}

function showFigures(s) {
  setText($("kv"), `${(100 * s.kv.used).toFixed(s.kv.used && s.kv.used < 0.1 ? 1 : 0)} %`);
  fillGauge($("kv-meter"), s.kv.used);
  const found = s.kv.found === null ? "" : `, ${(100 * s.kv.found).toFixed(0)} % of prompts found`;
  setText($("kv-pages"), s.kv.pages ? `${s.kv.pagesUsed} of ${s.kv.pages} pages${found}` : "");
  setText($("running"), String(s.running));
  setText($("waiting"), String(s.waiting));
}

// ---- workers ------------------------------------------------------------------------------------

function workerNode() {
  const parts = {
    dot: make("span", { class: "dot" }), name: make("strong"), state: make("span", { class: "state" }),
    where: make("span", { class: "quiet where" }), bar: make("div", { class: "gauge", role: "meter", "aria-valuemin": 0, "aria-valuemax": 100 }, make("i")),
    share: make("span", { class: "share" }), facts: make("p", { class: "quiet facts" }),
  };
  const node = make("li", { class: "worker" },
    make("p", { class: "line" }, parts.dot, parts.name, parts.where, parts.state),
    make("p", { class: "line" }, parts.bar, parts.share), parts.facts);
  return Object.assign(node, { parts });
}

function fillWorker(node, worker) {
  const p = node.parts;
  node.classList.toggle("down", !worker.alive);
  setText(p.name, worker.name);
  setText(p.where, worker.where);
  setText(p.state, worker.state);
  fillGauge(p.bar, worker.share);
  p.bar.setAttribute("aria-label", `share of the load of ${worker.name}`);
  setText(p.share, `${(100 * worker.share).toFixed(0)} % of the load`);
  const facts = worker.held ? [`holds ${(100 * worker.held).toFixed(0)} % of the experts`] : [];
  if (worker.rttMs) facts.push(`${worker.rttMs.toFixed(worker.rttMs < 10 ? 2 : 0)} ms a call`);
  facts.push(...several(worker.calls, "call"));
  if (worker.bytes) facts.push(bytes(worker.bytes));
  facts.push(...several(worker.failures, "failure"));
  setText(p.facts, facts.join(" · "));
}

function showWorkers(s) {
  const list = $("workers"), workers = [...s.workers];
  if (s.localShare > 0) {
    workers.push({ name: "coordinator", where: "", state: "stands in", alive: true, share: s.localShare });
  }
  while (list.children.length > workers.length) list.lastChild.remove();
  while (list.children.length < workers.length) list.append(workerNode());
  workers.forEach((worker, i) => fillWorker(list.children[i], worker));
  const up = s.workers.filter((w) => w.alive).length;
  setText($("workers-count"), s.workers.length ? `${up} of ${s.workers.length} answer` : "none: this process computes alone");
}

// ---- the map ------------------------------------------------------------------------------------

function showHeat(s) {
  const sparse = s.load.layers.length > 0;
  for (const id of ["heat-box", "heat-says"]) $(id).hidden = !sparse;
  document.querySelector(".heat-head").hidden = document.querySelector(".legend").hidden = !sparse;
  $("no-experts").hidden = sparse;
  if (!sparse) return;
  const recent = document.querySelector("input[name=span]:checked").value === "recent";
  setText($("span-recent"), `last ${Math.round(s.windowS) || 10} s`);
  heatShow({ layers: s.load.layers, nExpert: s.model.nExpert, groups: s.model.groups },
    recent ? s.load.recent : s.load.all);
}

// ---- asking -------------------------------------------------------------------------------------

function showHealth(s) {
  const ready = s.uncovered === 0;
  $("health").dataset.state = ready ? "good" : "poor";
  setText($("health"), ready ? "ready" : "degraded");
  $("stale").hidden = ready;
  const pairs = s.load.layers.length * s.model.nExpert;
  if (!ready) {
    setText($("stale"), `No worker answers for ${(100 * s.uncovered / pairs).toFixed(0)} % of the experts; ` +
      "the coordinator computes them itself: slower, with the same result.");
  }
}

const TROUBLE = {
  401: ["key needed", "The server asks for a key: put it into the settings."],
  503: ["loading", "The server is reading its model."],
};

function showTrouble(error) {
  const [short, long] = TROUBLE[error.status] ??
    ["no answer", "The server does not answer; these figures are old."];
  $("health").dataset.state = error.status === 503 ? "poor" : "bad";
  setText($("health"), short);
  $("stale").hidden = false;
  setText($("stale"), long);
  if (error.status === 401) $("key-field").hidden = false;
}

async function once() {
  try {
    const before = last;
    last = readStatus(await getJson("sigmoe/status", AbortSignal.timeout(5000)));
    showModel(last);
    showRate(last, before);
    showFigures(last);
    showWorkers(last);
    showHeat(last);
    showHealth(last);
  } catch (error) {
    showTrouble(error);
  }
}

async function forever() {
  for (;;) {
    const began = performance.now();
    if (!document.hidden) await once();
    await new Promise((done) => setTimeout(done, Math.max(100, PERIOD_MS - (performance.now() - began))));
  }
}

export function clusterStart() {
  for (const radio of document.querySelectorAll("input[name=span]")) {
    radio.addEventListener("change", () => last && showHeat(last));
  }
  forever();
}
