"""Tiny random models of many families, with data, statistics, library and a shipped or drafted space.

Random weights show shapes, bytes and arithmetic, never accuracy. No norm is neutral and no bias zero, so that
answers depend on every weight.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn

from autoprune.compress.library import Library
from autoprune.compress.statistics import calibrate
from autoprune.inspection.draft import draft
from autoprune.inspection.draft_rules import Draft, text_of
from autoprune.models.outputs import outputs_of
from autoprune.models.spec import Architecture, auto_class
from autoprune.models.split_embedding import part_by_use_
from autoprune.models.unit import Unit
from autoprune.models.units import find_units, search_space, to_part
from autoprune.space.space_file import SpaceFile, read_space
from autoprune.tasks.kinds import (
    CAUSAL_LM,
    IMAGE_CLASSIFICATION,
    OWN,
    SENTENCE_EMBEDDING,
    TEXT_CLASSIFICATION,
    TEXT_REGRESSION,
    TOKEN_CLASSIFICATION,
    TaskKind,
)
from autoprune.tasks.task import NO_LABEL, Arrays, Data, Encoded, Task
from tests.support.networks import MobileNetV3, ResNeXt, SegmentingUNet, UNet
from tests.support.paths import SPACES
from tests.support.tiny import Tiny

VOCABULARY, SIDE, SOUND, CLASSES_OF_ALL, ROWS = 160, 32, 40, 3, 16

TEXT = {
    "vocab_size": VOCABULARY, "max_position_embeddings": 40, "hidden_size": 32, "num_attention_heads": 4,
    "num_hidden_layers": 2, "intermediate_size": 256, "initializer_range": 0.18, "pad_token_id": 0,
}  # fmt: skip
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
        self.downsample = (
            None if fits else nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))
        )

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
        out: Tensor = self._bn2(
            self._project_conv(nn.functional.relu6(self._bn1(self._depthwise_conv(wide))))
        )
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
    """What a tiny model of a family is made from: a config of transformers, or a function of the tests.

    space: the shipped one for it; empty where it is drafted. parts: whether its vocabulary is in two, as its
    space has it.
    """

    space: str
    kind: TaskKind
    type: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    builder: Callable[[], nn.Module] | None = None
    parts: bool = False

    @property
    def architecture(self) -> Architecture:
        image = (3, SIDE, SIDE) if self.kind == IMAGE_CLASSIFICATION else None
        if self.builder is not None:
            return Architecture(self.kind, {}, f"{self.builder.__module__}:{self.builder.__name__}", image)
        config: Any = self.plain().config
        return Architecture(self.kind, config.to_dict(), None, image)

    @property
    def answers(self) -> int:
        """Outputs of a head."""
        return 1 if self.kind == TEXT_REGRESSION else CLASSES_OF_ALL

    def plain(self) -> nn.Module:
        """A model as it comes, not in canonical form."""
        torch.manual_seed(0)
        if self.builder is not None:
            return self.builder().eval()
        config: Any = transformers.AutoConfig.for_model(self.type, num_labels=self.answers, **self.config)
        if self.kind == OWN:
            made = getattr(transformers, config.architectures[0])(config)
        else:
            made = auto_class(self.kind).from_config(config)
        model: nn.Module = made.eval()
        return model


RESNET = {"embedding_size": 16, "depths": [2, 1], "num_channels": 3}
REGNET = {"embedding_size": 16, "hidden_sizes": [32, 64], "depths": [1, 2], "groups_width": 8}
GEMMA = GROUPED | {"tie_word_embeddings": True}
FAMILIES = {
    "bert": Family("bert", TEXT_CLASSIFICATION, "bert", TEXT),
    "bert-tokens": Family("bert", TOKEN_CLASSIFICATION, "bert", TEXT),
    "bert-embedding": Family("bert", SENTENCE_EMBEDDING, "bert", TEXT),
    "bert-parts": Family("bert", TEXT_CLASSIFICATION, "bert", TEXT, parts=True),
    "distilbert": Family("distilbert", TEXT_CLASSIFICATION, "distilbert", {
        "vocab_size": VOCABULARY, "max_position_embeddings": 40, "dim": 32, "n_heads": 4, "n_layers": 2,
        "hidden_dim": 256, "initializer_range": 0.18}),
    "roberta-regression": Family("roberta", TEXT_REGRESSION, "roberta", TEXT),
    "xlm-roberta": Family("roberta", TOKEN_CLASSIFICATION, "xlm-roberta", TEXT),
    "electra": Family("electra", TEXT_CLASSIFICATION, "electra", TEXT | {"embedding_size": 16}),
    "mpnet-embedding": Family("mpnet", SENTENCE_EMBEDDING, "mpnet", TEXT),
    "gpt2": Family("gpt2", CAUSAL_LM, "gpt2", {
        "vocab_size": VOCABULARY, "n_positions": 40, "n_embd": 32, "n_head": 4, "n_layer": 2, "n_inner": 256,
        "initializer_range": 0.18, "bos_token_id": 0, "eos_token_id": 0}),
    "llama": Family("llama", CAUSAL_LM, "llama", GROUPED | {"tie_word_embeddings": True}),
    "qwen3": Family("llama", CAUSAL_LM, "qwen3", GROUPED | {"tie_word_embeddings": False}),
    "qwen3-classes": Family("llama", TEXT_CLASSIFICATION, "qwen3", GROUPED),
    "vit": Family("vit", IMAGE_CLASSIFICATION, "vit", PICTURE | {
        "patch_size": 8, "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2,
        "intermediate_size": 256}),
    "resnet": Family("resnet", IMAGE_CLASSIFICATION, "resnet", RESNET | {
        "layer_type": "basic", "hidden_sizes": [32, 64]}),
    "resnet-bottleneck": Family("resnet", IMAGE_CLASSIFICATION, "resnet", RESNET | {
        "layer_type": "bottleneck", "hidden_sizes": [64, 128]}),
    "mobilenet_v2": Family("mobilenet_v2", IMAGE_CLASSIFICATION, "mobilenet_v2", PICTURE | {
        "depth_multiplier": 0.25, "expand_ratio": 4, "finegrained_output": True}),
    "efficientnet": Family("efficientnet", IMAGE_CLASSIFICATION, "efficientnet", PICTURE | {
        "width_coefficient": 0.25, "depth_coefficient": 1.0, "hidden_dim": 320, "kernel_sizes": [3, 3, 5],
        "in_channels": [32, 32, 64], "out_channels": [32, 64, 64], "depthwise_padding": [],
        "strides": [1, 2, 2], "num_block_repeats": [1, 1, 1], "expand_ratios": [1, 4, 4],
        "dropout_rate": 0.0}),
    "whisper": Family("whisper", OWN, "whisper", {
        "d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 256,
        "decoder_layers": 1, "max_source_positions": SOUND // 2, "num_mel_bins": 8, "init_std": 0.18,
        "classifier_proj_size": 32, "architectures": ["WhisperForAudioClassification"]}),
    "gemma": Family("llama", CAUSAL_LM, "gemma", GEMMA),
    "gemma2": Family("llama", CAUSAL_LM, "gemma2", GEMMA | {"sliding_window": 8, "query_pre_attn_scalar": 8}),
    "gemma3": Family("llama", CAUSAL_LM, "gemma3_text", GEMMA | {
        "sliding_window": 8, "query_pre_attn_scalar": 8}),
    "torchvision": Family("torchvision_resnet", IMAGE_CLASSIFICATION, builder=ResNet),
    "efficientnet-lite": Family("efficientnet_pytorch", IMAGE_CLASSIFICATION, builder=EfficientNet),
    "modernbert": Family("", TEXT_CLASSIFICATION, "modernbert", TEXT | {
        "local_attention": 8, "global_attn_every_n_layers": 2, "num_hidden_layers": 3, "cls_token_id": 1,
        "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}),
    "deberta-v3": Family("", TEXT_CLASSIFICATION, "deberta-v2", TEXT | {
        "relative_attention": True, "position_buckets": 8, "norm_rel_ebd": "layer_norm",
        "share_att_key": True, "pos_att_type": "p2c|c2p", "position_biased_input": False,
        "type_vocab_size": 0}),
    "albert": Family("", TEXT_CLASSIFICATION, "albert", TEXT | {"embedding_size": 16}),
    "phi": Family("", CAUSAL_LM, "phi", TEXT | {
        "bos_token_id": 0, "eos_token_id": 0, "partial_rotary_factor": 0.5}),
    "phi3": Family("", CAUSAL_LM, "phi3", GROUPED | {
        "tie_word_embeddings": False, "bos_token_id": 0, "eos_token_id": 0}),
    "swin": Family("", IMAGE_CLASSIFICATION, "swin", PICTURE | {
        "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4, "patch_size": 4}),
    "convnext": Family("", IMAGE_CLASSIFICATION, "convnext", PICTURE | {
        "num_stages": 2, "hidden_sizes": [16, 32], "depths": [2, 2], "layer_scale_init_value": 0.5}),
    "regnet-x": Family("", IMAGE_CLASSIFICATION, "regnet", REGNET | {"layer_type": "x"}),
    "regnet-y": Family("", IMAGE_CLASSIFICATION, "regnet", REGNET | {"layer_type": "y"}),
    "mobilenet_v3": Family("", IMAGE_CLASSIFICATION, builder=MobileNetV3),
    "resnext": Family("", IMAGE_CLASSIFICATION, builder=ResNeXt),
    "unet": Family("", IMAGE_CLASSIFICATION, builder=UNet),
}  # fmt: skip


ENDS = {"bos_token_id": 0, "eos_token_id": 0}
REFUSED = {
    "mixtral": Family("", CAUSAL_LM, "mixtral", GROUPED | ENDS | {
        "num_local_experts": 4, "intermediate_size": 64}),
    "mamba": Family("", CAUSAL_LM, "mamba", ENDS | {
        "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8,
        "initializer_range": 0.18, "pad_token_id": 0}),
    "fnet": Family("", TEXT_CLASSIFICATION, "fnet", TEXT),
    "unet-segmenting": Family("", IMAGE_CLASSIFICATION, builder=SegmentingUNet),
}  # fmt: skip
"""Families that some targets refuse, or all."""

EVERY = FAMILIES | REFUSED


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
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape, generator=draws) * 0.1)
        for conv in (module for module in model.modules() if isinstance(module, nn.Conv2d)):
            conv.weight.normal_(0.0, (2 / conv.weight[0].numel()) ** 0.5, generator=draws)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    if norms:
        with torch.no_grad():  # statistics of the rows themselves
            outputs_of(
                model, {"pixel_values": torch.from_numpy(task.train.inputs["pixel_values"])}, task.kind
            )
    model.eval()


def rows_of(kind: TaskKind, rows: int = ROWS) -> Data:
    """Random rows of a kind of task."""
    rng = np.random.default_rng(0)
    if kind == OWN:
        sounds = rng.standard_normal((rows, 8, SOUND)).astype(np.float32)
        return Arrays({"input_features": sounds}, rng.integers(0, CLASSES_OF_ALL, rows))
    if kind == IMAGE_CLASSIFICATION:
        pixels = rng.standard_normal((rows, 3, SIDE, SIDE)).astype(np.float32)
        return Arrays({"pixel_values": pixels}, rng.integers(0, CLASSES_OF_ALL, rows))
    lengths = np.full(rows, 16) if kind == CAUSAL_LM else rng.integers(3, 18, rows)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    # Tokens are as unequally common as words are.
    ids = np.minimum(rng.zipf(1.3, starts[-1]), VOCABULARY - 1).astype(np.int32)
    if kind == TOKEN_CLASSIFICATION:
        labels: Any = rng.integers(0, CLASSES_OF_ALL, len(ids))
        labels[starts[:-1]] = NO_LABEL
    elif kind == TEXT_REGRESSION:
        labels = rng.standard_normal(rows).astype(np.float32)
    else:
        labels = rng.integers(0, CLASSES_OF_ALL, rows)
    return Encoded(ids, np.zeros(len(ids), np.uint8), starts, labels)


INPUTS = {IMAGE_CLASSIFICATION: ("pixel_values",), OWN: ("input_features",), CAUSAL_LM: ("input_ids",)}
"""Of the kinds that take other inputs than tokens and their mask."""


def task_of(family: Family) -> Task:
    """The kind's task, its splits the same rows."""
    kind = family.kind
    data, inputs = rows_of(kind), INPUTS.get(kind, ("input_ids", "attention_mask"))
    names = (
        ("a", "b", "c")
        if kind in (TEXT_CLASSIFICATION, TOKEN_CLASSIFICATION, IMAGE_CLASSIFICATION, OWN)
        else ()
    )
    return Task(data, data, data, names, inputs, pad_id=0, kind=kind, metric=kind.usual_metric)


