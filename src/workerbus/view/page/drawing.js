// Curves, the timeline of the last minute, and the sequence of one job.
import { element } from "./lists.js";

const SVG = "http://www.w3.org/2000/svg";

function svg(tag, attributes = {}, text = null) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== null) made.append(text);
  return made;
}

export function curve(box) {
  const picture = svg("svg", { viewBox: "0 0 120 26", preserveAspectRatio: "none", "aria-hidden": "true" });
  const area = svg("path", { class: "area" });
  const line = svg("path");
  picture.append(area, line);
  box.append(picture);
  return (values) => {
    const known = values.filter((value) => value !== null);
    const top = Math.max(...known, 1e-9);
    const points = [];
    const step = 120 / Math.max(30, values.length - 1);
    values.forEach((value, n) => {
      if (value !== null) points.push(`${(120 - (values.length - 1 - n) * step).toFixed(1)} ${(25 - (24 * value) / top).toFixed(1)}`);
    });
    line.setAttribute("d", points.length > 1 ? `M${points.join("L")}` : "");
    const ends = points.length > 1 ? [points[0].split(" ")[0], points[points.length - 1].split(" ")[0]] : null;
    area.setAttribute("d", ends ? `M${ends[0]} 26L${points.join("L")}L${ends[1]} 26Z` : "");
  };
}

export function seconds(time) {
  if (time < 0.001) return `${Math.round(time * 1e6)} µs`;
  if (time < 1) return `${time < 0.01 ? (time * 1e3).toFixed(1) : Math.round(time * 1e3)} ms`;
  if (time < 100) return `${time.toFixed(time < 10 ? 1 : 0)} s`;
  if (time < 6000) return `${Math.floor(time / 60)} min ${Math.round(time % 60)} s`;
  return `${(time / 3600).toFixed(1)} h`;
}

const LANE = 20;
const TOP = 22;

export class Timeline {
  constructor(canvas, tip, open) {
    this.canvas = canvas;
    this.tip = tip;
    this.bars = [];
    canvas.addEventListener("mousemove", (event) => this.point(event));
    canvas.addEventListener("mouseleave", () => (tip.hidden = true));
    canvas.addEventListener("click", (event) => {
      const bar = this.at(event);
      if (bar) open(bar.id);
    });
  }

  // spans: [worker, begun, ended or null, status or null, job id, job name]
  draw(spans, now) {
    const box = this.canvas.parentElement;
    if (!box.clientWidth) return 0;
    const lanes = this.lanes(spans, now);
    const width = box.clientWidth;
    const height = Math.max(box.clientHeight, TOP + lanes.length * LANE + 4);
    const scale = devicePixelRatio || 1;
    if (this.canvas.width !== Math.round(width * scale) || this.canvas.height !== Math.round(height * scale)) {
      this.canvas.width = Math.round(width * scale);
      this.canvas.height = Math.round(height * scale);
      this.canvas.style.height = `${height}px`;
    }
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(`--${name}`).trim();
    const colors = { completed: color("accent"), failed: color("warn"), error: color("bad"), cancelled: color("off"), null: color("open") };
    const pen = this.canvas.getContext("2d");
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    const left = Math.min(150, width * 0.28);
    const x = (time) => left + ((time - now + 60) / 60) * (width - left - 14);
    pen.font = "11px system-ui, 'DejaVu Sans', sans-serif";
    pen.textBaseline = "middle";
    for (let ago = 60; ago >= 0; ago -= 10) {
      pen.fillStyle = color("line");
      pen.fillRect(x(now - ago), TOP - 4, 1, height);
      pen.fillStyle = color("dim");
      pen.textAlign = ago ? "center" : "right";
      pen.fillText(ago ? `−${ago} s` : "now", ago ? x(now - ago) : width - 6, 9);
    }
    pen.textAlign = "left";
    this.bars = [];
    lanes.forEach(([worker, bars], n) => {
      const y = TOP + n * LANE;
      pen.fillStyle = color("ink");
      pen.fillText(shorten(pen, worker, left - 22), 14, y + LANE / 2);
      const places = beside(bars, now);
      const thick = (LANE - 6) / (Math.max(...places) + 1);
      bars.forEach(([, begun, ended, status, id, name], k) => {
        const from = Math.max(left, x(begun));
        const wide = Math.max(2, x(ended ?? now) - from);
        pen.fillStyle = colors[status];
        pen.beginPath();
        pen.roundRect(from, y + 3 + places[k] * thick, wide, Math.max(1, thick - (thick > 3 ? 1 : 0)), Math.min(3, wide / 2, thick / 2));
        pen.fill();
        this.bars.push({ from, to: from + wide, y, id, text: `${name ?? "job"} at ${worker}: ${seconds((ended ?? now) - begun)}, ${status ?? "in flight"}` });
      });
    });
    const counted = lanes.map(([worker, bars]) => `${worker} ${bars.length}`).join(", ");
    this.canvas.setAttribute("aria-label", `Jobs of the last minute, by worker: ${counted || "none"}`);
    return lanes.length;
  }

  // By name, so that none changes its place from one second to the next.
  lanes(spans, now) {
    const found = new Map();
    for (const span of spans) {
      if ((span[2] ?? now) < now - 60) continue;
      if (!found.has(span[0])) found.set(span[0], []);
      found.get(span[0]).push(span);
    }
    const names = new Intl.Collator(undefined, { numeric: true });
    return [...found].sort((a, b) => names.compare(a[0], b[0])).slice(0, 60);
  }

