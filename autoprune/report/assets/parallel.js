// All measures of all trials at once: a line a trial over parallel axes (Inselberg, The plane with parallel
// coordinates, 1985). Units are many, so that an axis is the mean of all units of a kind, weighted by bytes.

const MOST_KINDS = 5;
const ACROSS_AXIS = 84; // least pixels between two axes
const STEPS = { ArrowUp: 0.02, ArrowDown: -0.02, PageUp: 0.1, PageDown: -0.1, Home: -1, End: 1 };
const parallel = { axes: [], lines: [], ranges: new Map(), box: null, at: null };

const bitsOf = (bits) => (known(bits) ? bits : data.storages[bits]?.bits);

// Kinds of units by bytes, the largest first, each with its units.
function kindsOfUnits() {
  const kinds = new Map();
  for (const unit of front.units || []) kinds.set(unit.kind || "units", [...(kinds.get(unit.kind || "units") ?? []), unit]);
  const bytes = ([, units]) => units.reduce((total, unit) => total + (unit.size_bytes || 1), 0);
  return [...kinds].sort((a, b) => bytes(b) - bytes(a)).slice(0, MOST_KINDS);
}

// The mean over units, weighted by `weight`; null where no unit has a value.
function meanOver(units, trial, weight, value) {
  let [total, whole] = [0, 0];
  for (const unit of units) {
    const level = trial.levels[unit.name];
    if (!level || !known(value(level))) continue;
    total += weight(unit, level) * value(level);
    whole += weight(unit, level);
  }
  return whole > 0 ? total / whole : null;
}

function allAxes() {
  const bytes = (unit) => unit.size_bytes || 1;
  const perKind = kindsOfUnits().flatMap(([kind, units]) => [
    { key: "removed." + kind, name: [kind, "removed"], shown: format.share,
      of: (t) => meanOver(units, t, bytes, (level) => level.ratio) },
    { key: "bits." + kind, name: [kind, "bits"], shown: (value) => value.toFixed(1),
      of: (t) => meanOver(units, t, (unit, level) => bytes(unit) * (1 - level.ratio), (level) => bitsOf(level.bits)) },
  ]);
  return [
    { key: "size", name: ["Size", "(log)"], of: (t) => t.size_bytes, log: true, shown: format.size },
    { key: "latency", name: ["Latency", ""], of: (t) => t.latency_ms, shown: format.latency },
    { key: "accuracy", name: [shorten(metric.title, 12), "validation"], of: (t) => metric.shown(t.accuracy),
      log: !metric.more, shown: metric.text },
    { key: "kl", name: ["KL, nats", "(log)"], of: (t) => t.kl, log: true, shown: format.nats },
    ...perKind];
}

// An axis with its ends and the share of its length for each trial; null where all trials are alike.
function measuredAxis(axis, drawn) {
  const values = new Map(drawn.map((t) => [t, axis.of(t)]));
  const ends = [...values.values()].filter((value) => known(value) && (!axis.log || value > 0));
  const [low, high] = [Math.min(...ends), Math.max(...ends)];
  if (!(high > low)) return null;
  const turn = axis.log ? Math.log : (value) => value;
  const share = (t) => {
    const value = values.get(t);
    if (!known(value)) return null;
    return axis.log && value <= 0 ? 0 : (turn(value) - turn(low)) / (turn(high) - turn(low));
  };
  const value = (part) => (axis.log ? low * (high / low) ** part : low + part * (high - low));
  return { ...axis, shares: new Map(drawn.map((t) => [t, share(t)])), told: (part) => axis.shown(value(part)) };
}

const isRanged = () => [...parallel.ranges.values()].some(([from, to]) => from > 0 || to < 1);

function fitsRanges(trial) {
  return parallel.axes.every((axis) => {
    const [from, to] = parallel.ranges.get(axis.key) ?? [0, 1];
    const share = axis.shares.get(trial);
    return (from <= 0 && to >= 1) || (known(share) && share >= from - 1e-9 && share <= to + 1e-9);
  });
}

// For the table's filter: only where it is asked for.
const fitsBrushes = (trial) => !byId("parallel-table").checked || !isRanged() || fitsRanges(trial);

function linePath(trial) {
  let [path, isDown] = ["", false];
  parallel.axes.forEach((axis, k) => {
    const share = axis.shares.get(trial);
    if (known(share)) path += `${isDown ? "L" : "M"}${parallel.at.x(k)} ${parallel.at.y(share).toFixed(1)}`;
    isDown = known(share);
  });
  return path;
}

