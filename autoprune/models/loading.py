"""The teacher: a model with a trained head for the task, loaded, or fitted once and cached.

Shapes: m answered places of a batch, k outputs.
"""

from __future__ import annotations

import copy
import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from autoprune.core.errors import AutopruneError
from autoprune.models.canonical import same_outputs
from autoprune.models.image_processor import Pixels
from autoprune.models.own_processor import OwnProcessor, pixels_of_model
from autoprune.models.spec import Architecture, auto_class, built
from autoprune.tasks.kinds import (
    IMAGE_CLASSIFICATION,
    KINDS,
    TEXT_CLASSIFICATION,
    TEXT_REGRESSION,
    TaskKind,
)
from autoprune.tasks.task import Task

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded:
    """A model as it came, in canonical form: the module, what reads its inputs, whether its head was trained.

    tokenizer: of text; None of pictures, which `pixels` makes inputs of. processor: the model's own for
    pictures, of transformers, which `pixels` has to agree with; None where it has none.
    """

    model: nn.Module
    tokenizer: Any
    has_head: bool
    architecture: Architecture
    pixels: Pixels | None = None
    processor: OwnProcessor | None = None

    def with_pixels(self, pixels: Pixels) -> Self:
        """The same with pictures made inputs in another way, which no processor is compared with."""
        architecture = replace(self.architecture, image=pixels.shape)
        return replace(self, pixels=pixels, processor=None, architecture=architecture)

    def save_inputs(self, folder: Path) -> None:
        """Write what reads the inputs into a folder: the tokenizer's files, or the pictures' settings."""
        folder.mkdir(parents=True, exist_ok=True)
        if self.pixels is not None:
            self.pixels.write(folder)
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(folder)


