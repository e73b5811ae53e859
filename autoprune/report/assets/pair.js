// Two trials side by side: their figures, their units, and the differences of the second from the first.

const PAIRABLE = trials.filter((t) => t.role !== "failed" && known(t.size_bytes));
const pair = { first: null, second: null, shownFirst: "" };

const keyOfPair = () => (pair.first && pair.second ? `${pair.first.number}:${pair.second.number}` : "");

// What the address keeps: nothing of the pair that the page shows by itself; before it has begun, what it has.
function pairOfView() {
  if (!pair.shownFirst) return new URLSearchParams(location.hash.slice(1)).get("pair");
  return keyOfPair() === pair.shownFirst ? null : keyOfPair();
}

function startPair() {
  const others = PAIRABLE.filter((t) => t.role !== "original");
  if (PAIRABLE.length < 2) return;
  byId("pair-section").hidden = false;
  const order = ["original", "best", "knee", "baseline", "front", "dominated"];
  const options = [...PAIRABLE].sort((a, b) => order.indexOf(a.role) - order.indexOf(b.role) || a.number - b.number);
  for (const side of ["first", "second"]) {
    const choice = byId("pair-" + side);
    for (const t of options) {
      const what = [t.caption && t.caption !== label(t) ? t.caption : label(t), format.size(t.size_bytes),
        metric.told(t.accuracy)];
      choice.append(el("option", { value: t.number }, shorten(what[0], 60), ", ", what.slice(1).join(", ")));
    }
    choice.addEventListener("change", () => {
      pair[side] = PAIRABLE.find((t) => String(t.number) === choice.value);
      showPair();
      keepView();
    });
  }
  byId("pair-form").addEventListener("submit", (event) => event.preventDefault());
  byId("pair-swap").addEventListener("click", () => {
    [pair.first, pair.second] = [pair.second, pair.first];
    showPair();
    keepView();
  });
  const first = PAIRABLE.find((t) => t.role === "original") ?? PAIRABLE[0];
  const rest = (others.length ? others : PAIRABLE).filter((t) => t !== first);
  Object.assign(pair, { first, second: rest.find((t) => t.role === "best") ?? rest.find((t) => t.on_front) ?? rest[0] });
  pair.shownFirst = keyOfPair();
  pairOfAddress();
}

// The pair of the address, as `pair=17:23`; what is no trial of this page is passed over.
function pairOfAddress() {
  const numbers = (new URLSearchParams(location.hash.slice(1)).get("pair") ?? pair.shownFirst).split(":");
  const [first, second] = numbers.map((n) => PAIRABLE.find((t) => String(t.number) === n));
  if (first && second) Object.assign(pair, { first, second });
  showPair();
}

function showPair() {
  const { first, second } = pair;
  if (!first || !second) return;
  byId("pair-first").value = String(first.number);
  byId("pair-second").value = String(second.number);
  byId("pair-figures").replaceChildren(pairFigures(first, second));
  byId("pair-note").textContent = noiseWords(first, second);
  byId("pair-units").replaceChildren(pairUnits(first, second));
}

const times = (a, b) => (known(a) && known(b) && a > 0 && b > 0
  ? (a >= b ? `${(a / b).toFixed(2)}\u00d7 less` : `${(b / a).toFixed(2)}\u00d7 more`) : DASH);
const stepOf = (a, b) => {
  const [before, after] = [metric.shown(a), metric.shown(b)];
  if (!known(before) || !known(after)) return DASH;
  const text = Math.abs(after - before).toFixed(metric.more ? 1 : 2);
  return Number(text) === 0 ? "0" : (after < before ? "\u2212" : "+") + text + (metric.unit === "%" ? " points" : "");
};

