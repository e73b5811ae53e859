// What was done to each unit of the selected trial.

function bar(share, kind, before) {
  const box = el("span", { class: "bar-box " + kind });
  if (before !== undefined) {
    const ghost = el("span", { class: "ghost" });
    ghost.style.width = 100 * Math.min(1, Math.max(0, before)) + "%";
    box.append(ghost);
  }
  const inner = el("span", { class: "bar-fill" });
  inner.style.width = 100 * Math.min(1, Math.max(0, share || 0)) + "%";
  box.append(inner);
  return box;
}

// More units than these are drawn in an overview too, and their table scrolls.
const MANY_UNITS = 40;
const heightOf = (units) => (units > MANY_UNITS ? "scroll tall" : "scroll");

// Names that differ in their numbers alone have the same stem.
const stemOf = (name) => name.replaceAll(/(?<=^|\.)\d+(?=\.|$)/g, "*");

// One small cell a unit, a line for each stem, both in the order of the model; nothing where that is no
// shorter than the table.
function overview(names, linesOf, levels) {
  const stems = new Map();
  for (const name of names) stems.set(stemOf(name), [...(stems.get(stemOf(name)) ?? []), name]);
  if (names.length <= MANY_UNITS || stems.size > MANY_UNITS) return null;
  const cells = new Map();
  const cell = (name) => {
    const node = overviewCell(levels[name]);
    cells.set(node, name);
    return node;
  };
  const lines = [...stems].map(([stem, members]) => el("div", { class: "stem" },
    el("code", {}, ...breakable(stem)), el("span", { class: "stem-cells" }, ...members.map(cell))));
  const host = el("div", { class: "overview", role: "img",
    "aria-label": "Bits and rows removed of each unit; the table below has the same" }, ...lines);
  tellIn(host, ".cell", (node) => linesOf(cells.get(node)));
  return host;
}

function overviewCell(level) {
  const bits = isWidth(level?.bits) && !isGone(level) ? level.bits : null;
  const node = el("span", { class: "cell bits " + (bits === null ? "gone" : widthColour(bits)) },
    bits === null ? DASH : widthSign(bits));
  const removed = el("span", { class: "cell-removed" });
  removed.style.width = 100 * Math.min(1, level?.ratio || 0) + "%";
  node.append(removed);
  return node;
}

const isGone = (level) => Boolean(level) && level.ratio >= 1;

// Columns of milliseconds where a run has predicted them.
function showMap(trial) {
  const before = new Map((front.units || []).map((unit) => [unit.name, unit]));
  const names = data.names.filter((name) => name in trial.levels || name in trial.unit_bytes);
  byId("map-hint").textContent = label(trial);
  if (!names.length) {
    const why = trial.role === "line" ? "It is no model of units." : "What was done to each unit is not recorded.";
    byId("map").replaceChildren(el("p", { class: "hint" }, why));
    return;
  }
  const bytes = names.map((name) => trial.unit_bytes[name]);
  const times = names.map((name) => trial.unit_ms?.[name]);
  const most = Math.max(1, ...bytes.filter(known), ...names.map((n) => before.get(n)?.size_bytes || 0));
  const whole = { bytes: trial.size_bytes ?? trial.predicted_size_bytes, ms: trial.predicted_latency_ms,
    timed: known(trial.predicted_latency_ms) && times.some((ms) => ms > 0) };
  const rows = names.map((name, k) =>
    unitRow(name, trial.levels[name], bytes[k], times[k], before.get(name), most, whole));
  const tell = (name) => [name, trial.levels[name] ? levelText(trial.levels[name]) : "not recorded",
    [format.bytes(trial.unit_bytes[name]), whole.timed ? format.latency(trial.unit_ms?.[name]) : null]
      .filter(Boolean).join(", ")];
  const rest = { bytes: bytes.some(known) ? whole.bytes - sum(bytes) : null, ms: whole.ms - sum(times) };
  const head = (text, kind) => el("th", { scope: "col", class: kind }, text);
  const region = { class: heightOf(names.length), tabindex: "0", role: "group", "aria-label": "Units" };
  const table = el("div", region,
    el("table", { class: "units" },
      el("thead", {}, el("tr", {}, head("Unit"), head("Rows removed"), head("Bits", "middle"),
        head("Bytes now, and before in grey"), head("Bytes", "number"), head("Share of file", "number"),
        ...(whole.timed ? [head("Predicted time", "number"), head("Share of time", "number")] : []))),
      el("tbody", {}, ...rows),
      el("tfoot", {}, rest.bytes > 0 ? footRow("Graph and what is in no unit", rest, whole) : null,
        known(whole.bytes) ? footRow("Whole model", whole, whole) : null)));
  const seen = overview(names, tell, trial.levels);
  const hint = mapHint(names.map((name) => trial.levels[name]?.bits), whole.timed, seen);
  byId("map").replaceChildren(...[seen, table, el("p", { class: "hint" }, hint)].filter(Boolean));
}

const sum = (values) => values.reduce((total, one) => total + (known(one) ? one : 0), 0);

function mapHint(widths, timed, seen) {
  return [seen ? "A cell of the overview is a unit: its bits, and under them the share of its rows that was " +
    `removed${namesOf(widths).map((name) => `; ${widthSign(name)} is ${name}`).join("")}.` : null,
    nameNotes(widths) || null,
    timed ? "Times of units cannot be measured one by one: they are predicted, from whole models that were " +
      "timed." : null].filter(Boolean).join(" ");
}

function unitRow(name, level, bytes, ms, unit, most, whole) {
  const ratio = level ? level.ratio : null;
  const bits = level ? level.bits : null;
  return el("tr", {},
    el("th", { scope: "row" }, el("code", {}, ...breakable(name)),
      unit?.kind && !name.endsWith(unit.kind) ? el("small", {}, unit.kind) : null),
    el("td", { class: "removed" }, bar(ratio, "ratio"),
      el("span", { class: "amount" }, ratio ? (100 * ratio).toFixed(0) + SPACE + "%" : DASH)),
    el("td", { class: "middle" }, isWidth(bits) && !isGone(level)
      ? el("span", { class: "bits " + widthColour(bits), title: widthText(bits) }, bits) : DASH),
    el("td", {}, bar(known(bytes) ? bytes / most : 0, "weight", (unit?.size_bytes || 0) / most)),
    ...amounts({ bytes, ms }, whole));
}

function footRow(name, part, whole) {
  return el("tr", {}, el("th", { scope: "row", colspan: "4" }, name), ...amounts(part, whole));
}

// Bytes and milliseconds of a part, each with its share of the whole.
function amounts(part, whole) {
  const cell = (text) => el("td", { class: "number" }, text);
  const share = (kind) => cell(known(part[kind]) && whole[kind] ? format.share(part[kind] / whole[kind]) : DASH);
  return [cell(format.bytes(part.bytes)), share("bytes"),
    ...(whole.timed ? [cell(format.latency(part.ms)), share("ms")] : [])];
}
