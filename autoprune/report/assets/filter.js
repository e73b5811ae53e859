// Which trials the table shows: words that are in a row, limits, standing, rung. What is unknown fits no limit.

const SHOWS = {
  "": ["all", () => true],
  front: ["on the front", (t) => t.on_front],
  budget: ["within the budget", (t) => t.within_budget],
  points: ["points to choose from", (t) => Object.values(front.points ?? {}).includes(t.number) ||
    ["best", "knee"].includes(t.role)],
  searched: ["trials of the search", (t) => t.name === null],
  baselines: ["baselines", (t) => t.name !== null],
  failed: ["failed", (t) => t.role === "failed"],
};
const LIMITS = {
  mb: (t, most) => known(t.size_bytes) && t.size_bytes <= 1e6 * most,
  ms: (t, most) => known(t.latency_ms) && t.latency_ms <= most,
  score: (t, bound) => known(metric.shown(t.accuracy)) &&
    (metric.more ? metric.shown(t.accuracy) >= bound : metric.shown(t.accuracy) <= bound),
};
const FILTER_FIELDS = ["find", ...Object.keys(LIMITS), "show", "rung"];
const filterField = (name) => byId("filter-" + name);

const textOf = (trial) => [label(trial), "#" + trial.number, standing(trial), rungText(trial), trial.worker,
  trial.failure].filter(Boolean).join(" ").toLowerCase();

function fitsFilter(trial) {
  const words = filterField("find").value.toLowerCase().split(/\s+/).filter(Boolean);
  const text = words.length ? textOf(trial) : "";
  const limits = Object.entries(LIMITS).every(([name, fits]) =>
    filterField(name).value === "" || fits(trial, Number(filterField(name).value)));
  return limits && words.every((word) => text.includes(word)) && SHOWS[filterField("show").value][1](trial) &&
    (filterField("rung").value === "" || String(trial.rung) === filterField("rung").value) && fitsBrushes(trial);
}

// The trials that the table shows, in its order; rows of the others stay, hidden.
function shownTrials() {
  return sorted().filter(fitsFilter);
}

function showFiltered() {
  const shown = new Set(shownTrials().map((trial) => String(trials.indexOf(trial))));
  for (const row of byId("trials").tBodies[0].rows) row.hidden = !shown.has(row.dataset.key);
  const [few, all] = [shown.size, trials.length].map((count) => count.toLocaleString("en"));
  filterField("count").textContent = `${few} of ${all} shown`;
  filterField("clear").disabled = !FILTER_FIELDS.some((name) => filterField(name).value !== "");
  const some = few === all ? "" : ` (${few})`;
  byId("save-csv").textContent = "Save CSV" + some;
  byId("save-json").textContent = "Save JSON" + some;
}

function startFilters() {
  for (const [key, [name, fits]] of Object.entries(SHOWS)) {
    if (key === "" || trials.some(fits)) filterField("show").append(el("option", { value: key }, name));
  }
  const rungs = [...new Set(trials.map((t) => t.rung).filter(known))].sort((a, b) => a - b);
  filterField("rung").append(el("option", { value: "" }, "all"),
    ...rungs.map((rung) => el("option", { value: rung }, rungName(rung))));
  byId("filter-rung-label").hidden = rungs.length < 2;
  const unit = metric.unit ? ", " + shorten(metric.unit, 10) : "";
  byId("filter-score-name").textContent = `${metric.on("validation")} at ${metric.more ? "least" : "most"}${unit}`;
  const changed = () => { showFiltered(); keepView(); };
  byId("filters").addEventListener("input", changed);
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("filters").addEventListener("reset", () => setTimeout(changed));
}

// Of the address: what is no filter of this page is passed over.
function filtersOfView(view) {
  for (const name of FILTER_FIELDS) {
    const field = filterField(name);
    const value = view.get(name) ?? "";
    const isOne = field.tagName !== "SELECT" || [...field.options].some((option) => option.value === value);
    field.value = isOne ? value : "";
  }
}