function pairFigures(a, b) {
  const head = (text, kind) => el("th", { scope: "col", class: kind }, text);
  const row = (name, one, other, step) => el("tr", {}, el("th", { scope: "row" }, name), el("td", { class: "number" }, one),
    el("td", { class: "number" }, other), el("td", { class: "number" }, step));
  const error = (t) => (known(t.error) ? ` \u00b1 ${t.error.toFixed(1)}` : "");
  return el("table", { class: "pair-figures" },
    el("thead", {}, el("tr", {}, head("Figure"), head(label(a), "number"), head(label(b), "number"), head("Difference", "number"))),
    el("tbody", {},
      row("Size", format.bytes(a.size_bytes), format.bytes(b.size_bytes), times(a.size_bytes, b.size_bytes)),
      row("Latency", format.latency(a.latency_ms), format.latency(b.latency_ms), times(a.latency_ms, b.latency_ms)),
      row(metric.on("validation"), metric.told(a.accuracy) + error(a), metric.told(b.accuracy) + error(b), stepOf(a.accuracy, b.accuracy)),
      row(metric.on("test"), metric.told(a.test_accuracy), metric.told(b.test_accuracy), stepOf(a.test_accuracy, b.test_accuracy)),
      row("KL, nats", format.nats(a.kl), format.nats(b.kl), known(a.kl) && known(b.kl) ? format.nats(b.kl - a.kl).replace("-", "\u2212") : DASH)));
}

// By the paired test where the run has it of both, else by both standard errors; latency by its bars.
function noiseWords(a, b) {
  if (a === b) return "Both are the same trial.";
  const tied = areTied(a, b);
  let words = `Whether the difference in ${metric.word} is noise is not known: the rows of both were not kept.`;
  if (tied !== null) {
    words = tied ? `The difference in ${metric.word} is within the noise: a paired test on the same validation rows does not tell the two apart (5${SPACE}%, one-sided).`
      : `The difference in ${metric.word} is more than noise by a paired test on the same validation rows (5${SPACE}%, one-sided).`;
  } else if (known(a.error) && known(b.error)) {
    const error = Math.hypot(a.error, b.error);
    const within = Math.abs(a.accuracy - b.accuracy) < 1.645 * error;
    words = `The difference in ${metric.word} is ${within ? "within" : "more than"} the noise of two samples of rows (standard error ${error.toFixed(1)} points); no paired test was made of these two.`;
  }
  const overlap = known(a.latency_low_ms) && known(b.latency_low_ms) &&
    a.latency_low_ms <= b.latency_high_ms && b.latency_low_ms <= a.latency_high_ms;
  return words + (overlap ? " Their times overlap between the 10th and the 90th percentile." : "");
}

const levelWords = (level) => (level ? levelText(level) : DASH);

function levelCell(level) {
  if (!level || !isWidth(level.bits)) return el("td", {}, DASH);
  const bits = level.ratio >= 1 ? DASH
    : el("span", { class: "bits " + widthColour(level.bits), title: widthText(level.bits) }, level.bits);
  return el("td", { "aria-label": levelText(level) }, bits, " ", bar(level.ratio, "ratio"),
    el("span", { class: "amount" }, level.ratio ? (100 * level.ratio).toFixed(0) + SPACE + "%" : DASH));
}

function pairUnits(a, b) {
  const head = (text, kind) => el("th", { scope: "col", class: kind }, text);
  let same = 0;
  const rows = data.names.map((name) => {
    const [one, other] = [a.levels[name], b.levels[name]];
    const [before, after] = [a.unit_bytes[name], b.unit_bytes[name]];
    const equal = levelWords(one) === levelWords(other);
    if (equal) same += 1;
    const step = known(before) && known(after) ? after - before : null;
    const text = step === null ? DASH : step === 0 ? "same" : (step < 0 ? "\u2212" : "+") + format.bytes(Math.abs(step));
    return el("tr", { class: equal ? "same" : null }, el("th", { scope: "row" }, el("code", {}, ...breakable(name))),
      levelCell(one), levelCell(other), el("td", { class: "number" }, format.bytes(before)),
      el("td", { class: "number" }, format.bytes(after)), el("td", { class: "number" }, text));
  });
  return el("div", {}, el("p", { class: "hint" }, `${same} of ${data.names.length} units are at the same level in both. The box is the width of the weights, the bar the share of rows removed.`),
    el("div", { class: heightOf(data.names.length), tabindex: "0", role: "region", "aria-label": "Units of both trials" },
      el("table", { class: "pair-units" },
        el("thead", {}, el("tr", {}, head("Unit"), head(label(a)), head(label(b)), head("Bytes, " + label(a), "number"),
          head("Bytes, " + label(b), "number"), head("Difference", "number"))),
        el("tbody", {}, ...rows))));
}
