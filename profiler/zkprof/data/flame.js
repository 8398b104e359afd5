/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * The flame graph of a zkprof page: callers above, what they call below, as
 * wide as the CPU time spent there.
 *
 * Stacks come as a tree of nodes (parents before children) and leaves: a node,
 * a class of time, and its weight, in a comparison one weight for each side.
 * Choosing classes only sums the weights anew.  A frame's tint is the share of
 * memory management in it; in a comparison, whether it grew or shrank.
 */
"use strict";

const MANAGING = ["anon", "prefault", "unmap", "madvise", "mmap"];
const CHOICES = {
  all: ["All CPU time", null],
  memory: ["Memory management", MANAGING],
  faults: ["Page faults", ["anon", "prefault", "file", "other"]],
  back: ["Giving back", ["unmap", "madvise"]],
};

class FlameGraph {
  constructor(box) {
    this.box = box;
    this.flame = data.flame;
    this.compares = this.flame.leaves.some((leaf) => leaf.length > 3);
    this.svg = node("svg", { role: "group" });
    this.svg.setAttribute("aria-label", box.dataset.label);
    box.append(this.svg);
    this.readout = box.parentElement.querySelector(".readout");
    this.tip = tooltip(box);
    this.search = box.parentElement.querySelector("input");
    this.tools(box.parentElement.querySelector(".tools"));
    this.choose("all");
    whenSized(box, (width) => {
      this.width = width;
      this.draw();
    });
    this.svg.addEventListener("pointerleave", () => this.tip.hide());
    this.svg.addEventListener("keydown", (event) => this.key(event));
  }

  tools(bar) {
    this.buttons = {};
    for (const [id, [name, groups]] of Object.entries(CHOICES)) {
      if (groups && !this.flame.leaves.some((leaf) => groups.includes(leaf[1]))) continue;
      const button = html("button", "", name);
      button.type = "button";
      button.addEventListener("click", () => {
        this.choose(id);
        this.draw();
      });
      bar.insertBefore(button, this.search);
      this.buttons[id] = button;
    }
    this.reset = html("button", "", "Reset zoom");
    this.reset.type = "button";
    this.reset.addEventListener("click", () => this.zoom(this.root));
    bar.append(this.reset);
    this.search.addEventListener("input", () => this.draw());
  }

  /* Build the tree of the chosen classes. */
  choose(id) {
    for (const [key, button] of Object.entries(this.buttons))
      button.setAttribute("aria-pressed", String(key === id));
    const { parents, names, nodes, leaves } = this.flame;
    const groups = CHOICES[id][1];
    const made = nodes.map((name) => ({ name: names[name], value: 0, before: 0, hot: 0, children: [] }));
    for (const [at, group, weight, before = 0] of leaves) {
      if (groups && !groups.includes(group)) continue;
      const leaf = { name: `[${data.groups[group]}]`, group, value: weight, before, hot: 0, children: [] };
      leaf.hot = MANAGING.includes(group) ? weight : 0;
      made[at].children.push(leaf);
      made[at].value += weight;
      made[at].before += before;
      made[at].hot += leaf.hot;
    }
    for (let i = made.length - 1; i > 0; i--) {
      const parent = made[parents[i]];
      for (const field of ["value", "before", "hot"]) parent[field] += made[i][field];
      if (this.size(made[i]) > 0) parent.children.push(made[i]);
    }
    this.root = made[0];
    const arrange = (item, parent, depth) => {
      item.parent = parent;
      item.depth = depth;
      item.children.sort((a, b) => this.size(b) - this.size(a));
      for (const child of item.children) arrange(child, item, depth + 1);
    };
    arrange(this.root, null, 0);
    this.top = this.current = this.root;
  }

  /* What a frame's width shows: in a comparison both sides, so that what is gone is seen. */
  size(item) {
    return this.compares ? Math.max(item.value, item.before) : item.value;
  }

