// Predicted damage of every unit at every level, as a table that colours its cells; and the small
// box that tells numbers of what is pointed at or focused.

// ---- the box ----------------------------------------------------------------------------------

const pointed = { node: null };

function placeTip() {
  if (!pointed.node) return;
  const tip = byId("tip");
  const at = pointed.node.getBoundingClientRect();
  const left = at.left + at.width / 2 - tip.offsetWidth / 2;
  const over = at.top - tip.offsetHeight - 7;
  const most = document.documentElement.clientWidth - tip.offsetWidth - 6;
  tip.style.left = Math.max(6, Math.min(left, most)) + "px";
  tip.style.top = (over > 6 ? over : at.bottom + 7) + "px";
}

function showTip(node, lines) {
  const [first, ...rest] = lines;
  byId("tip").replaceChildren(el("b", {}, first), ...rest.map((line) => el("span", {}, line)));
  byId("tip").hidden = false;
  pointed.node = node;
  placeTip();
}

function hideTip() {
  byId("tip").hidden = true;
  pointed.node = null;
}

// Tells the lines of a node in `host` while it is pointed at or focused; `linesOf` knows which.
function tellIn(host, selector, linesOf) {
  const show = (event) => {
    const node = event.target.closest(selector);
    if (node) showTip(node, linesOf(node));
    else hideTip();
  };
  host.addEventListener("pointerover", show);
  host.addEventListener("focusin", show);
  host.addEventListener("pointerleave", hideTip);
  host.addEventListener("focusout", hideTip);
}

document.addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });
document.addEventListener("scroll", placeTip, { capture: true, passive: true });

// ---- the map ----------------------------------------------------------------------------------

const DECADES = 5;
const STRETCHES = 4; // between the five colours of the scale in report.css

// Columns by ratio, then from many bits to few; rows in the order of the model.
function gridOf(levels, names) {
  const rows = new Map(names.map((name) => [name, new Map()]));
  const columns = new Map();
  for (const [unit, ratio, bits, bytes, damage, ms] of levels) {
    const key = ratio + "/" + bits;
    columns.set(key, { key, ratio, bits });
    if (!rows.has(unit)) rows.set(unit, new Map());
    rows.get(unit).set(key, { unit, ratio, bits, bytes, damage, ms });
  }
  return {
    rows: [...rows].filter(([, cells]) => cells.size),
    columns: [...columns.values()].sort((a, b) => a.ratio - b.ratio || breadth(b.bits) - breadth(a.bits)),
  };
}

// From log damage to 0..1; what is more than five decades under the most is drawn as the least.
function shadeOf(levels) {
  const known_ = levels.map((row) => row[4]).filter((one) => known(one) && one > 0);
  const high = Math.max(...known_);
  const low = Math.max(Math.min(...known_), high / 10 ** DECADES);
  const span = Math.log10(high / low) || 1;
  const at = (damage) => Math.min(1, Math.max(0, 1 - Math.log10(high / damage) / span));
  return { at, low, high, clipped: known_.some((one) => one < low), empty: !known_.length };
}

function paint(node, t) {
  const stretch = Math.min(STRETCHES - 1, Math.floor(STRETCHES * t));
  node.classList.add("heat", "h" + stretch);
  node.style.setProperty("--t", (100 * (STRETCHES * t - stretch)).toFixed(1) + "%");
}

const levelText = (cell) => (cell.ratio >= 1 ? "all removed" : `${widthText(cell.bits)}, ` +
  (cell.ratio ? `${percentOf(cell.ratio)} of rows removed` : "nothing removed"));
const percentOf = (ratio) => Number((100 * ratio).toFixed(1)) + SPACE + "%";

function linesOfCell(cell, timed) {
  const cost = [format.bytes(cell.bytes), timed && known(cell.ms) ? format.latency(cell.ms) : null];
  return [cell.unit, levelText(cell), `damage ${format.nats(cell.damage)} nats a ${data.place}`,
    cost.filter(Boolean).join(", ")];
}

function heatCell(cell, shade, timed, starts, cells) {
  if (!cell) return el("td", { class: starts ? "blank starts" : "blank" });
  const lines = linesOfCell(cell, timed);
  const node = el("td", { tabindex: "-1", class: starts ? "starts" : null,
    "aria-label": lines.slice(1).join(", ") });
  if (known(cell.damage) && cell.damage > 0) paint(node, shade.at(cell.damage));
  else node.append(known(cell.damage) ? "0" : DASH);
  cells.set(node, lines);
  return node;
}

