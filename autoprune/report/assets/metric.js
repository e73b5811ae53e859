// The metric under its own name and in its own numbers; metric.py has the same words and figures.

// A number of at least 1, with four digits or whole.
function fourDigits(value) {
  if (!Number.isFinite(value)) return "\u221e";
  if (value >= 999999.5) return value.toExponential(1).replace(/\+(\d)$/, "+0$1");
  const digits = value < 99.995 ? 2 : value < 999.95 ? 1 : 0;
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

// `shown` turns a score of 0..100 into the metric's own number, `text` that number into words.
function metricOf({ word, title, unit, higher_is_better: more, is_accuracy: plain, column }) {
  const shown = (score) => (!known(score) ? null : more ? score : 100 / score);
  const text = (value) => {
    if (value === null) return DASH;
    const digits = more ? value.toFixed(1).replace("-", "\u2212") : fourDigits(value);
    return digits + (unit ? SPACE + unit : "");
  };
  const told = (score) => text(shown(score));
  const on = (split) => (plain ? split[0].toUpperCase() + split.slice(1) : `${shorten(title, 24)}, ${split}`);
  return { word, title, unit, more, plain, column, shown, text, told, on };
}

// Where less is better, values of weak models are many times those of good ones: the scale is a log one.
function scoreAxis(metric) {
  const unit = metric.unit ? ", " + shorten(metric.unit, 10) : "";
  const after = unit + (metric.more ? "" : " (log, lower is better)");
  return {
    name: `${shorten(metric.title, 40)} on validation${after}`, unit: 1, log: !metric.more,
    of: (t) => metric.shown(t.accuracy), sign: metric.more ? -1 : 1, shown: metric.text,
    range: (t) => (known(t.error) ? [t.accuracy - t.error, t.accuracy + t.error] : null),
  };
}