  draw() {
    if (!this.width) return;
    const row = 20;
    const wanted = this.search.value.trim().toLowerCase();
    const drawn = [];
    let deepest = 0;
    const place = (item, x, width) => {
      if (width < 0.6) return;
      deepest = Math.max(deepest, item.depth);
      item.x = x;
      item.width = width;
      drawn.push(item);
      const total = Math.max(this.size(item), item.children.reduce((sum, c) => sum + this.size(c), 0));
      for (const child of item.children) {
        const share = total > 0 ? (width * this.size(child)) / total : 0;
        place(child, x, share);
        x += share;
      }
    };
    for (let up = this.top.parent; up; up = up.parent) {
      Object.assign(up, { x: 0, width: this.width });
      drawn.push(up);
    }
    place(this.top, 0, this.width);
    this.drawn = new Set(drawn);
    const elements = drawn.map((item) => {
      const found = wanted && item.name.toLowerCase().includes(wanted);
      const above = item.depth < this.top.depth;
      const g = node("g", { class: `${found ? "found" : ""} ${above ? "dim" : ""}`.trim() });
      const y = item.depth * row;
      const rect = node("rect", { x: item.x, y, width: item.width, height: row - 1, rx: 2 });
      if (item.group && !this.compares) rect.setAttribute("class", `g-${item.group}`);
      else rect.style.fill = this.tint(item);
      g.append(rect);
      const letters = Math.floor((item.width - 8) / 6.7);
      if (letters >= 3 && !(item.group && !this.compares))
        g.append(node("text", { x: item.x + 4, y: y + 14 },
          item.name.length > letters ? `${item.name.slice(0, letters - 1)}…` : item.name));
      g.setAttribute("role", "button");
      g.setAttribute("tabindex", item === this.current ? "0" : "-1");
      g.setAttribute("aria-label", `${item.name}, ${this.words(item)}`);
      g.addEventListener("click", () => this.zoom(item));
      g.addEventListener("focus", () => (this.readout.textContent = `${item.name}: ${this.words(item)}`));
      g.addEventListener("pointermove", (event) =>
        this.tip.show(event.offsetX, y + row + 4, [[item.name], [this.words(item)]]));
      item.element = g;
      return g;
    });
    this.svg.setAttribute("height", (deepest + 1) * row + 2);
    this.svg.replaceChildren(...elements);
    this.reset.disabled = this.top === this.root;
    if (wanted) this.sayFound(wanted);
  }

  tint(item) {
    if (!this.compares) {
      const share = item.value > 0 ? item.hot / item.value : 0;
      return `color-mix(in oklab, var(--hot) ${Math.round(100 * share)}%, var(--flame))`;
    }
    const change = item.value - item.before;
    const strength = Math.min(1, Math.abs(change) / Math.max(item.value, item.before, 1e-12));
    const side = change > 0 ? "--grew" : "--shrank";
    return `color-mix(in oklab, var(${side}) ${Math.round(100 * strength)}%, var(--flame))`;
  }

  words(item) {
    const total = data.flame.total;
    if (this.compares) {
      const change = 100 * (item.value - item.before);
      return `${percent(item.before)} before, ${percent(item.value)} after ` +
        `(${change >= 0 ? "+" : ""}${change.toFixed(1)} points)`;
    }
    const managed = item.value > 0 ? item.hot / item.value : 0;
    return `${item.value.toFixed(3)} s, ${percent(item.value / total)} of CPU time` +
      (item.group ? "" : `; ${percent(managed)} of it memory management`);
  }

  /* Count what lies below a match once, however often the name recurs. */
  sayFound(wanted) {
    const sum = (item) =>
      item.name.toLowerCase().includes(wanted)
        ? this.size(item)
        : item.children.reduce((total, child) => total + sum(child), 0);
    const share = this.size(this.root) > 0 ? sum(this.root) / this.size(this.root) : 0;
    this.readout.textContent = `“${this.search.value.trim()}” matches ${percent(share)} of what is shown`;
  }

  zoom(item) {
    // A class of time has nothing below it: look at the function that it is in.
    this.top = item.group && item.parent ? item.parent : item;
    this.current = item;
    this.tip.hide();
    this.draw();
    this.readout.textContent = `${this.top.name}: ${this.words(this.top)}`;
  }

  key(event) {
    const { current } = this;
    const shown = (items) => items.filter((item) => this.drawn.has(item));
    const siblings = current.parent ? shown(current.parent.children) : [current];
    const index = siblings.indexOf(current);
    const next = {
      ArrowUp: current.parent,
      ArrowDown: shown(current.children)[0],
      ArrowLeft: siblings[index - 1],
      ArrowRight: siblings[index + 1],
      Home: this.root,
    }[event.key];
    if (next) {
      event.preventDefault();
      current.element.setAttribute("tabindex", "-1");
      this.current = next;
      next.element.setAttribute("tabindex", "0");
      next.element.focus();
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this.zoom(current);
      this.current.element?.focus();
    } else if (event.key === "Escape") {
      this.zoom(this.root);
      this.root.element.focus();
    }
  }
}

/* ------------------------------------------------------------ the page */

const draws = {
  time: drawTime,
  strip: drawStrip,
  curve: drawCurve,
  flame: (box) => new FlameGraph(box),
};
for (const [id, draw] of Object.entries(draws)) {
  const box = document.getElementById(id);
  if (box) draw(box);
}

for (const box of document.querySelectorAll(".command")) {
  const button = html("button", "", "Copy");
  button.type = "button";
  button.addEventListener("click", () => {
    navigator.clipboard?.writeText(box.querySelector("pre").textContent).then(() => {
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = "Copy"), 1500);
    });
  });
  box.append(button);
}

const theme = document.getElementById("theme");
theme.hidden = false;
theme.addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme
    ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});
