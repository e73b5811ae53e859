"""What is special to OpenVINO: every kind of model, as torch answers; convolutions in integers; text from a
language model, also with `openvino` alone; what it reports."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.compress.library import Library
from autoprune.compress.statistics import calibrate
from autoprune.compress.stitch import Stitched, stitch
from autoprune.core.errors import AutopruneError
from autoprune.models.outputs import outputs_of
from autoprune.models.spec import Architecture
from autoprune.models.unit import Unit
from autoprune.models.units import find_units, search_space
from autoprune.space.levels import UNTOUCHED, Candidate, Level
from autoprune.space.space_file import SpaceFile
from autoprune.targets import get_target, size_on_disk
from autoprune.targets.openvino.target import DECODING_GROUP_SIZE
from autoprune.targets.target import is_fast
from autoprune.tasks.kinds import (
    CAUSAL_LM,
    IMAGE_CLASSIFICATION,
    SENTENCE_EMBEDDING,
    TOKEN_CLASSIFICATION,
    TaskKind,
)
from autoprune.tasks.task import Arrays, Batch, Encoded, Task
from tests.support.bare_runtime import Case, run_alone
from tests.support.stored import integers_of
from tests.support.tiny import Tiny

EXACT = 1e-4
"""Of the answers' spread, where nothing is rounded at run time."""
SIZE_TOLERANCE = 0.005
SIDE, VOCABULARY = 16, 4000

OPENVINO = get_target("openvino")


# ---- small random models of each kind -----------------------------------------------------------


class Block(nn.Module):
    """Wider, by channel, and narrow again (MobileNetV2: Sandler et al., arXiv 1801.04381)."""

    def __init__(self) -> None:
        super().__init__()
        self.widen, self.narrow = nn.Conv2d(32, 128, 1), nn.Conv2d(128, 32, 1)
        self.each = nn.Conv2d(128, 128, 3, padding=1, groups=128)

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.relu6(self.each(nn.functional.relu6(self.widen(x))))
        out: Tensor = x + self.narrow(y)
        return out


class Tail(nn.Module):
    """A whole convolution, and what reads the mean of its picture."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.head = nn.Conv2d(32, 256, 3, padding=1), nn.Linear(256, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(nn.functional.relu(self.last(x)).mean((2, 3)))
        return out


class Convolutions(nn.Module):
    """A stem, two blocks, and a tail."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.blocks = nn.Conv2d(3, 32, 3, stride=2, padding=1), nn.Sequential(Block(), Block())
        self.tail = Tail()

    def forward(self, pixel_values: Tensor) -> Tensor:
        out: Tensor = self.tail(self.blocks(nn.functional.relu6(self.stem(pixel_values))))
        return out


TOKENS, EMBEDDING, IMAGES = "tokens", "embedding", "images"
QUANTIZE = {"bits": [2, 3, 4, 6, 8, 16], "activations": 8}
PLAIN = {"bits": [2, 3, 4, 6, 8, 16]}
HEADS, NEURONS = {"by": "head", "ratios": [0.5, 1.0]}, {"by": "neuron", "ratios": [0.5, 1.0]}


def encoder_space(prefix: str) -> dict[str, Any]:
    """Of a BERT whose words are removed, too."""
    return {
        "words": {
            "at": f"{prefix}embeddings.word_embeddings", "quantize": PLAIN,
            "prune": {"by": "token", "ratios": [0.5]},
        },
        "attention": {
            "at": f"{prefix}encoder.layer.*.attention", "rows": ["self.query", "self.key", "self.value"],
            "cols": ["output.dense"], "prune": HEADS, "quantize": QUANTIZE,
        },
        "feed_forward": {
            "at": f"{prefix}encoder.layer.*", "rows": ["intermediate.dense"], "cols": ["output.dense"],
            "prune": NEURONS, "quantize": QUANTIZE,
        },
    }  # fmt: skip


