"""What is kept on disk is served to the input that it was made of and to no other.

Each test prepares a search, changes one thing, and prepares again over the same cache: all that comes out is
what comes out over an empty cache, and other than before. What is unchanged is served from the cache.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
import torch
import transformers
from numpy.typing import NDArray
from safetensors.torch import save_file

from autoprune.core.progress import Progress
from autoprune.evaluation.worker import make_worker
from autoprune.export.export_record import DataRecord, ExportRecord
from autoprune.export.original import original_folder
from autoprune.export.recorded_rows import _parts
from autoprune.pipeline import measured_costs
from autoprune.pipeline.inputs import read_inputs
from autoprune.pipeline.prepare import prepare
from autoprune.run.config import Config
from autoprune.space.levels import Candidate, Level
from autoprune.space.shipped import spaces_folder
from autoprune.targets import get_target
from autoprune.tasks.custom import own_task
from autoprune.tasks.kinds import IMAGE_CLASSIFICATION
from autoprune.tasks.metrics import METRICS
from autoprune.workers.pool import SerialPool
from tests.support.families import FAMILIES, ResNet
from tests.support.made_run import write_rows
from tests.support.tiny import random_model

SPACE = """
version: 1
units:
  attention:
    at: bert.encoder.layer.*.attention
    rows: [self.query, self.key, self.value]
    cols: [output.dense]
    prune: {by: head, ratios: [0.0, 0.5]}
    quantize: {bits: [4], group_size: 64}
  feed_forward:
    at: bert.encoder.layer.*
    rows: [intermediate.dense]
    cols: [output.dense]
    prune: {by: neuron, ratios: [0.0, 0.5]}
    quantize: {bits: [4], group_size: 64}
finetune: {steps: 60, batch_size: 32, learning_rate: 3.0e-5}
"""
"""Of few levels. The text parts a vocabulary in two, and then weights alone would tell: here is none."""

Arrays = dict[str, NDArray[Any]]
Use = Callable[[str], Path]

WORDS = 300


@pytest.fixture
def use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Use:
    """Caches by name."""

    def used(name: str) -> Path:
        monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path / name))
        return tmp_path / name

    return used


def values(config: Config) -> Arrays:
    """All that is made once for a search and kept, by name."""
    inputs = read_inputs(config)
    prepared = prepare(config, inputs, Progress(quiet=True))
    setting = prepared.setting
    workbench = make_worker({"setting": setting}).workbench
    unit = [unit for unit in setting.units if unit.prunable][-1]
    ratio = unit.ratios[-1]
    with SerialPool(make_worker, {"setting": setting}) as pool:
        damage = measured_costs._sensitivity(prepared, pool, Progress(quiet=True)).damage()
    out: Arrays = {f"teacher {name}": x for name, x in setting.state.items()}
    out |= {f"statistics {u} {k}": x for u, layer in setting.statistics.items() for k, x in layer.items()}
    out |= {
        f"variant {path}": (
            variant.weight if variant.stored is None else variant.stored.tensors()["codes"]
        ).numpy()
        for path, variant in workbench.library.variants(unit, Level(ratio, unit.choices.storages[-1])).items()
    }
    return out | {
        "train answers": setting.train_answers.values,
        "validation answers": setting.validation_answers.values,
        "damage": np.array(
            [harm[1] for unit in sorted(damage) for harm in sorted(damage[unit].items(), key=str)]
        ),
        "original": workbench.original()(workbench.example),
        "bytes": np.array(inputs.original_bytes),
    }


NAMES_BYTES = 99
"""That the names of a graph are longer by where their numbers have a digit more."""


def kept(cache: Path) -> dict[str, int]:
    """Files of a cache with the time they were written; a library's are touched when they are read."""
    files = (path for path in cache.rglob("*") if path.is_file())
    return {
        str(f.relative_to(cache)): 0 if f.parent.name == "library" else f.stat().st_mtime_ns for f in files
    }


def differ(one: Arrays, other: Arrays) -> set[str]:
    """The first words of names of what is not the same in both."""
    names = one.keys() | other.keys()
    return {
        name.split()[0]
        for name in names
        if name not in one or name not in other or not _is_same(name, one[name], other[name])
    }


def _is_same(name: str, one: Any, other: Any) -> bool:
    """Whether values are equal; bytes but for names of a graph, which OpenVINO numbers on in a process."""
    return bool(abs(one - other) <= NAMES_BYTES) if name == "bytes" else np.array_equal(one, other)


def check(use: Use, first: Config, change: Callable[[], Config], changed: set[str]) -> None:
    """A change is seen in what depends on it, and what is unchanged is kept."""
    cache = use("cache")
    before = values(first)
    files = kept(cache)
    assert not differ(before, values(first))
    assert kept(cache) == files
    second = change()
    after = values(second)
    use("empty")
    assert not differ(after, values(second))
    assert changed <= differ(before, after)


