// Draws the recorded steps of a training. The numbers are in the page itself, in the element "record".
"use strict";

const record = JSON.parse(document.getElementById("record").textContent);
const steps = record.steps, nets = record.nets, last = steps.length - 1;
const SVG = "http://www.w3.org/2000/svg";

function element(name, attributes, parent, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  if (parent) parent.appendChild(made);
  return made;
}

// ------------------------------------------------------------------------------------------------ axes

const HALF = 420, WHOLE = 880, HEIGHT = 230;  // of the panels, in units of the SVG
const LEFT = 52, TOP = 14, BOTTOM = 192;       // of the axes

function linear(from, to, low, high) {
  return value => low + (value - from) / (to - from || 1) * (high - low);
}

function logarithmic(from, to, low, high) {
  const at = linear(Math.log10(from), Math.log10(to), low, high);
  return value => at(Math.log10(value));
}

// Return powers of ten, at most six; for a small range also other round numbers, so that there are at least two.
function logTicks(from, to) {
  const first = Math.floor(Math.log10(from)), count = Math.floor(Math.log10(to)) - first + 1;
  const powers = Array.from({length: count}, (_, i) => first + i);
  for (const digits of [[1], [1, 2, 5], [1, 1.5, 2, 3, 5, 7]]) {
    const ticks = powers.flatMap(power => digits.map(digit => digit * 10 ** power));
    const inside = ticks.filter(tick => tick >= from && tick <= to), each = Math.ceil(inside.length / 6);
    if (inside.length > 1) return inside.filter((_, i) => i % each === 0);
  }
  return [from, to];
}

function written(value) {
  return value !== 0 && (value < 0.01 || value >= 10000) ? value.toExponential(0) : String(+value.toPrecision(3));
}

