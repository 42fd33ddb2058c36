// The page: holds the state that the server tells of, and draws what has changed of it, at most once in a frame.
import { List, element, put } from "./lists.js";
import { Timeline, curve, seconds, sequence } from "./drawing.js";

const $ = (id) => document.getElementById(id);
const names = new Intl.Collator(undefined, { numeric: true });
const state = { about: {}, processes: {}, runners: {}, workers: {}, others: {}, jobs: {}, groups: {}, curves: {}, errors: {}, spans: {} };
const dirty = new Set();
const folded = new Set();
let offset = 0; // the server's clock less this one's
let waiting = false;
let paused = false;
let wanted = "";
let tree = [];
let shownDetail = null;

const now = () => performance.now() / 1000 + offset;
const short = (number) =>
  number < 10000 ? String(Math.round(number)) : number < 1e6 ? `${(number / 1e3).toFixed(1)} k` : `${(number / 1e6).toFixed(1)} M`;

// --- what comes from the server

let source = null;

function connect() {
  source?.close();
  source = new EventSource("api/events");
  source.addEventListener("state", (event) => {
    const told = JSON.parse(event.data);
    offset = told.now - performance.now() / 1000;
    for (const section of Object.keys(state)) {
      state[section] = told.state[section] ?? {};
      dirty.add(section);
    }
    link("live", "live");
    schedule();
  });
  source.addEventListener("changes", (event) => {
    const told = JSON.parse(event.data);
    offset = told.now - performance.now() / 1000;
    for (const [section, { set, gone }] of Object.entries(told.changes)) {
      for (const key of gone) delete state[section][key];
      Object.assign(state[section], set);
      dirty.add(section);
    }
    schedule();
  });
  source.addEventListener("error", () => {
    link("lost", "reconnecting");
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, 1000);
  });
}

function link(kind, text) {
  $("link").className = `link ${kind}`;
  put($("link"), text);
}

function schedule() {
  if (waiting || (paused && dirty.size)) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    draw();
  });
}

function draw() {
  const has = (...sections) => sections.some((section) => dirty.has(section));
  if (has("about", "curves", "errors", "workers")) drawTiles();
  if (has("workers", "others", "about", "runners", "processes")) drawWorkers();
  if (has("jobs", "about")) drawJobs();
  if (has("errors")) drawErrors();
  if (shownDetail?.worker && has("workers", "jobs")) showWorker(shownDetail.worker);
  if (shownDetail?.runner && has("runners", "about")) showRunner(shownDetail.runner);
  dirty.clear();
}

// --- numbers

const TILES = [
  { what: "Workers", value: () => short(state.about.workers ?? 0), note: () => workersNote() },
  { what: "In flight", title: "Jobs in flight", value: () => short(state.about.jobs ?? 0), column: 5 },
  { what: "Jobs / s", value: () => latest(2), column: 2 },
  { what: "Messages / s", value: () => latest(1), column: 1 },
  { what: "p50", title: "Half of the jobs took less", value: () => latency(3), column: 3 },
  { what: "p99", title: "99 % of the jobs took less", value: () => latency(4), column: 4 },
  {
    what: "Failed",
    value: () => short((state.about.answered_failed ?? 0) + (state.about.answered_error ?? 0)),
    note: () => `${short(state.about.answered_completed ?? 0)} done, ${short(state.about.answered_cancelled ?? 0)} cancelled`,
    bad: () => state.about.answered_error > 0,
  },
  { what: "Restarts", value: () => short(state.about.restarts ?? 0), note: () => `${short(state.about.hooks_failed ?? 0)} hooks raised`, bad: () => false },
];

function workersNote() {
  const active = `${short(Object.values(state.workers).filter((row) => row.active).length)} active`;
  const { cluster, runners = 0, processes = 0 } = state.about;
  return cluster ? `${counted(runners, "runner")}, ${counted(processes, "process", "processes")}` : active;
}

function points() {
  return Object.keys(state.curves).map(Number).sort((a, b) => a - b).map((key) => state.curves[key]);
}

