"""The teacher: a model with a trained head for the task, loaded, or fitted once and cached.

Shapes: m answered places of a batch, k outputs.
"""

from __future__ import annotations

import copy
import json
import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
import transformers
from torch import nn

from autoprune.core.errors import AutopruneError
from autoprune.models.canonical import same_outputs
from autoprune.models.checkpoint import check_body, check_finite, config_of, first_line, prefix_of
from autoprune.models.image_processor import Pixels
from autoprune.models.own_processor import OwnProcessor, pixels_of_model
from autoprune.models.sentence_folder import load_head_, sentence_settings
from autoprune.models.sentence_head import SentencePooling, attach_
from autoprune.models.spec import Architecture, auto_class, built
from autoprune.models.tokenizer_fit import fit_tokenizer_
from autoprune.models.weights_file import load_weights_
from autoprune.tasks.class_names import listed_classes
from autoprune.tasks.kinds import (
    IMAGE_CLASSIFICATION,
    TEXT_CLASSIFICATION,
    TaskKind,
)
from autoprune.tasks.task import Task

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded:
    """A model as it came, in canonical form: the module, what reads its inputs, whether its head was trained.

    tokenizer: of text; None of pictures, which `pixels` makes inputs of. processor: the model's own for
    pictures, of transformers, which `pixels` has to agree with; None where it has none. dropped_head: what a
    trained head was of that was thrown away on purpose. notes: lines for the plan, of what was settled while
    loading.
    """

    model: nn.Module
    tokenizer: Any
    has_head: bool
    architecture: Architecture
    pixels: Pixels | None = None
    processor: OwnProcessor | None = None
    dropped_head: str = ""
    notes: tuple[str, ...] = ()

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
    image_size: int | None = None,
    new_head: bool = False,
) -> Loaded:
    """Load a model for a kind of task from a folder or hub id; safetensors only.

    A trained head stays, whatever number of classes it has; where there is none, a fresh one is drawn.

    Args:
        labels: classes of a head that is drawn.
        image_size: height and width of pictures, where the model does not say, or says otherwise.
        new_head: draw a fresh head in the place of a trained one.

    Raises:
        AutopruneError: naming what came and what is needed.
    """
    config = config_of(source, revision)
    wanted = kind.head_options(labels).get("num_labels")
    new_head = new_head and wanted is not None
    own = wanted if new_head else _trained_classes(config, kind, wanted)
    state, prefix = torch.get_rng_state(), prefix_of(source, revision)
    model, missing, unfit = _from_files(source, kind, own, revision, prefix)
    if missing and own != wanted:  # its config has classes, its files no head: draw as if neither had
        torch.set_rng_state(state)
        model, missing, unfit = _from_files(source, kind, wanted, revision, prefix)
    dropped = ""
    if new_head and (unfit or not missing):
        dropped = f"{config.num_labels} classes ({listed_classes(list(map(str, config.id2label.values())))})"
        if not unfit:
            draw_head_(model, kind)
    has_head = not (missing or unfit or dropped)
    if not has_head and kind.predicts_classes and model.config.problem_type in _OTHER_PROBLEMS:
        model.config.problem_type = None
    notes = [f"the names of its tensors are read without their prefix {prefix!r}"] if prefix else []
    sentence = SentencePooling()
    tokenizer: Any = None
    pixels: Pixels | None = None
    processor: OwnProcessor | None = None
    if kind.reads_images:
        pixels, processor = pixels_of_model(source, config, revision, image_size)
    else:
        tokenizer = _tokenizer(source, revision)
        notes += fit_tokenizer_(tokenizer, model, kind, source)
    if kind.gives_vectors:
        sentence, told = _with_sentence_head_(model, tokenizer, source, revision)
        notes += told
    described = Architecture(
        kind,
        json.loads(model.config.to_json_string(use_diff=False)),
        image=None if pixels is None else pixels.shape,
        sentence=sentence,
    )
    architecture = canonical(model, described)
    return Loaded(model, tokenizer, has_head, architecture, pixels, processor, dropped, tuple(notes))


_OTHER_PROBLEMS = ("multi_label_classification", "regression")
"""What a config may say that a head was fitted for, other than one class a row."""


def _trained_classes(config: Any, kind: TaskKind, wanted: int | None) -> int | None:
    """Classes of the head that a config names; `wanted` where it names none for a kind of task."""
    named = [str(name) for name in getattr(config, "architectures", None) or ()]
    is_other = bool(named) and not named[0].endswith(str(kind.auto_class).removeprefix("AutoModel"))
    return wanted if wanted is None or is_other else int(config.num_labels)


