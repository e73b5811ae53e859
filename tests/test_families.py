"""Every family with a shipped search space: what holds of all models holds of a tiny random one of each.

Random weights show shapes, bytes and arithmetic, never accuracy. No norm is neutral and no bias zero, so that
answers depend on every weight.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from conftest import SPACES, Tiny
from scipy.stats import spearmanr
from torch import Tensor, nn

from autoprune.answers import Answers, divergence
from autoprune.architecture import AUTO_CLASSES, Architecture, aliases, outputs_of, state_of
from autoprune.calibrate import calibrate
from autoprune.errors import AutopruneError
from autoprune.finetune import Recipe, finetune
from autoprune.inputs import find_space
from autoprune.kinds import BY_PLACE, CAUSAL_LM, CLASSES, EMBEDDING, IMAGES, REGRESSION, TOKENS
from autoprune.library import Library
from autoprune.measure import logits_of, teacher_answers
from autoprune.sensitivity import measure_sensitivity
from autoprune.space import FLOAT_BITS, INTEGER, UNTOUCHED, Candidate, Level, read_space
from autoprune.stitch import FewerTokens, Stitched, replace_
from autoprune.targets import get_target, size_on_disk
from autoprune.targets.packed import Packed, read_packed, torch_runner
from autoprune.task import NO_LABEL, Arrays, Data, Encoded, Task
from autoprune.units import Unit, find_units, search_space

VOCABULARY, SIDE, CLASSES_OF_ALL, ROWS = 160, 32, 3, 16

TEXT = {"vocab_size": VOCABULARY, "max_position_embeddings": 40, "hidden_size": 32, "num_attention_heads": 4,
        "num_hidden_layers": 2, "intermediate_size": 256, "initializer_range": 0.18, "pad_token_id": 0}  # fmt: skip
GROUPED = TEXT | {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 8}
PICTURE = {"image_size": SIDE, "num_channels": 3, "initializer_range": 0.18}


# ---- models that are not from transformers ------------------------------------------------------


class Residual(nn.Module):
    """A basic block laid out as torchvision's."""

    def __init__(self, i: int, o: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(i, o, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(o)
        self.conv2 = nn.Conv2d(o, o, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(o)
        fits = i == o and stride == 1
        self.downsample = None if fits else nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        added: Tensor = out + (x if self.downsample is None else self.downsample(x))
        return added.relu()


class ResNet(nn.Module):
    """Two stages of basic blocks, named as torchvision names them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(Residual(16, 16, 1), Residual(16, 16, 1))
        self.layer2 = nn.Sequential(Residual(16, 32, 2))
        self.fc = nn.Linear(32, CLASSES_OF_ALL)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer2(self.layer1(self.bn1(self.conv1(x)).relu()))
        out: Tensor = self.fc(x.mean((2, 3)))
        return out


class SamePadded(nn.Conv2d):
    """A convolution that pads by a module of its own, one more on the right and below."""

    def __init__(self, i: int, o: int, taps: int, stride: int = 1, **others: Any) -> None:
        super().__init__(i, o, taps, stride, bias=False, **others)
        before, after = (taps - stride) // 2, taps - stride - (taps - stride) // 2
        self.static_padding = nn.ZeroPad2d((before, after, before, after)) if taps > 1 else nn.Identity()

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(self.static_padding(input))


class Inverted(nn.Module):
    """An inverted residual block laid out as in efficientnet_lite_pytorch; the first widens nothing."""

    def __init__(self, i: int, o: int, widening: int, stride: int) -> None:
        super().__init__()
        wide = i * widening
        if widening > 1:
            self._expand_conv, self._bn0 = SamePadded(i, wide, 1), nn.BatchNorm2d(wide)
        self._depthwise_conv = SamePadded(wide, wide, 3, stride, groups=wide)
        self._bn1 = nn.BatchNorm2d(wide)
        self._project_conv, self._bn2 = SamePadded(wide, o, 1), nn.BatchNorm2d(o)

    def forward(self, x: Tensor) -> Tensor:
        wide = nn.functional.relu6(self._bn0(self._expand_conv(x))) if hasattr(self, "_expand_conv") else x
        out: Tensor = self._bn2(self._project_conv(nn.functional.relu6(self._bn1(self._depthwise_conv(wide)))))
        return out + x if out.shape == x.shape else out


class EfficientNet(nn.Module):
    """Three blocks, named as efficientnet_lite_pytorch names them."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = SamePadded(3, 16, 3, 2), nn.BatchNorm2d(16)
        self._blocks = nn.ModuleList([Inverted(16, 8, 1, 1), Inverted(8, 16, 4, 2), Inverted(16, 16, 4, 1)])
        self._conv_head, self._bn1 = SamePadded(16, 64, 1), nn.BatchNorm2d(64)
        self._fc = nn.Linear(64, CLASSES_OF_ALL)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        out: Tensor = self._fc(nn.functional.relu6(self._bn1(self._conv_head(x))).mean((2, 3)))
        return out


# ---- the families -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Family:
    """What a tiny model of a family is made from: a config of transformers, or a function of this file."""

    space: str
    kind: str
    type: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    builder: Callable[[], nn.Module] | None = None

    @property
    def architecture(self) -> Architecture:
        image = (3, SIDE, SIDE) if self.kind == IMAGES else None
        if self.builder is not None:
            return Architecture(self.kind, {}, f"{__name__}:{self.builder.__name__}", image)
        return Architecture(self.kind, self.plain().config.to_dict(), None, image)

    @property
    def answers(self) -> int:
        """Outputs of a head."""
        return 1 if self.kind == REGRESSION else CLASSES_OF_ALL

    def plain(self) -> nn.Module:
        """A model as it comes, not in canonical form."""
        torch.manual_seed(0)
        if self.builder is not None:
            return self.builder().eval()
        config = transformers.AutoConfig.for_model(self.type, num_labels=self.answers, **self.config)
        model: nn.Module = getattr(transformers, AUTO_CLASSES[self.kind]).from_config(config).eval()
        return model


RESNET = {"embedding_size": 16, "depths": [2, 1], "num_channels": 3}
FAMILIES = {
    "bert": Family("bert", CLASSES, "bert", TEXT),
    "bert-tokens": Family("bert", TOKENS, "bert", TEXT),
    "bert-embedding": Family("bert", EMBEDDING, "bert", TEXT),
    "distilbert": Family("distilbert", CLASSES, "distilbert", {
        "vocab_size": VOCABULARY, "max_position_embeddings": 40, "dim": 32, "n_heads": 4, "n_layers": 2,
        "hidden_dim": 256, "initializer_range": 0.18}),
    "roberta-regression": Family("roberta", REGRESSION, "roberta", TEXT),
    "xlm-roberta": Family("roberta", TOKENS, "xlm-roberta", TEXT),
    "electra": Family("electra", CLASSES, "electra", TEXT | {"embedding_size": 16}),
    "mpnet-embedding": Family("mpnet", EMBEDDING, "mpnet", TEXT),
    "gpt2": Family("gpt2", CAUSAL_LM, "gpt2", {
        "vocab_size": VOCABULARY, "n_positions": 40, "n_embd": 32, "n_head": 4, "n_layer": 2, "n_inner": 256,
        "initializer_range": 0.18, "bos_token_id": 0, "eos_token_id": 0}),
    "llama": Family("llama", CAUSAL_LM, "llama", GROUPED | {"tie_word_embeddings": True}),
    "qwen3": Family("llama", CAUSAL_LM, "qwen3", GROUPED | {"tie_word_embeddings": False}),
    "vit": Family("vit", IMAGES, "vit", PICTURE | {
        "patch_size": 8, "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2,
        "intermediate_size": 256}),
    "resnet": Family("resnet", IMAGES, "resnet", RESNET | {"layer_type": "basic", "hidden_sizes": [32, 64]}),
    "resnet-bottleneck": Family("resnet", IMAGES, "resnet", RESNET | {
        "layer_type": "bottleneck", "hidden_sizes": [64, 128]}),
    "mobilenet_v2": Family("mobilenet_v2", IMAGES, "mobilenet_v2", PICTURE | {
        "depth_multiplier": 0.25, "expand_ratio": 4, "finegrained_output": True}),
    "efficientnet": Family("efficientnet", IMAGES, "efficientnet", PICTURE | {
        "width_coefficient": 0.25, "depth_coefficient": 1.0, "hidden_dim": 320, "kernel_sizes": [3, 3, 5],
        "in_channels": [32, 32, 64], "out_channels": [32, 64, 64], "depthwise_padding": [], "strides": [1, 2, 2],
        "num_block_repeats": [1, 1, 1], "expand_ratios": [1, 4, 4], "dropout_rate": 0.0}),
    "torchvision": Family("torchvision_resnet", IMAGES, builder=ResNet),
    "efficientnet-lite": Family("efficientnet_pytorch", IMAGES, builder=EfficientNet),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A tiny model of a family, and all that is made from it."""

    name: str
    family: Family
    architecture: Architecture
    tiny: Tiny


def shaken_(model: nn.Module, task: Task) -> None:
    """Make no bias zero, no norm neutral, and signals of like size in all layers, in place."""
    draws = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for one in model.parameters():
            if one.ndim == 1:
                one.add_(torch.randn(one.shape, generator=draws) * 0.1)
        for conv in (one for one in model.modules() if isinstance(one, nn.Conv2d)):
            conv.weight.normal_(0.0, (2 / conv.weight[0].numel()) ** 0.5, generator=draws)
    norms = [one for one in model.modules() if isinstance(one, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    if norms:
        with torch.no_grad():  # statistics of the rows themselves
            outputs_of(model, {"pixel_values": torch.from_numpy(task.train.inputs["pixel_values"])}, task.kind)
    model.eval()


def rows_of(kind: str, inputs: tuple[str, ...], rows: int = ROWS) -> Data:
    rng = np.random.default_rng(0)
    if kind == IMAGES:
        pixels = rng.standard_normal((rows, 3, SIDE, SIDE)).astype(np.float32)
        return Arrays({"pixel_values": pixels}, rng.integers(0, CLASSES_OF_ALL, rows))
    lengths = np.full(rows, 16) if kind == CAUSAL_LM else rng.integers(3, 18, rows)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    # Tokens are as unequally common as words are.
    ids = np.minimum(rng.zipf(1.3, starts[-1]), VOCABULARY - 1).astype(np.int32)
    if kind == TOKENS:
        labels: Any = rng.integers(0, CLASSES_OF_ALL, len(ids))
        labels[starts[:-1]] = NO_LABEL
    elif kind == REGRESSION:
        labels = rng.standard_normal(rows).astype(np.float32)
    else:
        labels = rng.integers(0, CLASSES_OF_ALL, rows)
    return Encoded(ids, np.zeros(len(ids), np.uint8), starts, labels)


def task_of(family: Family) -> Task:
    kind = family.kind
    inputs: tuple[str, ...] = ("input_ids", "attention_mask")
    inputs = ("pixel_values",) if kind == IMAGES else inputs[:1] if kind == CAUSAL_LM else inputs
    data = rows_of(kind, inputs)
    names = ("a", "b", "c") if kind in (CLASSES, TOKENS, IMAGES) else ()
    return Task(data, data, data, names, inputs, pad_id=0, kind=kind, metric="")


@functools.cache
def made(name: str) -> tuple[nn.Module, nn.Module]:
    """The model as it comes, and in canonical form."""
    family = FAMILIES[name]
    plain = family.plain()
    shaken_(plain, task_of(family))
    canonical = copy.deepcopy(plain)
    family.architecture.canonicalise_(canonical)
    return plain, canonical


@functools.cache
def statistics_of(name: str) -> dict[str, Any]:
    family, (_, model) = FAMILIES[name], made(name)
    units = units_of(name)
    tied = {w.path: w.tied for unit in units for w in unit.weights if w.tied}
    paths = [w.path for unit in units for w in unit.weights]
    task = task_of(family)
    return calibrate(model, paths, task, task.train, rows=ROWS, seed=0, tied=tied)


@functools.cache
def units_of(name: str) -> tuple[Unit, ...]:
    file = f"{FAMILIES[name].space}.yaml"
    return find_units(made(name)[1], read_space(SPACES / file), source=file)


@pytest.fixture(scope="session")
def library_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("families")


@pytest.fixture
def case(request: pytest.FixtureRequest, library_folder: Path) -> Case:
    """The family that a test is for."""
    return make_case(request.param, library_folder)


def make_case(name: str, folder: Path) -> Case:
    family, (_, model) = FAMILIES[name], made(name)
    units, task, statistics = units_of(name), task_of(family), statistics_of(name)
    library = Library(folder, model, statistics, key=name)
    space = search_space(units, lambda unit, level: True)
    return Case(name, family, family.architecture, Tiny(model, units, space, task, statistics, library, family.architecture))


def families(*names: str) -> pytest.MarkDecorator:
    """The named families, or all."""
    return pytest.mark.parametrize("case", names or list(FAMILIES), indirect=True)


def answers(case: Case, model: nn.Module, rows: int = 6) -> Tensor:
    """A model's answers to the first rows."""
    batch = case.tiny.task.batch(case.tiny.task.test, range(rows))
    with torch.no_grad():
        return outputs_of(model, {name: torch.from_numpy(x) for name, x in batch.items()}, case.family.kind)


def gap(one: Tensor, other: Tensor) -> float:
    """Largest difference, of the largest answer."""
    return float((one - other).abs().max() / other.abs().max())


SAME = 3e-6
"""Of the largest answer: sums of float32 taken in another order."""


# ---- what a model is brought into, and what is found in it --------------------------------------


@families()
def test_the_canonical_form_answers_as_the_model_did(case: Case) -> None:
    plain, canonical = made(case.name)
    assert float(answers(case, plain).float().std(0).mean()) > 0.01  # rows are answered differently
    assert gap(answers(case, canonical), answers(case, plain)) < 30 * SAME  # tens of norms were folded
    left = {type(one).__name__ for one in canonical.modules()}
    assert not left & {"BatchNorm2d", "Conv1D"}


@families()
def test_its_space_is_found_by_its_type_and_covers_its_large_weights(case: Case) -> None:
    file, name = find_space("auto", case.tiny.model)
    assert name == f"{case.family.space}.yaml"
    assert find_units(case.tiny.model, file, source=name) == case.tiny.units
    covered = [path for unit in case.tiny.units for w in unit.weights for path in (w.path, w.tied) if path]
    assert len(set(covered)) == len(covered)
    kinds = (nn.Linear, nn.Conv2d, nn.Embedding)
    left = {path for path, one in case.tiny.model.named_modules() if isinstance(one, kinds)} - set(covered)
    heads = {"classifier", "classifier.out_proj"}  # of few classes
    assert all(path in heads or path.rpartition(".")[2].startswith(("token_type", "relative")) for path in left)


def test_a_model_of_a_type_not_named_is_found_by_its_structure() -> None:
    class Lite(EfficientNet):
        """Of no type that a space names."""

    assert find_space("auto", Lite())[1] == "efficientnet_pytorch.yaml"


# ---- removal ------------------------------------------------------------------------------------


def lowered(case: Case, ratio: float) -> Candidate:
    """Every unit at the ratio nearest to this one, weights as floats."""
    return case.tiny.space.uniform(Level(ratio, FLOAT_BITS))


def masked(case: Case, stitched: Stitched) -> nn.Module:
    """The teacher in its own shape: what is removed is read by nobody, what is left reads as in the stitched."""
    full = copy.deepcopy(case.tiny.model)
    for unit in case.tiny.units:
        ratio = stitched.levels[unit.name].ratio
        kept = case.tiny.library.kept(unit, ratio)
        if unit.by_token and ratio:
            embedding: Any = stitched.model.get_submodule(unit.rows[0].path)
            replace_(full, unit.rows[0].path, embedding.weight[embedding.places], None)
        for one in unit.cols:
            new: Any = stitched.model.get_submodule(one.path)
            spread = torch.zeros(one.rows, one.columns)
            spread[:, unit.at(kept, one.columns)] = new.weight.detach().flatten(1)
            replace_(full, one.path, spread, new.bias)
    return full


@families()
@pytest.mark.parametrize("ratio", [0.5, 1.0])
def test_removing_equals_masking(case: Case, ratio: float) -> None:
    stitched = case.tiny.stitched_as(lowered(case, ratio))
    assert any(level.ratio for _, level in stitched.levels.items)
    assert sum(p.numel() for p in stitched.model.parameters()) < sum(p.numel() for p in case.tiny.model.parameters())
    assert gap(answers(case, stitched.model), answers(case, masked(case, stitched))) < SAME


@families()
def test_rows_of_a_unit_lose_the_same_pieces(case: Case) -> None:
    stitched = case.tiny.stitched_as(lowered(case, 0.5))
    for unit in case.tiny.units:
        kept = case.tiny.library.kept(unit, stitched.levels[unit.name].ratio)
        for one in unit.rows:
            old, new = (m.get_submodule(one.path).weight for m in (case.tiny.model, stitched.model))
            assert torch.equal(new, old[unit.at(kept, one.rows)] if unit.prunable else old)
            assert tuple(new.flatten(1).shape) == unit.shapes(stitched.levels[unit.name].ratio)[one.path]


@families("llama", "qwen3")
def test_heads_that_share_a_key_and_value_head_go_together(case: Case) -> None:
    unit = case.tiny.unit("attention")
    assert (unit.pieces, [w.rows // unit.pieces for w in unit.rows]) == (4, [16, 8, 8])
    model = case.tiny.stitched_as(lowered(case, 0.75)).model
    sizes = [model.get_submodule(w.path).out_features for w in unit.rows]
    assert sizes == [16, 8, 8]


# ---- nothing done, and saving -------------------------------------------------------------------


@families()
def test_untouched_units_give_the_teachers_answers_bit_for_bit(case: Case) -> None:
    stitched = case.tiny.stitched_as(case.tiny.space.untouched())
    assert torch.equal(answers(case, stitched.model), answers(case, case.tiny.model))
    for unit in case.tiny.units:
        for path, variant in case.tiny.library.variants(unit, UNTOUCHED).items():
            replace_(stitched.model, path, variant.value(), variant.bias)
    assert torch.equal(answers(case, stitched.model), answers(case, case.tiny.model))


def mixed(case: Case) -> Candidate:
    """Units in turn at levels of every sort."""
    sorts = [Level(0.5, 4), Level(0.25, 8, 8), Level(0.75, 16), UNTOUCHED, Level(0.5, 3), Level(0.0, 6)]
    return Candidate(
        tuple((one.unit, one.nearest(sorts[k % len(sorts)])) for k, one in enumerate(case.tiny.space.units))
    )


@families()
def test_a_packed_model_reloads_to_the_same_answers(case: Case, tmp_path: Path) -> None:
    stitched = case.tiny.stitched_as(mixed(case))
    packed = Packed(builder=case.architecture.builder)
    packed.save(stitched, tmp_path, case.tiny.task.batch(case.tiny.task.test, [0, 1]))
    back = read_packed(tmp_path, builder=case.architecture.builder)
    assert gap(answers(case, back.model), answers(case, stitched.model)) < SAME  # memory is aligned otherwise
    assert back.activations == stitched.activations
    assert back.levels == stitched.levels
    assert aliases(back.model) == aliases(stitched.model) == aliases(case.tiny.model)
    mine, theirs = state_of(stitched.model), state_of(back.model)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(one, theirs[name]) for name, one in mine.items())


@families()
def test_8_bit_activations_do_less_harm_than_the_fewest_bits(case: Case) -> None:
    task, tiny = case.tiny.task, case.tiny
    teacher = teacher_answers(torch_runner(tiny.model, task.kind), task, task.test)
    harm = {}
    for level in (Level.of(0.0, INTEGER), Level(0.0, 2)):
        stitched = tiny.stitched(level)
        harm[level.width] = divergence(measured(case, stitched.model, teacher), teacher)
        rounded = {w.path for unit in tiny.units if unit.integer for w in unit.weights}
        assert set(stitched.activations) == (rounded if level.is_integer else set())
    assert 0 < harm[INTEGER] < harm[2]


def measured(case: Case, model: nn.Module, teacher: Answers) -> Any:
    """A model's answers to all rows, as the teacher's are kept."""
    task = case.tiny.task
    return logits_of(torch_runner(model, task.kind), task, task.test, watched=teacher.watched)


@families("bert-embedding", "llama", "vit", "resnet-bottleneck", "efficientnet")
@pytest.mark.parametrize("target", ["packed", "openvino"])
def test_predicted_bytes_are_the_saved_files(case: Case, target: str, tmp_path: Path) -> None:
    into, tiny = get_target(target), case.tiny
    example = tiny.task.batch(tiny.task.test, [0, 1])
    sizes = {}
    plan = tiny.offered(into, mixed(case))
    for name, candidate in (("original", tiny.space.untouched()), ("mixed", plan)):
        (tmp_path / name).mkdir()
        into.save(tiny.stitched_as(candidate), tmp_path / name, example)
        sizes[name] = size_on_disk(into, tmp_path / name)
    predicted = tiny.predicted_bytes(into, plan, sizes["original"])
    # Graph text, a thousandth of a model of real size, is a twentieth of these.
    text = sum((1200 if plan[u.name].is_integer else 100) * len(u.weights) for u in tiny.units)
    room = 0.005 * sizes["mixed"] + (text if target == "openvino" else 40 * len(tiny.statistics))
    assert predicted == pytest.approx(sizes["mixed"], abs=room)


# ---- vocabularies -------------------------------------------------------------------------------


@families("gpt2", "llama")
@pytest.mark.parametrize("level", [Level(0.0, 4), Level(0.0, 16)])
def test_tied_weights_stay_one_tensor(case: Case, level: Level, tmp_path: Path) -> None:
    unit = case.tiny.unit("word_embeddings")
    (weight,) = unit.weights
    assert weight.tied == "lm_head"
    stitched = case.tiny.stitched_as(case.tiny.with_levels(word_embeddings=level))
    Packed().save(stitched, tmp_path, case.tiny.task.batch(case.tiny.task.test, [0, 1]))
    for model in (stitched.model, read_packed(tmp_path).model):
        embedding, output = (model.get_submodule(path) for path in (weight.path, weight.tied))
        assert output.weight is embedding.weight
        assert not torch.equal(output.weight, case.tiny.model.get_submodule(weight.path).weight)


@families("bert", "distilbert", "roberta-regression", "electra", "mpnet-embedding")
@pytest.mark.parametrize("bits", [4, FLOAT_BITS])
def test_ids_of_removed_tokens_are_answered_and_those_that_stay_as_before(case: Case, bits: int) -> None:
    candidate = case.tiny.with_levels(word_embeddings=Level(0.5, bits))
    model = case.tiny.stitched_as(candidate).model
    unit = case.tiny.unit("word_embeddings")
    kept = case.tiny.library.kept(unit, 0.5)
    embedding = model.get_submodule(unit.rows[0].path)
    assert isinstance(embedding, FewerTokens)
    assert embedding.weight.shape == (VOCABULARY // 2, unit.rows[0].columns)
    whole = case.tiny.stitched_as(case.tiny.with_levels(word_embeddings=Level(0.0, bits))).model
    for name, ids in (("kept", kept), ("all", torch.arange(VOCABULARY))):
        inputs = {"input_ids": ids[torch.randperm(len(ids))[:36]].reshape(3, 12)}
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        with torch.no_grad():
            mine, theirs = (outputs_of(one, inputs, case.family.kind) for one in (model, whole))
        assert torch.isfinite(mine).all()
        assert torch.equal(mine, theirs) == (name == "kept")


@families("bert")
def test_the_tokens_that_stay_are_those_seen_most(case: Case) -> None:
    unit = case.tiny.unit("word_embeddings")
    counts = torch.bincount(torch.from_numpy(case.tiny.task.train.ids).long(), minlength=VOCABULARY)
    kept = case.tiny.library.kept(unit, 0.75)
    gone = torch.ones(VOCABULARY, dtype=torch.bool)
    gone[kept] = False
    assert counts[kept].min() >= counts[gone].max()


# ---- what variants harm, and what a brief fine-tune mends ---------------------------------------


@families("bert-tokens", "roberta-regression", "mpnet-embedding", "gpt2", "llama", "vit", "resnet", "efficientnet-lite")
def test_sensitivities_rank_variants_as_their_measured_divergence_does(case: Case) -> None:
    tiny, task = case.tiny, case.tiny.task
    teacher = teacher_answers(torch_runner(tiny.model, task.kind), task, task.train)
    found = measure_sensitivity(
        tiny.model, tiny.units, tiny.library, task, task.train, rows=ROWS, seed=0, spread=teacher.spread
    ).damage()
    predicted, seen = [], []
    for unit in tiny.units:
        for level in (Level(0.0, 8), Level(0.0, 4), Level(0.0, 3), Level(0.5, 32), Level(0.5, 4)):
            if level.ratio in unit.ratios and level.bits in unit.bits:
                model = tiny.stitched_as(tiny.space.untouched().with_level(unit.name, level)).model
                predicted.append(found[unit.name][level])
                seen.append(divergence(measured(case, model, teacher), teacher))
    assert len(seen) >= 12
    assert spearmanr(predicted, seen).statistic > 0.9


@families("bert", "bert-tokens", "roberta-regression", "bert-embedding", "llama", "gpt2", "vit", "efficientnet-lite")
def test_a_brief_fine_tune_mends_and_gives_rounded_weights(case: Case) -> None:
    tiny, task = case.tiny, case.tiny.task
    teacher = teacher_answers(torch_runner(tiny.model, task.kind), task, task.train)
    before = tiny.stitched_as(mixed(case))
    after = finetune(before, task, task.train, teacher, Recipe(12, 8, 3e-4), seed=0)
    assert after is not before
    ends = [divergence(measured(case, one.model, teacher), teacher) for one in (before, after)]
    assert 0 < ends[1] < ends[0]
    for path, one in after.integers.items():
        weight: Any = after.model.get_submodule(path).weight
        assert torch.equal(weight.flatten(1), one.dequantize())
    for path in after.half:
        half: Any = after.model.get_submodule(path).weight
        assert torch.equal(half.half().float(), half)
    assert after.activations == before.activations
    assert aliases(after.model) == aliases(before.model)