function latest(column) {
  const all = points();
  const value = all.length ? all[all.length - 1][column] : null;
  return value === null ? "–" : value < 10 && value > 0 ? value.toFixed(1) : short(value);
}

function latency(column) {
  const known = points().filter((point) => point[column] !== null);
  return known.length ? seconds(known[known.length - 1][column] / 1000) : "–";
}

function makeTiles() {
  for (const tile of TILES) {
    tile.box = element("div", "tile");
    if (tile.title) tile.box.title = tile.title;
    const value = element("div", "value");
    tile.text = element("span");
    value.append(tile.text);
    tile.box.append(element("div", "what", tile.what), value);
    if (tile.column) tile.curve = curve(tile.box);
    else tile.box.append((tile.line = element("div", "note")));
    $("tiles").append(tile.box);
  }
}

function drawTiles() {
  const all = points();
  for (const tile of TILES) {
    put(tile.text, tile.value());
    if (tile.line) put(tile.line, tile.note());
    if (tile.bad) tile.box.classList.toggle("bad", tile.bad());
    if (tile.curve && dirty.has("curves")) tile.curve(all.map((point) => point[tile.column]));
  }
  put($("runner"), state.about.runner ?? "workerbus");
  document.title = `${state.about.runner ?? "workerbus"} · workerbus`;
}

// --- workers

function flatten() {
  const below = new Map();
  const put = (parent, key) => (below.has(parent) ? below.get(parent).push(key) : below.set(parent, [key]));
  for (const [key, row] of Object.entries(state.workers)) {
    put(row.parent !== null && row.parent in state.workers ? row.parent : `runner ${row.runner}`, key);
  }
  const fits = (key) => !wanted || `${key} ${state.workers[key].kind} ${state.workers[key].runner}`.toLowerCase().includes(wanted);
  const walk = (parent, level) => {
    const found = [];
    for (const key of (below.get(parent) ?? []).sort(names.compare)) {
      const inside = walk(key, level + 1);
      if (inside.length || fits(key)) {
        const shut = folded.has(key) && !wanted;
        found.push({ key, name: state.workers[key].name, level, below: below.has(key), shut });
        if (!shut) found.push(...inside);
      }
    }
    return found;
  };
  const rows = [];
  const group = (item, inside) => {
    if (wanted && !inside.length && !item.name.toLowerCase().includes(wanted)) return [];
    const shut = folded.has(item.key) && !wanted;
    return [{ below: true, shut, ...item }, ...(shut ? [] : inside)];
  };
  const runner = (name, level) => group({ key: `runner ${name}`, name, runner: true, level }, walk(`runner ${name}`, level + 1));
  if (state.about.cluster) {
    for (const [name, { runners }] of Object.entries(state.processes).sort(([a], [b]) => names.compare(a, b))) {
      const inside = runners.flatMap((each) => runner(each, 1));
      rows.push(...group({ key: `process ${name}`, name, process: true, level: 0, count: runners.length }, inside));
    }
  } else {
    for (const name of Object.keys(state.runners)) rows.push(...runner(name, 0));
  }
  const others = new Map();
  for (const [name, owner] of Object.entries(state.others)) {
    if (wanted && !`${name} ${owner}`.toLowerCase().includes(wanted)) continue;
    if (!others.has(owner)) others.set(owner, []);
    others.get(owner).push(name);
  }
  for (const [name, inside] of [...others].sort()) {
    const key = `open ${name}`;
    const shut = !folded.has(key) && !wanted;
    rows.push({ key, name, runner: true, remote: true, level: 0, below: true, shut, count: inside.length });
    if (!shut) rows.push(...inside.sort(names.compare).map((each) => ({ key: `other ${each}`, name: each, remote: true, level: 1, below: false })));
  }
  return rows;
}

const counted = (number, what, many = `${what}s`) => `${number} ${number === 1 ? what : many}`;

