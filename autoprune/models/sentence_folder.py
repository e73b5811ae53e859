"""What a folder or hub repository of sentence-transformers says beside its transformer: `modules.json`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from autoprune.core.errors import AutopruneError
from autoprune.models.checkpoint import file_of, json_of
from autoprune.models.sentence_head import ACTIVATIONS, HEAD, POOLINGS, DenseLayer, SentencePooling

MODULES, SETTINGS, PROMPTS = "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"


@dataclass(frozen=True)
class SentenceSettings:
    """What makes a sentence's vector, and what else a user is told.

    weights: of the dense layers, as a `SentenceHead` names them. longest: tokens that rows are cut at, None
    where that is not said.
    """

    how: SentencePooling
    weights: dict[str, Tensor]
    longest: int | None
    notes: tuple[str, ...] = ()


def sentence_settings(source: str, tokenizer: Any, revision: str | None = None) -> SentenceSettings:
    """Read how a model makes vectors of sentences.

    Raises:
        AutopruneError: for a module, pooling or setting that would not be done as the model does it.
    """
    modules = json_of(source, MODULES, revision, must_know=True)
    if modules is None:
        note = f"it has no {MODULES}: a vector is {SentencePooling().in_words()}"
        return SentenceSettings(SentencePooling(), {}, None, (note,))
    chain = _Chain(source, revision)
    for module in modules:
        chain.add(str(module.get("type", "")).rpartition(".")[2], str(module.get("path", "")))
    if chain.pooling is None:
        raise AutopruneError(f"{MODULES} of {source!r} names no Pooling; without one there is no vector")
    how = SentencePooling(chain.pooling, tuple(chain.layers))
    settings = json_of(source, SETTINGS, revision) or {}
    if settings.get("do_lower_case") and tokenizer("A w0 B")["input_ids"] != tokenizer("a w0 b")["input_ids"]:
        raise AutopruneError(
            f"{SETTINGS} of {source!r} says do_lower_case, which its tokenizer does not do: lower-case the "
            "texts in the data, and set do_lower_case to false"
        )
    prompts = json_of(source, PROMPTS, revision) or {}
    notes = [f"a vector is {how.in_words()} ({MODULES})", *_told(prompts, is_normalised=chain.is_normalised)]
    return SentenceSettings(how, chain.weights, settings.get("max_seq_length"), tuple(notes))


def load_head_(model: nn.Module, settings: SentenceSettings, source: str) -> None:
    """Load the weights of a model's dense layers, in place.

    Raises:
        AutopruneError: where they do not fit what their config says.
    """
    head = getattr(model, HEAD, None)
    if head is None:
        return
    try:
        head.load_state_dict(settings.weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise AutopruneError(
            f"the Dense module of {source!r} does not fit its config: {reason:.300}"
        ) from error


class _Chain:
    """The modules in order, as far as they are read."""

    def __init__(self, source: str, revision: str | None) -> None:
        self.source, self.revision = source, revision
        self.pooling: str | None = None
        self.layers: list[DenseLayer] = []
        self.weights: dict[str, Tensor] = {}
        self.is_normalised = False

    def add(self, type: str, path: str) -> None:
        """Read one more module.

        Raises:
            AutopruneError: for one that is not known, or not in this place.
        """
        if type == "Transformer" and self.pooling is None:
            if path:
                raise AutopruneError(
                    f"the transformer of {self.source!r} lies in its sub-folder {path}; save the model again "
                    "with a newer sentence-transformers, which puts it beside modules.json"
                )
        elif type == "Pooling" and self.pooling is None:
            self.pooling = self._pooling(path)
        elif type == "Dense" and self.pooling is not None and not self.is_normalised:
            self._add_dense(path)
        elif type == "Normalize" and self.pooling is not None:
            self.is_normalised = True
        else:
            raise AutopruneError(
                f"{MODULES} of {self.source!r} has a module {type or '(without a type)'} at "
                f"{path or 'its root'} "
                "that is not understood there; known are a Transformer, a Pooling, then Dense, then Normalize"
            )

    def _pooling(self, path: str) -> str:
        told = json_of(self.source, f"{path}/config.json", self.revision) or {}
        names = [
            name.removeprefix("pooling_mode_").removesuffix("_token").removesuffix("_tokens")
            for name, is_used in told.items()
            if name.startswith("pooling_mode_") and is_used is True
        ]
        names = [{"mean_sqrt_len": "mean_sqrt_len_tokens"}.get(name, name) for name in names]
        newer = told.get("pooling_mode")
        names = names or ([newer] if isinstance(newer, str) else [str(name) for name in newer or ()])
        if len(names) != 1 or names[0] not in POOLINGS:
            raise AutopruneError(
                f"{path}/config.json of {self.source!r} pools by "
                f"{', '.join(names) or 'nothing that it names'}; "
                f"known is one of {', '.join(POOLINGS)}"
            )
        return str(names[0])

    def _add_dense(self, path: str) -> None:
        told = json_of(self.source, f"{path}/config.json", self.revision) or {}
        activation = str(told.get("activation_function", "")).rpartition(".")[2]
        sizes = told.get("in_features"), told.get("out_features")
        places = {str(told.get(f"module_{end}_name", "sentence_embedding")) for end in ("input", "output")}
        if activation not in ACTIVATIONS or not all(isinstance(size, int) for size in sizes):
            raise AutopruneError(
                f"{path}/config.json of {self.source!r} has the activation {activation or '(none)'} and "
                "the sizes "
                f"{sizes}; known are {', '.join(ACTIVATIONS)}, and whole numbers"
            )
        if places != {"sentence_embedding"}:
            raise AutopruneError(
                f"{path}/config.json of {self.source!r} is of {', '.join(sorted(places))}; only layers of "
                "the "
                "sentence's vector are known"
            )
        number = len(self.layers)
        i, o = (int(str(size)) for size in sizes)
        layer = DenseLayer(i, o, bool(told.get("bias", True)), activation)
        for name, tensor in self._dense_weights(path).items():
            self.weights[f"dense.{number}.{name.removeprefix('linear.')}"] = tensor.float()
        self.layers.append(layer)

    def _dense_weights(self, path: str) -> dict[str, Tensor]:
        file: Path | None = file_of(self.source, f"{path}/model.safetensors", self.revision)
        if file is None:
            raise AutopruneError(
                f"{path} of {self.source!r} has no model.safetensors; only that format is read (save the "
                "model "
                "again with sentence-transformers)"
            )
        try:
            return load_file(file)
        except (OSError, SafetensorError) as error:
            raise AutopruneError(f"{file} cannot be read: {error}") from error


def _told(prompts: dict[str, Any], *, is_normalised: bool) -> list[str]:
    """What is done otherwise than by sentence-transformers."""
    notes = []
    name = prompts.get("default_prompt_name")
    prompt = (prompts.get("prompts") or {}).get(name)
    if prompt:
        notes.append(
            f"sentence-transformers put {prompt!r} before each text, autoprune does not: have it in the data"
        )
    if not is_normalised and prompts.get("similarity_fn_name") not in (None, "cosine"):
        notes.append(
            f"it compares vectors by {prompts['similarity_fn_name']} without making their length 1; here, "
            "and "
            "in exports, it is 1"
        )
    return notes
