// Loads the model and its tokenizer once, then answers what is typed. Nothing is sent anywhere.
import * as ort from "./vendor/ort.wasm.min.mjs";
import { Tokenizer } from "./vendor/tokenizers.min.mjs";

const MOST_TOKENS = 128;
ort.env.wasm.numThreads = 1; // more need cross-origin isolation
ort.env.wasm.wasmPaths = new URL("./vendor/", import.meta.url).href;

const at = (id) => document.getElementById(id);
const json = async (name) => (await fetch(name)).json();

async function load() {
  const [tokenizer, settings, config, bytes] = await Promise.all([
    json("tokenizer.json"), json("tokenizer_config.json"), json("config.json"),
    fetch("model.onnx").then((response) => response.arrayBuffer()),
  ]);
  const session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
  return { tokenizer: new Tokenizer(tokenizer, settings), session, labels: config.id2label, bytes: bytes.byteLength };
}

/** The ids of a text, its last one kept where it is cut. */
function idsOf(tokenizer, text) {
  const ids = tokenizer.encode(text).ids;
  return ids.length <= MOST_TOKENS ? ids : [...ids.slice(0, MOST_TOKENS - 1), ids[ids.length - 1]];
}

function inputsOf(session, ids) {
  const values = { input_ids: ids, attention_mask: ids.map(() => 1), token_type_ids: ids.map(() => 0) };
  const tensor = (numbers) => new ort.Tensor("int64", BigInt64Array.from(numbers, BigInt), [1, numbers.length]);
  return Object.fromEntries(session.inputNames.map((name) => [name, tensor(values[name])]));
}

/** Probabilities of logits. */
function softmax(logits) {
  const largest = Math.max(...logits);
  const parts = logits.map((value) => Math.exp(value - largest));
  const sum = parts.reduce((a, b) => a + b);
  return parts.map((value) => value / sum);
}

const loading = load();

/** What the model says of a text: { ids, logits, milliseconds }. */
window.answer = async (text) => {
  const { tokenizer, session } = await loading;
  const ids = idsOf(tokenizer, text);
  const start = performance.now();
  const outputs = await session.run(inputsOf(session, ids));
  const milliseconds = performance.now() - start;
  return { ids, logits: Array.from(outputs[session.outputNames[0]].data), milliseconds };
};

async function show() {
  const { labels, bytes } = await loading;
  const text = at("text").value;
  const { ids, logits, milliseconds } = await window.answer(text);
  const shares = softmax(logits);
  const best = shares.indexOf(Math.max(...shares));
  at("answer").value = `${labels[best]} (${(100 * shares[best]).toFixed(0)} %)`;
  at("share").value = shares[Object.values(labels).indexOf("fresh")];
  at("facts").textContent =
    `${(bytes / 1e6).toFixed(2)} MB, ${ids.length} tokens, ${milliseconds.toFixed(1)} ms in this browser`;
  at("answer").dataset.text = text;
}

let turn = Promise.resolve(); // one text at a time
at("text").addEventListener("input", () => { turn = turn.then(show); });
loading.then(show).catch((error) => { at("answer").value = `The model could not be loaded: ${error.message}`; });