def _from_files(
    source: str, kind: TaskKind, classes: int | None, revision: str | None, prefix: str
) -> tuple[Any, set[str], set[str]]:
    """A model with a head for so many classes; names of tensors that its files lack, and have otherwise.

    prefix: of all names in its files, left out.

    Raises:
        AutopruneError: when it cannot be loaded, or most of it is not in its files.
    """
    options = kind.head_options(0)
    if classes is not None:
        options["num_labels"] = classes
    try:
        model, info = auto_class(kind).from_pretrained(
            source,
            **options,
            ignore_mismatched_sizes=True,
            use_safetensors=True,
            output_loading_info=True,
            dtype=torch.float32,
            revision=revision or "main",
            trust_remote_code=False,
            key_mapping={f"^{re.escape(prefix)}": ""} if prefix else None,
        )
    except Exception as error:  # transformers raises many kinds
        raise AutopruneError(
            f"model {source!r} cannot be loaded: {first_line(error)}. MODEL is a folder with config.json, "
            "model.safetensors and a tokenizer, or a hub id"
        ) from error
    missing = {
        name for name in info["missing_keys"] if not (kind.gives_vectors and name.startswith("pooler."))
    }
    unfit = {str(tensor[0]) for tensor in info["mismatched_keys"]}
    if len(missing | unfit) > 0.5 * len(model.state_dict()):
        raise AutopruneError(
            f"model {source!r}: {len(missing | unfit)} of its {len(model.state_dict())} tensors are not in "
            "the file; is this the right file for its config.json?"
        )
    check_body(source, model, missing, unfit)
    check_finite(source, model)
    return model, missing, unfit


def draw_head_(model: Any, kind: TaskKind) -> None:
    """Draw what of a model of transformers is not its body anew, in place.

    Raises:
        AutopruneError: for a model whose body is not told apart from its head.
    """
    body = model.base_model
    if body is model:
        raise AutopruneError(
            f"{type(model).__name__} does not tell its head from its body: --new-head cannot be"
        )
    inside = {id(tensor) for tensor in (*body.parameters(), *body.buffers())}
    drawn = auto_class(kind).from_config(model.config).state_dict()
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if id(tensor) not in inside:
                tensor.copy_(drawn[name])


def _with_sentence_head_(
    model: Any, tokenizer: Any, source: str, revision: str | None
) -> tuple[SentencePooling, tuple[str, ...]]:
    """Give a sentence encoder its head, and its tokenizer the encoder's longest row, in place."""
    settings = sentence_settings(source, tokenizer, revision)
    attach_(model, settings.how)
    load_head_(model, settings, source)
    if settings.longest is not None:
        tokenizer.model_max_length = min(settings.longest, tokenizer.model_max_length)
    return settings.how, settings.notes


def _tokenizer(source: str, revision: str | None) -> Any:
    """The tokenizer of a model of text."""
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            source, revision=revision or "main", trust_remote_code=False
        )
        words = {*tokenizer.get_vocab()} - {*tokenizer.all_special_tokens}
    except Exception as error:  # transformers raises many kinds
        raise AutopruneError(
            f"the tokenizer of model {source!r} cannot be loaded: {first_line(error)}"
        ) from error
    if not words:  # transformers makes up an empty one where there are no files
        raise AutopruneError(
            f"model {source!r} has no tokenizer: save the one that it was trained with there "
            "(tokenizer.save_pretrained)"
        )
    return tokenizer


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
        task: of the user's own, whose input tells the shape that norms are found with; of several inputs none
            does, and norms stay.

    Raises:
        AutopruneError: when there is no such builder or file, or one does not fit the other.
    """
    if weights is None:
        raise AutopruneError(f"model {builder!r} is built by a function: give its --weights FILE.safetensors")
    model = built(builder)
    notes = load_weights_(model, weights, builder)
    check_finite(builder, model)
    image: tuple[int, ...] = pixels.shape
    if task is not None:
        inputs = [*task.batch(task.train, [0]).values()]
        image = inputs[0].shape[1:] if len(inputs) == 1 else ()
    shape = (image[0], image[1], image[2]) if len(image) == 3 else None
    described = Architecture(kind, builder=builder, image=shape)
    read = pixels if task is None else None
    architecture = canonical(model, described)
    return Loaded(model, None, True, architecture, read, processor, notes=notes)


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
