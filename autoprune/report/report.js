// The page: which trial is selected, and what is shown of it.

const data = JSON.parse(byId("data").textContent);
const front = unpack(data);
const run = front.run;
const metric = run.metric || "accuracy";
AXES.accuracy.name = metric[0].toUpperCase() + metric.slice(1) + " on validation, %";

function roleOf(trial) {
  if (trial.state === "FAIL") return "failed";
  if (trial.name === null && trial.number === front.best) return "best";
  if (trial.name === null && trial.number === front.knee) return "knee";
  if (trial.name !== null) return trial.name === "original" ? "original" : "baseline";
  return trial.on_front ? "front" : "dominated";
}

function captionOf(trial, role) {
  if (role === "best") return (trial.number === front.knee ? "best, knee #" : "best #") + trial.number;
  if (role === "knee") return "knee #" + trial.number;
  return role === "baseline" || role === "original" ? trial.name : null;
}

const trials = front.trials.map((trial, k) => {
  const role = roleOf(trial);
  return { ...trial, name: trial.name ?? null, error: data.errors[k], role, caption: captionOf(trial, role) };
});
const ROLES = { best: "best in the budget", knee: "knee of the front", front: "on the front",
  dominated: "dominated", original: "original model", baseline: "uniform baseline", failed: "failed" };
if (!known(run.budget?.size_bytes) && !known(run.budget?.latency_ms)) ROLES.best = "best";

// A limit of milliseconds alone is looked at along milliseconds.
const timedAlone = known(run.budget?.latency_ms) && !known(run.budget?.size_bytes);
const state = { x: timedAlone ? "latency" : "size", y: "accuracy", zoom: false, selected: null, points: [], predicted: [], focus: 0,
  sort: "number", descending: false };

// ---- the chart ------------------------------------------------------------------------------

function symbol(role) {
  return shape("svg", { viewBox: "-11 -11 22 22", class: "symbol point " + role, "aria-hidden": "true" },
    shape("path", { class: "mark", d: MARKS[role] }));
}

function drawLegend() {
  const count = (role) => trials.filter((t) => t.role === role).length;
  const many = (role) => (role === "front" ? ` (${trials.filter((t) => t.on_front).length} in all)`
    : count(role) > 1 ? ` (${count(role)})` : "");
  const items = Object.keys(MARKS).filter(count).map((role) =>
    el("li", {}, symbol(role), ROLES[role] + many(role)));
  if (count("failed")) items.push(el("li", {}, `${count("failed")} failed, not drawn`));
  byId("legend").replaceChildren(...items);
}

function chartNote() {
  const parts = ["The line joins the trials that no other beats in these two dimensions; the others of the " +
    "front win on the third."];
  const shown = [state.x, state.y];
  if (shown.includes("latency")) parts.push("Bars of latency run from the 10th to the 90th percentile.");
  if (shown.includes("accuracy") && run.validation_rows) {
    parts.push(`Bars of ${metric} are one standard error on ${run.validation_rows.toLocaleString("en")} rows.`);
  }
  if (state.points.outside) parts.push(`${state.points.outside} outside the picture.`);
  return parts.join(" ");
}

function showChart() {
  state.points = drawChart(byId("chart"), trials, { ...state, budget: run.budget });
  byId("chart-note").textContent = chartNote();
  state.points.forEach((p, k) => {
    fill(p.node, {}, [shape("title", {}, p.node.getAttribute("aria-label"))]);
    p.node.addEventListener("keydown", (event) => onKey(event, k));
    p.node.addEventListener("click", (event) => { event.stopPropagation(); select(p.trial); });
  });
  byId("chart").querySelector("svg")?.addEventListener("click", selectNearest);
  markSelected();
}

// A click beside a mark takes the nearest one within 24 pixels.
function selectNearest(event) {
  const svg = event.currentTarget;
  const scale = svg.viewBox.baseVal.width / svg.getBoundingClientRect().width;
  const left = (event.clientX - svg.getBoundingClientRect().left) * scale;
  const top = (event.clientY - svg.getBoundingClientRect().top) * scale;
  const away = (p) => Math.hypot(p.x - left, p.y - top);
  const near = state.points.filter((p) => away(p) < 24).sort((p, q) => away(p) - away(q))[0];
  if (near) select(near.trial);
}

// Left and right walk along the horizontal axis, up and down along the vertical one.
function onKey(event, k) {
  if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    select(state.points[k].trial);
    return;
  }
  const moves = { ArrowRight: ["x", 1], ArrowLeft: ["x", -1], ArrowUp: ["y", -1], ArrowDown: ["y", 1],
    Home: ["x", -Infinity], End: ["x", Infinity] };
  if (!moves[event.key]) return;
  event.preventDefault();
  const [axis, by] = moves[event.key];
  const order = state.points.map((_, i) => i)
    .sort((i, j) => state.points[i][axis] - state.points[j][axis] || i - j);
  const to = Math.min(order.length - 1, Math.max(0, order.indexOf(k) + by));
  rove(order[to]);
  state.points[order[to]].node.focus();
}