def load_pretrained(
    source: str,
    *,
    labels: int,
    kind: TaskKind = TEXT_CLASSIFICATION,
    revision: str | None = None,
    trust_remote_code: bool = False,
    image_size: int | None = None,
) -> Loaded:
    """Load a model for a kind of task from a folder or hub id; safetensors only.

    A head for another number of labels, or none, is replaced by a fresh one.

    Args:
        image_size: height and width of pictures, where the model does not say, or says otherwise.

    Raises:
        AutopruneError: naming what came and what is needed.
    """
    _check_source(source)
    options: dict[str, Any] = {"revision": revision} if revision else {}
    options["trust_remote_code"] = trust_remote_code
    try:
        tokenizer, pixels, processor = _inputs_of(source, kind, options, image_size)
        model, info = auto_class(kind).from_pretrained(
            source,
            **kind.head_options(labels),
            ignore_mismatched_sizes=True,
            use_safetensors=True,
            output_loading_info=True,
            dtype=torch.float32,
            **options,
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise AutopruneError(
            f"model {source!r} cannot be loaded: {reason}. MODEL is a folder with config.json, "
            "model.safetensors and a tokenizer, or a hub id"
        ) from error
    fresh = set(info["missing_keys"]) | {str(tensor[0]) for tensor in info["mismatched_keys"]}
    fresh = {name for name in fresh if not (kind.gives_vectors and name.startswith("pooler."))}
    if len(fresh) > 0.5 * len(model.state_dict()):
        raise AutopruneError(
            f"model {source!r}: {len(fresh)} of its {len(model.state_dict())} tensors are not in "
            "the file; is this the right file for its config.json?"
        )
    described = Architecture(
        kind,
        json.loads(model.config.to_json_string(use_diff=False)),
        image=None if pixels is None else pixels.shape,
    )
    return Loaded(model, tokenizer, not fresh, canonical(model, described), pixels, processor)


def _inputs_of(
    source: str, kind: TaskKind, options: dict[str, Any], image_size: int | None
) -> tuple[Any, Pixels | None, OwnProcessor | None]:
    """The tokenizer of a model of text, or how pictures are made its inputs."""
    if kind.reads_images:
        config = transformers.AutoConfig.from_pretrained(source, **options)
        return None, *pixels_of_model(source, config, options.get("revision"), image_size)
    tokenizer = transformers.AutoTokenizer.from_pretrained(source, **options)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # of a language model; what is padded is never answered
    return tokenizer, None, None


def load_built(
    builder: str,
    weights: str | None,
    pixels: Pixels,
    *,
    kind: TaskKind = IMAGE_CLASSIFICATION,
    task: Task | None = None,
    processor: OwnProcessor | None = None,
) -> Loaded:
    """Load a model that is not from transformers: what `builder` gives, with the weights of a file.

    Args:
        task: of the user's own, whose first input tells the shape that norms are found with.

    Raises:
        AutopruneError: when there is no such builder or file, or one does not fit the other.
    """
    if weights is None:
        raise AutopruneError(f"model {builder!r} is built by a function: give its --weights FILE.safetensors")
    path = Path(weights)
    if path.suffix != ".safetensors":
        raise AutopruneError(
            f"weights {weights!r}: only .safetensors is read (safetensors.torch.save_file writes a "
            "state_dict() so)"
        )
    model = built(builder)
    try:
        state = load_file(path)
        model.load_state_dict(state, strict=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise AutopruneError(f"weights {weights!r} cannot be loaded into {builder}: {reason:.400}") from error
    image: tuple[int, ...] = pixels.shape
    if task is not None:
        image = next(iter(task.batch(task.train, [0]).values())).shape[1:]
    shape = (image[0], image[1], image[2]) if len(image) == 3 else None
    described = Architecture(kind, builder=builder, image=shape)
    read = pixels if task is None else None
    return Loaded(model, None, True, canonical(model, described), read, processor)


def kind_of(source: str, revision: str | None = None) -> TaskKind:
    """The kind of task that a model's config tells of; text classification where it has no head.

    Raises:
        AutopruneError: when there is no such model.
    """
    _check_source(source)
    try:
        config: Any = transformers.AutoConfig.from_pretrained(source, revision=revision)
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise AutopruneError(f"model {source!r} cannot be loaded: {reason}") from error
    head = str((getattr(config, "architectures", None) or [""])[0])
    for kind in KINDS:
        if kind.architectures and head.endswith(kind.architectures):
            return kind
    if _is_of_pictures(config):
        return IMAGE_CLASSIFICATION
    single = head.endswith("ForSequenceClassification") and config.num_labels == 1
    is_regression = single or getattr(config, "problem_type", None) == "regression"
    return TEXT_REGRESSION if is_regression else TEXT_CLASSIFICATION


def _is_of_pictures(config: Any) -> bool:
    """Whether transformers has a head for pictures for a type of model, and none for text."""
    auto = transformers.models.auto.modeling_auto
    kind = config.model_type
    return (
        kind in auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
        and kind not in auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    )


def canonical(model: nn.Module, described: Architecture) -> Architecture:
    """Bring a loaded model into canonical form, in place; norms stay where folding changes its answers."""
    model.float().eval()
    if described.image is None or not any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        described.canonicalise_(model)
        return described
    with torch.no_grad():
        wanted = described.run_once(model)
        folded = copy.deepcopy(model)
        described.canonicalise_(folded)
        if not same_outputs(wanted, described.run_once(folded)):
            log.warning("batch norms of %s cannot be folded and are left as they are", type(model).__name__)
            described = replace(described, folded=False)
    described.canonicalise_(model)
    return described


def _check_source(source: str) -> None:
    """One clear error for a local path that is no model folder."""
    path = Path(source)
    if path.is_file():
        raise AutopruneError(
            f"model {source!r} is a file; MODEL is a folder with config.json, model.safetensors "
            "and a tokenizer, or a hub id"
        )
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise AutopruneError(f"model folder {source!r} has no config.json; is it a model?")
        if not any(path.glob("*.safetensors")):
            raise AutopruneError(
                f"model folder {source!r} has no *.safetensors; only that format is read (save "
                "the model again with transformers' save_pretrained)"
            )
    elif source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise AutopruneError(f"model folder {source!r} does not exist")