@functools.cache
def made(name: str) -> tuple[nn.Module, nn.Module]:
    """The model as it comes, and in canonical form."""
    family = EVERY[name]
    plain = family.plain()
    shaken_(plain, task_of(family))
    canonical = copy.deepcopy(plain)
    family.architecture.canonicalise_(canonical)
    if family.parts:
        for path, share in to_part(canonical, space_of(name)).items():
            uses = np.bincount(rows_of(family.kind).ids, minlength=VOCABULARY).astype(np.float64)
            part_by_use_(canonical, path, uses, share)
    return plain, canonical


@functools.cache
def statistics_of(name: str) -> dict[str, Any]:
    family, (_, model) = EVERY[name], made(name)
    units = units_of(name)
    tied = {w.path: w.tied for unit in units for w in unit.weights if w.tied}
    paths = [w.path for unit in units for w in unit.weights]
    task = task_of(family)
    return calibrate(model, paths, task, task.train, rows=ROWS, seed=0, tied=tied)


@functools.cache
def units_of(name: str) -> tuple[Unit, ...]:
    return find_units(made(name)[1], space_of(name), source=EVERY[name].space or "draft")


@functools.cache
def draft_of(name: str) -> Draft:
    """The space that is drafted for a family, whether one is shipped or not."""
    family, task = EVERY[name], task_of(EVERY[name])
    example = {key: torch.from_numpy(x) for key, x in task.batch(task.train, [0, 1]).items()}
    return draft(made(name)[1], lambda model: outputs_of(model, example, family.kind))


def space_of(name: str) -> SpaceFile:
    """The shipped space of a family, or else the drafted one, as it is read from the file that is written."""
    if shipped := EVERY[name].space:
        return read_space(SPACES / f"{shipped}.yaml")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "space.yaml"
        path.write_text(text_of(draft_of(name), model=name, kind=name, file=path.name), encoding="utf-8")
        return read_space(path)


def make_case(name: str, folder: Path) -> Case:
    family, (_, model) = EVERY[name], made(name)
    units, task, statistics = units_of(name), task_of(family), statistics_of(name)
    library = Library(folder, model, statistics, key=name)
    space = search_space(units, lambda unit, level: True)
    return Case(
        name,
        family,
        family.architecture,
        Tiny(model, units, space, task, statistics, library, family.architecture),
    )
