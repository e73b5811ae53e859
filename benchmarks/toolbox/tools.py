"""The toolbox: every tool that a user can switch on, with what is written for it. One line adds one.

A tool is an edit of the space file (`stored`, `importance`), flags of `autoprune search` (`flagged`, `rule`),
or flags of `autoprune export` that a finished default search is exported with (`exported`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from benchmarks.toolbox.chosen import Count, by_baseline, by_importance, by_storage, by_training, uncounted
from benchmarks.toolbox.spaces import (
    Edit,
    all_of,
    offering,
    offering_only,
    only_removing_by,
    removing_by,
    unchanged,
    with_centroids,
    with_float_inputs,
    with_recipe,
)

DEFAULT = "default"
SUBJECTS = ("demo", "cnn", "small", "embeddings")


@dataclass(frozen=True)
class Tool:
    """One tool, and how it is compared.

    line: what a user writes for it. source: of the method. edit: of the space it is searched in, and flags of
    the search. only: the edit that leaves it as the only way to save bytes, for `--check`. export: flags of
    the export of a finished search, where the tool is one. count: how often a search chose it. baseline: name
    of the run's baseline that is the tool's own model. keeps_answers: whether an export answers as the model
    that it is of, so that bytes alone differ. against: name of the tool that it is compared with.
    subject: which model the check uses.
    """

    name: str
    line: str
    source: str = ""
    edit: Edit = unchanged
    only: Edit | None = None
    flags: tuple[str, ...] = ()
    export: tuple[str, ...] = ()
    count: Count = uncounted
    baseline: str | None = None
    keeps_answers: bool = False
    against: str = DEFAULT
    subjects: tuple[str, ...] = SUBJECTS
    subject: str = "cnn"

    @property
    def is_plain(self) -> bool:
        """Whether its search is the default search."""
        return self.edit is unchanged and not self.flags


def stored(*names: str, source: str) -> Tool:
    """Ways of storing weights, offered by their names."""
    line = f"quantize: {{also: [{', '.join(names)}]}}"
    return Tool(
        " ".join(names), line, source, offering(*names), offering_only(*names), count=by_storage(*names)
    )


def importance(*scores: str, source: str) -> Tool:
    """What says which heads, neurons and channels go; counted is what goes by another than obs."""
    line = f"prune: {{importance: [{', '.join(scores)}]}}"
    others = [score for score in scores if score != "obs"] or ["obs"]
    return Tool(
        f"importance {' '.join(scores)}", line, source, removing_by(*scores), only_removing_by(*scores),
        count=by_importance(*others, offered=scores),
    )  # fmt: skip


def flagged(name: str, *flags: str, source: str = "", count: Count = by_training) -> Tool:
    """Flags of the search."""
    return Tool(name, " ".join(flags), source, flags=flags, count=count)


def rule(name: str, baseline: str, source: str) -> Tool:
    """A rule in place of the solver: its model, against what the same run found. All rules share one run."""
    flags = [word for each in ("uniform", "global-threshold", "erk") for word in ("--allocation", each)]
    return Tool(
        f"allocation {name}", f"--allocation {name}", source,
        only=only_removing_by("obs"), flags=tuple(flags), count=by_baseline(baseline), baseline=baseline,
    )  # fmt: skip


SEVERAL = ("codebook4", "vector2x16", "vector2x64", "vector4x256")
"""Ways of storing that are good below 4 bits."""


def several(name: str, *flags: str) -> Tool:
    """These ways of storing and the better of two scores, all at once."""
    line = f"also: [{', '.join(SEVERAL)}], importance: [taylor, obs] {' '.join(flags)}".rstrip()
    return Tool(
        name, line, edit=all_of(offering(*SEVERAL), removing_by("taylor", "obs")),
        only=offering_only(*SEVERAL), flags=flags, count=by_storage(*SEVERAL),
    )  # fmt: skip


def exported(name: str, *flags: str, source: str = "", keeps_answers: bool = False) -> Tool:
    """Flags of the export of the default search.

    {count}: of an ensemble's members. {together}, {any}: the limits of all of them, and none.
    """
    line = f"export {' '.join(flag for flag in flags if '{' not in flag).removesuffix(' --budget')}"
    return Tool(name, line, source, export=flags, keeps_answers=keeps_answers)


_OPENVINO = ("--target", "openvino")

TOOLS: tuple[Tool, ...] = (
    Tool(DEFAULT, "", count=by_training),
    importance("taylor", "obs", source="1906.10771"),
    importance("l1", source="1608.08710"),
    importance("activation", source="2306.11695"),
    importance("gates", "obs", source="1712.01312, 2204.00408"),
    importance("random", source=""),
    stored("codebook4", source="1510.00149"),
    stored("codebook4", "codebook8", "codebook16", source="1510.00149"),
    stored("shared4", "shared8", "shared16", source="1510.00149"),
    stored("ternary", source="1605.04711"),
    stored("codebook4", "ternary", source="1510.00149, 1605.04711"),
    stored("2of4x4", source="2104.08378"),
    stored("32of64x4", source="2301.00774"),
    stored("shared256", source="1510.00149"),
    stored("vector4x256", source="1907.05686"),
    stored("vector2x16", "vector2x64", "vector2x256", source="1907.05686"),
    stored("2r4", "2r8", "3r4", "3r8", source="2402.02446, 2410.06040"),
    stored("rank12", "rank25", "rank50", source="2403.07378"),
    stored("2g32", "3g32", "4g32", source=""),
    stored("2row", "3row", "4row", source=""),
    stored("nf4", "mxfp4", source="2305.14314, 2310.10537"),
    stored("2sym", "3sym", "4sym", source="1806.08342"),
    Tool(
        "token centroids", "prune: {by: token, fallback: centroid}", edit=with_centroids, count=uncounted,
        subjects=("demo",),
    ),
    several("several"),
    several("several coded", "--storage", "entropy"),
    rule("uniform", "uniform pruning", source=""),
    rule("global-threshold", "global threshold pruning", source="1611.06440"),
    rule("erk", "ERK pruning", source="1911.11134"),
    Tool("untrained", "--finetune-steps 0", flags=("--finetune-steps", "0")),
    Tool("distillation", "on by default", "1503.02531", count=by_training, against="untrained"),
    flagged("augment", "--augment"),
    flagged("clean-data", "--clean-data", "labels", source="1911.00068"),
    Tool(
        "weight decay", "finetune: {weight_decay: 0.1}", "1711.05101", with_recipe(weight_decay=0.1),
        count=by_training,
    ),
    Tool(
        "dropout", "finetune: {dropout: 0.1}", "JMLR 15, 2014", with_recipe(dropout=0.1), count=by_training,
        subjects=("demo",), subject="demo",
    ),
    flagged("folds", "--folds", "3"),
    flagged("robustness", "--robustness"),
    flagged("attacks", "--attacks", source="1412.6572, 1907.11932"),
    Tool("float inputs", "quantize without activations", edit=with_float_inputs, flags=_OPENVINO),
    Tool(
        "static 8 bits", "quantize: {activations: 8}, --target openvino", "1712.05877",
        flags=_OPENVINO, count=by_storage("w8a8"), against="float inputs",
    ),
    flagged("search entropy", "--storage", "entropy", source="1510.00149", count=uncounted),
    exported("entropy coding", "--storage", "entropy", source="1510.00149", keeps_answers=True),
    exported("ensemble", "--ensemble", "{count}", "--budget", "{together}"),
    exported("family", "--family", "--budget", "{any}"),
)  # fmt: skip
"""All of them; the default search, `untrained` and `float inputs` are what others are compared with."""


def tools_named(names: list[str]) -> tuple[Tool, ...]:
    """The tools of some names, in the table's order; all of them where none is named."""
    known = [tool.name for tool in TOOLS]
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"no such tool: {', '.join(unknown)}; there are: {', '.join(known)}")
    return tuple(tool for tool in TOOLS if not names or tool.name in names)


def for_check(tool: Tool) -> Tool:
    """The tool as the only choice, as far as it can be."""
    return tool if tool.only is None else replace(tool, edit=tool.only)