// The trial whose line is nearest to a place, within 9 pixels up or down.
function nearestLine(x, y) {
  const k = Math.min(parallel.axes.length - 2, Math.max(0, Math.floor((x - parallel.at.x(0)) / parallel.at.step)));
  const part = (x - parallel.at.x(k)) / parallel.at.step;
  const away = ({ trial }) => {
    const [a, b] = [k, k + 1].map((place) => parallel.axes[place].shares.get(trial));
    return known(a) && known(b) ? Math.abs(parallel.at.y(a + part * (b - a)) - y) : Infinity;
  };
  const near = parallel.lines.filter((line) => away(line) < 9 && fitsRanges(line.trial));
  return near.sort((p, q) => away(p) - away(q))[0]?.trial;
}

function showRanges() {
  const within = parallel.lines.filter((line) => fitsRanges(line.trial));
  const inside = new Set(within);
  for (const line of parallel.lines) line.node.classList.toggle("out", !inside.has(line));
  for (const axis of parallel.axes) {
    const ends = parallel.ranges.get(axis.key) ?? [0, 1];
    const [bottom, top] = ends.map(parallel.at.y);
    fill(axis.band, { y: top, height: bottom - top }, []);
    axis.band.classList.toggle("on", ends[0] > 0 || ends[1] < 1);
    axis.handles.forEach((handle, k) => fill(handle, { transform: `translate(0 ${parallel.at.y(ends[k])})`,
      "aria-valuenow": Math.round(100 * ends[k]), "aria-valuetext": axis.told(ends[k]) }, []));
  }
  const [few, all] = [within.length, parallel.lines.length].map((count) => count.toLocaleString("en"));
  byId("parallel-count").textContent = isRanged() ? `${few} of ${all} lines are within the ranges.` : `${all} lines.`;
  byId("parallel-clear").disabled = !isRanged();
}

function setRange(axis, range) {
  const [from, to] = range.map((end) => Math.min(1, Math.max(0, end)));
  if (from <= 0 && to >= 1) parallel.ranges.delete(axis.key);
  else parallel.ranges.set(axis.key, [from, to]);
  showRanges();
}

function rangesChanged() {
  showFiltered();
  keepView();
}

function handleKey(event, axis, k) {
  const ends = [...(parallel.ranges.get(axis.key) ?? [0, 1])];
  const place = parallel.axes.indexOf(axis);
  const other = { ArrowLeft: place - 1, ArrowRight: place + 1 }[event.key];
  if (other !== undefined) {
    const to = parallel.axes[Math.min(parallel.axes.length - 1, Math.max(0, other))];
    stopAt(to);
    to.handles[k].focus();
  } else if (event.key === "Escape") setRange(axis, [0, 1]);
  else if (STEPS[event.key]) {
    const moved = ends[k] + STEPS[event.key];
    ends[k] = k ? Math.max(ends[0], moved) : Math.min(ends[1], moved);
    setRange(axis, ends);
  } else return;
  event.preventDefault();
  rangesChanged();
}

function stopAt(axis) {
  for (const one of parallel.axes) for (const handle of one.handles) handle.setAttribute("tabindex", one === axis ? "0" : "-1");
}

function dragOn(hit, axis, svg) {
  const shareAt = (event) => {
    const at = svg.getBoundingClientRect();
    const y = (event.clientY - at.top) * svg.viewBox.baseVal.height / at.height;
    return Math.min(1, Math.max(0, (parallel.box.bottom - y) / (parallel.box.bottom - parallel.box.top)));
  };
  let from = null;
  hit.addEventListener("pointerdown", (event) => {
    from = shareAt(event);
    hit.setPointerCapture(event.pointerId);
  });
  hit.addEventListener("pointermove", (event) => {
    if (from !== null) setRange(axis, [from, shareAt(event)].sort((a, b) => a - b));
  });
  hit.addEventListener("pointerup", (event) => {
    if (from !== null && Math.abs(shareAt(event) - from) < 0.015) setRange(axis, [0, 1]);
    from = null;
    rangesChanged();
  });
  hit.addEventListener("click", (event) => event.stopPropagation());
}

