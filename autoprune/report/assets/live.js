// A page that is watched: a bar with the run's state, and the page again when the front has changed. The view is
// in the address, so that it outlives that.

const LIVE = { every: 2000, again: 6000, silent: 0, version: byId("live").dataset.front, since: Date.now() };

async function ask(what, options) {
  const answer = await fetch(what, { cache: "no-store", ...options });
  const value = await answer.json();
  if (!answer.ok) throw new Error(value.error);
  return value;
}

function showStatus(now) {
  byId("live-line").textContent = now.line;
  byId("live").classList.toggle("over", now.is_over);
  byId("live-stop").hidden = now.is_over || now.driver === "unknown";
  const workers = (now.workers?.each ?? []).map((worker) => el("li", {},
    `${worker.name} ${worker.state}${worker.memory_bytes ? `, ${(worker.memory_bytes / 1e9).toFixed(1)} GB` : ""}`));
  byId("live-workers").replaceChildren(...workers);
  byId("live-workers").parentElement.hidden = !workers.length;
}

async function follow() {
  try {
    const now = await ask("status");
    LIVE.silent = 0;
    showStatus(now);
    const isRead = Date.now() - LIVE.since > LIVE.again && !byId("live").contains(document.activeElement);
    if (now.front !== LIVE.version && (isRead || !LIVE.version)) {
      location.reload();
      return;
    }
    if (now.is_over && now.front === LIVE.version) return;
  } catch (error) {
    LIVE.silent += 1;
    if (LIVE.silent > 2) byId("live-line").textContent = "autoprune watch has ended: this is what it last said";
  }
  setTimeout(follow, LIVE.every);
}

// Asked twice: the first click says what the second one does.
byId("live-stop").addEventListener("click", async () => {
  const button = byId("live-stop");
  if (button.dataset.sure !== "1") {
    button.dataset.sure = "1";
    button.textContent = "End the search? Finished trials are saved";
    setTimeout(() => { button.dataset.sure = ""; button.textContent = "Stop"; }, 6000);
    return;
  }
  button.disabled = true;
  try {
    await ask("stop", { method: "POST" });
  } catch (error) {
    byId("live-line").textContent = error.message;
  }
  button.blur();
  button.disabled = false;
});

follow();
