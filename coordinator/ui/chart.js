// chart: tokens a second over the last two minutes, a point a second.

import { $ } from "./text.js";

const POINTS = 120;
const points = [];

export function chartAdd(value) {
  points.push(value);
  if (points.length > POINTS) points.shift();
  chartDraw();
}

export function chartDraw() {
  const canvas = $("rate-chart"), width = canvas.clientWidth, height = 64, scale = devicePixelRatio || 1;
  if (!width) return;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const g = canvas.getContext("2d"), style = getComputedStyle(canvas);
  g.scale(scale, scale);
  const most = Math.max(1, ...points), step = width / (POINTS - 1);
  const x = (i) => width - (points.length - 1 - i) * step;
  const y = (v) => height - 2 - (v / most) * (height - 16);
  g.strokeStyle = style.getPropertyValue("--line");
  g.beginPath();
  g.moveTo(0, height - 1.5);
  g.lineTo(width, height - 1.5);
  g.stroke();
  if (points.length > 1) {
    g.beginPath();
    points.forEach((v, i) => (i ? g.lineTo(x(i), y(v)) : g.moveTo(x(i), y(v))));
    g.strokeStyle = style.color;
    g.lineWidth = 1.75;
    g.lineJoin = "round";
    g.stroke();
    g.lineTo(x(points.length - 1), height - 1.5);
    g.lineTo(x(0), height - 1.5);
    g.globalAlpha = 0.13;
    g.fillStyle = style.color;
    g.fill();
    g.globalAlpha = 1;
  }
  g.fillStyle = style.getPropertyValue("--quiet");
  g.font = "11px system-ui, sans-serif";
  g.textAlign = "right";
  if (Math.max(0, ...points) > 0) g.fillText(`most ${most.toFixed(most < 10 ? 1 : 0)}`, width - 2, 10);
}
