// The hypervolume of the search's own trials, over trials or over the time of the run.

const ACROSS = {
  trials: { name: "Trials of the search", of: (step) => step[0], end: () => data.progress.trials },
  time: { name: "Time of the run", of: (step) => step[1], end: () => data.progress.seconds },
};

// Ticks of a stretch of time, at whole seconds, minutes or hours.
function timeTicks(seconds) {
  const [unit, word] = seconds > 7200 ? [3600, "h"] : seconds > 120 ? [60, "min"] : [1, "s"];
  return ticksOf(0, seconds / unit, false).map((tick) => ({ value: tick * unit, text: tick + SPACE + word }));
}

function progressScales(axis, most, box) {
  const end = axis.end();
  const x = (value) => box.left + (value / end) * (box.right - box.left);
  const y = (value) => box.bottom - (value / (1.06 * most)) * (box.bottom - box.top);
  const across = axis === ACROSS.time ? timeTicks(end)
    : ticksOf(0, end, false).map((tick) => ({ value: tick, text: String(tick) }));
  return {
    x: { at: x, ticks: across.map((tick) => ({ text: tick.text, at: x(tick.value) })) },
    y: { at: y, ticks: ticksOf(0, 1.06 * most, false).map((tick) => ({ text: String(tick), at: y(tick) })) },
  };
}

// Names of the dashed lines, each at its line, moved down where it would cover one above.
function rivalNames(rivals, scales, box) {
  let free = -Infinity;
  return [...rivals].sort((a, b) => b[1] - a[1]).flatMap(([name, volume]) => {
    const at = scales.y.at(volume);
    const text = Math.min(box.bottom - 4, Math.max(at + 15, free));
    free = text + 15;
    return [shape("line", { class: "rival", x1: box.left, x2: box.right, y1: at, y2: at }),
      shape("text", { class: "caption baseline", x: box.right - 6, y: text, "text-anchor": "end" },
        `${name} ${volume.toFixed(4)}`)];
  });
}

function showProgress() {
  const host = byId("progress");
  if (!host || !data.progress) return;
  const axis = ACROSS[byId("progress-axis").value];
  const { steps, rivals } = data.progress;
  const width = Math.max(320, Math.round(host.clientWidth) || 1000);
  const box = { left: 58, right: width - 12, top: 12, bottom: 250 };
  const last = steps.at(-1)?.[2] ?? 0;
  const scales = progressScales(axis, Math.max(last, ...rivals.map((rival) => rival[1]), 1e-9), box);
  const path = steps.map((step) => `H${scales.x.at(axis.of(step)).toFixed(1)}V${scales.y.at(step[2]).toFixed(1)}`);
  const name = `Hypervolume of the search's own trials, ${last.toFixed(4)} in the end` +
    rivals.map(([rival, volume]) => `; ${rival} ${volume.toFixed(4)}`).join("");
  host.replaceChildren(shape("svg", { viewBox: `0 0 ${width} 300`, role: "img", "aria-label": name },
    ...frame(box, axis, { name: "Hypervolume" }, scales),
    shape("path", { class: "grown", d: `M${box.left} ${box.bottom}${path.join("")}H${box.right}` }),
    ...rivalNames(rivals, scales, box)));
}

function startProgress() {
  if (!data.progress) return;
  const timed = known(data.progress.seconds) && data.progress.steps.every((step) => known(step[1]));
  for (const [key, axis] of Object.entries(ACROSS)) {
    if (key !== "time" || timed) byId("progress-axis").append(el("option", { value: key }, axis.name));
  }
  byId("progress-axis").addEventListener("change", showProgress);
  byId("progress-form").addEventListener("submit", (event) => event.preventDefault());
  showProgress();
}