// What a row of the tree says: its kind, its dot, that in words, and its numbers.
function told(item) {
  if (item.process) return { kind: `process, ${counted(item.count, "runner")}`, look: "process", words: "process", values: [] };
  if (item.remote) {
    const kind = item.runner ? `runner, ${counted(item.count, "worker")}` : "elsewhere";
    return { kind, look: item.runner ? "runner" : "idle", words: kind, values: [] };
  }
  if (item.runner) {
    const it = state.runners[item.name];
    if (!it) return null;
    const why = it.silent ? "silent" : it.not_ready.length ? "not ready" : "";
    const kind = `runner, ${counted(it.workers, "worker")}${why ? `, ${why}` : ""}`;
    const bad = it.answered_failed + it.answered_error + it.answered_cancelled;
    const values = state.about.cluster ? [it.jobs, "", it.answered_completed, bad, it.restarts] : [];
    return { kind, look: why ? "runner moving" : "runner", words: [kind, ...it.not_ready].join(", "), values, error: it.answered_error };
  }
  const it = state.workers[item.key];
  if (!it) return null;
  const kind = it.pool ? `${it.kind} of ${it.pool[0]}${it.pool[1] ? `, ${it.pool[1]} wait` : ""}` : it.kind;
  const [look, words] = it.phase !== "running" ? ["moving", it.phase] : it.active ? ["", "active"] : ["idle", "not active"];
  const values = [it.jobs, it.system ? `${it.system}+${it.data}` : it.data, it.completed, it.failed + it.error + it.cancelled, it.restarts];
  return { kind, look, words, values, error: it.error, full: it.data > 100 };
}

const workers = new List($("workers"), {
  rowClass: "worker-row",
  role: "treeitem",
  key: (item) => item.key,
  make(row) {
    const name = element("div", "name");
    const parts = { name, caret: element("span", "caret"), dot: element("span", "dot"), text: element("span", "text"), kind: element("span", "kind") };
    name.append(parts.caret, parts.dot, parts.text, parts.kind);
    parts.numbers = Array.from({ length: 5 }, () => element("span"));
    row.append(name, ...parts.numbers);
    return parts;
  },
  fill(parts, item, row) {
    const it = told(item);
    if (!it) return;
    row.setAttribute("aria-level", item.level + 1);
    if (item.below) row.setAttribute("aria-expanded", String(!item.shut));
    else row.removeAttribute("aria-expanded");
    parts.name.style.paddingLeft = `${item.level * 16}px`;
    put(parts.caret, item.below ? (item.shut ? "▸" : "▾") : " ");
    put(parts.text, item.name);
    put(parts.kind, it.kind);
    parts.dot.className = `dot ${it.look}`;
    parts.dot.title = it.words;
    row.setAttribute("aria-label", `${item.name}, ${it.words}`);
    parts.numbers.forEach((cell, n) => {
      const value = it.values[n] ?? "";
      put(cell, typeof value === "number" ? short(value) : value);
      cell.className = value === 0 ? "zero" : n === 3 && it.error ? "bad" : (n === 1 && it.full) || (n === 4 && value) ? "warn" : "";
    });
  },
  fold(item, shut) {
    if (!item.below || shut === item.shut) return;
    if (folded.has(item.key)) folded.delete(item.key);
    else folded.add(item.key);
    drawWorkers();
  },
  open(item) {
    if (item.process || (item.remote && item.runner)) workers.options.fold(item, null);
    else if (item.runner) showRunner(item.name);
    else if (!item.remote) showWorker(item.key);
  },
});

function drawWorkers() {
  tree = flatten();
  workers.show(tree, "");
  const total = Object.keys(state.workers).length;
  put($("workers-count"), wanted ? `${tree.filter((item) => !item.runner && !item.remote && !item.process).length} of ${total}` : String(total));
}

// --- jobs