// Return an SVG with axes, and the functions that place a value on each axis.
function panel(holder, width, label, xs, ys, xText, yText) {
  const svg = element("svg", {viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": label}, holder);
  const right = width - 14, x = xs.scale(xs.from, xs.to, LEFT, right), y = ys.scale(ys.from, ys.to, BOTTOM, TOP);
  for (const tick of ys.ticks) {
    element("line", {x1: LEFT, x2: right, y1: y(tick), y2: y(tick), class: "grid"}, svg);
    element("text", {x: LEFT - 6, y: y(tick) + 4, class: "tick end"}, svg, written(tick));
  }
  for (const tick of xs.ticks) {
    element("text", {x: x(tick), y: BOTTOM + 16, class: "tick middle"}, svg, written(tick));
  }
  element("text", {x: (LEFT + right) / 2, y: HEIGHT - 6, class: "tick middle"}, svg, xText);
  element("text", {x: LEFT, y: 9, class: "tick"}, svg, yText);
  return {svg, x, y};
}

// Return the path through these points. A value that is missing or has no place on the axis leaves a gap.
function path(values, x, y) {
  let drawn = "", pen = "M";
  values.forEach((value, i) => {
    const at = value === null ? NaN : y(value);
    if (Number.isFinite(at)) { drawn += `${pen}${x(i).toFixed(1)} ${at.toFixed(1)}`; pen = "L"; } else pen = "M";
  });
  return drawn;
}

function roundTicks(to, most) {
  const each = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000].find(step => to / step <= most) || to;
  return Array.from({length: Math.floor(to / each) + 1}, (_, i) => i * each);
}

// ---------------------------------------------------------------------------------------------- panels

// A panel with one number for every layer. The thin line is step 0, the control.
function byLayer(holder, net, key, label, yText) {
  const all = nets.flatMap(one => one[key].flat()).filter(value => value !== null && value > 0);
  const low = Math.min(...all), high = Math.max(...all), count = net[key][0].length;
  const {svg, x, y} = panel(holder, HALF, label,
    {scale: linear, from: 1, to: count, ticks: [1, ...roundTicks(count, 6).filter(tick => tick > 1)]},
    {scale: logarithmic, from: low / 1.2, to: high * 1.2, ticks: logTicks(low / 1.2, high * 1.2)},
    "layer, 1 = nearest the input", yText);
  const place = i => x(i + 1);
  element("path", {d: path(net[key][0], place, y), class: "control"}, svg);
  const line = element("path", {class: `line ${net.kind}`}, svg);
  return frame => line.setAttribute("d", path(net[key][frame], place, y));
}

// The filters of the first layer: each square is a weight, middle grey is 0.
function filters(holder, net, label) {
  const [count, height, width] = record.filters, size = 15, gap = 8;
  const columns = Math.min(count, 8), rows = Math.ceil(count / columns);
  const svg = element("svg", {viewBox: `0 0 ${columns * (width * size + gap)} ${rows * (height * size + gap)}`,
    role: "img", "aria-label": label}, holder);
  const squares = [];
  for (let i = 0; i < count; i += 1) {
    for (let j = 0; j < height * width; j += 1) {
      squares.push(element("rect", {x: (i % columns) * (width * size + gap) + (j % width) * size,
        y: Math.floor(i / columns) * (height * size + gap) + Math.floor(j / width) * size, width: size, height: size},
      svg));
    }
  }
  return frame => net.filters[frame].forEach((shade, i) => squares[i].setAttribute("fill",
    `rgb(${shade},${shade},${shade})`));
}

// Training error (thick) and test error (thin) of both networks up to the chosen step.
function errors(holder) {
  const width = holder.clientWidth < 600 ? HALF : WHOLE;  // on a phone the letters would be too small
  const {svg, x, y} = panel(holder, width, "Training and test error of both networks by step",
    {scale: linear, from: 0, to: steps[last], ticks: roundTicks(steps[last], 6)},
    {scale: linear, from: 0, to: 100, ticks: [0, 20, 40, 60, 80, 100]}, "step", "error (%)");
  const lines = [];
  for (const net of nets) {
    for (const key of ["train_error", "test_error"]) {
      const line = element("path", {class: `line ${net.kind} ${key}`}, svg);
      lines.push(frame => line.setAttribute("d", path(net[key].slice(0, frame + 1), i => x(steps[i]), y)));
    }
  }
  const now = element("line", {y1: TOP, y2: BOTTOM, class: "now"}, svg);
  lines.push(frame => { now.setAttribute("x1", x(steps[frame])); now.setAttribute("x2", x(steps[frame])); });
  return frame => lines.forEach(draw => draw(frame));
}

const draws = [errors(document.getElementById("errors"))];
for (const [i, net] of nets.entries()) {
  const holder = key => document.getElementById(`${key}-${i}`);
  draws.push(
    byLayer(holder("gradients"), net, "gradients", `Gradient norm of each weight layer of ${net.name}`,
      "gradient norm, L2"),
    byLayer(holder("responses"), net, "responses", `Response of each 3x3 layer of ${net.name}`,
      "response"),
    filters(holder("filters"), net, `Filters of the first layer of ${net.name}`));
}

// -------------------------------------------------------------------------------------------- controls

const slider = document.getElementById("step"), button = document.getElementById("play");
const told = document.getElementById("now"), speed = document.getElementById("speed");
let frame = 0, timer = 0;

function show(chosen) {
  frame = Math.max(0, Math.min(last, chosen));
  draws.forEach(draw => draw(frame));
  slider.value = frame;
  slider.setAttribute("aria-valuetext", `step ${steps[frame]}`);
  told.textContent = `Step ${steps[frame]} of ${steps[last]}. ` + nets.map(net =>
    `${net.name}: training error ${net.train_error[frame].toFixed(1)}\u00a0%, ` +
    `test error ${net.test_error[frame].toFixed(1)}\u00a0%`).join("; ") + ".";
}

function pause() {
  clearInterval(timer);
  timer = 0;
  button.textContent = "Play";
  told.setAttribute("aria-live", "polite");  // a screen reader speaks a chosen step, but not every step of the film
}

function play() {
  if (frame === last) show(0);
  told.setAttribute("aria-live", "off");
  button.textContent = "Pause";
  clearInterval(timer);
  timer = setInterval(() => { if (frame < last) show(frame + 1); else pause(); }, 1000 / Number(speed.value));
}

button.addEventListener("click", () => timer ? pause() : play());
speed.addEventListener("change", () => timer && play());
slider.addEventListener("input", () => { pause(); show(Number(slider.value)); });
document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.altKey || event.metaKey || ["INPUT", "SELECT", "BUTTON"].includes(event.target.tagName)) {
    return;  // these have their own keys
  }
  const moves = {ArrowLeft: -1, ArrowRight: 1, Home: -last, End: last};
  if (event.key === " ") button.click();
  else if (event.key in moves) { pause(); show(frame + moves[event.key]); }
  else return;
  event.preventDefault();
});
slider.max = last;
show(0);
document.body.classList.add("ready");
