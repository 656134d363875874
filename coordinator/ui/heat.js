// heat: expert load by layer, as a map: a row a sparse layer, a column an expert, the experts of a
// domain side by side. A cell's colour is its load over the mean of its layer, so that a balanced
// layer is of one colour and a hot expert stands out, whatever the traffic.

import { $, setText } from "./text.js";

const LEFT = 34, TOP_PLAIN = 4, TOP_NAMED = 20, GAP = 5, BOTTOM = 18;
const SCALES = {
  light: ["#e9eeec", "#b9dcd6", "#63b3ae", "#1f7a86", "#154a68", "#1c1f4a"],
  dark: ["#212c31", "#1f4750", "#1d7a7c", "#35b39b", "#a6dd84", "#fdf3a8"],
};

const map = { data: null, loads: [], at: null, where: null };

function rgb(hex) {
  return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
}

function theme() {
  const asked = document.documentElement.dataset.theme;
  const dark = asked ? asked === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  return dark ? "dark" : "light";
}

// The load at the scale's end, in means of the layer. A question to one domain leaves the others'
// experts alone, so that with g domains g times the mean is what a balanced group shows.
function topRatio() {
  const { groups, nExpert } = map.data;
  return Math.min(nExpert, groups.length > 1 ? 4 * groups.length : 8);
}

// 0 to 1, by the logarithm: a hot expert stands out and an idle one is still told from a used one.
function heatLevel(ratio) {
  return ratio <= 0 ? 0 : Math.min(1, Math.log2(1 + ratio) / Math.log2(1 + topRatio()));
}

// The scale as 256 colours, made once for each theme: a large model has tens of thousands of cells.
const tables = {};

function colours() {
  const name = theme();
  tables[name] ??= Array.from({ length: 256 }, (_, i) => mixed(SCALES[name], i / 255));
  return tables[name];
}

function mixed(stops, level) {
  const x = level * (stops.length - 1), i = Math.min(Math.floor(x), stops.length - 2);
  const a = rgb(stops[i]), b = rgb(stops[i + 1]), f = x - i;
  return `rgb(${a.map((v, k) => Math.round(v + (b[k] - v) * f)).join(" ")})`;
}

// Where each expert's column begins and how wide it is; groups are set apart.
function layout(width, height) {
  const { groups, nExpert, layers } = map.data;
  const gap = groups.length > 1 ? Math.min(GAP, 120 / groups.length) : 0;
  const cell = Math.max(0.5, (width - LEFT - gap * (groups.length - 1)) / Math.max(1, nExpert));
  const top = groups.length > 1 ? TOP_NAMED : TOP_PLAIN;
  const row = (height - top - BOTTOM) / Math.max(1, layers.length);
  const x = new Float64Array(nExpert);
  groups.forEach((group, g) => {
    for (let e = group.first; e < group.first + group.count; e++) x[e] = LEFT + e * cell + g * gap;
  });
  return { cell, row, top, x, gap };
}

function rowHeight(n) {
  return n > 48 ? 5 : n > 24 ? 8 : n > 12 ? 13 : n > 6 ? 20 : 30;
}

function sized(canvas, width, height) {
  const scale = devicePixelRatio || 1, w = Math.round(width * scale), h = Math.round(height * scale);
  if (canvas.width !== w || canvas.height !== h) {
    canvas.width = w;
    canvas.height = h;
    canvas.style.height = `${height}px`;
  }
  const g = canvas.getContext("2d");
  g.setTransform(scale, 0, 0, scale, 0, 0);
  g.clearRect(0, 0, width, height);
  return g;
}

function ratio(row, expert) {
  const loads = map.loads[row];
  return loads.sum ? (loads.count[expert] * map.data.nExpert) / loads.sum : 0;
}

function drawCells(g, p) {
  // Neighbours that share a pixel are drawn on each other, the hottest last and so visible.
  const { nExpert, layers } = map.data, inset = p.cell > 4 ? 1 : 0, table = colours();
  const order = [...Array(nExpert).keys()];
  layers.forEach((_, row) => {
    if (p.cell < 1) order.sort((a, b) => ratio(row, a) - ratio(row, b));
    for (const e of order) {
      g.fillStyle = table[Math.round(255 * heatLevel(ratio(row, e)))];
      g.fillRect(p.x[e], p.top + row * p.row, Math.max(1, p.cell - inset), Math.max(1, p.row - (p.row > 4 ? 1 : 0)));
    }
  });
}