# ---- pictures -----------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of two classes of small pictures."""
    import PIL.Image

    rng = np.random.default_rng(0)
    for name, level in (("dark", 60), ("light", 160)):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for k in range(30):
            pixels = rng.integers(0, 90, (24, 24, 3), np.uint8) + np.uint8(level)
            PIL.Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{k}.png")
    return tmp_path / "pictures"


@pytest.fixture
def few(tmp_path: Path) -> Callable[[str], str]:
    """Writes a shipped space with few levels."""

    def write(name: str) -> str:
        text = (spaces_folder() / f"{name}.yaml").read_text(encoding="utf-8")
        text = re.sub(r"ratios: \[[^]]*\]", "ratios: [0.0, 0.5]", text)
        text = re.sub(r"bits: \[[^]]*\], activations: 8", "bits: [4]", text)
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
        return str(tmp_path / f"{name}.yaml")

    return write


@pytest.fixture
def resnet(tmp_path: Path) -> Path:
    """A model of pictures, with a trained head of two classes."""
    config: Any = transformers.AutoConfig.for_model("resnet", num_labels=2, **FAMILIES["resnet"].config)
    torch.manual_seed(0)
    model: Any = transformers.AutoModelForImageClassification.from_config(config)
    model.config.image_size = 32
    model.save_pretrained(tmp_path / "resnet")
    return tmp_path / "resnet"


FED = {"statistics", "variant", "train", "validation", "damage", "original"}
"""What is other where the inputs are."""


def test_pictures_of_another_size(use: Use, pictures: Path, resnet: Path, few: Callable[[str], str]) -> None:
    first = Config.of(
        model=str(resnet), dataset=str(pictures), image_size=32, calibration_rows=16, space=few("resnet")
    )
    check(use, first, lambda: first.with_settings(image_size=16), FED)


@pytest.mark.parametrize("setting", [{"image_mean": [0.5] * 3}, {"resample": 3}])
def test_pictures_that_are_read_otherwise(
    use: Use, pictures: Path, resnet: Path, few: Callable[[str], str], setting: dict[str, Any]
) -> None:
    first = Config.of(
        model=str(resnet),
        dataset=str(pictures),
        image_size=32,
        calibration_rows=16,
        space=few("resnet"),
        target="packed",
    )

    def change() -> Config:
        (resnet / "preprocessor_config.json").write_text(json.dumps(setting), encoding="utf-8")
        return first

    check(use, first, change, FED)


# ---- text ---------------------------------------------------------------------------------------


def write_tokenizer(folder: Path, words: list[str], *, lower: bool = True) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink(missing_ok=True)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (folder / "vocab.txt").write_text("\n".join([*special, *words]), encoding="utf-8")
    transformers.BertTokenizer.from_pretrained(folder, do_lower_case=lower).save_pretrained(folder)


def words_of() -> list[str]:
    return [f"w{k}" for k in range(WORDS - 5)]


def write_bert(folder: Path, *, has_head: bool) -> Config:
    """A random BERT and rows of random words; what a search of it is asked for."""
    folder.mkdir()
    model: Any = random_model("bert", hidden=32, layers=1, heads=2, ffn=256, vocab=WORDS)
    (model if has_head else model.bert).save_pretrained(folder)
    write_tokenizer(folder, words_of())
    rows = folder / "rows.csv"
    write_rows(rows, rows=120)
    text = rows.read_text(encoding="utf-8")
    rows.write_text("\n".join(text.splitlines()[:1] + [re_worded(line) for line in text.splitlines()[1:]]))
    (folder / "few.yaml").write_text(SPACE, encoding="utf-8")
    return Config.of(
        model=str(folder), dataset=str(rows), target="packed", max_length=16, sequence=16,
        calibration_rows=16, space=str(folder / "few.yaml"),
    )  # fmt: skip


def re_worded(line: str) -> str:
    """A line with numbers of words that the small vocabulary has; every second word is upper case."""
    text, label = line.split(",")
    numbers = [int(word[1:]) % (WORDS - 5) for word in text.split()]
    return " ".join(f"{'wW'[k % 2]}{n}" for k, n in enumerate(numbers)) + f",{label}"


@pytest.mark.parametrize(("has_head", "lower"), [(False, True), (True, False)], ids=["order", "case"])
def test_a_tokenizer_that_was_changed_in_place(use: Use, tmp_path: Path, has_head: bool, lower: bool) -> None:
    """Another order of its words, where a head is to be fitted; or case that counts, where there is one."""
    config = write_bert(tmp_path / "model", has_head=has_head)

    def change() -> Config:
        write_tokenizer(tmp_path / "model", words_of()[::-1] if lower else words_of(), lower=lower)
        return config

    check(use, config, change, FED if has_head else FED | {"teacher"})