function rove(k) {
  state.points.forEach((p, i) => p.node.setAttribute("tabindex", i === k ? "0" : "-1"));
}

function markSelected() {
  const k = state.points.findIndex((p) => p.trial === state.selected);
  state.points.forEach((p, i) => {
    p.node.classList.toggle("selected", i === k);
    p.node.setAttribute("aria-pressed", String(i === k));
  });
  if (state.points.length) rove(Math.max(k, 0));
  for (const p of state.predicted) {
    p.node.classList.toggle("selected", p.trial === state.selected);
    p.node.setAttribute("aria-pressed", String(p.trial === state.selected));
  }
  for (const row of byId("trials").querySelectorAll("tbody tr")) {
    const on = row.dataset.key === String(trials.indexOf(state.selected));
    row.classList.toggle("selected", on);
    row.querySelector("button").setAttribute("aria-pressed", String(on));
  }
}

// ---- the prediction ---------------------------------------------------------------------------

function showSensitivity() {
  if (byId("heat")) drawHeat(byId("heat"), front.sensitivity.levels, data.names);
}

function showScatter() {
  if (!byId("scatter")) return;
  const all = byId("scatter-all");
  const { drawn, left, more } = predictedOf(trials, all.checked);
  all.closest("label").hidden = !more;
  state.predicted = drawScatter(byId("scatter"), drawn, select);
  byId("scatter-legend").replaceChildren(...scatterLegend(drawn));
  byId("scatter-note").textContent = left ? `${left} with a divergence of 0 not drawn.` : "";
  markSelected();
}

function select(trial) {
  state.selected = trial;
  markSelected();
  showCard(trial);
  showMap(trial);
}

// ---- the selected trial -----------------------------------------------------------------------

function showCard(trial) {
  const pair = (name, value, more) => el("div", {}, el("dt", {}, name),
    el("dd", {}, value, more ? el("small", {}, more) : null));
  const low = trial.latency_low_ms;
  const spread = known(low) ? `${format.latency(low)} to ${format.latency(trial.latency_high_ms)}` : null;
  const error = known(trial.error) ? `± ${trial.error.toFixed(1)}` : null;
  const title = label(trial);
  const parts = [
    el("h3", {}, MARKS[trial.role] ? symbol(trial.role) : null, title[0].toUpperCase() + title.slice(1)),
    el("p", { class: "role" }, standing(trial)),
    el("dl", {},
      pair("Size", format.size(trial.size_bytes)),
      pair("Latency", format.latency(trial.latency_ms), spread),
      known(trial.predicted_latency_ms)
        ? pair("Predicted", format.latency(trial.predicted_latency_ms), offBy(trial)) : null,
      pair("Validation", format.percent(trial.accuracy), error),
      pair("Test", format.percent(trial.test_accuracy)),
      pair("KL", format.nats(trial.kl), known(trial.kl) ? "nats" : null),
      known(trial.predicted_kl) ? pair("Predicted KL", format.nats(trial.predicted_kl), "nats") : null,
      known(trial.rung) ? pair("Training", rungName(trial.rung), promotedFrom(trial)) : null,
      pair("Evaluated in", format.seconds(trial.seconds), trial.worker ? "on " + trial.worker : null)),
  ];
  if (trial.role === "failed") {
    parts.push(el("p", { class: "warning" }, trial.failure || "No cause was recorded."));
  } else {
    const text = exportCommand(trial);
    parts.push(el("h4", {}, "Export this model"),
      el("div", { class: "command" }, el("code", { id: "export" }, text), copyButton(text)));
  }
  byId("card").replaceChildren(...parts);
}

// How far the predicted milliseconds are from the measured ones.
function offBy(trial) {
  if (!known(trial.latency_ms)) return null;
  const error = 100 * (trial.predicted_latency_ms / trial.latency_ms - 1);
  const size = Math.abs(error).toFixed(1);
  return size === "0.0" ? "as measured" : `${size}${SPACE}% too ${error > 0 ? "high" : "low"}`;
}

// The trial of the same candidate at the rung below, to go to.
function promotedFrom(trial) {
  const from = trials.find((t) => t.name === null && t.number === trial.promoted_from);
  if (!from) return null;
  const go = el("button", { type: "button", class: "pick" }, `from #${from.number}`);
  go.addEventListener("click", () => select(from));
  return go;
}

