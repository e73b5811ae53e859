// The table of all trials, and what can be set and saved.

const COLUMNS = [
  { key: "number", name: "Trial", of: (t) => t.number, show: (t) => label(t) },
  { key: "role", name: "Standing", of: (t) => Object.keys(ROLES).indexOf(t.role), show: (t) => standing(t) },
  { key: "size", name: "Size", of: (t) => t.size_bytes, show: (t) => format.size(t.size_bytes) },
  { key: "latency", name: "Latency", of: (t) => t.latency_ms, show: (t) => format.latency(t.latency_ms) },
  { key: "accuracy", name: metric.on("validation"), of: (t) => metric.shown(t.accuracy),
    show: (t) => metric.told(t.accuracy) },
  { key: "test", name: metric.on("test"), of: (t) => metric.shown(t.test_accuracy),
    show: (t) => metric.told(t.test_accuracy) },
  { key: "kl", name: "KL, nats", of: (t) => t.kl, show: (t) => format.nats(t.kl) },
  ...(trials.some((t) => known(t.rung)) ? [
    { key: "rung", name: "Rung", of: (t) => t.rung, show: (t) => rungText(t) }] : []),
  { key: "seconds", name: "Took", of: (t) => t.seconds, show: (t) => format.seconds(t.seconds) },
];
const TEXT_COLUMNS = ["number", "role", "rung"];

// What is unknown comes last in either direction; baselines come before trials of the same value.
function sorted() {
  const column = COLUMNS.find((one) => one.key === state.sort);
  const sign = state.descending ? -1 : 1;
  return [...trials].sort((a, b) => {
    const [p, q] = [column.of(a), column.of(b)];
    if (known(p) !== known(q)) return known(p) ? -1 : 1;
    return (known(p) ? sign * (p - q) : 0) || (a.name === null) - (b.name === null) || a.number - b.number;
  });
}

function headCell(column) {
  const on = state.sort === column.key;
  const arrow = on ? (state.descending ? "\u25be" : "\u25b4") : "";
  const button = el("button", { type: "button", "data-key": column.key }, column.name,
    el("span", { class: "arrow", "aria-hidden": "true" }, arrow));
  button.addEventListener("click", () => {
    state.descending = on && !state.descending;
    state.sort = column.key;
    showTable();
    keepView();
    byId("trials").querySelector(`button[data-key=${column.key}]`).focus();
  });
  return el("th", { scope: "col", class: TEXT_COLUMNS.includes(column.key) ? null : "number",
    "aria-sort": on ? (state.descending ? "descending" : "ascending") : "none" }, button);
}

function bodyRow(trial) {
  const pick = el("button", { type: "button", class: "pick" }, label(trial));
  pick.addEventListener("click", () => select(trial));
  const first = el("th", { scope: "row" }, MARKS[trial.role] ? symbol(trial.role)
    : el("span", { class: "symbol cross", "aria-hidden": "true" }, "\u00d7"), pick);
  const cells = COLUMNS.slice(1).map((column) => el("td",
    { class: TEXT_COLUMNS.includes(column.key) ? "standing" : "number" }, column.show(trial)));
  return el("tr", { "data-key": trials.indexOf(trial) }, first, ...cells);
}

function showTable() {
  byId("trials").replaceChildren(
    el("thead", {}, el("tr", {}, ...COLUMNS.map(headCell))),
    el("tbody", {}, ...sorted().map(bodyRow)));
  showFiltered();
  markSelected();
}

function startControls() {
  for (const side of ["x", "y"]) {
    const choice = byId("axis-" + side);
    for (const [key, axis] of Object.entries(AXES)) choice.append(el("option", { value: key }, axis.name));
    choice.value = state[side];
    choice.addEventListener("change", () => {
      const other = side === "x" ? "y" : "x";
      if (choice.value === state[other]) {
        state[other] = state[side];
        byId("axis-" + other).value = state[other];
      }
      state[side] = choice.value;
      showChart();
      keepView();
    });
  }
  byId("axes").addEventListener("submit", (event) => event.preventDefault());
  byId("zoom").addEventListener("change", (event) => {
    state.zoom = event.target.checked;
    showChart();
    keepView();
  });
  byId("scatter-all")?.addEventListener("change", showScatter);
  for (const button of document.querySelectorAll("[data-copy]")) {
    copyButton(byId(button.dataset.copy).textContent, button);
  }
}

function redrawOnResize() {
  let width = byId("chart").clientWidth;
  new ResizeObserver(() => {
    const now = byId("chart").clientWidth;
    if (now === width || now === 0) return;
    width = now;
    showChart();
    showScatter();
    showProgress();
    showTimeline();
    if (parallel.axes.length > 1) showParallel();
  }).observe(byId("chart"));
}
