// What is kept under any limit of size or latency: the most accurate trial on validation that is within it.

const LIMITED = trials.filter((t) => t.role !== "failed" && t.role !== "original" && known(t.accuracy));
const ORIGINAL_ROW = trials.find((t) => t.role === "original");
const SLIDER_STEPS = 1000;
const limit = { axis: "size", value: null, first: null, axisFirst: "size" };

const costsOf = (axis) => LIMITED.map(AXES[axis].of).filter((cost) => known(cost) && cost > 0);

// Ends of the slider: the least that any trial has, and what the original has.
function limitEnds(axis) {
  const costs = costsOf(axis);
  const most = ORIGINAL_ROW ? AXES[axis].of(ORIGINAL_ROW) : null;
  return costs.length ? [Math.min(...costs), Math.max(...costs, known(most) ? most : 0)] : null;
}

// The trial that keeps most within a limit; of equals the one that costs least of what is limited.
function keptWithin(axis, most) {
  return LIMITED.filter((t) => known(AXES[axis].of(t)) && AXES[axis].of(t) <= most)
    .sort((a, b) => b.accuracy - a.accuracy || AXES[axis].of(a) - AXES[axis].of(b))[0] ?? null;
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

// A simple model that needs no search, within the limit, and as good on validation.
function simpleWords(trial) {
  const line = lines.filter((t) => known(AXES[limit.axis].of(t)) && AXES[limit.axis].of(t) <= limit.value
    && t.accuracy >= trial.accuracy).sort((a, b) => b.accuracy - a.accuracy)[0];
  return line ? ` Without a search ${line.name} has ${metric.told(line.accuracy)} in ${format.bytes(line.size_bytes)}.` : "";
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
  byId("limit-answer").replaceChildren(el("p", { class: "prose" }, answerWords(trial), simpleWords(trial), " ", look),
    el("div", { class: "command" }, el("code", {}, text), copyButton(text)));
}

function slide(share) {
  const [low, high] = limitEnds(limit.axis);
  limit.value = share >= 1 ? high : low * (high / low) ** share;
  showLimit();
  keepView();
}

// Begins at the run's own limit, where it has one of this sort, else in the middle.
function startLimit(axis) {
  limit.axis = axis;
  const [low, high] = limitEnds(axis);
  const own = run.budget?.[AXES[axis].budget];
  limit.first = known(own) ? Math.min(high, Math.max(low, own)) : Math.sqrt(low * high);
  limit.value = limit.first;
  showLimit();
}

// The limit of the address, as `size:5370000`; none where there is no such limit here.
function limitOfAddress() {
  const [axis, value] = (new URLSearchParams(location.hash.slice(1)).get("limit") ?? "").split(":");
  if (!Object.hasOwn(SHORT_LIMIT, axis) || !limitEnds(axis) || !(Number(value) > 0)) return;
  byId("limit-axis").value = axis;
  startLimit(axis);
  const [low, high] = limitEnds(axis);
  limit.value = Math.min(high, Math.max(low, Number(value)));
  showLimit();
}

function startLimits() {
  const axes = ["size", "latency"].filter((axis) => limitEnds(axis));
  byId("limit-section").hidden = !axes.length;
  if (!axes.length) return;
  for (const axis of axes) byId("limit-axis").append(el("option", { value: axis }, axis));
  byId("limit").max = String(SLIDER_STEPS);
  byId("limit").addEventListener("input", (event) => slide(event.target.value / SLIDER_STEPS));
  byId("limit-axis").addEventListener("change", (event) => {
    startLimit(event.target.value);
    keepView();
  });
  byId("limit-form").addEventListener("submit", (event) => event.preventDefault());
  const first = timedAlone && axes.includes("latency") ? "latency" : axes[0];
  byId("limit-axis").value = first;
  limit.axisFirst = first;
  startLimit(first);
  limitOfAddress();
}