SPACES: dict[str, dict[str, Any]] = {
    TOKENS: encoder_space("bert."),
    EMBEDDING: encoder_space(""),
    IMAGES: {
        "stem": {"at": "stem", "quantize": QUANTIZE},
        "block": {
            "at": "blocks.*", "rows": ["widen", "each"], "cols": ["narrow"], "quantize": QUANTIZE,
            "prune": {"by": "channel", "ratios": [0.5]},
        },
        "last": {
            "at": "tail", "rows": ["last"], "cols": ["head"], "quantize": QUANTIZE,
            "prune": {"by": "channel", "ratios": [0.5]},
        },
    },
    "llama": {
        "words": {"at": "model.embed_tokens", "tied": "lm_head", "quantize": PLAIN},
        "attention": {
            "at": "model.layers.*.self_attn", "rows": ["q_proj", "k_proj", "v_proj"], "cols": ["o_proj"],
            "prune": HEADS, "quantize": QUANTIZE,
        },
        "feed_forward": {
            "at": "model.layers.*.mlp", "rows": ["gate_proj", "up_proj"], "cols": ["down_proj"],
            "prune": NEURONS, "quantize": QUANTIZE,
        },
    },
    "gpt2": {
        "words": {"at": "transformer.wte", "tied": "lm_head", "quantize": PLAIN},
        "attention": {
            "at": "transformer.h.*.attn", "rows": ["c_attn.query", "c_attn.key", "c_attn.value"],
            "cols": ["c_proj"], "prune": HEADS, "quantize": QUANTIZE,
        },
        "feed_forward": {
            "at": "transformer.h.*.mlp", "rows": ["c_fc"], "cols": ["c_proj"], "prune": NEURONS,
            "quantize": QUANTIZE,
        },
    },
}  # fmt: skip