function heatHead(columns, starts) {
  const groups = [];
  for (const one of columns) {
    if (groups.at(-1)?.ratio === one.ratio) groups.at(-1).count += 1;
    else groups.push({ ratio: one.ratio, count: 1 });
  }
  return el("thead", {},
    el("tr", {}, el("th", { scope: "col" }, "Rows removed"), ...groups.map((one) =>
      el("th", { scope: "colgroup", colspan: one.count, class: "starts" },
        one.ratio ? percentOf(one.ratio) : "none"))),
    el("tr", {}, el("th", { scope: "col" }, "Bits"), ...columns.map((one, k) =>
      el("th", { scope: "col", class: starts[k] ? "starts" : null }, ...widthHead(one.bits)))));
}

// A column is two digits wide: w8a8 takes two lines, other names have signs.
const widthHead = (bits) => (bits === INTEGER ? [bits.slice(0, 2), el("wbr"), bits.slice(2)]
  : [widthSign(bits)]);

// A name that may break after a dot.
const breakable = (name) => name.split(/(?<=\.)/).flatMap((part, k) => (k ? [el("wbr"), part] : [part]));

function heatLegend(shade, columns) {
  const first = Math.ceil(Math.log10(shade.low) - 1e-9);
  const ticks = [];
  for (let power = first; power <= Math.log10(shade.high) + 1e-9; power += 1) {
    const tick = el("span", { class: "scale-tick" }, "10" + raised(power));
    tick.style.left = 100 * shade.at(10 ** power) + "%";
    ticks.push(tick);
  }
  const notes = [shade.clipped ? `What is less than ${format.nats(shade.low)} has the first colour.` : null,
    "0: no damage. Empty: not a level of this unit.",
    ...namesOf(columns.map((one) => one.bits)).filter((name) => name !== INTEGER)
      .map((name) => `${widthSign(name)} is ${name}.`),
    nameNotes(columns.map((one) => one.bits))].filter(Boolean).join(" ");
  return el("div", { class: "scale" },
    el("span", { class: "scale-name" }, `Predicted damage, nats a ${data.place} (log)`),
    el("span", { class: "scale-bar", "aria-hidden": "true" }, el("span", { class: "scale-fill" }), ...ticks),
    el("span", { class: "hint" }, notes));
}

// One stop of the Tab key; arrow keys walk over the cells that exist, Home and End along a row.
function walkGrid(table) {
  const stop = (node) => {
    table.querySelector("td[tabindex='0']")?.setAttribute("tabindex", "-1");
    node.setAttribute("tabindex", "0");
  };
  const moves = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0],
    Home: [0, -Infinity], End: [0, Infinity] };
  table.addEventListener("focusin", (event) => { if (event.target.matches("td")) stop(event.target); });
  table.addEventListener("keydown", (event) => {
    const cell = event.target.closest("td");
    if (!cell || !moves[event.key]) return;
    event.preventDefault();
    const [down, across] = moves[event.key];
    const column = [...table.tBodies[0].rows].map((row) => row.cells[cell.cellIndex]);
    const real = (down ? column : [...cell.parentNode.cells]).filter((one) => one.hasAttribute("tabindex"));
    const to = real.indexOf(cell) + (down || across);
    real[Math.min(real.length - 1, Math.max(0, to))].focus();
  });
  const first = table.querySelector("td[tabindex]");
  if (first) stop(first);
}

function drawHeat(host, levels, names) {
  const { rows, columns } = gridOf(levels, names);
  const shade = shadeOf(levels);
  const timed = levels.some((row) => row[5] > 0);
  const cells = new Map();
  const starts = columns.map((one, k) => k === 0 || columns[k - 1].ratio !== one.ratio);
  const table = el("table", { class: "heat-map", role: "grid", "aria-readonly": "true",
    "aria-label": "Predicted damage of each unit at each level; arrow keys move" },
  el("colgroup", {}, el("col", { class: "unit-name" }),
    ...columns.map((_, k) => el("col", { class: starts[k] ? "starts" : null }))),
  heatHead(columns, starts),
  el("tbody", {}, ...rows.map(([unit, found]) => el("tr", {},
    el("th", { scope: "row" }, ...breakable(unit)),
    ...columns.map((one, k) => heatCell(found.get(one.key), shade, timed, starts[k], cells))))));
  table.style.setProperty("--columns", columns.length);
  table.style.setProperty("--groups", starts.filter(Boolean).length);
  walkGrid(table);
  tellIn(table, "td[tabindex]", (node) => cells.get(node));
  host.replaceChildren(...(shade.empty ? [] : [heatLegend(shade, columns)]),
    el("div", { class: heightOf(rows.length) }, table));
}
