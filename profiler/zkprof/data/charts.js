/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * The charts over time of a zkprof page, and small helpers of all its charts.
 *
 * The data is one JSON block in the page; names in it come from the profiled
 * program and are only ever written as text (textContent, setAttribute), never
 * as markup.  A chart is drawn anew when its width changes.
 */
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";

function node(name, attributes = {}, text = undefined) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function html(name, className = "", text = undefined) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function bytes(n) {
  for (const [unit, name] of [[1e12, "TB"], [1e9, "GB"], [1e6, "MB"], [1e3, "kB"]])
    if (n >= unit) return `${(n / unit).toFixed(n < 100 * unit ? 1 : 0)} ${name}`;
  return `${n} B`;
}

const percent = (share) => `${(100 * share).toFixed(1)}%`;
const clamp = (x, low, high) => Math.min(Math.max(x, low), high);

/* Round steps: 1, 2 or 5 times a power of ten, about `wanted` of them. */
function ticks(top, wanted) {
  if (!(top > 0)) return [0];
  const raw = top / wanted;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find((m) => m * power >= raw) * power;
  return Array.from({ length: Math.floor(top / step + 1e-9) + 1 }, (_, i) => i * step);
}

/* Draw now, and again whenever the element's width changes. */
function whenSized(element, draw) {
  let width = 0;
  new ResizeObserver(() => {
    const now = Math.floor(element.clientWidth);
    if (now > 0 && now !== width) draw((width = now));
  }).observe(element);
}

function tooltip(parent) {
  const tip = html("div", "tip");
  tip.setAttribute("aria-hidden", "true");
  parent.append(tip);
  return {
    show(x, y, rows) {
      tip.replaceChildren(
        ...rows.map(([name, value, group]) => {
          const row = html("div");
          const label = html("span", "", name);
          if (group) label.prepend(html("i", `swatch g-${group}`));
          row.append(label);
          if (value !== undefined) row.append(html("span", "mono", value));
          return row;
        }),
      );
      const right = parent.clientWidth - tip.offsetWidth;
      tip.style.left = `${clamp(x + 14, 0, Math.max(0, right))}px`;
      if (x + 14 > right) tip.style.left = `${Math.max(0, x - 14 - tip.offsetWidth)}px`;
      tip.style.top = `${y}px`;
      tip.style.visibility = "visible";
    },
    hide: () => (tip.style.visibility = "hidden"),
  };
}