const jobs = new List($("jobs"), {
  rowClass: "job-row",
  role: "option",
  key: (item) => `${item.id}@${item.worker}`,
  make(row) {
    const name = element("div", "name");
    const left = element("div", "time-left");
    const parts = { dot: element("span", "dot"), name: element("span", "text"), worker: element("span"), asker: element("span"), age: element("span"), bar: element("div", "left"), fill: element("i"), left: element("span"), progress: element("span") };
    name.append(parts.dot, parts.name);
    parts.bar.append(parts.fill);
    left.append(parts.bar, parts.left);
    row.append(name, parts.worker, parts.asker, parts.age, left, parts.progress);
    return parts;
  },
  fill(parts, item) {
    const time = now();
    parts.dot.className = `dot ${item.state}`;
    parts.dot.title = item.state;
    put(parts.name, item.name ?? "job");
    put(parts.worker, item.worker);
    parts.worker.title = `${item.worker}, at runner ${item.runner}`;
    put(parts.asker, item.requester);
    put(parts.age, seconds(Math.max(0, time - item.begun)));
    const limited = item.until !== null;
    parts.bar.className = limited ? (item.until - time < 1 ? "left late" : "left") : "left none";
    const part = limited ? Math.max(0, Math.min(1, (item.until - time) / Math.max(1e-3, item.until - item.begun))) : 0;
    parts.fill.style.width = `${Math.round(part * 100)}%`;
    put(parts.left, limited ? seconds(Math.max(0, item.until - time)) : "any");
    parts.left.className = limited ? "" : "zero";
    put(parts.progress, item.answered ? `${item.answered[0]} of ${item.answered[1]}` : item.updates ? `${item.updates} update${item.updates > 1 ? "s" : ""}` : item.state);
  },
  open: (item) => showStory(item.id),
});

function drawJobs() {
  const all = Object.values(state.jobs).sort((a, b) => a.begun - b.begun || names.compare(a.worker, b.worker));
  const shown = wanted ? all.filter((item) => `${item.name} ${item.worker} ${item.requester} ${item.id}`.toLowerCase().includes(wanted)) : all;
  jobs.show(shown, wanted ? "No such job is in flight" : "No job is in flight");
  const more = state.about.left_out ? `, the oldest ${all.length} are here` : "";
  put($("jobs-count"), wanted ? `${shown.length} of ${all.length}` : `${state.about.jobs ?? all.length}${more}`);
}

// --- the last minute, and errors

const timeline = new Timeline($("timeline"), $("tip"), showStory);

// A pool answers in its own name, so what a member does is shown where its answers are.
function lane(worker) {
  const parent = state.workers[worker]?.parent;
  return state.workers[parent]?.pool ? parent : worker;
}

function drawTimeline() {
  const open = Object.values(state.jobs).map((item) => [lane(item.worker), item.begun, null, null, item.id, item.name]);
  const spans = [...Object.values(state.spans), ...open];
  const shown = wanted ? spans.filter((span) => `${span[0]} ${span[5]}`.toLowerCase().includes(wanted)) : spans;
  const lanes = timeline.draw(shown, now());
  put($("timeline-note"), !lanes ? "no jobs" : state.about.sampled ? "a sample: more passes than is noted" : "of each second the longest jobs, and those that failed");
}

const errorBoxes = new Map();

function drawErrors() {
  const box = $("errors");
  for (const [key, made] of errorBoxes) {
    if (!(key in state.errors) || state.errors[key][0] !== made.at) {
      made.box.remove();
      errorBoxes.delete(key);
    }
  }
  for (const key of Object.keys(state.errors).sort((a, b) => state.errors[a][0] - state.errors[b][0])) {
    if (errorBoxes.has(key)) continue;
    const [at, text, , job, trace, runner] = state.errors[key];
    const made = element("details", "error");
    const head = element("summary");
    const when = element("time");
    head.append(element("span", "text", state.about.cluster ? `${runner}: ${text}` : text), when);
    made.append(head);
    if (trace) head.append(element("span", "last", trace.trimEnd().split("\n").pop()));
    if (trace) made.append(element("pre", "", trace));
    if (job) {
      const links = element("div", "links");
      links.append(storyButton(job, "Story of this job"));
      made.append(links);
    }
    const wrapped = element("div");
    wrapped.append(made);
    box.prepend(wrapped);
    errorBoxes.set(key, { box: wrapped, when, at });
  }
  if (!errorBoxes.size && !box.querySelector(".empty")) box.append(element("div", "empty", "Nothing was logged as an error"));
  if (errorBoxes.size) box.querySelector(".empty")?.remove();
  put($("errors-count"), String(errorBoxes.size));
  drawTimes();
}

