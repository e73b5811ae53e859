"use strict";
// Elements, formats, and the front as the page carries it. Text from a model or a data set reaches
// the page through textContent alone.

const SVG = "http://www.w3.org/2000/svg";
const DASH = "\u2013";
const SPACE = "\u00a0";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value !== null && value !== undefined) node.setAttribute(name, String(value));
  }
  for (const child of children) {
    if (child === null || child === undefined) continue;
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return node;
}

const el = (tag, attributes, ...children) =>
  fill(document.createElement(tag), attributes, children);
const shape = (tag, attributes, ...children) =>
  fill(document.createElementNS(SVG, tag), attributes, children);
const byId = (id) => document.getElementById(id);
const known = (value) => typeof value === "number" && Number.isFinite(value);

const raised = (power) => String(Number(power)).replaceAll(/[-0-9]/g, (one) =>
  "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"["-0123456789".indexOf(one)]);

const format = {
  size: (bytes) => (known(bytes) ? (bytes / 1e6).toFixed(bytes < 1e6 ? 2 : 1) + SPACE + "MB" : DASH),
  bytes(bytes) {
    if (!known(bytes)) return DASH;
    if (bytes >= 1e6) return (bytes / 1e6).toFixed(2) + SPACE + "MB";
    return bytes >= 1e3 ? (bytes / 1e3).toFixed(1) + SPACE + "kB" : bytes + SPACE + "B";
  },
  latency(ms) {
    if (!known(ms)) return DASH;
    const digits = ms > 0 ? Math.max(0, 2 - Math.floor(Math.log10(ms))) : 0;
    return ms.toFixed(Math.min(digits, 3)) + SPACE + "ms";
  },
  percent: (value) => (known(value) ? value.toFixed(1) + SPACE + "%" : DASH),
  share: (value) => (known(value) ? (100 * value).toFixed(1) + SPACE + "%" : DASH),
  nats(value) {
    if (!known(value)) return DASH;
    if (value === 0 || Math.abs(value) >= 99.5) return value.toFixed(0);
    if (Math.abs(value) >= 1e-3) return value.toPrecision(2);
    const [digits, power] = value.toExponential(1).split("e");
    return `${digits}\u00d710${raised(power)}`;
  },
  seconds: (value) => (known(value) ? value.toFixed(value < 10 ? 1 : 0) + SPACE + "s" : DASH),
};

const shorten = (text, most) => (text.length > most ? text.slice(0, most - 1) + "\u2026" : text);
const label = (trial) => (trial.name === null ? "trial " + trial.number : trial.name);

// Widths: bits of a weight, or the name of another way of storing it; page.py says of each in
// `data.storages` its words, its sign in a small cell, its bits, and its place from narrow to wide.
const isWidth = (bits) => known(bits) || Object.hasOwn(data.storages, bits ?? "");
const breadth = (bits) => data.storages[bits]?.breadth ?? bits;
const widthText = (bits) => (known(bits) ? bits + SPACE + (bits === 1 ? "bit" : "bits")
  : data.storages[bits].words);
const widthSign = (bits) => (known(bits) ? bits : data.storages[bits].sign);
const widthColour = (bits) => "b" + (known(bits) || bits === INTEGER ? bits : data.storages[bits].bits);
const INTEGER = "w8a8"; // has a colour of its own
const namesOf = (widths) => [...new Set(widths.filter((bits) => !known(bits) && isWidth(bits)))];
const nameNotes = (widths) => namesOf(widths).map((name) => `${name}: ${widthText(name)}.`).join(" ");

// How long a trial was trained; rungs.py has the same words.
const RUNGS = ["untrained", "brief", "long"];
const rungName = (rung) => (known(rung) ? RUNGS[rung] ?? "rung " + rung : null);
const rungText = (trial) => (known(trial.rung) ? rungName(trial.rung) +
  (known(trial.promoted_from) ? " from #" + trial.promoted_from : "") : DASH);

const PER_UNIT = ["levels", "unit_bytes", "unit_ms"];

// The inverse of `pack` in rows.py: the front as front.json has it.
function unpack(data) {
  const { names, levels, variants } = data;
  const trials = data.front.trials.map((trial) => {
    const one = { ...trial };
    for (const field of PER_UNIT.filter((each) => each in trial)) one[field] = Object.create(null);
    names.forEach((name, k) => {
      const [level, bytes, ms] = variants[k][trial.levels[k]] ?? [null, null, null];
      if (level !== null) one.levels[name] = levels[level];
      if (bytes !== null) one.unit_bytes[name] = bytes;
      if (ms !== null) one.unit_ms[name] = ms;
    });
    return one;
  });
  const whole = { ...data.front, trials };
  if (whole.sensitivity?.levels) {
    const rows = whole.sensitivity.levels.map(([unit, ...rest]) =>
      [typeof unit === "number" ? names[unit] : unit, ...rest]);
    whole.sensitivity = { ...whole.sensitivity, levels: rows };
  }
  return whole;
}

// The same rows as `write_csv` in rows.py.
function csvText(front, fields, names, metric) {
  const cell = (value) => {
    if (value === null || value === undefined) return "";
    const text = String(value);
    const safe = typeof value === "string" && /^[=+\-@\t\r\n]/.test(text) ? "'" + text : text;
    return /[",\r\n]/.test(safe) ? '"' + safe.replaceAll('"', '""') + '"' : safe;
  };
  const heads = names.flatMap((name) => [name + ".ratio", name + ".bits", name + ".bytes"]);
  const rows = front.trials.map((trial) => [
    ...fields.map((field) => trial[field]),
    ...metric.column.map(() => (known(metric.shown(trial.accuracy)) ? metric.shown(trial.accuracy) : null)),
    ...names.flatMap((name) => [
      trial.levels[name]?.ratio, trial.levels[name]?.bits, trial.unit_bytes[name],
    ]),
  ]);
  const head = [...fields, ...metric.column, ...heads];
  return [head, ...rows].map((row) => row.map(cell).join(",") + "\r\n").join("");
}

function save(name, type, text) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  const link = el("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

// The clipboard API is refused on file:// by some browsers; a selection and `copy` is not.
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = el("textarea", { class: "offscreen", "aria-hidden": "true" });
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

function copyButton(text, button = el("button", { type: "button" }, "Copy")) {
  button.addEventListener("click", async () => {
    button.textContent = (await copy(text)) ? "Copied" : "Press Ctrl+C";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
    button.focus();
  });
  return button;
}
