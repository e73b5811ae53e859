// Predicted against measured divergence: points on the diagonal were predicted exactly.

const RUNG_MARKS = [
  "M-4 0A4 4 0 1 0 4 0A4 4 0 1 0-4 0Z",
  "M0 5.2L5.2-4H-5.2Z",
  "M-4-4H4V4H-4Z",
];
const rungMark = (rung) => RUNG_MARKS[rung] ?? RUNG_MARKS[0];
const rungClass = (rung) => "rung r" + (RUNG_MARKS[rung] ? rung : 0);

// Trials of the search with both numbers, and how many of them have a 0, which no log scale shows.
function predictedOf(trials, all) {
  const both = trials.filter((t) => t.name === null && known(t.kl) && known(t.predicted_kl));
  const untrained = both.filter((t) => t.rung === 0);
  const shown = all || !untrained.length ? both : untrained;
  const drawn = shown.filter((t) => t.kl > 0 && t.predicted_kl > 0);
  const more = untrained.length > 0 && untrained.length < both.length;
  return { drawn, left: shown.length - drawn.length, more };
}

// Decades where there are two at least, else 1, 2 and 5 of each.
function logTicks(low, high) {
  const all = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) {
    for (const k of [1, 2, 5]) all.push({ k, power, value: k * 10 ** power });
  }
  const inside = all.filter((one) => one.value >= low && one.value <= high);
  const decades = inside.filter((one) => one.k === 1);
  return (decades.length >= 2 ? decades : inside)
    .map(({ k, power, value }) => ({ value, text: (k === 1 ? "" : k + "\u00d7") + "10" + raised(power) }));
}

// The same scale on both axes, so that the diagonal is the diagonal.
function squareScales(drawn, box) {
  const values = drawn.flatMap((t) => [t.kl, t.predicted_kl]);
  const [low, high] = [Math.min(...values) / 1.5, Math.max(...values) * 1.5];
  const share = (value) => Math.log(value / low) / Math.log(high / low);
  const scale = (from, to) => {
    const at = (value) => from + share(value) * (to - from);
    return { at, ticks: logTicks(low, high).map((one) => ({ text: one.text, at: at(one.value) })) };
  };
  return { x: scale(box.left, box.right), y: scale(box.bottom, box.top) };
}

function scatterPoint(trial, scales) {
  const [x, y] = [scales.x.at(trial.predicted_kl), scales.y.at(trial.kl)];
  const lines = [label(trial) + (known(trial.rung) ? ", " + rungText(trial) : ""),
    `predicted ${format.nats(trial.predicted_kl)} nats`, `measured ${format.nats(trial.kl)} nats`];
  const node = shape("g", { class: "point " + rungClass(trial.rung), role: "button", tabindex: "-1",
    transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})`, "aria-label": lines.join(", ") },
  shape("circle", { class: "halo", r: 10 }), shape("path", { class: "mark", d: rungMark(trial.rung) }));
  return { trial, node, x, lines };
}

// Arrow keys walk from left to right.
function walkPoints(points, pick) {
  const order = [...points].sort((p, q) => p.x - q.x);
  const stop = (node) => order.forEach((p) => p.node.setAttribute("tabindex", p.node === node ? "0" : "-1"));
  const moves = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, Home: -Infinity, End: Infinity };
  order.forEach((p, k) => {
    p.node.addEventListener("click", () => pick(p.trial));
    p.node.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") pick(p.trial);
      else if (!moves[event.key]) return;
      else {
        const next = order[Math.min(order.length - 1, Math.max(0, k + moves[event.key]))].node;
        stop(next);
        next.focus();
      }
      event.preventDefault();
    });
  });
  stop(order[0].node);
}

function scatterLegend(drawn) {
  const rungs = [...new Set(drawn.map((t) => t.rung ?? null))].sort((a, b) => a - b);
  if (rungs.length < 2) return [];
  return rungs.map((rung) => el("li", {},
    shape("svg", { viewBox: "-8 -8 16 16", class: "symbol point " + rungClass(rung), "aria-hidden": "true" },
      shape("path", { class: "mark", d: rungMark(rung) })),
    `${rungName(rung) ?? "rung not recorded"} (${drawn.filter((t) => (t.rung ?? null) === rung).length})`));
}

// Draws into `host` and returns the points drawn.
function drawScatter(host, drawn, pick) {
  const width = Math.max(280, Math.min(440, Math.round(host.clientWidth) || 440));
  const box = { left: 66, right: width - 10, top: 10, bottom: width - 66 };
  if (!drawn.length) {
    host.replaceChildren(el("p", { class: "empty" }, "No trial has both numbers above 0."));
    return [];
  }
  const scales = squareScales(drawn, box);
  const points = drawn.map((trial) => scatterPoint(trial, scales));
  const axes = ["Predicted", "Measured"].map((one) => ({ name: `${one} KL, nats a ${data.place} (log)` }));
  const svg = shape("svg", { viewBox: `0 0 ${width} ${width - 16}`, role: "group",
    "aria-label": "Measured against predicted KL; arrow keys move, Enter selects" },
  ...frame(box, ...axes, scales),
  shape("line", { class: "diagonal", x1: box.left, y1: box.bottom, x2: box.right, y2: box.top }),
  ...points.map((p) => p.node));
  walkPoints(points, pick);
  tellIn(svg, ".point", (node) => points.find((p) => p.node === node).lines);
  host.replaceChildren(svg);
  return points;
}