function standing(trial) {
  const budget = trial.within_budget ? "within the budget" : "over budget";
  const limited = known(run.budget?.size_bytes) || known(run.budget?.latency_ms);
  return [ROLES[trial.role], trial.role === "failed" || trial.role === "best" || !limited ? null : budget,
    trial.on_front && trial.role !== "front" ? "on the front" : null].filter(Boolean).join(", ");
}

function exportCommand(trial) {
  const { folder, target, stem } = data.export;
  return `autoprune export ${folder} --trial ${trial.number} --target ${target} -o ${stem}-${trial.number}`;
}

// ---- the units of the selected trial ----------------------------------------------------------

function bar(share, kind, before) {
  const box = el("span", { class: "bar-box " + kind });
  if (before !== undefined) {
    const ghost = el("span", { class: "ghost" });
    ghost.style.width = 100 * Math.min(1, Math.max(0, before)) + "%";
    box.append(ghost);
  }
  const inner = el("span", { class: "bar-fill" });
  inner.style.width = 100 * Math.min(1, Math.max(0, share || 0)) + "%";
  box.append(inner);
  return box;
}

// Columns of milliseconds where a run has predicted them.
function showMap(trial) {
  const before = new Map((front.units || []).map((unit) => [unit.name, unit]));
  const names = data.names.filter((name) => name in trial.levels || name in trial.unit_bytes);
  byId("map-hint").textContent = label(trial);
  if (!names.length) {
    byId("map").replaceChildren(el("p", { class: "hint" }, "What was done to each unit is not recorded."));
    return;
  }
  const bytes = names.map((name) => trial.unit_bytes[name]);
  const times = names.map((name) => trial.unit_ms?.[name]);
  const most = Math.max(1, ...bytes.filter(known), ...names.map((n) => before.get(n)?.size_bytes || 0));
  const whole = { bytes: trial.size_bytes ?? trial.predicted_size_bytes, ms: trial.predicted_latency_ms,
    timed: known(trial.predicted_latency_ms) && times.some((ms) => ms > 0) };
  const rows = names.map((name, k) =>
    unitRow(name, trial.levels[name], bytes[k], times[k], before.get(name), most, whole));
  const rest = { bytes: bytes.some(known) ? whole.bytes - sum(bytes) : null, ms: whole.ms - sum(times) };
  const head = (text, kind) => el("th", { scope: "col", class: kind }, text);
  byId("map").replaceChildren(el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Units" },
    el("table", { class: "units" },
      el("thead", {}, el("tr", {}, head("Unit"), head("Rows removed"), head("Bits", "middle"),
        head("Bytes now, and before in grey"), head("Bytes", "number"), head("Share of file", "number"),
        ...(whole.timed ? [head("Predicted time", "number"), head("Share of time", "number")] : []))),
      el("tbody", {}, ...rows),
      el("tfoot", {}, rest.bytes > 0 ? footRow("Graph and what is in no unit", rest, whole) : null,
        known(whole.bytes) ? footRow("Whole model", whole, whole) : null))),
  el("p", { class: "hint" }, mapHint(names.map((name) => trial.levels[name]?.bits), whole.timed)));
}

const sum = (values) => values.reduce((total, one) => total + (known(one) ? one : 0), 0);

function mapHint(widths, timed) {
  return [widths.includes(INTEGER) ? integerNote : null,
    timed ? "Times of units cannot be measured one by one: they are predicted, from whole models that were " +
      "timed." : null].filter(Boolean).join(" ");
}

function unitRow(name, level, bytes, ms, unit, most, whole) {
  const ratio = level ? level.ratio : null;
  const bits = level ? level.bits : null;
  return el("tr", {},
    el("th", { scope: "row" }, el("code", {}, ...breakable(name)),
      unit?.kind && !name.endsWith(unit.kind) ? el("small", {}, unit.kind) : null),
    el("td", { class: "removed" }, bar(ratio, "ratio"),
      el("span", { class: "amount" }, ratio ? (100 * ratio).toFixed(0) + SPACE + "%" : DASH)),
    el("td", { class: "middle" }, isWidth(bits)
      ? el("span", { class: "bits b" + bits, title: widthText(bits) }, bits) : DASH),
    el("td", {}, bar(known(bytes) ? bytes / most : 0, "weight", (unit?.size_bytes || 0) / most)),
    ...amounts({ bytes, ms }, whole));
}

function footRow(name, part, whole) {
  return el("tr", {}, el("th", { scope: "row", colspan: "4" }, name), ...amounts(part, whole));
}

// Bytes and milliseconds of a part, each with its share of the whole.
function amounts(part, whole) {
  const cell = (text) => el("td", { class: "number" }, text);
  const share = (kind) => cell(known(part[kind]) && whole[kind] ? format.share(part[kind] / whole[kind]) : DASH);
  return [cell(format.bytes(part.bytes)), share("bytes"),
    ...(whole.timed ? [cell(format.latency(part.ms)), share("ms")] : [])];
}
