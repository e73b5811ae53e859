"""The commands of the command line that come after a search: `export` and `bench`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from autoprune.cli.signals import reported
from autoprune.core.errors import AutopruneError
from autoprune.core.progress import Progress
from autoprune.run.folder import run_config
from autoprune.space.budget import parse_budget


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--trial",
    "which",
    default="best",
    show_default=True,
    help="best; accurate: the most accurate; small, fast: the smallest, fastest that is as accurate; knee; "
    "or a trial's number.",
)
@click.option(
    "--budget",
    multiple=True,
    metavar="LIMIT",
    help="The best within this limit instead: the solver's answer is made and measured first.",
)
@click.option(
    "--target",
    help="openvino, onnx, packed, compressed-tensors, torch or gguf.  [default: the run's]",
)
@click.option(
    "--storage",
    default="plain",
    show_default=True,
    help="plain, or entropy: target packed in fewer bytes on disk, the same model once loaded.",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder to write; must not exist."
)
@click.option("--push-to-hub", "repo", metavar="OWNER/NAME", help="Upload it to a new, private repository.")
@click.option("--public", is_flag=True, help="With --push-to-hub: open the repository to everybody.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def export(
    run: Path,
    which: str,
    budget: tuple[str, ...],
    target: str | None,
    storage: str,
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
    autoprune export runs/demo-minilm-20MB -o minilm --push-to-hub my-org/minilm
    """
    with reported():
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        chosen = target or run_config(run).search.target
        if budget and which != "best":
            raise AutopruneError(f"--budget chooses the trial itself: leave out --trial {which}")
        if public and repo is None:
            raise AutopruneError(
                "--public says who may see what --push-to-hub uploads: give OWNER/NAME with it"
            )
        limit = parse_budget(budget) if budget else None
        from autoprune.export.checks import lines
        from autoprune.export.from_run import export as run_export
        from autoprune.export.hub import check_access, push

        if repo is not None:
            check_access(repo)
        progress = Progress(quiet=quiet)
        done = run_export(
            run, which=which, budget=limit, target=chosen, storage=storage, folder=output, progress=progress
        )
        size = done.measured.size_bytes
        click.echo(
            f"{done.folder}: trial {done.trial['number']} for {chosen}, {size} bytes ({size / 1e6:.2f} MB)\n"
            f"Checked in a fresh process\n" + "\n".join(lines(done.measured, done.checks)) + "\n"
            f"Load it:  from autoprune import load; model = load({str(done.folder)!r})"
        )
        if repo is not None:
            click.echo(f"Pushed:   {push(done.folder, repo, private=not public)}")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
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
        from autoprune.export.artifact import read_about
        from autoprune.export.checks import bench_checks, bench_lines, failed, recorded, validated_record
        from autoprune.export.fresh_process import with_defaults
        from autoprune.export.validate import Request, measure

        about = read_about(folder)
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
