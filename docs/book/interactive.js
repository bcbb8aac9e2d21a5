// The figures to change, on the web site. interactive.yaml says where each stands; the function of its
// name below fills the <figure> with controls, a drawing in SVG and a sentence of numbers, and
// computes by the formulas of its chapter. Whatever can be dragged or clicked in a drawing moves one of
// the controls, which are the browser's own: keyboards and screen readers reach everything.
(() => {
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const draw = { channel, momentum, projection, axes };
  for (const figure of document.querySelectorAll("figure.interactive")) draw[figure.dataset.figure](figure);
});

// Chapter 2, equations (1) to (3) ----------------------------------------------------------------

const sum = values => values.reduce((a, b) => a + b, 0);
const mean = values => sum(values) / values.length;
const variance = values => mean(values.map(x => (x - mean(values)) ** 2));      // biased, as in the layer
const normalize = (values, epsilon) =>
  values.map(x => (x - mean(values)) / Math.sqrt(variance(values) + epsilon));

// Chapter 2: a batch of one channel, one of its values moved out ---------------------------------

function channel(figure) {
  // The first values of the batch of the chapter's cell, rounded.
  const batch = [4.6, 2.6, 3.5, 5.4, 4.8, 0.5, 3.4, 1.8], low = -8, high = 12;
  const m = slider(figure, "batch size m", 1, batch.length, 1, batch.length, 0);
  const moved = slider(figure, "first value x₁", low, high, 0.1, batch[0], 1);
  const gamma = slider(figure, "gamma γ", 0, 2, 0.1, 1, 1);
  const beta = slider(figure, "beta β", -3, 3, 0.1, 0, 1);
  const exponent = slider(figure, "epsilon ε", -12, 1, 1, -5, power => `1e${power}`);
  const whole = picture(figure, 360, 190), say = sentences(figure, 2);
  const drawing = svg(whole, "g"), ring = svg(whole, "circle", { class: "ring", cy: 40, r: 15 });
  const across = value => 16 + (value - low) * 328 / (high - low);

  function line(name, values, height, marker) {
    const middle = across(mean(values)), spread = across(Math.sqrt(variance(values))) - across(0);
    svg(drawing, "rect",
      { class: "band", x: middle - spread, y: height - 22, width: 2 * spread, height: 44 });
    svg(drawing, "line", { class: "thick", x1: middle, x2: middle, y1: height - 22, y2: height + 22 });
    svg(drawing, "line", { class: "faint", x1: across(low), x2: across(high), y1: height, y2: height });
    svg(drawing, "text", { x: 4, y: height - 26 }, name);
    for (let tick = low; tick <= high; tick += 4) {
      svg(drawing, "text", { x: across(tick), y: height + 36, "text-anchor": "middle" }, fixed(tick, 0));
    }
    for (const value of values) marker(across(value), height);
  }

  function draw() {
    const x = [number(moved), ...batch.slice(1, number(m))], epsilon = 10 ** number(exponent);
    const x_hat = normalize(x, epsilon);
    const y = x_hat.map(value => number(gamma) * value + number(beta));
    drawing.replaceChildren();
    x.forEach((value, i) => svg(drawing, "line",
      { class: i ? "faint" : "thick", x1: across(value), y1: 40, x2: across(y[i]), y2: 140 }));
    line("before: x", x, 40, (cx, cy) => svg(drawing, "circle", { class: "before", cx, cy, r: 5 }));
    line("after: y", y, 140, (cx, cy) =>
      svg(drawing, "rect", { class: "after", x: cx - 4.5, y: cy - 4.5, width: 9, height: 9 }));
    ring.setAttribute("cx", across(x[0]));
    say(`Before: mean μ = ${fixed(mean(x))}, variance σ² = ${fixed(variance(x))}. After: `
      + `Y = ${list(y)}, mean ${fixed(mean(y))}, standard deviation ${fixed(Math.sqrt(variance(y)))}.`,
      `x₁ = ${fixed(x[0], 1)} is normalized to ${fixed(x_hat[0])}. No x₁ gets beyond `
      + `±√(m − 1) = ±${fixed(Math.sqrt(x.length - 1))}.`);
  }

  ring.addEventListener("pointerdown", event => ring.setPointerCapture(event.pointerId));
  ring.addEventListener("pointermove", event => {
    if (!ring.hasPointerCapture(event.pointerId)) return;
    const { left, width } = whole.getBoundingClientRect();
    set(moved, low + ((event.clientX - left) / width * 360 - 16) * (high - low) / 328);
  });
  redraw(figure, draw);
}

