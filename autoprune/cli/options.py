"""The flags of a search, and what the built-in demo asks for where the user says nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from autoprune.api.config_file import read_settings
from autoprune.api.options import storages_apart
from autoprune.cli.completion import OF_FILES, OF_SAMPLERS, OF_SPACES, OF_TARGETS, offering
from autoprune.run.config import DEMO_DEFAULTS
from autoprune.tasks.kinds import KINDS
from autoprune.tasks.metrics import METRICS
from autoprune.tracking.names import TRACKERS


def _either(names: Iterable[str]) -> str:
    """Names joined by "or" in a sentence.

    >>> _either(["a", "b", "c"])
    'a, b or c'
    """
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


SEARCH_OPTIONS: list[Callable[[Any], Any]] = [
    click.option("--budget", multiple=True, metavar="LIMIT",
                 help="Size (20MB, 8MiB) or latency (5ms) not to exceed; repeat for both."),
    click.option("--task", metavar="KIND", shell_complete=offering([*map(str, KINDS)]),
                 help=f"{', '.join(map(str, KINDS))}, or module:function for one's own.  [default: auto, "
                      "as the model's config tells]"),
    click.option("--metric", metavar="NAME", shell_complete=offering(METRICS),
                 help=f"{_either(METRICS)}.  [default: as is usual]"),
    click.option("--dataset", shell_complete=OF_FILES,
                 help="A csv/tsv/json/jsonl/parquet/txt file, a folder (of pictures: a sub-folder a class), "
                      "a hub id, or module:function."),
    click.option("--weights", metavar="FILE", shell_complete=OF_FILES,
                 help="Weights (.safetensors) of a MODEL that a function builds, module:function."),
    click.option("--image-size", type=click.IntRange(min=8),
                 help="Height and width that pictures are made.  [default: as the model says, or 224]"),
    click.option("--image-column", help="Column of pictures. Found by convention if not given."),
    click.option("--limit-rows", type=(int, int, int), metavar="TRAIN VALIDATION TEST",
                 help="Most rows of each split, drawn by the seed."),
    click.option("--text-column", "text_columns", multiple=True,
                 help="Column of text; give twice for pairs. Found by convention if not given."),
    click.option("--label-column", help="Column of labels. Found by convention if not given."),
    click.option("--group-by", help="Column whose rows stay together when splits are made."),
    click.option("--space", shell_complete=OF_SPACES,
                 help="Search space: auto, a shipped name, or a YAML file.  [default: auto]"),
    click.option("--target", metavar="NAME", shell_complete=OF_TARGETS,
                 help="What the model will run on: openvino, onnx, packed, compressed-tensors, torch or "
                      "gguf.  [default: openvino]"),
    click.option("--trials", type=click.IntRange(min=1),
                 help="Candidates to try, baselines not counted.  [default: 100; demo: 16]"),
    click.option("--timeout", "timeout_s", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
                 help="Start no trial after this many seconds."),
    click.option("--trial-timeout", "trial_timeout_s", type=click.FloatRange(min=1), metavar="SECONDS",
                 help="End a trial that has worked for this many seconds, and its worker with it.  "
                      "[default: ten times the longest so far, and at least 600]"),
    click.option("--patience", type=click.IntRange(min=1), metavar="N",
                 help="Stop when N candidates together brought under 0.1 % of hypervolume."),
    click.option("--sampler", shell_complete=OF_SAMPLERS,
                 help="autoprune, tpe, nsga2, random or gp.  [default: autoprune]"),
    click.option("--allocation", multiple=True, metavar="RULE",
                 help="uniform, global-threshold or erk: models that lose rows by this rule instead of the "
                      "solver are baselines too, trained as long as finalists; repeat for several."),
    click.option("--track", multiple=True, metavar="TRACKER", shell_complete=offering(TRACKERS),
                 help=f"{_either(TRACKERS)}: follow the search there too, settings, a step a trial and the "
                      "front; repeat for several."),
    click.option("--finetune-steps", type=click.IntRange(min=0),
                 help="Steps of the brief fine-tune in a trial.  [default: the space's; demo: 40]"),
    click.option("--teacher", metavar="MODEL", shell_complete=OF_FILES,
                 help="Another fine-tuned model, as a rule a larger one, whose answers fine-tunes learn in "
                      "the original's place: a folder, hub id or module:function. It reads the same tokens "
                      "and has the same classes.  [default: the original]"),
    click.option("--teacher-weights", metavar="FILE", shell_complete=OF_FILES,
                 help="Weights (.safetensors) of a --teacher that a function builds."),
    click.option("--teacher-revision", help="Revision of a --teacher from a hub."),
    click.option("--teacher-epochs", type=click.FloatRange(min=0, min_open=True),
                 help="Passes over the data where the model's head is missing.  [default: 1]"),
    click.option("--teacher-rate", type=click.FloatRange(min=0, min_open=True),
                 help="Learning rate of that fit.  [default: 1e-4]"),
    click.option("--batch", type=click.IntRange(min=1), help="Batch that latency is timed at.  [default: 1]"),
    click.option("--sequence", type=click.IntRange(min=1),
                 help="Tokens that latency is timed at.  [default: 128]"),
    click.option("--max-length", type=click.IntRange(min=4),
                 help="Tokens a row is cut at.  [default: 128; demo: 64]"),
    click.option("--calibration-rows", type=click.IntRange(min=8),
                 help="Training rows that statistics are taken from.  [default: 512]"),
    click.option("--robustness", is_flag=True, default=None,
                 help="Score the original and the points to ship on altered test rows too: with typos and in "
                      "other case, or with noise, blurred and brighter."),
    click.option("--attacks", is_flag=True, default=None,
                 help="Score them on test rows made hard for each of them too: pictures by the sign of the "
                      "gradient, texts by swapped words."),
    click.option("--folds", type=click.IntRange(min=2), metavar="K",
                 help="At the end fine-tune the points to ship anew on all but one of K folds of training "
                      "and validation rows, and score them on that one: K fine-tunes for each.  "
                      "[default: none]"),
    click.option("--no-examples", is_flag=True, default=None,
                 help="Keep no row of the data in the run folder and its report, which else show validation "
                      "rows whose answers changed (docs: report)."),
    click.option("--augment", is_flag=True, default=None,
                 help="Train on changed rows: pictures mirrored and shifted, tokens of texts hidden."),
    click.option("--clean-data", type=click.Choice(["repeats", "labels"]),
                 help="Leave training rows out that come twice, nearly twice, or in validation or test too "
                      "(repeats); labels: those with a doubted label as well. `autoprune data` shows them."),
    click.option("--workers", type=click.IntRange(min=0),
                 help="Ray workers at most; 0 runs trials in this process.  [default: one a core; on a "
                      "cluster as many as have room, also on nodes that join]"),
    click.option("--gpus-per-trial", type=click.FloatRange(min=0),
                 help="GPUs of a worker.  [default: a share of this machine's; 1 on a cluster with GPUs]"),
    click.option("--cpus-per-trial", type=click.FloatRange(min=0), help="CPUs of a worker.  [default: 1]"),
    click.option("--address", help="A running Ray cluster: auto (the one on this machine), HOST:PORT or "
                 "ray://HOST:PORT; local starts one for this search.  [default: RAY_ADDRESS, else local]"),
    click.option("--latency-node", metavar="LABEL",
                 help="Time on the cluster's node with this label: a value of latency-node, or NAME=VALUE."),
    click.option("--wait", "wait_s", type=click.FloatRange(min=1), metavar="SECONDS",
                 help="Wait so long for room on the cluster, or for a latency node that is away.  "
                      "[default: 60 and 600]"),
    click.option("--storage", metavar="entropy|URL",
                 help="entropy: all sizes are of entropy-coded files, as export then writes them; target "
                      "packed alone. A URL: database of the study, instead of study.db in the run folder; "
                      "its password is written to no file.  [default: AUTOPRUNE_STORAGE]"),
    click.option("--file-storage", type=click.Choice(["plain", "entropy"]),
                 help="What --storage entropy says, to be given beside a database.  [default: plain]"),
    click.option("--revision", help="Revision of a model from a hub."),
    click.option("--new-head", is_flag=True, default=None,
                 help="Throw the model's trained head away and fit a new one for the data's classes."),
    click.option("--trust-remote-code", is_flag=True, default=None,
                 help="Refused for a model that needs code it brings, which is never run; no effect else."),
    click.option("--seed", type=click.IntRange(min=0),
                 help="Seed of splits, search and fine-tunes.  [default: 0]"),
]  # fmt: skip

RESUME_OPTIONS: list[Callable[[Any], Any]] = [
    click.option("--workers", type=click.IntRange(min=0), help="Ray workers.  [default: as before]"),
    click.option("--gpus-per-trial", type=click.FloatRange(min=0),
                 help="GPUs of a worker.  [default: as before]"),
    click.option("--address",
                 help="Another Ray cluster, or local for none, as for search.  [default: as before]"),
    click.option("--timeout", "timeout_s", type=float, metavar="SECONDS",
                 help="Start no trial after this many seconds."),
    click.option("--trial-timeout", "trial_timeout_s", type=click.FloatRange(min=1), metavar="SECONDS",
                 help="End a trial that has worked for this many seconds.  [default: as before]"),
    click.option("--storage", metavar="URL",
                 help="The study's database, with the password that no file has.  [default: "
                      "AUTOPRUNE_STORAGE]"),
    click.option("--track", multiple=True, metavar="TRACKER", shell_complete=offering(TRACKERS),
                 help=f"{_either(TRACKERS)}; repeat for several.  [default: as before]"),
]  # fmt: skip

CONFIG_OPTION = click.option(
    "--config", "config_file", type=click.Path(path_type=Path), metavar="FILE",
    help="YAML or JSON of these settings by their names in --dry-run, whose output can be given here. Flags "
         "and MODEL win; relative paths are from the working directory.",
)  # fmt: skip

PLACE_OPTIONS: list[Callable[[Any], Any]] = [
    click.option("--cluster", metavar="URL", envvar=["AUTOPRUNE_CLUSTER", "RAY_API_SERVER_ADDRESS"],
                 help="http://HOST:8265 of the dashboard on a Ray cluster's head.  [default: "
                      "AUTOPRUNE_CLUSTER, else RAY_API_SERVER_ADDRESS]"),
    click.option("--storage-root", metavar="ROOT", envvar="AUTOPRUNE_STORAGE_ROOT",
                 help="What keeps inputs and runs: s3://..., gs://..., or a folder that this machine and the "
                      "cluster's head share.  [default: AUTOPRUNE_STORAGE_ROOT]"),
]  # fmt: skip


def asked_settings(
    model: str | None, given: Mapping[str, Any], config_file: Path | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a search is asked for, and of that what was said.

    Args:
        model: MODEL of the command line.
        given: the flags by their names; those that are None or () are not given.
        config_file: whose settings hold where no flag does.

    Returns:
        All settings by their flat names, those of the built-in demo where no model is named; and the ones
        among them that the file or a flag gives.

    Raises:
        AutopruneError: naming the file and what is wrong in it.
    """
    said = {} if config_file is None else read_settings(config_file)
    flags = {**given, "model": model}
    said |= storages_apart({name: value for name, value in flags.items() if value not in (None, ())})
    return {**(DEMO_DEFAULTS if "model" not in said else {}), **said}, said


def named_options(options: list[Callable[[Any], Any]], names: Iterable[str]) -> list[Callable[[Any], Any]]:
    """Those of some options whose parameters have the names, in their order."""
    wanted = set(names)

    @with_options(options)
    def probe() -> None: ...

    params = reversed(probe.__click_params__)
    return [option for option, param in zip(options, params, strict=True) if param.name in wanted]


def with_options(options: list[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    """A decorator that gives a command all the options, in their order."""

    def apply(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return apply
