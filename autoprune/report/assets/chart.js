// The front in two of its dimensions, as SVG.

const AXES = {
  size: { name: "Size, MB (log)", of: (t) => t.size_bytes, unit: 1e6, log: true, sign: 1,
    budget: "size_bytes", shown: format.size },
  latency: { name: "Latency, ms", of: (t) => t.latency_ms, unit: 1, sign: 1,
    budget: "latency_ms", shown: format.latency,
    range: (t) => [t.latency_low_ms, t.latency_high_ms] },
  accuracy: null, // of the run's metric: report.js sets it
  kl: { name: "KL from the original, nats", of: (t) => t.kl, unit: 1, sign: 1, shown: format.nats },
};

const MARKS = {
  front: "M-5 0A5 5 0 1 0 5 0A5 5 0 1 0-5 0Z",
  dominated: "M-3.5 0A3.5 3.5 0 1 0 3.5 0A3.5 3.5 0 1 0-3.5 0Z",
  baseline: "M0-6.5L6.5 0L0 6.5L-6.5 0Z",
  line: "M-2-7H2V-2H7V2H2V7H-2V2H-7V-2H-2Z",
  original: "M-5.5-5.5H5.5V5.5H-5.5Z",
  knee: "M0-7.5L7.2 5.5H-7.2Z",
  best: "M0-9.5L2.4-3.2L9-2.9L3.8 1.2L5.6 7.7L0 4L-5.6 7.7L-3.8 1.2L-9-2.9L-2.4-3.2Z",
};

function ticksOf(low, high, log) {
  if (!log) {
    const rough = (high - low) / 6 || 1;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((k) => k * power).find((k) => k >= rough);
    const first = Math.ceil(low / step);
    return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, k) =>
      Number(((first + k) * step).toPrecision(12)));
  }
  const found = (steps) => {
    const all = [];
    for (let p = Math.floor(Math.log10(low)); p <= Math.ceil(Math.log10(high)); p += 1) {
      for (const k of steps) all.push(Number((k * 10 ** p).toPrecision(12)));
    }
    return all.filter((one) => one >= low && one <= high);
  };
  const wide = found([1, 2, 5]);
  if (wide.length >= 4) return wide;
  const fine = found([1, 1.5, 2, 3, 4, 5, 6, 8]);
  return fine.length >= 3 ? fine : ticksOf(low, high, false);
}

// Data to pixels, with 6 % of room at both ends.
function scaleOf(values, axis, from, to) {
  const turn = axis.log ? Math.log : (one) => one;
  const ends = values.map((one) => turn(one / axis.unit)).filter(Number.isFinite);
  let low = Math.min(...ends);
  let high = Math.max(...ends);
  const room = 0.06 * (high - low) || 0.5 * Math.abs(high) || 0.5;
  low -= room;
  high += room;
  const back = axis.log ? Math.exp : (one) => one;
  const at = (value) => from + ((turn(value / axis.unit) - low) / (high - low)) * (to - from);
  const ticks = ticksOf(back(low), back(high), axis.log)
    .map((one) => ({ text: String(one), at: at(one * axis.unit) }));
  return { at, ticks };
}

// Members of the front that no other member beats in the two dimensions shown, in order across.
function staircase(points, x, y) {
  const cost = (p, axis) => axis.sign * axis.of(p.trial);
  const kept = points.filter((p) => !points.some((q) =>
    cost(q, x) <= cost(p, x) && cost(q, y) <= cost(p, y) &&
    (cost(q, x) < cost(p, x) || cost(q, y) < cost(p, y))));
  return kept.sort((p, q) => p.x - q.x);
}

// From one step to the next through the corner that only known points dominate.
function stepPath(steps, x) {
  return steps.map((p, k) => {
    if (k === 0) return `M${p.x} ${p.y}`;
    return x.sign > 0 ? `H${p.x}V${p.y}` : `V${p.y}H${p.x}`;
  }).join("");
}

function errorBars(p, x, y, at) {
  const bars = [];
  const ends = (axis) => (axis.range ? axis.range(p.trial) : null);
  const h = ends(x);
  const v = ends(y);
  if (h && h.every(known)) bars.push(`M${at.x(h[0])} ${p.y}H${at.x(h[1])}`);
  if (v && v.every(known)) bars.push(`M${p.x} ${at.y(v[0])}V${at.y(v[1])}`);
  return bars.length ? shape("path", { class: "bar", d: bars.join("") }) : null;
}

const PLACED = ["best", "knee", "front", "original", "baseline", "line"]; // whose label chooses first