MARKS = {"initializer_range": 0.1, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
BERT = transformers.BertConfig(
    vocab_size=VOCABULARY, hidden_size=128, num_hidden_layers=2, num_attention_heads=4, intermediate_size=256,
    max_position_embeddings=32, num_labels=3, initializer_range=0.1,
)  # fmt: skip
LLAMA = transformers.LlamaConfig(
    vocab_size=VOCABULARY, hidden_size=128, num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=4,
    intermediate_size=256, max_position_embeddings=64, tie_word_embeddings=True, **MARKS,
)  # fmt: skip
GPT2 = transformers.GPT2Config(
    vocab_size=VOCABULARY, n_embd=128, n_layer=2, n_head=4, n_positions=64, **MARKS
)  # fmt: skip
ARCHITECTURES = {
    TOKENS: Architecture(TOKEN_CLASSIFICATION, BERT.to_dict()),
    EMBEDDING: Architecture(SENTENCE_EMBEDDING, BERT.to_dict()),
    IMAGES: Architecture(IMAGE_CLASSIFICATION, builder=f"{__name__}:Convolutions", image=(3, SIDE, SIDE)),
    "llama": Architecture(CAUSAL_LM, LLAMA.to_dict()),
    "gpt2": Architecture(CAUSAL_LM, GPT2.to_dict()),
}


def random_task(kind: TaskKind) -> Task:
    """Three equal splits of eight rows."""
    rng = np.random.default_rng(0)
    if kind == IMAGE_CLASSIFICATION:
        pixels = rng.standard_normal((8, 3, SIDE, SIDE)).astype(np.float32)
        data: Any = Arrays({"pixel_values": pixels}, np.arange(8) % 3)
        return Task(data, data, data, ("a", "b", "c"), ("pixel_values",), 0, kind=kind)
    lengths = np.full(8, 12) if kind == CAUSAL_LM else rng.integers(3, 18, 8)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = rng.integers(3, VOCABULARY, starts[-1]).astype(np.int32)
    labels = rng.integers(0, 3, len(ids)) if kind == TOKEN_CLASSIFICATION else np.zeros(8, np.int64)
    data = Encoded(ids, np.zeros(len(ids), np.uint8), starts, labels)
    names = ("input_ids",) if kind == CAUSAL_LM else ("input_ids", "token_type_ids", "attention_mask")
    return Task(data, data, data, ("a", "b", "c"), names, 0, kind=kind)


@dataclass(frozen=True)
class Made:
    """A random model of a kind, and what its candidates are made of."""

    model: nn.Module
    architecture: Architecture
    units: tuple[Unit, ...]
    task: Task
    library: Library

    @property
    def batch(self) -> Batch:
        """Three rows."""
        return self.task.batch(self.task.validation, [0, 1, 2])

    def candidate(self, **levels: Level | tuple[Level, ...]) -> Candidate:
        """Units of each kind that is named at its level, or at its levels in turn; others untouched."""
        items = []
        for kind in dict.fromkeys(unit.kind for unit in self.units):
            wanted = levels.get(kind, UNTOUCHED)
            for k, unit in enumerate(unit for unit in self.units if unit.kind == kind):
                items.append((unit.name, wanted[k] if isinstance(wanted, tuple) else wanted))
        order = {unit.name: k for k, unit in enumerate(self.units)}
        return Candidate(tuple(sorted(items, key=lambda one: order[one[0]])))

    def uniform(self, level: Level) -> Candidate:
        """Every unit at a level, or what is nearest."""
        return search_space(self.units, lambda unit, level: True).uniform(level)

    def stitched(self, candidate: Candidate) -> Stitched:
        return stitch(self.model, self.units, candidate, self.library, self.architecture)

    def saved(self, candidate: Candidate, folder: Path) -> Stitched:
        stitched = self.stitched(candidate)
        folder.mkdir(exist_ok=True)
        OPENVINO.save(stitched, folder, self.task.batch(self.task.validation, [0, 1]))
        return stitched

    def predicted(self, levels: Candidate, original: int) -> int:
        """The original's bytes and what each unit's level changes."""
        return original + sum(
            OPENVINO.size_bytes(unit, levels[unit.name]) - OPENVINO.size_bytes(unit, UNTOUCHED)
            for unit in self.units
        )

    def answers(self, stitched: Stitched) -> NDArray[np.float32]:
        """What torch answers to the batch."""
        inputs = {name: torch.from_numpy(tensor) for name, tensor in self.batch.items()}
        with torch.no_grad():
            return outputs_of(stitched.model, inputs, self.architecture.kind).numpy()


Making = Callable[[str], Made]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Making:
    """Models by name, each made once."""
    known: dict[str, Made] = {}

    def make(name: str) -> Made:
        if name in known:
            return known[name]
        torch.manual_seed(0)
        architecture = ARCHITECTURES[name]
        model = architecture.empty()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter.add_(torch.randn_like(parameter) * 0.1)
        file = SpaceFile.model_validate({"version": 1, "units": SPACES[name]})
        units, task = find_units(model, file, source=name), random_task(architecture.kind)
        weights = [weight for unit in units for weight in unit.weights]
        tied = {weight.path: weight.tied for weight in weights if weight.tied}
        paths = [weight.path for weight in weights]
        statistics = calibrate(model, paths, task, task.train, rows=8, seed=0, tied=tied)
        library = Library(tmp_path_factory.mktemp("library"), model, statistics, key=name)
        known[name] = Made(model, architecture, units, task, library)
        return known[name]

    return make


# ---- every kind ---------------------------------------------------------------------------------

GONE, HALF = Level.of(1.0, 4), Level.of(0.5, 3)
INTEGERS: Mapping[str, Mapping[str, Level | tuple[Level, ...]]] = {
    TOKENS: {"words": Level.of(0.5, 6), "attention": (GONE, HALF), "feed_forward": (HALF, Level.of(1.0, 8))},
    EMBEDDING: {"words": Level.of(0.5, 3), "attention": (HALF, GONE), "feed_forward": Level.of(0.0, 16)},
    IMAGES: {
        "stem": Level.of(0.0, 6),
        "block": (Level.of(0.5, 3), Level.of(0.5, 4)),
        "last": Level.of(0.5, 16),
    },
    "llama": {
        "words": Level.of(0.0, 6),
        "attention": (GONE, HALF),
        "feed_forward": (HALF, Level.of(1.0, 16)),
    },
    "gpt2": {
        "words": Level.of(0.0, 3),
        "attention": (HALF, GONE),
        "feed_forward": (Level(1.0), Level.of(0.5, 6)),
    },
}
"""Of each kind a candidate with weights of many widths, and layers without heads or neurons; none of whose
kernels rounds what it reads."""


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_each_kind_answers_as_torch_does_and_weighs_what_was_predicted(
    made: Making, name: str, tmp_path: Path
) -> None:
    one = made(name)
    plain, candidate = one.candidate(), one.candidate(**INTEGERS[name])
    original = 0
    for which in (plain, candidate):
        folder = tmp_path / str(which is plain)
        stitched = one.saved(which, folder)
        wanted, got = one.answers(stitched), OPENVINO.load(folder)(one.batch)
        assert got.shape == wanted.shape
        assert np.abs(got - wanted).max() <= EXACT * wanted.std()
        size = size_on_disk(OPENVINO, folder)
        original = original or size
        # The text that goes with a layer's last head differs from model to model by this.
        is_emptied = any(level.ratio == 1.0 for _, level in which.items)
        text = 25_000 if is_emptied else 0
        assert one.predicted(which, original) == pytest.approx(size, rel=SIZE_TOLERANCE, abs=text)


@pytest.mark.parametrize("level", [Level.of(0.0, "w8a8"), Level.of(0.5, 4)], ids=str)
@pytest.mark.parametrize("name", [EMBEDDING, IMAGES, "llama"])
def test_bytes_are_predicted_at_one_level_of_all(
    made: Making, name: str, level: Level, tmp_path: Path
) -> None:
    one = made(name)
    one.saved(one.candidate(), tmp_path / "original")
    stitched = one.saved(one.uniform(level), tmp_path / "model")
    predicted = one.predicted(stitched.levels, size_on_disk(OPENVINO, tmp_path / "original"))
    assert predicted == pytest.approx(size_on_disk(OPENVINO, tmp_path / "model"), rel=SIZE_TOLERANCE)


@pytest.mark.parametrize("level", [UNTOUCHED, Level.of(0.0, 16), Level.of(0.0, 4)], ids=str)
def test_a_weight_that_two_layers_share_is_stored_once(made: Making, level: Level, tmp_path: Path) -> None:
    one = made("llama")
    one.saved(one.candidate(words=level), tmp_path)
    words = one.units[0]
    others = sum(p.numel() for p in one.model.parameters()) - VOCABULARY * LLAMA.hidden_size
    wanted = 4 * others + words.size_bytes(level)
    assert (tmp_path / "model.bin").stat().st_size == pytest.approx(wanted, rel=0.002)


# ---- convolutions -------------------------------------------------------------------------------


def precisions(folder: Path) -> dict[str, set[str]]:
    """What each kind of operation computes with, in the compiled graph."""
    import openvino

    config = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(folder / "model.xml", "CPU", config)
    found: dict[str, set[str]] = {}
    for node in compiled.get_runtime_model().get_ops():
        about = node.get_rt_info()
        kind, precision = (about[key].astype(str) for key in ("layerType", "runtimePrecision"))
        found.setdefault(kind, set()).add(precision)
    return found


def test_convolutions_multiply_integers_and_answer_as_torch_does(made: Making, tmp_path: Path) -> None:
    one = made(IMAGES)
    stitched = one.saved(one.uniform(Level.of(0.5, "w8a8")), tmp_path)
    assert len(stitched.activations) == 9
    assert precisions(tmp_path)["Convolution"] <= {"u8", "i8"}
    wanted, got = one.answers(stitched), OPENVINO.load(tmp_path)(one.batch)
    assert np.abs(got - wanted).max() <= OPENVINO.tolerance * wanted.std()


def test_a_convolution_is_fast_in_integers_alone(made: Making, tmp_path: Path) -> None:
    one = made(IMAGES)
    block = next(unit for unit in one.units if unit.kind == "block")
    one.saved(one.uniform(Level.of(0.0, 8)), tmp_path)
    assert precisions(tmp_path)["Convolution"] == {"f32"}
    linear = next(unit for unit in made(TOKENS).units if unit.kind == "feed_forward")
    fast = [
        [level.storage.written for level in unit.levels(0.0) if is_fast(OPENVINO, unit, level)]
        for unit in (block, linear)
    ]
    assert fast == [["w8a8"], [8, "w8a8", 4, 2]]


# ---- text ---------------------------------------------------------------------------------------

NEW = 8


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_it_writes_what_torch_writes(made: Making, name: str, tmp_path: Path) -> None:
    one = made(name)
    stitched = one.saved(one.candidate(**INTEGERS[name]), tmp_path)
    run: Any = OPENVINO.load(tmp_path)
    ids = one.batch["input_ids"][:, :4]
    model: Any = stitched.model
    wanted = model.generate(
        torch.from_numpy(ids), max_new_tokens=NEW, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    assert run.generate(ids, max_new_tokens=NEW).tolist() == wanted.tolist()
    step = run({"input_ids": ids[:1, :1], "past_tokens": np.array(6)})
    assert step.shape == (1, 1, VOCABULARY)


ALONE = """
import json, sys
import numpy as np, openvino

model = openvino.Core().compile_model(sys.argv[1] + "/model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
ids = np.array([json.loads(sys.argv[2])])
past = {}
for port in model.inputs[1:]:
    heads, size = (port.partial_shape[k].get_length() for k in (1, 3))
    past[port.any_name] = np.zeros((1, heads, 0, size), np.float32)
new = ids
for _ in range(int(sys.argv[3])):
    out = model({"input_ids": new, **past})
    past = {name: out[name.replace("past.", "present.")] for name in past}
    new = out["logits"][:, -1:].argmax(-1)
    ids = np.concatenate([ids, new], 1)
assert not {"torch", "autoprune", "transformers"} & set(sys.modules)
print(json.dumps(ids[0].tolist()))
"""


def test_openvino_alone_writes_the_same(made: Making, tmp_path: Path) -> None:
    one = made("llama")
    one.saved(one.candidate(**INTEGERS["llama"]), tmp_path)
    run: Any = OPENVINO.load(tmp_path)
    ids = one.batch["input_ids"][:1, :4]
    command = [sys.executable, "-c", ALONE, str(tmp_path), json.dumps(ids[0].tolist()), str(NEW)]
    out = subprocess.run(command, check=True, timeout=60, capture_output=True, text=True).stdout
    assert json.loads(out.splitlines()[-1]) == run.generate(ids, max_new_tokens=NEW)[0].tolist()


# ---- with no settings ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_each_kind_runs_at_two_bits_with_no_settings(made: Making, name: str, tmp_path: Path) -> None:
    """Also under bfloat16, which is OpenVINO's default on some processors."""
    import openvino

    one, folder, batch = made(name), str(tmp_path), str(tmp_path / "batch.npz")
    one.saved(one.uniform(Level.of(0.5, 2)), tmp_path)
    ports = {
        port.get_any_name(): port.get_partial_shape()
        for port in openvino.Core().read_model(tmp_path / "model.xml").inputs
    }
    past = {
        key: np.zeros((len(one.batch["input_ids"]), shape[1].get_length(), 0, shape[3].get_length()), "f4")
        for key, shape in ports.items()
        if key.startswith("past.")
    }
    np.savez(batch, **one.batch, **past)
    settings: list[dict[str, str | int]] = [{}, {"INFERENCE_NUM_THREADS": 1}]
    found = run_alone(
        [Case("openvino", folder, [batch], f"{batch}-{k}.npz", x) for k, x in enumerate(settings)]
    )
    wanted = OPENVINO.load(tmp_path)(one.batch)
    for got in found:
        assert not isinstance(got, str), got
        assert np.abs(got[0] - wanted).max() <= 2 * OPENVINO.tolerance * wanted.std()


@pytest.mark.parametrize("name", ["llama", TOKENS])
def test_a_language_model_rounds_by_the_groups_that_its_file_notes(
    made: Making, name: str, tmp_path: Path
) -> None:
    import openvino

    made(name).saved(made(name).candidate(), tmp_path)
    compiled = openvino.Core().compile_model(tmp_path / "model.xml", "CPU")
    size = compiled.get_property("DYNAMIC_QUANTIZATION_GROUP_SIZE")
    assert size == (DECODING_GROUP_SIZE if name == "llama" else 2 * DECODING_GROUP_SIZE)


# ---- what it reports, what it refuses -----------------------------------------------------------


BOUND = """
import os, sys, threading, time
from pathlib import Path
import numpy as np
from autoprune.targets import get_target

run, mine, seen = get_target("openvino").load(Path(sys.argv[1])), os.sched_getaffinity(0), set()
batch = {name: np.ones((64, 16), np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")}
asked = threading.Thread(target=lambda: [run(batch) for _ in range(200)])
asked.start()
while asked.is_alive():
    for thread in os.listdir("/proc/self/task"):
        try:
            seen.add(frozenset(os.sched_getaffinity(int(thread))))
        except ProcessLookupError:
            pass
    time.sleep(0.001)
print(len(mine), "processors", seen == {frozenset(mine)})
"""


def test_no_thread_is_bound_to_a_processor(tiny_bert: Tiny, tmp_path: Path) -> None:
    """Else two workers share one processor while another idles: each process binds to the same."""
    example = tiny_bert.task.batch(tiny_bert.task.test, [0])
    OPENVINO.save(tiny_bert.stitched(UNTOUCHED), tmp_path, example)
    done = subprocess.run(
        [sys.executable, "-c", BOUND, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("processors True\n")


def test_it_reports_nothing_over_the_network() -> None:
    code = (
        "import sys; from autoprune.targets import get_target; get_target('openvino'); import openvino;"
        "assert not [name for name in sys.modules if name.startswith('openvino_telemetry.')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_weight_that_its_graph_lacks_is_refused(tiny_bert: Tiny, tmp_path: Path) -> None:
    stitched = tiny_bert.stitched(Level.of(0.0, 4))
    lost = {"bert.nowhere": next(iter(integers_of(stitched).values()))}
    broken = replace(stitched, stored=lost)
    with pytest.raises(AutopruneError, match=r"no weight of bert\.nowhere"):
        OPENVINO.save(broken, tmp_path, tiny_bert.task.batch(tiny_bert.task.test, [0]))


def test_pictures_of_another_size_are_refused(made: Making, tmp_path: Path) -> None:
    one = made(IMAGES)
    one.saved(one.candidate(), tmp_path)
    run = OPENVINO.load(tmp_path)
    with pytest.raises(AutopruneError, match=r"takes pixel_values \[\?,3,16,16\]; given .* \[1, 3, 8, 8\]"):
        run({"pixel_values": np.zeros((1, 3, 8, 8), np.float32)})
