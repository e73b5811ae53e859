// What each worker did when: a lane a worker, a bar a trial. Kinds differ in height too, failed ones by a cross.

const LANE = 22;
const BAR_HEIGHTS = [9, 15, 5, 15];
const KIND_WORDS = ["untrained trial", "trained trial", "timing", "failed trial"];

function barLines([lane, kind, begin, end, number], workers) {
  const found = trials.find((t) => t.number === number);
  const from = begin < 120 ? format.seconds(begin) : (begin / 60).toFixed(1) + SPACE + "min";
  return [found ? label(found) : known(number) ? `trial ${number}` : `several ${KIND_WORDS[kind]}s`,
    `${KIND_WORDS[kind]} on ${workers[lane]}`, `${format.seconds(end - begin)}, from ${from}`,
    found?.failure ? shorten(found.failure, 80) : null].filter(Boolean);
}

function timelineBar(bar, scale) {
  const [lane, kind, begin, end] = bar;
  const [left, wide] = [scale(begin), Math.max(0.6, scale(end) - scale(begin) - 0.5)];
  const middle = LANE * (lane + 0.5) + 6;
  const high = BAR_HEIGHTS[kind];
  const node = shape("g", { class: `span k${kind}`, tabindex: "-1" },
    shape("rect", { class: "mark", x: left.toFixed(2), y: middle - high / 2, width: wide.toFixed(2), height: high }),
    kind === 3 ? shape("path", { class: "fault", d: `M${left - 4} ${middle - 4}l8 8m0-8l-8 8` }) : null);
  return { bar, node, trial: trials.find((t) => t.number === bar[4]) };
}

function timelineLegend(kinds) {
  return KIND_WORDS.map((word, kind) => ({ word, kind })).filter(({ kind }) => kinds.has(kind))
    .map(({ word, kind }) => el("li", {}, shape("svg", { viewBox: "-11 -11 22 22", class: `symbol span k${kind}`,
      "aria-hidden": "true" }, shape("rect", { class: "mark", x: -9, y: -BAR_HEIGHTS[kind] / 2, width: 18,
      height: BAR_HEIGHTS[kind] }), kind === 3 ? shape("path", { class: "fault", d: "M-4-4l8 8m0-8l-8 8" }) : null), word));
}

// Left and right along a lane, up and down to the bar of the next lane at that time.
function walkBars(svg, spans) {
  const stop = (span) => spans.forEach((one) => one.node.setAttribute("tabindex", one === span ? "0" : "-1"));
  const lanes = new Map();
  for (const span of spans) lanes.set(span.bar[0], [...(lanes.get(span.bar[0]) ?? []), span]);
  for (const lane of lanes.values()) lane.sort((a, b) => a.bar[2] - b.bar[2]);
  const next = (span, key) => {
    const lane = lanes.get(span.bar[0]);
    const k = lane.indexOf(span);
    if (key === "ArrowRight" || key === "ArrowLeft") return lane[k + (key === "ArrowRight" ? 1 : -1)];
    if (key === "Home" || key === "End") return lane.at(key === "Home" ? 0 : -1);
    const other = lanes.get(span.bar[0] + (key === "ArrowDown" ? 1 : -1));
    return other?.reduce((a, b) => (Math.abs(b.bar[2] - span.bar[2]) < Math.abs(a.bar[2] - span.bar[2]) ? b : a));
  };
  const spanOf = (event) => spans.find((one) => one.node === event.target.closest(".span"));
  svg.addEventListener("click", (event) => { if (spanOf(event)?.trial) select(spanOf(event).trial); });
  svg.addEventListener("keydown", (event) => {
    const span = spanOf(event);
    if (!span) return;
    if (event.key === "Enter" || event.key === " ") {
      if (span.trial) select(span.trial);
    } else if (/^(Arrow|Home|End)/.test(event.key)) {
      const to = next(span, event.key) ?? span;
      stop(to);
      to.node.focus();
    } else return;
    event.preventDefault();
  });
  if (spans.length) stop(spans[0]);
}

function showTimeline() {
  const host = byId("timeline");
  if (!host || !data.timeline) return;
  const { workers, bars } = data.timeline;
  const width = Math.max(320, Math.round(host.clientWidth) || 1000);
  const room = Math.min(0.25 * width, 16 + 7 * Math.max(...workers.map((name) => Math.min(name.length, 28))));
  const box = { left: room, right: width - 12, top: 6, bottom: 6 + LANE * workers.length };
  const last = Math.max(...bars.map((bar) => bar[3]));
  const at = (seconds) => box.left + (seconds / last) * (box.right - box.left);
  const ticks = timeTicks(last).map((tick) => ({ text: tick.text, at: at(tick.value) }));
  const spans = bars.map((bar) => timelineBar(bar, at));
  const svg = shape("svg", { viewBox: `0 0 ${width} ${box.bottom + 50}`, role: "group",
    "aria-label": "Trials of each worker over time; arrow keys move, Enter selects" },
  ...frame(box, { name: "Time of the run" }, { name: "" }, { x: { ticks }, y: { ticks: [] } }),
  ...workers.map((name, k) => shape("text", { class: "tick", x: box.left - 8, y: LANE * (k + 0.5) + 10,
    "text-anchor": "end" }, shorten(name, Math.floor((room - 16) / 7)))),
  ...spans.map((span) => span.node));
  for (const span of spans) {
    fill(span.node, { role: span.trial ? "button" : "img",
      "aria-label": barLines(span.bar, workers).join(", ") }, []);
  }
  walkBars(svg, spans);
  const byNode = new Map(spans.map((span) => [span.node, span.bar]));
  tellIn(svg, ".span", (node) => barLines(byNode.get(node), workers));
  host.replaceChildren(svg);
  byId("timeline-legend").replaceChildren(...timelineLegend(new Set(bars.map((bar) => bar[1]))));
  state.spans = spans;
  markSpans();
}

function markSpans() {
  for (const span of state.spans ?? []) {
    const isOn = Boolean(span.trial) && span.trial === state.selected;
    span.node.classList.toggle("selected", isOn);
    if (span.trial) span.node.setAttribute("aria-pressed", String(isOn));
  }
}