// Offsets of a label's left end and base line from its mark, the nearest first.
function spotsOf(wide) {
  const beside = [[16, 4], [-16 - wide, 4], [-wide / 2, -18], [-wide / 2, 26], [11, -13], [11, 21], [-11 - wide, -13],
    [-11 - wide, 21]];
  const far = [1, 2, 3, 4, 5, 6].flatMap((k) => [-18 - 16 * k, 26 + 16 * k])
    .flatMap((dy) => [-wide / 2, 11, -11 - wide].map((dx) => [dx, dy]));
  return [...beside, ...far];
}

// Labels go where they cover no mark, no step of the line and no other label, as far as can be: a named mark
// counts as four others, another label as twenty, and as one other mark 40 pixels further away.
function placeLabels(wanted, points, steps, box) {
  const taken = points.map((p) => {
    const reach = p.role === "best" ? 13 : 6;
    return { area: [p.x - reach, p.y - reach, p.x + reach, p.y + reach], weight: p.role === "dominated" ? 1 : 4 };
  });
  steps.slice(1).forEach((p, k) => {
    const q = steps[k];
    const [x, y] = [Math.max(p.x, q.x), Math.max(p.y, q.y)];
    taken.push({ area: [q.x, q.y - 1, p.x, q.y + 1], weight: 1 },
      { area: [p.x - 1, y - Math.abs(p.y - q.y), x + 1, y], weight: 1 });
  });
  const met = ([l, t, r, b], [l2, t2, r2, b2]) => l < r2 && r > l2 && t < b2 && b > t2;
  const rank = (p) => PLACED.indexOf(p.role);
  return [...wanted].sort((p, q) => rank(p) - rank(q)).flatMap((p) => {
    const text = shorten(p.caption, 30);
    const wide = 6.6 * text.length;
    const cost = ({ area: one, away }) => away / 40 +
      taken.reduce((sum, other) => sum + (met(one, other.area) ? other.weight : 0), 0) +
      (one[0] < box.left || one[2] > box.right || one[1] < box.top || one[3] > box.bottom ? 100 : 0);
    const best = spotsOf(wide).map(([dx, dy]) => {
      const area = [p.x + dx, p.y + dy - 11, p.x + dx + wide, p.y + dy + 3];
      const end = [Math.min(Math.max(p.x, area[0]), area[2]), dy < 0 ? area[3] : area[1]];
      return { area, end, away: Math.max(0, Math.abs(dy < 0 ? p.y - area[3] : area[1] - p.y) - 16) };
    }).reduce((a, b) => (cost(b) < cost(a) ? b : a));
    taken.push({ area: best.area, weight: 20 });
    const leader = best.away > 4 ? shape("line", { class: "leader", x1: p.x, y1: p.y, x2: best.end[0], y2: best.end[1] })
      : null;
    return [leader, shape("text", { class: "caption " + p.role, x: best.area[0], y: best.area[3] - 3 }, text)];
  });
}

function frame(box, x, y, scales) {
  const lines = [];
  for (const tick of scales.x.ticks) {
    lines.push(shape("line", { class: "grid", x1: tick.at, x2: tick.at, y1: box.top, y2: box.bottom }),
      shape("text", { class: "tick", x: tick.at, y: box.bottom + 18, "text-anchor": "middle" }, tick.text));
  }
  for (const tick of scales.y.ticks) {
    lines.push(shape("line", { class: "grid", x1: box.left, x2: box.right, y1: tick.at, y2: tick.at }),
      shape("text", { class: "tick", x: box.left - 8, y: tick.at + 4, "text-anchor": "end" }, tick.text));
  }
  const middle = (box.top + box.bottom) / 2;
  lines.push(
    shape("line", { class: "edge", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }),
    shape("text", { class: "title", x: (box.left + box.right) / 2, y: box.bottom + 40,
      "text-anchor": "middle" }, x.name),
    shape("text", { class: "title", x: 14, y: middle, "text-anchor": "middle",
      transform: `rotate(-90 14 ${middle})` }, y.name));
  return lines;
}

