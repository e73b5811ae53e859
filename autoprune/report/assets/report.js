// The page: which trial is selected, and what is shown of it.

const data = JSON.parse(byId("data").textContent);
const front = unpack(data);
const run = front.run;
const metric = metricOf(data.metric);
AXES.accuracy = scoreAxis(metric);
AXES.latency.name = `${shorten(data.latency, 60)}, ms`;

// Points to choose from beside the best and the knee, as POINT_WORDS in point_names.py.
const POINTS = { accurate: "most accurate", small: "smallest", fast: "fastest" };

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
  const point = Object.keys(POINTS).find((name) => front.points?.[name] === trial.number);
  if (point && trial.name === null) return POINTS[point] + " #" + trial.number;
  if (role !== "baseline" && role !== "original") return null;
  return trial.name.endsWith(", longer") ? "longer" : trial.name; // beside the one that was trained less
}

const trials = front.trials.map((trial, k) => {
  const role = roleOf(trial);
  return { ...trial, name: trial.name ?? null, error: data.errors[k], role, caption: captionOf(trial, role) };
});
// Simple models that the front is compared with: in the chart, but no trials.
const lines = (data.lines || []).map((line) => ({ ...line, number: null, role: "line", caption: line.name,
  on_front: false, levels: {}, unit_bytes: {} }));
const charted = [...trials, ...lines];
const ROLES = { best: "best in the budget", knee: "knee of the front", front: "on the front",
  dominated: "dominated", original: "original model", baseline: "uniform baseline", line: "simple model", failed: "failed" };
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
  const count = (role) => charted.filter((t) => t.role === role).length;
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
  if (shown.includes("accuracy") && trials.some((t) => known(t.error))) {
    parts.push(`Bars of ${metric.word} are one standard error on ${run.validation_rows.toLocaleString("en")} rows.`);
  }
  if (state.points.outside) parts.push(`${state.points.outside} outside the picture.`);
  return parts.join(" ");
}

function showChart() {
  state.points = drawChart(byId("chart"), charted, { ...state, budget: run.budget });
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
  markTies();
  if (state.points.length) rove(Math.max(k, 0));
  for (const p of state.predicted) {
    p.node.classList.toggle("selected", p.trial === state.selected);
    p.node.setAttribute("aria-pressed", String(p.trial === state.selected));
  }
  markLine();
  markSpans();
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
  keepView();
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
      pair("Latency", format.latency(trial.latency_ms), spread || run.latency_of),
      known(trial.predicted_latency_ms)
        ? pair("Predicted", format.latency(trial.predicted_latency_ms), offBy(trial)) : null,
      pair("Validation", metric.told(trial.accuracy), metric.plain ? error : shorten(metric.word, 40)),
      pair("Test", metric.told(trial.test_accuracy)),
      trial.role === "line" ? null : pair("KL", format.nats(trial.kl), known(trial.kl) ? "nats" : null),
      known(trial.predicted_kl) ? pair("Predicted KL", format.nats(trial.predicted_kl), "nats") : null,
      known(trial.rung) ? pair("Training", rungName(trial.rung), promotedFrom(trial)) : null,
      pair(trial.role === "line" ? "Fitted in" : "Evaluated in", format.seconds(trial.seconds), trial.worker ? "on " + trial.worker : null)),
  ];
  if (trial.role === "line") {
    parts.push(el("p", { class: "hint" }, `${trial.what[0]?.toUpperCase() ?? ""}${trial.what.slice(1)}.`));
  } else if (trial.role === "failed") {
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

// As `cause_of` in space/trial.py.
const causeOf = (failure) => (failure ?? "").trim().split(/[:\n]/)[0].trim() || "no cause was recorded";

function standing(trial) {
  const budget = trial.within_budget ? "within the budget" : "over budget";
  const limited = known(run.budget?.size_bytes) || known(run.budget?.latency_ms);
  const cause = trial.role === "failed" ? `: ${shorten(causeOf(trial.failure), 40)}` : "";
  return [ROLES[trial.role] + cause, trial.role === "failed" || trial.role === "best" || !limited ? null : budget,
    trial.on_front && trial.role !== "front" ? "on the front" : null].filter(Boolean).join(", ");
}

function exportCommand(trial) {
  const { folder, target, stem } = data.export;
  return `autoprune export ${folder} --trial ${trial.number} --target ${target} -o ${stem}-${trial.number}`;
}