function drawTimes() {
  for (const { when, at } of errorBoxes.values()) put(when, `${ago(Math.max(0, now() - at))} ago`);
}

const ago = (time) => (time < 60 ? `${Math.floor(time)} s` : time < 3600 ? `${Math.floor(time / 60)} min` : `${Math.floor(time / 3600)} h`);

// --- details

function facts(pairs) {
  const list = element("dl");
  for (const [what, value] of pairs) list.append(element("dt", "", what), element("dd", "", String(value)));
  return list;
}

function storyButton(id, text) {
  const button = element("button", "", text);
  button.type = "button";
  button.addEventListener("click", () => showStory(id));
  return button;
}

function openDetail(title, ...parts) {
  put($("detail-title"), title);
  $("detail-body").replaceChildren(...parts);
  if (!$("detail").open) $("detail").showModal();
}

function showRunner(name) {
  const it = state.runners[name];
  shownDetail = { runner: name };
  if (!it) return openDetail(name, element("p", "", "This runner has gone."));
  const bus = [["Processes that it is connected with", it.peers], ["Messages that are not stored yet", it.unsent], ["Messages that it has not read yet", it.lag], ["Times that messages were missing", it.gaps], ["Connections that were lost", it.connections_lost], ["Lives", it.lives]];
  openDetail(
    name,
    facts([
      ["Process", it.process],
      ["Ready", it.silent ? "it has told nothing for a while" : it.not_ready.join(", ") || "yes"],
      ["Workers", it.workers],
      ["Jobs in flight", it.jobs],
      ["Completed", it.answered_completed],
      ["Failed", it.answered_failed],
      ["Errors", it.answered_error],
      ["Cancelled", it.answered_cancelled],
      ["Jobs that were asked for here", it.requested],
      ["Hooks that raised", it.hooks_failed],
      ["Restarts", it.restarts],
      ["Bus", it.bus],
      ["Messages sent", it.sent],
      ["Messages without a receiver", it.undelivered],
      ...bus.filter(([, value]) => value !== undefined),
      ...(it.loop_stalls === null ? [] : [["Stalls of the event loop", it.loop_stalls], ["How late the loop was", seconds(it.loop_lag)]]),
    ]),
  );
}

function showWorker(name) {
  const it = state.workers[name];
  shownDetail = { worker: name };
  if (!it) return openDetail(name, element("p", "", "This worker has gone."));
  const mine = Object.values(state.jobs).filter((item) => item.worker === name);
  const links = element("div", "links");
  links.append(...mine.slice(0, 50).map((item) => storyButton(item.id, `${item.name ?? "job"}, for ${item.requester}`)));
  openDetail(
    it.name,
    facts([
      ["Class", it.kind],
      ["Runner", it.runner],
      ...(state.about.cluster ? [["Process", state.runners[it.runner]?.process ?? ""]] : []),
      ["Parent", it.parent ?? "none: a root worker"],
      ["Phase", it.phase],
      ["Active", it.active ? "yes" : "no"],
      ...(it.pool ? [["Members", it.pool[0]], ["Jobs that wait for one", it.pool[1]]] : []),
      ["Jobs in flight", it.jobs],
      ["Waiting, system lane", it.system],
      ["Waiting, data lane", it.data],
      ["Completed", it.completed],
      ["Failed", it.failed],
      ["Errors", it.error],
      ["Cancelled", it.cancelled],
      ["Jobs that it has asked for", it.requested],
      ["Hooks that raised", it.hooks_failed],
      ["Restarts since somebody looks", it.restarts],
    ]),
    element("h3", "", `Jobs in flight: ${mine.length}`),
    links,
  );
}