def test_another_importance_has_statistics_and_variants_of_its_own(use: Use, tmp_path: Path) -> None:
    """Gradients by row are there for the units that name Taylor alone; of two the less harmful is kept."""
    use("cache")
    config = write_bert(tmp_path / "model", has_head=True)
    space = tmp_path / "model" / "few.yaml"
    plain = prepare(config, read_inputs(config), Progress(quiet=True)).setting
    kept, harms = {}, {}
    for names in ("[taylor]", "[random]", "[taylor, random]"):
        space.write_text(SPACE.replace("by: neuron,", f"by: neuron, importance: {names},"), encoding="utf-8")
        setting = prepare(config, read_inputs(config), Progress(quiet=True)).setting
        assert setting.key == plain.key
        [unit] = [unit for unit in setting.units if unit.kind == "feed_forward"]
        by_row = {path for path, seen in setting.statistics.items() if "contributions" in seen}
        assert by_row == ({weight.path for weight in unit.cols} if "taylor" in names else set())
        bench = make_worker({"setting": setting}).workbench
        ratio = max(ratio for ratio in unit.ratios if ratio < 1)
        kept[names] = bench.library.kept(unit, ratio)
        alone = ((u.name, Level(ratio) if u == unit else Level()) for u in setting.units)
        harms[names] = bench._divergence_on_training(bench.stitched(Candidate(tuple(alone))).model)
    best = min(("[taylor]", "[random]"), key=lambda names: harms[names])
    assert torch.equal(kept["[taylor, random]"], kept[best])
    assert harms["[taylor, random]"] == pytest.approx(harms[best], rel=1e-4)


def test_labels_that_were_changed(use: Use, tmp_path: Path) -> None:
    config = write_bert(tmp_path / "model", has_head=False)
    rows = tmp_path / "model" / "rows.csv"

    def change() -> Config:
        names = {"bad": "fair", "fair": "good", "good": "bad"}
        lines = [line.rsplit(",", 1) for line in rows.read_text(encoding="utf-8").splitlines()]
        rows.write_text("\n".join(f"{text},{names.get(label, label)}" for text, label in lines))
        return config

    check(use, config, change, {"teacher", "train", "validation"})


def test_a_config_that_was_changed_beside_the_same_weights(use: Use, tmp_path: Path) -> None:
    config = write_bert(tmp_path / "model", has_head=True)
    path = tmp_path / "model" / "config.json"

    def change() -> Config:
        about = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(about | {"hidden_act": "relu"}), encoding="utf-8")
        return config

    check(use, config, change, FED)


def test_the_rows_that_statistics_are_of_follow_from_the_steps(use: Use, tmp_path: Path) -> None:
    config = write_bert(tmp_path / "model", has_head=True).with_settings(finetune_steps=1)
    rng = np.random.default_rng(0)
    rows = tmp_path / "rows.jsonl"
    lines = (
        {
            "tokens": [f"w{k}" for k in rng.integers(0, WORDS - 5, 6)],
            "tags": rng.choice(["a", "b"], 6).tolist(),
        }
        for _ in range(400)
    )
    rows.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    first = config.with_settings(dataset=str(rows), task="token-classification", teacher_epochs=0.2)
    check(use, first, lambda: first.with_settings(finetune_steps=20), {"statistics", "train"})