function axisNode(axis, k) {
  const { box, at } = parallel;
  const text = (words, y, kind) => shape("text", { class: kind, x: 0, y, "text-anchor": "middle" }, words);
  const most = Math.floor(at.step / 6.8);
  axis.band = shape("rect", { class: "band", x: -7, width: 14 });
  axis.handles = ["least", "most"].map((end, place) => {
    const node = shape("g", { class: "handle", role: "slider", tabindex: k === 0 ? "0" : "-1",
      "aria-label": `${axis.name.filter(Boolean).join(" ")}, ${end}`, "aria-orientation": "vertical",
      "aria-valuemin": 0, "aria-valuemax": 100 },
    shape("path", { class: "mark", d: place ? "M-7 0H7L0-7Z" : "M-7 0H7L0 7Z" }));
    node.addEventListener("keydown", (event) => handleKey(event, axis, place));
    return node;
  });
  const hit = shape("rect", { class: "hit", x: -14, y: box.top - 8, width: 28, height: box.bottom - box.top + 16 });
  return { hit, node: shape("g", { class: "axis", transform: `translate(${at.x(k)} 0)` },
    text(shorten(axis.name[0], most), 14, "title"), text(shorten(axis.name[1], most), 29, "tick"),
    text(axis.told(1), 46, "tick"), text(axis.told(0), box.bottom + 24, "tick"),
    shape("line", { class: "edge", x1: 0, x2: 0, y1: box.top, y2: box.bottom }), axis.band, hit, ...axis.handles) };
}

function showParallel() {
  const host = byId("parallel");
  const axes = parallel.axes;
  const width = Math.max(Math.round(host.clientWidth) || 1000, ACROSS_AXIS * axes.length);
  const [height, side] = [400, 46];
  parallel.box = { top: 60, bottom: height - 34 };
  const step = (width - 2 * side) / (axes.length - 1);
  const { top, bottom } = parallel.box;
  parallel.at = { step, x: (k) => Math.round(10 * (side + k * step)) / 10, y: (share) => bottom - share * (bottom - top) };
  const order = ["dominated", "front", "baseline", "original", "knee", "best"];
  const drawn = [...axes[0].shares.keys()].sort((a, b) => order.indexOf(a.role) - order.indexOf(b.role));
  parallel.lines = drawn.map((trial) => ({ trial, node: shape("path", { class: "course " + trial.role, d: linePath(trial) }) }));
  parallel.chosen = shape("path", { class: "course chosen" });
  const nodes = axes.map(axisNode);
  const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "group",
    "aria-label": "Trials over parallel axes" },
  ...parallel.lines.map((line) => line.node), parallel.chosen, ...nodes.map(({ node }) => node));
  nodes.forEach(({ hit }, k) => dragOn(hit, axes[k], svg));
  svg.addEventListener("click", (event) => {
    const at = svg.getBoundingClientRect();
    const trial = nearestLine(event.clientX - at.left, event.clientY - at.top);
    if (trial) select(trial);
  });
  host.replaceChildren(el("div", { class: "scroll", tabindex: "0", role: "group",
    "aria-labelledby": "parallel-title" }, svg));
  showRanges();
  markLine();
}

function markLine() {
  const isDrawn = parallel.lines.some((line) => line.trial === state.selected);
  parallel.chosen?.setAttribute("d", isDrawn ? linePath(state.selected) : "");
}

// The axes of the trials that are drawn: baselines would stretch them, so that they come when asked for.
function measureAxes() {
  const all = trials.filter((t) => t.role !== "failed" && known(t.size_bytes) && known(t.accuracy));
  const searched = all.filter((t) => t.name === null);
  byId("parallel-baselines").closest("label").hidden = searched.length < 2 || searched.length === all.length;
  const drawn = byId("parallel-baselines").checked || searched.length < 2 ? all : searched;
  parallel.axes = drawn.length > 1 ? allAxes().map((axis) => measuredAxis(axis, drawn)).filter(Boolean) : [];
  byId("parallel-section").hidden = parallel.axes.length < 2;
}

function startParallel() {
  const anew = () => {
    measureAxes();
    if (parallel.axes.length > 1) showParallel();
  };
  anew();
  byId("parallel-baselines").addEventListener("change", () => {
    parallel.ranges.clear();
    anew();
    rangesChanged();
  });
  byId("parallel-table").addEventListener("change", rangesChanged);
  byId("parallel-clear").addEventListener("click", () => {
    parallel.ranges.clear();
    showRanges();
    rangesChanged();
  });
}

// In the address as `ranges=size:0.2-0.5,kl:0-0.3`, in shares of each axis.
const rangesText = () => [...parallel.ranges].map(([key, ends]) =>
  `${key}:${ends.map((end) => Number(end.toFixed(3))).join("-")}`).join(",");

function rangesOfView(view) {
  parallel.ranges.clear();
  for (const part of (view.get("ranges") ?? "").split(",")) {
    const [, key, from, to] = /^(.*):([\d.]+)-([\d.]+)$/.exec(part) ?? [];
    const isOne = parallel.axes.some((axis) => axis.key === key) && Number(from) <= Number(to) && Number(to) <= 1;
    if (isOne) parallel.ranges.set(key, [Number(from), Number(to)]);
  }
  byId("parallel-table").checked = view.get("table") === "ranges";
  if (parallel.axes.length > 1) showRanges();
}
