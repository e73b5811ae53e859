// Which trials a paired test on the same validation rows does not tell apart from the selected one.

const tiedNumbers = new Set(front.ties?.numbers ?? []);
const tiedPairs = new Set((front.ties?.pairs ?? []).flatMap(([a, b]) => [`${a} ${b}`, `${b} ${a}`]));

// null where the two were not compared.
function areTied(a, b) {
  if (!tiedNumbers.has(a?.number) || !tiedNumbers.has(b?.number)) return null;
  return a.number === b.number || tiedPairs.has(`${a.number} ${b.number}`);
}

// A ring round each tied mark, and a band from the lowest to the highest of them on the axis of accuracy.
function markTies() {
  const chosen = state.selected;
  const ties = state.points.filter((p) => p.trial !== chosen && areTied(p.trial, chosen));
  for (const p of state.points) p.node.classList.toggle("tied", ties.includes(p));
  byId("tie-note").textContent = tieWords(chosen, ties.map((p) => p.trial));
  byId("chart").querySelector(".ties")?.remove();
  const own = state.points.find((p) => p.trial === chosen);
  const svg = byId("chart").querySelector("svg");
  if (!ties.length || !own || !svg || ![state.x, state.y].includes("accuracy")) return;
  svg.insertBefore(tieBand([own, ...ties], svg.viewBox.baseVal), svg.querySelector(".steps, .point")?.closest("svg > *"));
}

function tieBand(points, box) {
  const up = state.y === "accuracy";
  const along = points.map((p) => (up ? p.y : p.x));
  const [low, high] = [Math.min(...along) - 4, Math.max(...along) + 4];
  const [left, right, top, bottom] = [58, box.width - 12, 12, box.height - 50];
  const area = up ? { x: left, y: low, width: right - left, height: high - low }
    : { x: low, y: top, width: high - low, height: bottom - top };
  const edge = up ? `M${right - 6} ${low}H${right}V${high}H${right - 6}` : `M${low} ${top + 6}V${top}H${high}V${top + 6}`;
  return shape("g", { class: "ties", "aria-hidden": "true" }, shape("rect", { class: "tie-band", ...area }),
    shape("path", { class: "tie-edge", d: edge }));
}

function tieWords(chosen, ties) {
  if (!chosen || !tiedNumbers.has(chosen.number)) return "";
  if (!ties.length) return `A paired test on the same validation rows tells ${label(chosen)} apart from every other it was held against.`;
  const named = ties.slice(0, 6).map(label).join(", ");
  const more = ties.length > 6 ? ` and ${ties.length - 6} more` : "";
  return `Ringed: ${named}${more}. Of the front, the baselines and the points to choose from, a paired test on the same validation rows does not tell ` +
    `${ties.length === 1 ? "it" : "these"} apart from ${label(chosen)} (5${SPACE}%, one-sided): the band is noise.`;
}