async function showStory(id) {
  shownDetail = { story: id };
  const answer = await fetch(`api/jobs/${encodeURIComponent(id)}`).catch(() => null);
  if (shownDetail?.story !== id) return;
  if (!answer?.ok) return openDetail(id, element("p", "", answer?.status === 404 ? "This job began before anybody looked, or is over for too long." : "The server does not answer."));
  const told = await answer.json();
  if (shownDetail?.story !== id) return;
  shownDetail.open = told.open;
  const legs = Object.entries(told.legs);
  const parts = [
    facts([
      ["Id", told.id],
      ["Asked by", told.requester],
      ...legs.slice(0, 20).map(([worker, [begun, ended, status]]) => [worker, ended === null ? `in flight for ${seconds(Math.max(0, now() - begun))}` : `${status} after ${seconds(ended - begun)}`]),
    ]),
    sequence(told, state.about.cluster),
  ];
  if (told.left_out) parts.push(element("p", "", `${told.left_out} messages in the middle are left out.`));
  if (told.parent) parts.push(element("h3", "", "Asked for in the job"), buttons([storyButton(told.parent, told.parent)]));
  if (told.nested.length) parts.push(element("h3", "", "Nested jobs"), buttons(told.nested.map((each) => storyButton(each.id, `${each.name ?? "job"} at ${each.workers.join(", ")}`))));
  openDetail(told.name ?? "Job", ...parts);
}

function buttons(made) {
  const links = element("div", "links");
  links.append(...made);
  return links;
}

function showKeys() {
  shownDetail = null;
  const keys = element("div", "keys");
  for (const [key, what] of [["/", "filter"], ["1 2 3 4", "go to workers, jobs, the last minute, errors"], ["↑ ↓", "move in a list (or k, j)"], ["← →", "fold, unfold"], ["Enter", "open what is chosen"], ["Esc", "close, or clear the filter"], ["p", "pause"], ["?", "this"]]) {
    const box = element("span");
    box.append(element("kbd", "", key));
    keys.append(box, element("span", "", what));
  }
  openDetail("Keys", keys);
}

// --- what people do

function showPane(pane) {
  document.body.dataset.pane = pane;
  for (const button of document.querySelectorAll("nav button")) button.setAttribute("aria-current", String(button.dataset.show === pane));
  workers.draw();
  jobs.draw();
  drawTimeline();
}

function pause(stop) {
  paused = stop;
  $("pause").setAttribute("aria-pressed", String(paused));
  put($("pause"), paused ? "Paused" : "Pause");
  if (!paused) schedule();
}

function filter(text) {
  wanted = text.trim().toLowerCase();
  drawWorkers();
  drawJobs();
  drawTimeline();
}

$("filter").addEventListener("input", (event) => filter(event.target.value));
$("pause").addEventListener("click", () => pause(!paused));
$("help").addEventListener("click", showKeys);
$("close").addEventListener("click", () => $("detail").close());
$("detail").addEventListener("close", () => (shownDetail = null));
$("detail").addEventListener("click", (event) => event.target === $("detail") && $("detail").close());
document.querySelector("nav").addEventListener("click", (event) => event.target.dataset.show && showPane(event.target.dataset.show));
document.addEventListener("keydown", (event) => {
  const typing = event.target === $("filter");
  if (typing && event.key === "Escape") {
    $("filter").value = "";
    filter("");
    $("workers").focus();
  }
  if (typing || event.ctrlKey || event.metaKey || event.altKey || $("detail").open) return;
  const panes = { 1: "workers", 2: "jobs", 3: "timeline", 4: "errors" };
  if (event.key === "/") $("filter").focus();
  else if (event.key === "p") pause(!paused);
  else if (event.key === "?") showKeys();
  else if (event.key in panes) {
    showPane(panes[event.key]);
    ($(panes[event.key]) ?? $("workers")).focus();
  } else return;
  event.preventDefault();
});

makeTiles();
showPane("workers");
setInterval(() => {
  if (paused || document.hidden) return;
  jobs.draw();
  drawTimeline();
  drawTimes();
  if (shownDetail?.open) showStory(shownDetail.story);
}, 500);
addEventListener("resize", () => drawTimeline());
connect();
