// The view is kept in the address, after `#`, so that it can be sent and outlives a reload: the axes, the zoom,
// the order of the table and its filters, the ranges of the parallel axes, the selected trial, the slider's limit. What the page would show by itself is left out.

const SHOWN_FIRST = { x: state.x, y: state.y, sort: state.sort };
const firstShown = ["best", "knee", "front", "dominated", "baseline", "original", "failed"]
  .map((role) => trials.find((t) => t.role === role)).find(Boolean);

function keepView() {
  const view = new URLSearchParams();
  for (const name of ["x", "y", "sort"]) if (state[name] !== SHOWN_FIRST[name]) view.set(name, state[name]);
  if (state.zoom) view.set("zoom", "1");
  if (state.descending) view.set("descending", "1");
  const { selected } = state;
  if (selected && selected !== firstShown) {
    view.set(...(selected.role === "line" ? ["line", selected.name] : ["trial", selected.number]));
  }
  for (const name of FILTER_FIELDS) if (filterField(name).value) view.set(name, filterField(name).value);
  if (parallel.ranges.size) view.set("ranges", rangesText());
  if (byId("parallel-table").checked) view.set("table", "ranges");
  const moved = limitOfView();
  if (moved) view.set("limit", moved);
  const shown = pairOfView();
  if (shown) view.set("pair", shown);
  const text = view.toString().replaceAll("%3A", ":").replaceAll("%2C", ",");
  if (text !== location.hash.slice(1)) history.replaceState(null, "", text ? "#" + text : location.pathname + location.search);
}

// The slider's limit where it was moved; before it has begun, the one that the address has.
function limitOfView() {
  if (limit.value === null) return new URLSearchParams(location.hash.slice(1)).get("limit");
  const isFirst = limit.value === limit.first && limit.axis === limit.axisFirst;
  return isFirst ? null : `${limit.axis}:${Number(limit.value.toPrecision(6))}`;
}

// What is no axis, column or trial of this page is passed over.
function viewOfAddress() {
  const view = new URLSearchParams(location.hash.slice(1));
  const [x, y] = [view.get("x") ?? state.x, view.get("y") ?? state.y];
  if (Object.hasOwn(AXES, x) && Object.hasOwn(AXES, y) && x !== y) Object.assign(state, { x, y });
  if (COLUMNS.some((column) => column.key === view.get("sort"))) state.sort = view.get("sort");
  state.zoom = view.get("zoom") === "1";
  state.descending = view.get("descending") === "1";
  filtersOfView(view);
  rangesOfView(view);
  return charted.find((t) => (t.role === "line" ? t.name === view.get("line")
    : String(t.number) === view.get("trial"))) ?? firstShown;
}

function showView() {
  const selected = viewOfAddress();
  for (const side of ["x", "y"]) byId("axis-" + side).value = state[side];
  byId("zoom").checked = state.zoom;
  showTable();
  showChart();
  if (selected) select(selected);
  else byId("card").replaceChildren(el("p", { class: "hint" }, "Nothing has been measured yet."));
}

startControls();
drawLegend();
showSensitivity();
showScatter();
startFilters();
startParallel();
startProgress();
showTimeline();
startSaving();
showView();
startLimits();
startPair();
keepView();
redrawOnResize();
window.addEventListener("hashchange", () => {
  showView();
  pairOfAddress();
});