// Chapter 2, equations (6) to (8): a moving average behind a mean that drifts ---------------------

function momentum(figure) {
  const alpha = slider(figure, "momentum α", 0, 0.99, 0.01, 0.95, 2);
  const drift = slider(figure, "drift d", 0, 0.04, 0.005, 0.03, 3);
  const drawing = picture(figure, 360, 210), say = sentences(figure, 2);
  const across = t => 24 + t * 3.2, up = value => 180 - value * 24;

  // Standard deviation 0.4; Park and Miller's generator (1988), so that it is the same everywhere.
  let state = 1;
  const noise = Array.from({ length: 100 }, () => {
    state = state * 16807 % 2147483647;
    return 0.4 * Math.sqrt(12) * (state / 2147483647 - 0.5);
  });

  function draw() {
    const a = number(alpha), d = number(drift);
    const truth = noise.map((_, i) => 2 + d * (i + 1));
    const batches = truth.map((value, i) => value + noise[i]);
    let running = 0;
    const average = batches.map(batch => running = a * running + (1 - a) * batch);
    const curve = (values, look) => svg(drawing, "polyline",
      { class: look, points: values.map((value, i) => `${across(i + 1)},${up(value)}`).join(" ") });

    drawing.replaceChildren();
    for (let value = 0; value <= 7; value++) {
      svg(drawing, "line", { class: "faint", x1: 24, x2: 344, y1: up(value), y2: up(value) });
      svg(drawing, "text", { x: 18, y: up(value) + 4, "text-anchor": "end" }, value);
    }
    for (let t = 0; t <= 100; t += 25) {
      svg(drawing, "text", { x: across(t), y: 197, "text-anchor": "middle" }, t || "batch");
    }
    batches.forEach((value, i) =>
      svg(drawing, "circle", { class: "dot", cx: across(i + 1), cy: up(value), r: 1.8 }));
    svg(drawing, "text", { x: 28, y: 29 }, "thick: moving average, thin: true mean,");
    svg(drawing, "text", { x: 28, y: 53 }, "dots: means of the batches");
    curve(average, "average");
    curve(truth, "");
    svg(drawing, "line", { class: "thick", x1: 350, x2: 350, y1: up(truth[99]), y2: up(running) });
    say(`Gluon, TensorFlow: momentum = ${fixed(a)}, the weight of the past. PyTorch: momentum = `
      + `${fixed(1 - a)}, the weight of the new batch. The same average.`,
      `After 100 batches: true mean ${fixed(truth[99])}, moving average ${fixed(running)}, behind by `
      + `${fixed(truth[99] - running)}. The drift alone puts it behind by `
      + `d α / (1 − α) = ${fixed(d * a / (1 - a))} in the long run; the 0 of the start `
      + `still weighs ${fixed(a ** 100, 3)}.`);
  }
  redraw(figure, draw);
}

// Chapter 3, equation (11): what the projection removes from a gradient ---------------------------

