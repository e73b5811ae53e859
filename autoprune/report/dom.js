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

const format = {
  size: (bytes) => (known(bytes) ? (bytes / 1e6).toFixed(1) + SPACE + "MB" : DASH),
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
  kl: (value) => (known(value) ? (value === 0 ? "0" : value.toPrecision(2)) : DASH),
  seconds: (value) => (known(value) ? value.toFixed(value < 10 ? 1 : 0) + SPACE + "s" : DASH),
};

const shorten = (text, most) => (text.length > most ? text.slice(0, most - 1) + "\u2026" : text);
const label = (trial) => (trial.name === null ? "trial " + trial.number : trial.name);

// The inverse of `pack` in rows.py: the front as front.json has it.
function unpack(data) {
  const { names, levels } = data;
  const trials = data.front.trials.map((trial) => {
    const one = { ...trial, levels: Object.create(null), unit_bytes: Object.create(null) };
    names.forEach((name, k) => {
      if (trial.levels[k] >= 0) one.levels[name] = levels[trial.levels[k]];
      if (trial.unit_bytes[k] !== null) one.unit_bytes[name] = trial.unit_bytes[k];
    });
    return one;
  });
  return { ...data.front, trials };
}

// The same rows as `write_csv` in rows.py.
function csvText(front, fields, names) {
  const cell = (value) => {
    if (value === null || value === undefined) return "";
    const text = String(value);
    const safe = typeof value === "string" && /^[=+\-@\t\r\n]/.test(text) ? "'" + text : text;
    return /[",\r\n]/.test(safe) ? '"' + safe.replaceAll('"', '""') + '"' : safe;
  };
  const heads = names.flatMap((name) => [name + ".ratio", name + ".bits", name + ".bytes"]);
  const rows = front.trials.map((trial) => [
    ...fields.map((field) => trial[field]),
    ...names.flatMap((name) => [
      trial.levels[name]?.ratio, trial.levels[name]?.bits, trial.unit_bytes[name],
    ]),
  ]);
  return [[...fields, ...heads], ...rows].map((row) => row.map(cell).join(",") + "\r\n").join("");
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
