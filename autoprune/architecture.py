"""What kind of model this is: how an empty one is built, and what of its output are its answers.

Shapes: b rows, s places of a row (tokens), k outputs, d features.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from autoprune.canonical import fold_norms_, straighten_
from autoprune.errors import AutopruneError
from autoprune.kinds import CAUSAL_LM, EMBEDDING, IMAGES, OWN, PAIRED_TEXT, TOKENS
from autoprune.named import named
from autoprune.vocabulary import part_as_

CONFIG, KEY = "config.json", "autoprune"
"""The file that describes a model, and what of it is ours."""

AUTO_CLASSES = {
    **dict.fromkeys(PAIRED_TEXT, "AutoModelForSequenceClassification"),
    TOKENS: "AutoModelForTokenClassification",
    EMBEDDING: "AutoModel",
    CAUSAL_LM: "AutoModelForCausalLM",
    IMAGES: "AutoModelForImageClassification",
}
"""Which of transformers' classes has the head of a kind of task."""


@dataclass(frozen=True)
class Architecture:
    """A kind of task and a model without its weights.

    config: of transformers; of a model that is not from there, what is worth noting about it. builder:
    `module:function` that gives such a model. image: channels, height and width that norms are found with.
    folded: whether batch norms are folded.
    """

    kind: str
    config: Mapping[str, Any] = field(default_factory=dict)
    builder: str | None = None
    image: tuple[int, int, int] | None = None
    folded: bool = True

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
        if self.kind == EMBEDDING and getattr(model, "pooler", None) is not None:
            model.pooler = None  # type: ignore[assignment]  # the mean of the tokens has no use for it
        straighten_(model)
        has_norms = any(isinstance(one, nn.BatchNorm2d) for one in model.modules())
        if self.folded and has_norms and self.image is not None:
            fold_norms_(model, self.run_once)

    def run_once(self, model: nn.Module) -> Tensor:
        """What an image model answers to one fixed picture of noise."""
        assert self.image is not None
        noise = torch.randn(1, *self.image, generator=torch.Generator().manual_seed(0))
        inputs = {"pixel_values": noise}
        return outputs_of(model, inputs, self.kind)

    def _from_config(self) -> nn.Module:
        import transformers

        transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        try:
            config: Any = transformers.AutoConfig.for_model(**self.config)
            if self.kind == OWN:
                made = getattr(transformers, config.architectures[0])._from_config(config)
            else:
                made = getattr(transformers, AUTO_CLASSES[self.kind]).from_config(config)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise AutopruneError(f"its config makes no model for {self.kind}: {reason:.200}") from error
        model: nn.Module = made
        return model

    # ---- on disk --------------------------------------------------------------------------------

    def described(self) -> dict[str, Any]:
        """What `config.json` says: the model's own config, and under one key what is ours."""
        ours = {name: one for name, one in asdict(self).items() if name != "config"}
        return {**self.config, KEY: ours}

    def identity(self) -> dict[str, Any]:
        """The same without the path that the model was loaded from: it changes nothing that is computed."""
        return {name: one for name, one in self.described().items() if name != "_name_or_path"}

    def write(self, folder: Path) -> None:
        """Write `config.json`."""
        (folder / CONFIG).write_text(json.dumps(self.described(), indent=1), encoding="utf-8")

    @classmethod
    def from_config(cls, described: Mapping[str, Any]) -> Architecture:
        """Inverse of `described`; without our key a text classifier of transformers."""
        ours = dict(described.get(KEY) or {"kind": PAIRED_TEXT[0]})
        if ours.get("image") is not None:
            ours["image"] = tuple(ours["image"])
        return cls(config={name: one for name, one in described.items() if name != KEY}, **ours)

    @classmethod
    def read(cls, folder: Path) -> Architecture:
        """What a folder's `config.json` describes.

        Raises:
            AutopruneError: when it is missing or damaged.
        """
        path = folder / CONFIG
        try:
            described = json.loads(path.read_text(encoding="utf-8"))
            return cls.from_config(described)
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise AutopruneError(f"{path} describes no model: {error}") from error


def aliases(model: nn.Module) -> dict[str, str]:
    """Names of parameters that are another's tensor -> the name of that other, which comes first."""
    first: dict[int, str] = {}
    found = {}
    for name, one in model.named_parameters(remove_duplicate=False):
        if first.setdefault(id(one), name) != name:
            found[name] = first[id(one)]
    return found


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """A model's tensors by name, each once."""
    shared = aliases(model)
    return {name: one for name, one in model.state_dict().items() if name not in shared}


def load_state_(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Take over tensors as `state_of` gives them, in place; what was shared or parted still is.

    Raises:
        RuntimeError: where names or shapes differ.
    """
    part_as_(model, state)
    shared = aliases(model)
    whole = {**state, **{name: state[other] for name, other in shared.items() if other in state}}
    model.load_state_dict(whole, strict=True, assign=True)
    tie_(model, shared)


def tie_(model: nn.Module, shared: Mapping[str, str]) -> None:
    """Make parameters the other's tensor, by name as `aliases` gives them, in place."""
    for name, other in shared.items():
        path, _, last = name.rpartition(".")
        setattr(model.get_submodule(path), last, model.get_parameter(other))


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


def outputs_of(model: nn.Module, inputs: Mapping[str, Tensor], kind: str) -> Float[Tensor, "*b k"]:
    """A model's answers: logits [b k] or [b s k], or for sentences unit vectors [b d].

    A sentence's vector is the mean of its tokens' (Reimers and Gurevych, arXiv 1908.10084, section 3).
    """
    if kind == IMAGES and not hasattr(model, "config"):
        out = model(*inputs.values())
    elif kind == CAUSAL_LM:
        out = model(**inputs, use_cache=False)
    else:
        out = model(**inputs)
    if kind == EMBEDDING:
        hidden: Tensor = out.last_hidden_state
        mask = inputs["attention_mask"][..., None].to(hidden.dtype)
        mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1.0)
        return nn.functional.normalize(mean, dim=-1)
    answers: Tensor = out if isinstance(out, Tensor) else out.logits if hasattr(out, "logits") else out[0]
    return answers


class Answering(nn.Module):
    """A model as a function from its inputs, in the order of `names`, to its answers alone: to be traced."""

    def __init__(self, model: nn.Module, kind: str, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.kind, self.names = model, kind, names
        self.eval()

    def forward(self, *inputs: Tensor) -> Float[Tensor, "*b k"]:
        return outputs_of(self.model, dict(zip(self.names, inputs, strict=True)), self.kind)
