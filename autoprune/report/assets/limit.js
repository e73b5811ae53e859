// What is kept under any limit of size or latency: the most accurate trial on validation that is within it.

const LIMITED = trials.filter((t) => t.role !== "failed" && t.role !== "original" && known(t.accuracy));
const ORIGINAL_ROW = trials.find((t) => t.role === "original");
const SLIDER_STEPS = 1000;
const limit = { axis: "size", value: null };

const costsOf = (axis) => LIMITED.map(AXES[axis].of).filter((cost) => known(cost) && cost > 0);

// Ends of the slider: the least that any trial has, and what the original has.
function limitEnds(axis) {
  const costs = costsOf(axis);
  const most = ORIGINAL_ROW ? AXES[axis].of(ORIGINAL_ROW) : null;
  return costs.length ? [Math.min(...costs), Math.max(...costs, known(most) ? most : 0)] : null;
}

// The trial that keeps most within a limit; of equals the nearer to the original, then the smaller.
function keptWithin(axis, most) {
  const nats = (t) => (known(t.kl) ? t.kl : Infinity);
  return LIMITED.filter((t) => known(AXES[axis].of(t)) && AXES[axis].of(t) <= most)
    .sort((a, b) => b.accuracy - a.accuracy || nats(a) - nats(b) || a.size_bytes - b.size_bytes)[0] ?? null;
}

const SHORT_LIMIT = { size: format.bytes, latency: format.latency };

function answerWords(trial) {
  const change = ORIGINAL_ROW && known(ORIGINAL_ROW.accuracy) && metric.unit === "%"
    ? ` (${signed(trial.accuracy - ORIGINAL_ROW.accuracy)} points)` : "";
  const error = known(trial.error) ? ` ± ${trial.error.toFixed(1)}` : "";
  return `At ${SHORT_LIMIT[limit.axis](limit.value)} you keep ${metric.told(trial.accuracy)}${error}${change} on ` +
    `validation with ${label(trial)}: ${format.bytes(trial.size_bytes)}, ${format.latency(trial.latency_ms)}` +
    `${known(trial.test_accuracy) ? `, ${metric.told(trial.test_accuracy)} on test` : ""}.`;
}

const signed = (value) => (value < 0 ? "\u2212" : "+") + Math.abs(value).toFixed(1);

function showLimit() {
  const [low, high] = limitEnds(limit.axis);
  byId("limit").value = String(Math.round(SLIDER_STEPS * Math.log(limit.value / low) / (Math.log(high / low) || 1)));
  byId("limit").setAttribute("aria-valuetext", SHORT_LIMIT[limit.axis](limit.value));
  byId("limit-value").textContent = SHORT_LIMIT[limit.axis](limit.value);
  const trial = keptWithin(limit.axis, limit.value);
  if (!trial) {
    byId("limit-answer").replaceChildren(`No trial is within ${SHORT_LIMIT[limit.axis](limit.value)}.`);
    return;
  }
  const text = exportCommand(trial);
  const look = el("button", { type: "button", class: "pick" }, "look at it");
  look.addEventListener("click", () => select(trial));
  byId("limit-answer").replaceChildren(el("p", { class: "prose" }, answerWords(trial), " ", look),
    el("div", { class: "command" }, el("code", {}, text), copyButton(text)));
}

function slide(share) {
  const [low, high] = limitEnds(limit.axis);
  limit.value = share >= 1 ? high : low * (high / low) ** share;
  showLimit();
}

// Begins at the run's own limit, where it has one of this sort, else in the middle.
function startLimit(axis) {
  limit.axis = axis;
  const [low, high] = limitEnds(axis);
  const own = run.budget?.[AXES[axis].budget];
  limit.value = known(own) ? Math.min(high, Math.max(low, own)) : Math.sqrt(low * high);
  showLimit();
}

function startLimits() {
  const axes = ["size", "latency"].filter((axis) => limitEnds(axis));
  byId("limit-section").hidden = !axes.length;
  if (!axes.length) return;
  for (const axis of axes) byId("limit-axis").append(el("option", { value: axis }, { size: "size", latency: "latency" }[axis]));
  byId("limit").max = String(SLIDER_STEPS);
  byId("limit").addEventListener("input", (event) => slide(event.target.value / SLIDER_STEPS));
  byId("limit-axis").addEventListener("change", (event) => startLimit(event.target.value));
  byId("limit-form").addEventListener("submit", (event) => event.preventDefault());
  const first = timedAlone && axes.includes("latency") ? "latency" : axes[0];
  byId("limit-axis").value = first;
  startLimit(first);
}

startLimits();