function projection(figure) {
  const x = [3, 1, 2], epsilon = 1e-5, x_hat = normalize(x, epsilon), gamma = 1;
  const arrives = [0.8, 0.2, -0.7].map((value, i) =>
    slider(figure, `dY${"₁₂₃"[i]}`, -1, 1, 0.1, value, 1));
  for (const [text, dY] of [["all equal", [0.8, 0.8, 0.8]], ["along x − μ", [0.8, -0.8, 0]],
      ["along (1, 1, −2)", [0.5, 0.5, -1]]]) {
    add(figure, "button", { type: "button", textContent: text })
      .addEventListener("click", () => dY.forEach((value, i) => set(arrives[i], value)));
  }
  const drawing = picture(figure, 360, 280), table = add(figure, "table"), say = sentences(figure, 1);

  // Two directions of length 1 span the plane of all vectors with mean 0.
  const across = v => 130 + 66 * (v[0] - v[1]) / Math.sqrt(2);
  const down = v => 140 - 66 * (v[0] + v[1] - 2 * v[2]) / Math.sqrt(6);
  const plus = (a, b) => a.map((value, i) => value + b[i]);
  const segment = (look, from, to) => svg(drawing, "line",
    { class: look, x1: across(from), y1: down(from), x2: across(to), y2: down(to) });

  function arrow(look, from, to) {
    segment(look, from, to);
    const dx = across(to) - across(from), dy = down(to) - down(from);
    const turn = Math.atan2(dy, dx) * 180 / Math.PI;
    if (Math.hypot(dx, dy) > 1) svg(drawing, "path", { class: `head ${look}`, d: "M0 0L-9 4L-9 -4Z",
      transform: `translate(${across(to)} ${down(to)}) rotate(${turn})` });
  }

  function draw() {
    const g = arrives.map(number), average = mean(g);
    const along = mean(g.map((value, i) => value * x_hat[i]));
    const part = x_hat.map(value => value * along);
    const left = g.map((value, i) => value - average - part[i]);
    const factor = gamma / Math.sqrt(variance(x) + epsilon);

    drawing.replaceChildren();
    svg(drawing, "circle", { class: "rim", cx: 130, cy: 140, r: 66 * Math.sqrt(3) });
    segment("faint", [0, 0, 0], x_hat);
    arrow("dotted", x_hat, plus(x_hat, g.map(value => value - average)));
    segment("dashed", plus(x_hat, g.map(value => value - average)), plus(x_hat, left));
    arrow("goes-on", x_hat, plus(x_hat, left));
    svg(drawing, "circle", { class: "point", cx: across(x_hat), cy: down(x_hat), r: 5 });
    svg(drawing, "text", { x: across(x_hat) - 18, y: down(x_hat) - 8 }, "x̂");
    svg(drawing, "text", { x: 130, y: 160, "text-anchor": "middle" }, "radius √3");
    svg(drawing, "text", { x: 4, y: 14 }, "dotted: arrives, less its mean");
    svg(drawing, "text", { x: 4, y: 276 }, "solid: goes on, dashed: its part along x̂");

    const rows = [["arrives, dY", g], ["− its mean", g.map(() => -average)],
      ["− its part along x̂", part.map(value => -value)], ["goes on", left]];
    table.replaceChildren();
    for (const [name, values] of [["example", [1, 2, 3]], ...rows]) {
      const row = add(table, "tr"), digits = name === "example" ? 0 : 2;
      add(row, "th", { textContent: name, scope: "row" });
      for (const value of values) add(row, digits ? "td" : "th", { textContent: fixed(value, digits) });
    }
    say(`What goes on adds up to ${fixed(sum(left))}, and its product with x̂ to `
      + `${fixed(sum(left.map((value, i) => value * x_hat[i])))}. Times γ / √(σ² + ε) = `
      + `${fixed(factor)} it is dX = ${list(left.map(value => value * factor))}.`);
  }
  redraw(figure, draw);
}

// Chapter 10, the table of axes: which values share one mean and one variance ---------------------

