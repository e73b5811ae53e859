"""The commands of the command line that come after a search: `export` and `bench`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from autoprune.cli.completion import OF_FOLDERS, OF_POINTS, OF_TARGETS, offering
from autoprune.cli.export_forms import (
    check_form,
    export_members,
    export_one,
    export_together,
    trial_numbers,
)
from autoprune.cli.options import with_options
from autoprune.cli.signals import reported
from autoprune.core.errors import AutopruneError
from autoprune.core.progress import Progress
from autoprune.run.folder import run_config
from autoprune.run.text import shell_word
from autoprune.space.budget import parse_budget

EXPORT_OPTIONS: list[Any] = [
    click.option("--trial", "which", shell_complete=OF_POINTS,
                 help="best; accurate: the most accurate; small, fast: the smallest, fastest that is as "
                      "accurate; knee; or a trial's number.  [default: best]"),
    click.option("--budget", multiple=True, metavar="LIMIT",
                 help="The best within this limit instead: the solver's answer is made and measured first. "
                      "With --ensemble the limit of all members together."),
    click.option("--ensemble", "count", type=click.IntRange(2, 8), metavar="N",
                 help="N kept models of the front that answer together, within the budget for all of them."),
    click.option("--average", type=click.Choice(["simple", "weighted"]),
                 help="What an ensemble answers with.  [default: simple]"),
    click.option("--family", is_flag=True,
                 help="Several models of the front in one file, of which one answers at a time; target "
                      "packed alone. With --budget the limit of each."),
    click.option("--trials", "numbers", metavar="N,N,...",
                 help="Members of a family.  [default: up to six of the front]"),
    click.option("--target", metavar="NAME", shell_complete=OF_TARGETS,
                 help="openvino, onnx, packed, compressed-tensors, torch or gguf.  [default: the run's; of a "
                      "family packed]"),
    click.option("--storage", shell_complete=offering(("plain", "entropy")),
                 help="plain, or entropy: target packed in fewer bytes on disk, the same model once loaded.  "
                      "[default: as the search counted bytes; for another target plain]"),
    click.option("-o", "--output", type=click.Path(path_type=Path), required=True,
                 help="Folder to write; must not exist."),
    click.option("--push-to-hub", "repo", metavar="OWNER/NAME",
                 help="Upload it to a new, private repository."),
    click.option("--public", is_flag=True,
                 help="With --push-to-hub: open the repository to everybody."),
    click.option("-q", "--quiet", is_flag=True, help="No progress."),
]  # fmt: skip


@click.command()
@click.argument("run", type=click.Path(path_type=Path), shell_complete=OF_FOLDERS)
@with_options(EXPORT_OPTIONS)
def export(
    run: Path,
    which: str | None,
    budget: tuple[str, ...],
    count: int | None,
    average: str | None,
    family: bool,
    numbers: str | None,
    target: str | None,
    storage: str | None,
    output: Path,
    repo: str | None,
    public: bool,
    quiet: bool,
) -> None:
    """Write a trial's model, ready to ship, and check it in a fresh process.

    One that is not what was searched (bytes, logits, accuracy) is kept as OUTPUT.failed: exit code 5.

    \b
    autoprune export runs/demo-minilm-20MB --trial best -o minilm-20MB
    autoprune export runs/demo-minilm-20MB --budget 8MB -o minilm-8MB
    autoprune export runs/demo-minilm-20MB --ensemble 3 -o minilm-three
    autoprune export runs/demo-minilm-20MB --family --trials 13,20,27 -o minilm-family
    autoprune export runs/demo-minilm-20MB -o minilm --push-to-hub my-org/minilm
    """
    with reported():
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        searched = run_config(run).search
        check_form(which, budget, count, average, family, numbers, target, storage)
        if public and repo is None:
            raise AutopruneError(
                "--public says who may see what --push-to-hub uploads: give OWNER/NAME with it"
            )
        limit = parse_budget(budget) if budget else None
        from autoprune.export.hub import check_access, push

        if repo is not None:
            check_access(repo)
        common: dict[str, Any] = {"budget": limit, "folder": output, "progress": Progress(quiet=quiet)}
        target = target or searched.target
        of_target = {"target": target, "storage": storage or searched.storage_on(target)}
        if family:
            said = export_members(run, trials=trial_numbers(numbers), **common)
        elif count is not None:
            said = export_together(run, count=count, average=average or "simple", **of_target, **common)
        else:
            said = export_one(run, which=which or "best", **of_target, **common)
        click.echo(said)
        if repo is not None:
            click.echo(f"Pushed:   {push(output, repo, private=not public)}")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), shell_complete=OF_FOLDERS)
@click.option("--dataset", help="Rows of this data set instead of the recorded one's.")
@click.option("--batch", type=click.IntRange(min=1), help="Batch of the latency.  [default: as recorded]")
@click.option("--sequence", type=click.IntRange(min=1), help="Its tokens.  [default: as recorded]")
@click.option("--threads", type=click.IntRange(min=1), help="Its threads.  [default: as recorded]")
@click.option(
    "--builder",
    metavar="MODULE:FUNCTION",
    help="Function that may be called for a model that is not from transformers.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def bench(
    folder: Path,
    dataset: str | None,
    batch: int | None,
    sequence: int | None,
    threads: int | None,
    builder: str | None,
    as_json: bool,
) -> None:
    """Measure an exported model again: bytes, accuracy and latency, on this machine, without its run.

    Every file is checked by hash first. Exit code 5 where a file, the bytes or the accuracy are not what was
    recorded; milliseconds may differ.

    \b
    autoprune bench minilm-20MB --batch 32 --json
    """
    with reported():
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        from autoprune.core.errors import ValidationError
        from autoprune.export.artifact import builder_needed, read_about
        from autoprune.export.checks import bench_checks, bench_lines, failed, recorded, validated_record
        from autoprune.export.fresh_process import with_defaults
        from autoprune.export.validate import Request, measure

        about = read_about(folder)
        needed = builder_needed(folder, about)
        if needed not in (None, builder):
            raise AutopruneError(
                f"{folder} holds a model that {needed} builds, which is somebody's own code and is not "
                f"called unasked: autoprune bench {shell_word(str(folder))} --builder {needed}"
            )
        request = Request(
            str(folder), dataset=dataset, batch=batch, sequence=sequence, threads=threads, builder=builder
        )
        measured = with_defaults(measure(request), request)
        checks = bench_checks(measured, about, folder.name)
        if as_json:
            record = validated_record(measured, checks).as_json()
            click.echo(json.dumps(record | {"recorded": recorded(about)}, indent=1))
        else:
            click.echo("\n".join(bench_lines(measured, checks, about)))
        if reason := failed(checks):
            raise ValidationError(f"{folder} is not what was recorded: {reason}")