def test_all_that_is_damaged_is_made_again(
    use: Use, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = write_bert(tmp_path / "model", has_head=False)
    cache = use("cache")
    before = values(config)
    files = kept(cache)
    for path in (cache / name for name in files):
        content = path.read_bytes()
        path.unlink()  # what is loaded is mapped, and lives on
        path.write_bytes(content[: len(content) // 2])
    assert not differ(before, values(config))
    assert kept(cache).keys() == files.keys()
    said = [record.getMessage() for record in caplog.records if "is damaged" in record.getMessage()]
    for kind in ("teachers", "statistics", "answers", "sensitivity", "sizes", "originals"):
        assert any(str(cache / kind) in text for text in said), kind


# ---- models that a function builds --------------------------------------------------------------

BUILDER = """
from tests.support.families import ResNet

class Net(ResNet):
    def forward(self, x):
        return {times} * super().forward(x)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], str]]:
    """Writes a module that builds a network whose answers are so many times a ResNet's."""
    monkeypatch.syspath_prepend(tmp_path)  # type: ignore[no-untyped-call]
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(times: int) -> str:
        (tmp_path / "cached_net.py").write_text(BUILDER.format(times=times), encoding="utf-8")
        sys.modules.pop("cached_net", None)
        return "cached_net:Net"

    yield write
    sys.modules.pop("cached_net", None)


def test_a_builder_whose_code_was_changed(
    use: Use, tmp_path: Path, pictures: Path, few: Callable[[str], str], module: Callable[[int], str]
) -> None:
    torch.manual_seed(0)
    save_file(ResNet().state_dict(), tmp_path / "net.safetensors")
    first = Config.of(
        model=module(1), weights=str(tmp_path / "net.safetensors"), dataset=str(pictures), image_size=32,
        calibration_rows=16, space=few("torchvision_resnet"),
    )  # fmt: skip

    def change() -> Config:
        module(3)
        return first

    check(use, first, change, FED - {"variant"})  # of gradients their relation counts


# ---- sizes, originals and rows ------------------------------------------------------------------


def test_bytes_of_a_model_whose_biases_are_zeros(use: Use, tmp_path: Path) -> None:
    """OpenVINO leaves out what adds zeros, so the same shapes take fewer bytes."""
    config = write_bert(tmp_path / "model", has_head=True).with_settings(target="openvino")
    use("cache")
    before = read_inputs(config).original_bytes
    model: Any = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
    model.save_pretrained(tmp_path / "model")
    after = read_inputs(config).original_bytes
    use("empty")
    assert after == pytest.approx(read_inputs(config).original_bytes, abs=NAMES_BYTES)
    assert after < before - 999


def test_the_stand_in_for_the_original_takes_the_inputs_that_it_is_given(use: Use, tmp_path: Path) -> None:
    use("cache")
    target, folder = get_target("openvino"), tmp_path / "model"
    write_bert(folder, has_head=True)
    ids = np.ones((2, 8), np.int64)
    two = {"input_ids": ids, "attention_mask": ids}
    for batch in (two, two | {"token_type_ids": ids * 0}, two):
        path, _ = original_folder(folder, target, batch)
        graph = openvino.Core().read_model(path / "model.xml")
        assert {port.any_name for port in graph.inputs} == set(batch)


def test_rows_of_an_export_follow_whatever_reads_its_inputs() -> None:
    hashes = {"model.bin": "0", "tokenizer.json": "1", "spiece.model": "2"}
    data = DataRecord(fingerprint="f", max_length=8, labels=())

    def parts(**changed: str) -> list[object]:
        others = {name.replace("_", "."): digest for name, digest in changed.items()}
        return _parts(ExportRecord(target="packed", data=data, sha256=hashes | others))

    assert parts(spiece_model="3") != parts()
    assert parts(tokenizer_json="3") != parts()
    assert parts(model_bin="3") == parts()  # exports of one run share their rows


# ---- a task's identity --------------------------------------------------------------------------

OWN = """
import numpy as np

def task():
    def split(n, shift=0):
        x = np.arange(n * 6, dtype=np.float32).reshape(n, {shape}) + shift
        return {{"inputs": {{"x": x}}, "labels": np.arange(n) % 2}}
    return {{"train": split(8), "validation": split(4, 1), "test": split(4, 2), "metric": lambda a, b: 0.0}}
"""


def test_every_part_of_a_task_is_in_its_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)  # type: ignore[no-untyped-call]
    digests = []
    for k, shape in enumerate(("2, 3", "3, 2", "6")):
        (tmp_path / f"own_{k}.py").write_text(OWN.format(shape=shape), encoding="utf-8")
        digests.append(own_task(f"own_{k}:task").digest())
    task = own_task("own_0:task")
    changed = [
        replace(task, train=task.validation),
        replace(task, train=task.train.pick(np.arange(8)[::-1])),
        replace(task, validation=replace(task.validation, labels=task.validation.labels[::-1].copy())),
        replace(task, test=replace(task.test, inputs={"x": task.test.inputs["x"].astype(np.float64)})),
        replace(task, test=replace(task.test, inputs={"y": task.test.inputs["x"]})),
        replace(task, inputs=("y",)),
        replace(task, pad_id=1),
        replace(task, kind=IMAGE_CLASSIFICATION),
    ]
    digests += [task.digest() for task in changed]
    assert len(set(digests)) == len(digests)
    assert task.digest() == digests[0] == replace(task, label_names=("a", "b"), metric=METRICS["f1"]).digest()


def test_a_cache_does_not_depend_on_where_a_model_lies(use: Use, tmp_path: Path) -> None:
    config = write_bert(tmp_path / "model", has_head=False)
    cache = use("cache")
    before = values(config)
    files = kept(cache)
    shutil.move(tmp_path / "model", tmp_path / "elsewhere")
    there = tmp_path / "elsewhere"
    moved = config.with_settings(
        model=str(there), dataset=str(there / "rows.csv"), space=str(there / "few.yaml")
    )  # fmt: skip
    assert not differ(before, values(moved))
    assert kept(cache) == files