  at(event) {
    const x = event.offsetX;
    const y = event.offsetY;
    return this.bars.findLast((bar) => y >= bar.y && y < bar.y + LANE && x >= bar.from - 3 && x <= bar.to + 3);
  }

  point(event) {
    const bar = this.at(event);
    this.tip.hidden = !bar;
    this.canvas.style.cursor = bar ? "pointer" : "default";
    if (!bar) return;
    this.tip.textContent = bar.text;
    const pane = this.tip.parentElement.getBoundingClientRect();
    this.tip.style.top = `${event.clientY - pane.top + 14}px`;
    this.tip.style.left = `${Math.min(event.clientX - pane.left + 10, pane.width - this.tip.offsetWidth - 8)}px`;
  }
}

// Jobs that a worker does at the same time lie below each other: at which of up to six places each of them is.
function beside(bars, now) {
  const free = [];
  return bars.sort((a, b) => a[1] - b[1]).map(([, begun, ended]) => {
    let place = free.findIndex((until) => until <= begun);
    if (place < 0) place = free.length < 6 ? free.length : 5;
    free[place] = ended ?? now;
    return place;
  });
}

function shorten(pen, text, room) {
  if (pen.measureText(text).width <= room) return text;
  let short = text;
  while (short.length > 1 && pen.measureText(`${short}…`).width > room) short = short.slice(0, -1);
  return `${short}…`;
}

const COLUMN = 150;
const STEP = 34;
const WORDS = { asked: "asks for", answered: "answers", update: "update", chunk: "chunk", cancel: "cancels" };

// The messages of a job, from above to below; many updates in a row are one arrow.
export function sequence(story, places = false) {
  const who = [story.requester];
  for (const [, , source, target] of story.steps) {
    for (const name of [source, target]) if (name !== null && !who.includes(name)) who.push(name);
  }
  const shown = who.slice(0, 10);
  const steps = [];
  for (const [at, kind, source, target, text, id] of story.steps) {
    if (!shown.includes(source) || !shown.includes(target)) continue;
    const last = steps[steps.length - 1];
    if (last && (kind === "update" || kind === "chunk") && last.kind === kind && last.source === source && last.id === id) last.times += 1;
    else steps.push({ at, kind, source, target, text, id, times: 1 });
  }
  const left = 74;
  const width = left + shown.length * COLUMN;
  const top = places ? 14 : 0;
  const height = 46 + top + steps.length * STEP + 10;
  const picture = svg("svg", { width, height, role: "img", "aria-label": "The messages of this job, one below the other" });
  const middle = (name) => left + shown.indexOf(name) * COLUMN + COLUMN / 2;
  for (const name of shown) {
    picture.append(svg("line", { class: "life", x1: middle(name), x2: middle(name), y1: 30 + top, y2: height }));
    const label = svg("text", { x: middle(name), y: 18, "text-anchor": "middle", "font-weight": 600 }, name.length > 19 ? `${name.slice(0, 18)}…` : name);
    label.append(svg("title", {}, name));
    picture.append(label);
    const place = places && story.places[name];
    if (place && place !== name) picture.append(svg("text", { class: "dim", x: middle(name), y: 32, "text-anchor": "middle" }, `at ${place}`.slice(0, 22)));
  }
  const begun = steps.length ? steps[0].at : 0;
  const jobNames = new Map([[story.id, story.name], ...story.nested.map((each) => [each.id, each.name])]);
  steps.forEach((step, n) => picture.append(arrow(step, middle, 62 + top + n * STEP, begun, jobNames.get(step.id))));
  const box = element("div", "sequence");
  box.tabIndex = 0;
  box.append(picture);
  return box;
}

function arrow(step, middle, y, begun, jobName) {
  const [from, to] = [middle(step.source), middle(step.target)];
  const wrong = step.kind === "cancel" || (step.kind === "answered" && step.text !== null && step.text !== "completed");
  const look = wrong ? "wrong" : step.kind === "answered" ? "back" : step.kind === "asked" ? "" : "faint";
  const group = svg("g", { class: look });
  const way = to >= from ? 1 : -1;
  if (from === to) {
    group.append(svg("path", { class: "arrow", d: `M${from} ${y - 6}h26v10h-20` }), svg("path", { class: "tip-of", d: `M${from + 1} ${y + 4}l8 -4v8z` }));
  } else {
    group.append(svg("line", { class: "arrow", x1: from, x2: to - way * 7, y1: y, y2: y }));
    group.append(svg("path", { class: "tip-of", d: `M${to} ${y}l${-way * 8} -4v8z` }));
  }
  let words = WORDS[step.kind] ?? step.kind;
  if (step.kind === "asked") words = `${words} ${step.text ?? jobName ?? "a job"}`;
  else if (step.kind === "answered") words = `${jobName ?? ""} ${step.text ?? "completed"}`;
  else if (step.kind === "cancel" && step.text) words = `${words}: ${step.text}`;
  if (step.times > 1) words = `${step.times} ${words}s`;
  group.append(svg("text", { x: (from + to) / 2 + (from === to ? 34 : 0), y: y - 5, "text-anchor": from === to ? "start" : "middle" }, words.slice(0, 60)));
  group.append(svg("text", { class: "dim", x: 6, y: y + 4 }, `+${seconds(step.at - begun)}`));
  return group;
}
