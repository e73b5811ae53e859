"""`autoprune inspect MODEL --write-space FILE`: a model loaded, its space drafted, checked, and written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from autoprune.core.errors import AutopruneError
from autoprune.core.references import is_reference
from autoprune.inspection.coupling import Call
from autoprune.inspection.draft import draft
from autoprune.inspection.draft_rules import Draft, Left, left_lines, text_of
from autoprune.models import loading
from autoprune.models.checkpoint import config_of
from autoprune.models.model_kind import kind_of
from autoprune.models.outputs import outputs_of
from autoprune.models.spec import Architecture, built
from autoprune.models.units import find_units
from autoprune.space.space_file import read_space
from autoprune.tasks.data import demo
from autoprune.tasks.kinds import IMAGE_CLASSIFICATION

ROWS, TOKENS, SIDE = 2, 12, 224
"""Rows of an example of text, tokens of each, and pixels on a side where nothing says how many."""


def draft_record(
    what: str | None,
    path: Path,
    *,
    image_size: int | None = None,
    space: str | None = None,
    target: str | None = None,
) -> dict[str, Any]:
    """Draft a space for a model folder, hub id, builder (`module:function`), or `demo`, and write it.

    Returns:
        What was written, and what was left alone and why, as plain data.

    Raises:
        AutopruneError: when the file exists, or for a model that cannot be loaded, run or compressed.
    """
    if what is None or space or target:
        raise AutopruneError("--write-space goes with MODEL, and without --space and --target")
    if path.exists():
        raise AutopruneError(f"{path} exists already and is not overwritten; give --write-space another name")
    if not path.absolute().parent.is_dir():
        raise AutopruneError(f"folder {path.absolute().parent} does not exist; make it, or give another path")
    is_demo = what == "demo" and not Path(what).exists()
    model, call = _loaded(str(demo.demo_model()) if is_demo else what, image_size)
    drafted = draft(model, call)
    text = text_of(drafted, model=what, kind=type(model).__name__, file=str(path))
    _check(model, drafted, text)
    try:
        with path.open("x", encoding="utf-8") as out:
            out.write(text)
    except OSError as error:
        raise AutopruneError(f"{path} cannot be written: {error.strerror}") from error
    return {
        "what": "draft",
        "model": what,
        "file": str(path),
        "rules": {
            name: {**rule.described, "units": [unit.name for unit in drafted.units[name]]}
            for name, rule in drafted.rules.items()
        },
        "left_alone": [
            {"paths": list(group.paths), "why": group.why, "stored_in_fewer_bits": group.stored}
            for group in drafted.left
        ],
    }


def draft_lines(record: Mapping[str, Any]) -> list[str]:
    """What was drafted, for people."""
    counts = [f"{name} x{len(rule['units'])}" for name, rule in record["rules"].items() if "prune" in rule]
    units = sum(len(rule["units"]) for rule in record["rules"].values())
    left = [
        Left(tuple(group["paths"]), group["why"], group["stored_in_fewer_bits"])
        for group in record["left_alone"]
    ]
    return [
        f"Wrote     {record['file']}: {len(record['rules'])} rules for {units} units of {record['model']}",
        f"Pruned    {', '.join(counts)}; in each, removing was found equal to masking"
        if counts
        else "Pruned    nothing, for the reasons below; what is listed in the file is stored in fewer bits",
        *left_lines(left),
    ]


def _check(model: nn.Module, drafted: Draft, text: str) -> None:
    """Read the text back as a search would, and match it against the model.

    Raises:
        AutopruneError: when other units come out than those that were drafted.
    """
    with TemporaryDirectory(prefix="autoprune-") as name:
        path = Path(name) / "space.yaml"
        path.write_text(text, encoding="utf-8")
        units = find_units(model, read_space(path), source="draft")
    if set(units) != {unit for some in drafted.units.values() for unit in some}:
        raise AutopruneError(
            "the drafted space reads back as other units than were found; nothing was written"
        )


# ---- the model and an example batch -------------------------------------------------------------


def _loaded(source: str, image_size: int | None) -> tuple[nn.Module, Call]:
    """A model in canonical form, and how it is run on an example batch."""
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    torch.manual_seed(0)  # a head that is missing, or what a builder gives, is drawn from here
    if is_reference(source) and not Path(source).exists():
        # Its weights are not needed: what is coupled depends on shapes and on what is computed alone.
        model = built(source).eval()
        side = image_size or SIDE
        described = Architecture(IMAGE_CLASSIFICATION, builder=source, image=(3, side, side))
        inputs = _example(described, model, None)
        _try(model, inputs, described, source)
        described = loading.canonical(model, described)
    else:
        if image_size is not None:
            raise AutopruneError("--image-size is for a MODEL that a function builds; a folder has its own")
        kind = kind_of(source)
        labels = int(config_of(source).num_labels)
        loaded = loading.load_pretrained(source, labels=labels, kind=kind)
        model, described = loaded.model, loaded.architecture
        inputs = _example(described, model, loaded.tokenizer)
        _try(model, inputs, described, source)
    return model, lambda changed: outputs_of(changed, inputs, described.kind)


def _try(model: nn.Module, inputs: Mapping[str, Tensor], described: Architecture, source: str) -> None:
    """Run a model once.

    Raises:
        AutopruneError: when it does not take the example.
    """
    try:
        with torch.no_grad():
            outputs_of(model, inputs, described.kind)
    except Exception as error:  # a model of the user's own may raise anything
        shapes = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in inputs.items())
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        hint = "; give --image-size" if described.builder else ""
        raise AutopruneError(f"model {source!r} does not run on {shapes}: {reason}{hint}") from error


def _example(described: Architecture, model: nn.Module, tokenizer: Any) -> dict[str, Tensor]:
    """Random inputs for a model: pictures, or tokens other than padding."""
    draws = torch.Generator().manual_seed(0)
    if described.image is not None:
        return {"pixel_values": torch.randn(1, *described.image, generator=draws)}
    config: Any = model.config.get_text_config()  # type: ignore[operator, union-attr]
    pad = config.pad_token_id
    rows = ROWS if pad is not None else 1  # classifiers by the last token refuse more without padding
    ids = torch.randint(0, config.vocab_size, (rows, TOKENS), generator=draws)
    if pad is not None:
        ids[ids == pad] = (pad + 1) % config.vocab_size
    known = {"attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    names = described.kind.token_inputs(tokenizer.model_input_names)
    return {"input_ids": ids, **{name: known[name] for name in names if name in known}}