function drawNames(g, p, ink, height) {
  const { groups, layers } = map.data;
  g.fillStyle = ink;
  g.font = "11px system-ui, sans-serif";
  g.textBaseline = "middle";
  g.textAlign = "right";
  const every = Math.ceil(13 / p.row);
  layers.forEach((layer, row) => {
    if (row % every === 0) g.fillText(String(layer), LEFT - 6, p.top + (row + 0.5) * p.row);
  });
  g.textAlign = "center";
  if (groups.length > 1) {
    for (const group of groups) {
      const a = p.x[group.first], width = group.count * p.cell;
      if (g.measureText(group.name).width < width + p.gap) g.fillText(group.name, a + width / 2, TOP_NAMED / 2);
    }
  }
  g.textAlign = "left";
  g.fillText("expert 0", LEFT, height - BOTTOM / 2 + 2);
  g.textAlign = "right";
  const last = map.data.nExpert - 1;
  g.fillText(String(last), p.x[last] + p.cell, height - BOTTOM / 2 + 2);
}

export function heatDraw() {
  if (!map.data) return;
  const canvas = $("heat"), width = $("heat-box").clientWidth;
  if (!width) return;
  const top = map.data.groups.length > 1 ? TOP_NAMED : TOP_PLAIN;
  const height = top + BOTTOM + map.data.layers.length * rowHeight(map.data.layers.length);
  const g = sized(canvas, width, height), p = layout(width, height);
  const ink = getComputedStyle(canvas).color;
  drawCells(g, p);
  drawNames(g, p, ink, height);
  if (map.at) {
    g.strokeStyle = ink;
    g.lineWidth = 1.5;
    g.strokeRect(p.x[map.at.expert] - 1, p.top + map.at.row * p.row - 1, Math.max(2, p.cell) + 1, p.row + 1);
  }
  map.where = p;
  drawScale();
}

function drawScale() {
  setText($("heat-top"), `${topRatio()} × the layer's mean`);
  const canvas = $("heat-scale"), g = canvas.getContext("2d");
  for (let x = 0; x < canvas.width; x++) {
    g.fillStyle = colours()[Math.round((255 * x) / (canvas.width - 1))];
    g.fillRect(x, 0, 1, canvas.height);
  }
}

// ---- reading a cell -----------------------------------------------------------------------------

function say() {
  if (!map.at || !map.data) return;
  const { row, expert } = map.at, loads = map.loads[row];
  const group = map.data.groups.find((g) => expert >= g.first && expert < g.first + g.count);
  const where = group?.name ? `, ${group.name} ${expert - group.first}` : "";
  const share = loads.sum ? ((100 * loads.count[expert]) / loads.sum).toFixed(1) : "0";
  setText($("heat-says"), `Layer ${map.data.layers[row]}, expert ${expert}${where}: chosen ${loads.count[expert]} times, ` +
    `${share} % of the layer (${ratio(row, expert).toFixed(1)} × its mean).`);
}

function pick(event) {
  const p = map.where;
  if (!p || !map.data) return;
  const box = $("heat").getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
  const row = Math.floor((y - p.top) / p.row);
  let expert = -1;
  for (let e = 0; e < map.data.nExpert; e++) if (x >= p.x[e] && x < p.x[e] + Math.max(1, p.cell)) expert = e;
  map.at = row >= 0 && row < map.data.layers.length && expert >= 0 ? { row, expert } : null;
  say();
  heatDraw();
}

const MOVES = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

function move(event) {
  const step = MOVES[event.key];
  if (!step || !map.data) return;
  event.preventDefault();
  const at = map.at ?? { row: 0, expert: -step[1] };
  const clamp = (v, n) => Math.max(0, Math.min(n - 1, v));
  map.at = {
    row: clamp(at.row + step[0], map.data.layers.length),
    expert: clamp(at.expert + step[1], map.data.nExpert),
  };
  say();
  heatDraw();
}

// data: {layers: [layer numbers], nExpert, groups: [{name, first, count}]};
// counts: one array of nExpert numbers for each layer.
export function heatShow(data, counts) {
  map.data = data;
  map.loads = counts.map((count) => ({ count, sum: count.reduce((a, b) => a + b, 0) }));
  if (map.at && (map.at.row >= data.layers.length || map.at.expert >= data.nExpert)) map.at = null;
  heatDraw();
  say();
}

export function heatStart() {
  $("heat").addEventListener("pointermove", pick);
  $("heat").addEventListener("click", pick);
  $("heat").addEventListener("pointerleave", () => { map.at = null; heatDraw(); });
  $("heat").addEventListener("keydown", move);
  new ResizeObserver(heatDraw).observe($("heat-box"));
}