function axes(figure) {
  const N = 4, C = 6, P = 4, named = {};       // images, channels, 2 x 2 positions
  const settings = {
    Batch: [true, C, true], Layer: [false, 1, true], Instance: [false, C, true], Group: [false, 2, true],
  };
  const norms = fieldset(figure, "Norm");
  for (const [name, [images, groups, positions]] of Object.entries(settings)) {
    named[name] = option(norms, name, { type: "radio", name: "norm" });
    named[name].addEventListener("input", () => {
      overN.checked = images, G.value = groups, overHW.checked = positions;
    });
  }
  const averaged = fieldset(figure, "Averaged over");
  const overN = option(averaged, "N", { type: "checkbox", checked: true });
  const overHW = option(averaged, "H, W", { type: "checkbox", checked: true });
  const G = add(add(averaged, "label", { textContent: "C " }), "select", { ariaLabel: "C" });
  for (const [groups, text] of [[6, "each alone"], [3, "3 groups"], [2, "2 groups"], [1, "all"]]) {
    add(G, "option", { value: groups, textContent: text });
  }
  const chosen = Object.entries({ image: N, channel: C, position: P })
    .map(([name, count]) => slider(figure, name, 0, count - 1, 1, 0, 0));
  const drawing = picture(figure, 360, 250), say = sentences(figure, 2);
  const across = (c, p = 0) => 48 + 52 * c + 22 * (p % 2), down = (n, p = 0) => 34 + 54 * n + 22 * (p >> 1);

  function draw() {
    const [image, channel, position] = chosen.map(number), size = C / number(G);
    const together = (n, c, p) => (overN.checked || n === image) && (overHW.checked || p === position)
      && Math.floor(c / size) === Math.floor(channel / size);
    let m = 0;
    drawing.replaceChildren();
    for (let n = 0; n < N; n++) {
      svg(drawing, "text", { x: 0, y: down(n) + 26 }, `n = ${n}`);
      for (let c = 0; c < C; c++) {
        if (!n) svg(drawing, "text", { x: across(c) + 21, y: 20, "text-anchor": "middle" }, `c = ${c}`);
        for (let p = 0; p < P; p++) {
          m += together(n, c, p);
          svg(drawing, "rect", { class: `cell ${together(n, c, p) ? "together" : ""}`, x: across(c, p),
            y: down(n, p), width: 20, height: 20, "data-cell": [n, c, p] });
        }
      }
    }
    svg(drawing, "circle",
      { class: "chosen", cx: across(channel, position) + 10, cy: down(image, position) + 10, r: 5 });

    const name = !overHW.checked || (overN.checked && size > 1) ? null
      : overN.checked ? "Batch" : size === 1 ? "Instance" : size === C ? "Layer" : "Group";
    const axes = [overN.checked && "N", size > 1 && (size === C ? "C" : "C / G"), overHW.checked && "H W"];
    const product = axes.filter(Boolean).join(" · ");
    for (const each in named) named[each].checked = each === name;
    say(`${name ? `${name} norm` : "None of the four norms"}: `
      + `${["m", product, m].filter(Boolean).join(" = ")} of the ${N * C * P} values are averaged together, `
      + `and there are ${N * C * P / m} such sets.`,
      m === 1 ? "A value alone is its own mean: nothing of it is left." : overN.checked
        ? "The result for an image depends on the other images of its batch."
        : "The result for an image does not depend on the other images.");
  }

  drawing.addEventListener("click", event => {
    const cell = event.target.dataset.cell;
    if (cell) cell.split(",").forEach((value, i) => set(chosen[i], value));
  });
  redraw(figure, draw);
}

// What the figures are made of -------------------------------------------------------------------

// A number with so many digits, a proper minus, and no "-0.00".
function fixed(value, digits = 2) {
  const text = value.toFixed(digits);
  return Number(text) === 0 ? (0).toFixed(digits) : text.replace("-", "−");
}

function list(values) {
  return `(${values.map(value => fixed(value)).join(", ")})`;
}

function number(input) {
  return Number(input.value);
}

// Move a control as its user would.
function set(input, value) {
  input.value = value;
  input.dispatchEvent(new Event("input", { bubbles: true }));
}

// Draw now, and whenever a control has moved.
function redraw(figure, draw) {
  figure.addEventListener("input", draw);
  draw();
}

function add(parent, tag, properties = {}) {
  const element = Object.assign(document.createElement(tag), properties);
  parent.append(element);
  return element;
}

function svg(parent, tag, attributes = {}, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.textContent = text;
  parent.append(element);
  return element;
}

function picture(figure, width, height) {
  const look = { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": figure.dataset.alt };
  return svg(figure, "svg", look);
}

// A slider with its label and its value, written with so many digits, or as a function does.
function slider(figure, label, min, max, step, value, digits) {
  const row = add(figure, "label", { className: "slider" });
  add(row, "span", { textContent: label });
  const input = add(row, "input", { type: "range", min, max, step, value, ariaLabel: label });
  const shown = add(row, "span"), write = typeof digits === "function" ? digits : v => fixed(v, digits);
  redraw(row, () => input.ariaValueText = shown.textContent = write(number(input)));
  return input;
}

function fieldset(figure, legend) {
  const group = add(figure, "fieldset");
  add(group, "legend", { textContent: legend });
  return group;
}

function option(group, text, properties) {
  const label = add(group, "label"), input = add(label, "input", properties);
  label.append(` ${text}`);
  return input;
}

// Paragraphs for the numbers; a screen reader reads them when they change. Returns what writes them.
function sentences(figure, count) {
  const place = add(figure, "div", { className: "numbers", role: "status" });
  const lines = Array.from({ length: count }, () => add(place, "p"));
  return (...texts) => texts.forEach((text, i) => lines[i].textContent = text);
}
})();
