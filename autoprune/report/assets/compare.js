// Fronts of several runs over each other, each with a colour, a mark and a dash of its own.

const data = JSON.parse(byId("data").textContent);
const metric = metricOf(data.metric);
AXES.accuracy = scoreAxis(metric);
const RUN_MARKS = [MARKS.front, MARKS.baseline, MARKS.knee, MARKS.original, MARKS.line, MARKS.best, MARKS.dominated,
  "M-5-2H5V2H-5Z"];
const AXIS_KEYS = Object.keys(AXES).filter((key) => key !== "latency" || data.same_clock);
const view = { x: "size", y: "accuracy" };

const drawnPoints = (run) => run.points.filter((t) => (t.on_front || byId("originals").checked) &&
  known(AXES[view.x].of(t)) && known(AXES[view.y].of(t)) && !(AXES[view.x].log && AXES[view.x].of(t) <= 0) &&
  !(AXES[view.y].log && AXES[view.y].of(t) <= 0));

function drawFronts() {
  const host = byId("chart");
  const [x, y] = [AXES[view.x], AXES[view.y]];
  const width = Math.max(320, Math.round(host.clientWidth) || 900);
  const height = Math.round(Math.min(520, Math.max(320, 0.55 * width)));
  const box = { left: 58, right: width - 12, top: 12, bottom: height - 50 };
  const all = data.runs.flatMap(drawnPoints);
  host.replaceChildren();
  if (!all.length) {
    host.append(el("p", { class: "empty" }, "No run has these two measurements."));
    return;
  }
  const ends = (axis) => all.flatMap((t) => [axis.of(t), ...((t.on_front && axis.range && axis.range(t)) || []).filter(known)]);
  const scales = { x: scaleOf(ends(x), x, box.left, box.right), y: scaleOf(ends(y), y, box.bottom, box.top) };
  const drawn = data.runs.map((run, k) => drawRun(run, k, x, y, scales));
  const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `${y.name} against ${x.name} of ${data.runs.map((run) => run.title).join("; ")}; the tables below have the numbers` },
  ...frame(box, x, y, scales), ...drawn);
  host.append(svg);
}

function drawRun(run, k, x, y, scales) {
  const points = drawnPoints(run).map((trial) => ({ trial,
    x: Math.round(10 * scales.x.at(x.of(trial))) / 10, y: Math.round(10 * scales.y.at(y.of(trial))) / 10 }));
  const steps = staircase(points.filter((p) => p.trial.on_front), x, y);
  const marks = points.map((p) => shape("g", { class: p.trial.on_front && p.trial.name !== "original" ? "point" : "point plain",
    transform: `translate(${p.x} ${p.y})` },
    shape("path", { class: "mark", d: RUN_MARKS[k] }),
    shape("title", {}, `${run.title}, ${label(p.trial)}: ${x.shown(x.of(p.trial))}, ${y.shown(y.of(p.trial))}`)));
  return shape("g", { class: "run run-" + k },
    steps.length > 1 ? shape("path", { class: "steps", d: stepPath(steps, x) }) : null,
    ...points.filter((p) => p.trial.on_front).map((p) => errorBars(p, x, y, { x: scales.x.at, y: scales.y.at })), ...marks);
}

for (const side of ["x", "y"]) {
  const choice = byId("axis-" + side);
  for (const key of AXIS_KEYS) choice.append(el("option", { value: key }, AXES[key].name));
  choice.value = view[side];
  choice.addEventListener("change", () => {
    const other = side === "x" ? "y" : "x";
    if (choice.value === view[other]) {
      view[other] = view[side];
      byId("axis-" + other).value = view[other];
    }
    view[side] = choice.value;
    drawFronts();
  });
}
byId("axes").addEventListener("submit", (event) => event.preventDefault());
byId("originals").addEventListener("change", drawFronts);
byId("legend").append(...data.runs.map((run, k) => el("li", {},
  shape("svg", { viewBox: "-10 -10 20 20", class: "symbol run run-" + k, "aria-hidden": "true" },
    shape("path", { class: "mark", d: RUN_MARKS[k] })), run.title)), el("li", {}, "open marks are the originals"));
drawFronts();
window.addEventListener("resize", drawFronts);
