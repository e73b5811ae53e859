"""What kind of model this is: how an empty one is built, and what of its output are its answers.

Shapes: b rows, s places of a row (tokens), k outputs, d features.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autoprune.core.errors import AutopruneError
from autoprune.core.files import read_json
from autoprune.core.references import named
from autoprune.models.canonical import fold_norms_, straighten_
from autoprune.models.outputs import answers_in, outputs_of
from autoprune.models.sentence_head import PLAIN, SentencePooling, attach_
from autoprune.tasks.kinds import TaskKind, task_kind

CONFIG, KEY = "config.json", "autoprune"
"""The file that describes a model, and what of it is ours."""


@dataclass(frozen=True)
class Architecture:
    """A kind of task and a model without its weights.

    config: of transformers; of a model that is not from there, what is worth noting about it. builder:
    `module:function` that gives such a model. image: channels, height and width that norms are found with.
    folded: whether batch norms are folded. sentence: how a vector is made of its tokens' vectors.
    """

    kind: TaskKind
    config: Mapping[str, Any] = field(default_factory=dict)
    builder: str | None = None
    image: tuple[int, int, int] | None = None
    folded: bool = True
    sentence: SentencePooling = PLAIN

    def empty(self) -> nn.Module:
        """The model in canonical form with weights to be replaced, float32, in evaluation mode.

        Raises:
            AutopruneError: when the config describes no model, or the builder gives none.
        """
        model = built(self.builder) if self.builder else self._from_config()
        self.canonicalise_(model)
        return model

    def canonicalise_(self, model: nn.Module) -> None:
        """Bring a model of this architecture into canonical form, in place."""
        model.float().eval()
        if self.kind.gives_vectors and getattr(model, "pooler", None) is not None:
            model.pooler = None  # type: ignore[assignment]  # what a vector is made of are the tokens' own
        attach_(model, self.sentence)
        straighten_(model)
        has_norms = any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
        if self.folded and has_norms and self.image is not None:
            fold_norms_(model, self.run_once)

    def run_once(self, model: nn.Module) -> Tensor:
        """What an image model answers to one fixed picture of noise.

        A model of a task of the user's own gets it as its only argument, whatever it calls it.
        """
        assert self.image is not None
        noise = torch.randn(1, *self.image, generator=torch.Generator().manual_seed(0))
        if self.kind.is_own:
            return answers_in(model(noise))
        return outputs_of(model, {"pixel_values": noise}, self.kind)

    def _from_config(self) -> nn.Module:
        import transformers

        transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        try:
            config: Any = transformers.AutoConfig.for_model(**self.config)
            if self.kind.is_own:
                built = getattr(transformers, config.architectures[0])._from_config(config)
            else:
                built = auto_class(self.kind).from_config(config)
        except Exception as error:  # transformers raises many kinds
            reason = " ".join(str(error).split())
            raise AutopruneError(f"its config makes no model for {self.kind}: {reason:.200}") from error
        model: nn.Module = built
        return model

    # ---- on disk --------------------------------------------------------------------------------

    def described(self) -> dict[str, Any]:
        """What `config.json` says: the model's own config, and under one key what is ours."""
        ours = {name: value for name, value in vars(self).items() if name not in ("config", "sentence")}
        if not self.sentence.is_plain:  # files and keys of before there were others have the mean
            ours["sentence"] = self.sentence.described()
        return {**self.config, KEY: {**ours, "kind": self.kind.name}}

    def identity(self) -> dict[str, Any]:
        """The same without the path that the model was loaded from: it changes nothing that is computed."""
        return {name: value for name, value in self.described().items() if name != "_name_or_path"}

    def write(self, folder: Path) -> None:
        """Write `config.json`."""
        (folder / CONFIG).write_text(json.dumps(self.described(), indent=1), encoding="utf-8")

    @classmethod
    def from_config(cls, described: Mapping[str, Any]) -> Architecture:
        """Inverse of `described`; without our key a text classifier of transformers."""
        ours = dict(described.get(KEY) or {"kind": None})
        ours["kind"] = task_kind(ours["kind"])
        if ours.get("image") is not None:
            ours["image"] = tuple(ours["image"])
        if "sentence" in ours:
            ours["sentence"] = SentencePooling.from_data(ours["sentence"])
        return cls(config={name: value for name, value in described.items() if name != KEY}, **ours)

    @classmethod
    def read(cls, folder: Path) -> Architecture:
        """What a folder's `config.json` describes.

        Raises:
            AutopruneError: when it is missing or damaged.
        """
        path = folder / CONFIG
        try:
            described = read_json(path)
            return cls.from_config(described)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise AutopruneError(f"{path} describes no model: {error}") from error


def auto_class(kind: TaskKind) -> Any:
    """The class of transformers with the head for a kind of task.

    Raises:
        AutopruneError: when it has none.
    """
    import transformers

    if kind.auto_class is None:
        raise AutopruneError(f"transformers has no class for task {kind}")
    return getattr(transformers, kind.auto_class)


def built(builder: str) -> nn.Module:
    """What a builder gives.

    Raises:
        AutopruneError: when it raises, or gives no module.
    """
    function = named(builder, what="model builder")
    try:
        model = function()
    except Exception as error:
        raise AutopruneError(f"model builder {builder!r} raised {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise AutopruneError(
            f"model builder {builder!r} gave a {type(model).__name__}; a torch Module is needed"
        )
    return model