/* CPU time by class above, resident memory below, on one axis of time. */
function drawTime(box) {
  const { time, memory, groups } = data;
  const left = 58, right = 16, cpuTop = 8, cpuHeight = 190, gap = 22, memoryHeight = 120;
  const memoryTop = cpuTop + cpuHeight + gap;
  const bottom = memoryTop + memoryHeight;
  const columns = time.layers[0].length;
  const sums = Array.from({ length: columns }, (_, i) =>
    time.layers.reduce((sum, layer) => sum + layer[i], 0));
  const cpuMax = Math.max(...sums, 0.01) * 1.05;
  const memoryMax = Math.max(...memory.hwm, ...memory.rss, 1) * 1.05;
  const seconds = Math.max(time.seconds, 1e-6);
  const tip = tooltip(box);
  const svg = node("svg", { height: bottom + 26, role: "img", tabindex: "0" });
  svg.setAttribute("aria-label", box.dataset.label);
  box.prepend(svg);
  const said = box.parentElement.querySelector(".readout");
  let x, at = -1, cross, dot;

  function draw(width) {
    x = (t) => left + (t / seconds) * (width - left - right);
    const y = (v) => cpuTop + cpuHeight * (1 - v / cpuMax);
    const m = (v) => memoryTop + memoryHeight * (1 - v / memoryMax);
    const parts = [];
    const scale = (top, place, text) => {
      for (const v of top) {
        parts.push(node("line", { x1: left, x2: width - right, y1: place(v), y2: place(v), class: "grid" }));
        parts.push(node("text", { x: left - 7, y: place(v) + 4, "text-anchor": "end" }, text(v)));
      }
    };
    scale(ticks(cpuMax, 4), y, (v) => `${+v.toFixed(2)}`);
    scale(ticks(memoryMax, 3), m, bytes);
    for (const v of ticks(seconds, Math.max(2, width / 110)))
      parts.push(node("text", { x: x(v), y: bottom + 18, "text-anchor": "middle" }, `${+v.toFixed(3)} s`));
    const floor = new Array(columns).fill(0);
    time.layers.forEach((layer, g) => {
      if (!layer.some((v) => v > 0)) return;
      const up = [], down = [];
      layer.forEach((v, i) => {
        const [x0, x1] = [x((i * seconds) / columns), x(((i + 1) * seconds) / columns)];
        up.push(`${x0},${y(floor[i] + v)} ${x1},${y(floor[i] + v)}`);
        down.unshift(`${x1},${y(floor[i])} ${x0},${y(floor[i])}`);
        floor[i] += v;
      });
      parts.push(node("polygon", { points: up.join(" ") + " " + down.join(" "), class: `g-${time.groups[g]}` }));
    });
    if (memory.t.length) {
      const line = (values) => memory.t.map((t, i) => `${x(t)},${m(values[i])}`).join(" ");
      const [first, last] = [x(memory.t[0]), x(memory.t.at(-1))];
      parts.push(node("polygon", { points: `${first},${m(0)} ${line(memory.rss)} ${last},${m(0)}`, class: "rss-area" }));
      parts.push(node("polyline", { points: line(memory.hwm), class: "hwm-line" }));
      parts.push(node("polyline", { points: line(memory.rss), class: "rss-line" }));
    }
    cross = node("line", { y1: cpuTop, y2: bottom, class: "cross", visibility: "hidden" });
    dot = node("circle", { r: 4, class: "dot", visibility: "hidden" });
    svg.replaceChildren(...parts, cross, dot);
    at = -1;
    tip.hide();
  }

  function point(i, aloud) {
    at = clamp(i, 0, columns - 1);
    const t = ((at + 0.5) * seconds) / columns;
    const rows = [[`${t.toFixed(2)} s`, `${sums[at].toFixed(2)} cores`]];
    time.groups.forEach((id, g) => {
      const value = time.layers[g][at];
      if (value > 0.0005) rows.push([groups[id], value.toFixed(2), id]);
    });
    cross.setAttribute("x1", x(t));
    cross.setAttribute("x2", x(t));
    cross.setAttribute("visibility", "visible");
    if (memory.t.length) {
      let near = memory.t.findIndex((moment) => moment >= t);
      if (near < 0) near = memory.t.length - 1;
      rows.push(["resident", bytes(memory.rss[near])], ["peak so far", bytes(memory.hwm[near])]);
      dot.setAttribute("cx", x(memory.t[near]));
      dot.setAttribute("cy", memoryTop + memoryHeight * (1 - memory.rss[near] / memoryMax));
      dot.setAttribute("visibility", "visible");
    }
    tip.show(x(t), 10, rows);
    if (aloud) said.textContent = rows.map((row) => `${row[0]}: ${row[1]}`).join(", ");
  }

  function leave() {
    tip.hide();
    for (const mark of [cross, dot]) mark.setAttribute("visibility", "hidden");
  }

  svg.addEventListener("pointermove", (event) => {
    const span = x(seconds) - x(0);
    point(Math.floor(((event.offsetX - x(0)) / span) * columns), false);
  });
  svg.addEventListener("pointerleave", leave);
  svg.addEventListener("blur", leave);
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    point(at + step, true);
  });
  whenSized(box, draw);
}

