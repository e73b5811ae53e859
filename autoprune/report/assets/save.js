// Charts as files: SVG with its colours written out, and PNG drawn from it. No request is made: the picture
// is a data address, which the page's policy allows images.

const PAINT = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "stroke-linejoin", "opacity",
  "font-family", "font-size", "font-weight", "text-anchor", "paint-order", "visibility"];
const PLAIN = { "fill-opacity": "1", "stroke-dasharray": "none", "stroke-linejoin": "miter", opacity: "1",
  "paint-order": "normal", visibility: "visible", "text-anchor": "start" };
const NOT_SAVED = ["class", "role", "tabindex", "aria-pressed", "aria-label", "aria-hidden", "aria-orientation",
  "aria-valuemin", "aria-valuemax", "aria-valuenow", "aria-valuetext"];
const SHARPER = 2; // pixels of a PNG for one of the page
const isClear = (colour) => /^rgba\(.*, 0\)$/.test(colour) || colour === "transparent";

// Writes to `copy` what the page's styles make of `seen`, element by element; nothing where it is not seen.
function paintAs(copy, seen) {
  const style = getComputedStyle(seen);
  if (style.display === "none") return false;
  for (const name of NOT_SAVED) copy.removeAttribute(name);
  const isText = copy.tagName === "text";
  const isDrawn = !["svg", "g", "title", "defs", "clipPath"].includes(copy.tagName);
  for (const name of PAINT) {
    const value = style.getPropertyValue(name);
    const isKept = name === "opacity" || (isDrawn && (isText || !/^(font|text|paint)/.test(name)));
    if (isKept && value !== PLAIN[name]) copy.setAttribute(name, isClear(value) ? "none" : value);
  }
  const [inner, outer] = [[...copy.children], [...seen.children]];
  inner.forEach((child, k) => { if (!paintAs(child, outer[k])) child.remove(); });
  return !(isDrawn && copy.getAttribute("fill") === "none" && copy.getAttribute("stroke") === "none");
}

// A chart as a file of its own, on the page's ground, with the run's name as its title.
function svgFile(svg) {
  const { width, height } = svg.viewBox.baseVal;
  const copy = svg.cloneNode(true);
  paintAs(copy, svg);
  fill(copy, { xmlns: SVG, width, height }, []);
  copy.prepend(shape("title", {}, `${run.name || "Compression"}: ${svg.getAttribute("aria-label") ?? "chart"}`),
    shape("rect", { width, height, fill: getComputedStyle(document.body).backgroundColor }));
  return { width, height, text: new XMLSerializer().serializeToString(copy) };
}

async function pngFile({ width, height, text }) {
  const picture = new Image();
  picture.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(text);
  await picture.decode();
  const canvas = el("canvas", { width: SHARPER * width, height: SHARPER * height });
  const brush = canvas.getContext("2d");
  brush.drawImage(picture, 0, 0, canvas.width, canvas.height);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

// A file's name says the run, and what of it.
const fileName = (what, kind) => `${data.export.stem}-${what}.${kind}`;

function startSaving() {
  for (const host of document.querySelectorAll("[data-saves]")) {
    const button = (kind, work) => {
      const node = el("button", { type: "button", "data-kind": kind }, "Save " + kind.toUpperCase());
      node.addEventListener("click", async () => {
        const svg = byId(host.dataset.saves).querySelector("svg");
        if (svg) save(fileName(host.dataset.named, kind), ...await work(svgFile(svg)));
      });
      return node;
    };
    host.append(button("svg", ({ text }) => ["image/svg+xml", text + "\n"]),
      button("png", async (file) => ["image/png", await pngFile(file)]));
  }
  byId("save-csv").addEventListener("click", () => save(tableName("csv"), "text/csv",
    csvText({ ...front, trials: savedTrials() }, data.fields, data.names, metric)));
  byId("save-json").addEventListener("click", () => save(tableName("json"), "application/json",
    JSON.stringify({ ...front, trials: savedTrials() }, null, 1) + "\n"));
}

// What is saved is what the table shows: all trials as they stand in front.json, or those that fit the filter.
function savedTrials() {
  const shown = new Set(shownTrials().map((trial) => trials.indexOf(trial)));
  return front.trials.filter((_, k) => shown.has(k));
}

function tableName(kind) {
  const few = savedTrials().length;
  return fileName(few === trials.length ? "front" : `front-${few}-of-${trials.length}`, kind);
}