// The side of each limit that is too much, under the grid, and the limit itself, above it.
function budgetMarks(budget, x, y, box, scales) {
  const limit = (axis) => (axis.budget && known(budget?.[axis.budget]) ? budget[axis.budget] : null);
  const under = [];
  const over = [];
  if (limit(x) !== null) {
    const at = scales.x.at(limit(x));
    under.push(shape("rect", { class: "beyond", x: at, y: box.top, width: Math.max(0, box.right - at),
      height: box.bottom - box.top }));
    over.push(shape("line", { class: "budget", x1: at, x2: at, y1: box.top, y2: box.bottom }),
      shape("text", { class: "budget-text", x: at + 7, y: box.bottom - 9 }, "budget " + x.shown(limit(x))));
  }
  if (limit(y) !== null) {
    const at = scales.y.at(limit(y));
    under.push(shape("rect", { class: "beyond", x: box.left, y: box.top, width: box.right - box.left,
      height: Math.max(0, at - box.top) }));
    over.push(shape("line", { class: "budget", x1: box.left, x2: box.right, y1: at, y2: at }),
      shape("text", { class: "budget-text", x: box.right - 6, y: at - 7, "text-anchor": "end" },
        "budget " + y.shown(limit(y))));
  }
  return { under, over };
}

function extent(points, axis, budget, zoom) {
  const shown = zoom ? points.filter((p) => p.trial.on_front) : points;
  const values = (shown.length ? shown : points).flatMap((p) => [axis.of(p.trial),
    ...(p.role === "dominated" ? [] : (axis.range && axis.range(p.trial)) || []).filter(known)]);
  if (axis.budget && known(budget?.[axis.budget])) values.push(budget[axis.budget]);
  return values;
}

// Draws into `host`; `trials` carry `role`, `caption` and `error`. Returns the points drawn.
function drawChart(host, trials, options) {
  const x = AXES[options.x];
  const y = AXES[options.y];
  const width = Math.max(320, Math.round(host.clientWidth) || 700);
  const height = Math.round(Math.min(480, Math.max(320, 0.68 * width)));
  const box = { left: 58, right: width - 12, top: 12, bottom: height - 50 };
  const all = trials.filter((t) => known(x.of(t)) && known(y.of(t)) && t.role !== "failed" &&
    !(x.log && x.of(t) <= 0) && !(y.log && y.of(t) <= 0))
    .map((trial) => ({ trial, role: trial.role, caption: trial.caption }));
  host.replaceChildren();
  if (!all.length) {
    host.append(el("p", { class: "empty" }, "No trial has these two measurements yet."));
    return [];
  }
  const scales = {
    x: scaleOf(extent(all, x, options.budget, options.zoom), x, box.left, box.right),
    y: scaleOf(extent(all, y, options.budget, options.zoom), y, box.bottom, box.top),
  };
  for (const p of all) {
    p.x = Math.round(10 * scales.x.at(x.of(p.trial))) / 10;
    p.y = Math.round(10 * scales.y.at(y.of(p.trial))) / 10;
  }
  const inside = all.filter((p) => p.x >= box.left - 1 && p.x <= box.right + 1 &&
    p.y >= box.top - 1 && p.y <= box.bottom + 1);
  const order = ["dominated", "front", "baseline", "line", "original", "knee", "best"];
  inside.sort((p, q) => order.indexOf(p.role) - order.indexOf(q.role));
  const at = { x: scales.x.at, y: scales.y.at };
  const steps = staircase(all.filter((p) => p.trial.on_front), x, y);
  const marked = inside.filter((p) => p.role !== "dominated");
  const limits = budgetMarks(options.budget, x, y, box, scales);
  const marks = inside.map((p) => {
    p.node = shape("g", { class: "point " + p.role, transform: `translate(${p.x} ${p.y})`, role: "button",
      tabindex: "-1", "aria-label": [label(p.trial), x.shown(x.of(p.trial)), y.shown(y.of(p.trial)),
        known(p.trial.rung) ? rungText(p.trial) : null].filter(Boolean).join(", ") },
    shape("circle", { class: "halo", r: 13 }), shape("path", { class: "mark", d: MARKS[p.role] }));
    return p.node;
  });
  const captions = placeLabels(marked.filter((p) => p.caption), inside, steps, box);
  host.append(shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "group",
    "aria-label": `${y.name} against ${x.name}; arrow keys move, Enter selects` },
  shape("defs", {}, shape("clipPath", { id: "inside" }, shape("rect", { x: box.left, y: box.top,
    width: box.right - box.left, height: box.bottom - box.top }))),
  ...limits.under, ...frame(box, x, y, scales), ...limits.over,
  shape("g", { "clip-path": "url(#inside)" },
    steps.length > 1 ? shape("path", { class: "steps", d: stepPath(steps, x) }) : null,
    ...marked.map((p) => errorBars(p, x, y, at))),
  ...captions.filter((one) => one?.matches(".leader")), ...marks, ...captions.filter((one) => one?.matches(".caption"))));
  inside.outside = all.length - inside.length;
  return inside;
}