/* One row for each thread: how busy it was, and with what. */
function drawStrip(box) {
  const { strip, time } = data;
  const label = 168, row = 17, right = 16;
  const tip = tooltip(box);
  const svg = node("svg", { height: strip.lanes.length * row + 4, role: "img" });
  svg.setAttribute("aria-label", box.dataset.label);
  box.prepend(svg);
  let cell = 1;
  whenSized(box, (width) => {
    const columns = strip.cpu[0].length;
    cell = (width - label - right) / columns;
    const parts = [];
    strip.lanes.forEach((lane, r) => {
      const name = lane.length > 24 ? `${lane.slice(0, 23)}…` : lane;
      parts.push(node("text", { x: label - 8, y: r * row + 13, "text-anchor": "end" }, name));
      for (let i = 0; i < columns; i++) {
        const [cpu, managed] = [strip.cpu[r][i], strip.mm[r][i]];
        if (!cpu) continue;
        // A column's height is the time used; its lower, warm part is memory management.
        const high = Math.max(1, ((row - 3) * cpu) / strip.full);
        const warm = Math.min(high, ((row - 3) * managed) / strip.full);
        const place = { x: label + i * cell, width: cell + 0.4 };
        parts.push(node("rect", { ...place, y: (r + 1) * row - 2 - high, height: high - warm, class: "g-user" }));
        if (warm > 0)
          parts.push(node("rect", { ...place, y: (r + 1) * row - 2 - warm, height: warm, class: "g-anon" }));
      }
    });
    svg.replaceChildren(...parts);
  });
  svg.addEventListener("pointermove", (event) => {
    const r = Math.floor(event.offsetY / row);
    const i = Math.floor((event.offsetX - label) / cell);
    if (!strip.lanes[r] || strip.cpu[r][i] === undefined) return tip.hide();
    tip.show(event.offsetX, (r + 1) * row, [
      [strip.lanes[r]],
      ["at", `${(((i + 0.5) * time.seconds) / strip.cpu[r].length).toFixed(2)} s`],
      ["busy", `${strip.cpu[r][i]}%`],
      ["memory management", `${strip.mm[r][i]}%`, "anon"],
    ]);
  });
  svg.addEventListener("pointerleave", tip.hide);
}

/* What a cache of a given size would save. */
function drawCurve(box) {
  const points = data.curve;
  const left = 58, right = 20, top = 8, height = 180;
  const sizeMax = Math.max(...points.map((p) => p[0]), 1);
  const shareMax = Math.max(...points.map((p) => p[1]), 0.01) * 1.1;
  const tip = tooltip(box);
  const svg = node("svg", { height: top + height + 26, role: "img" });
  svg.setAttribute("aria-label", box.dataset.label);
  box.prepend(svg);
  let x;
  whenSized(box, (width) => {
    x = (n) => left + (n / sizeMax) * (width - left - right);
    const y = (share) => top + height * (1 - share / shareMax);
    const parts = [];
    for (const v of ticks(shareMax, 4)) {
      parts.push(node("line", { x1: left, x2: width - right, y1: y(v), y2: y(v), class: "grid" }));
      parts.push(node("text", { x: left - 7, y: y(v) + 4, "text-anchor": "end" }, percent(v)));
    }
    for (const v of ticks(sizeMax, Math.max(2, width / 150)))
      parts.push(node("text", { x: x(v), y: top + height + 18, "text-anchor": "middle" }, bytes(v)));
    parts.push(node("polyline", { points: points.map((p) => `${x(p[0])},${y(p[1])}`).join(" "), class: "rss-line" }));
    for (const p of points) parts.push(node("circle", { cx: x(p[0]), cy: y(p[1]), r: 4, class: "dot" }));
    svg.replaceChildren(...parts);
  });
  svg.addEventListener("pointermove", (event) => {
    const near = points.reduce((a, b) =>
      Math.abs(x(b[0]) - event.offsetX) < Math.abs(x(a[0]) - event.offsetX) ? b : a);
    tip.show(x(near[0]), 10, [["cache", bytes(near[0])], [box.dataset.value, percent(near[1])]]);
  });
  svg.addEventListener("pointerleave", tip.hide);
}
