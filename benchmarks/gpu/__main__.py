"""A GPU's first run: `pack` here, `install` and `run` on a machine with a GPU and no network. See README.md.

python -m benchmarks.gpu pack
python3 -m benchmarks.gpu install --from /tmp/gpu
/tmp/gpu/environment/bin/python -m benchmarks.gpu run --from /tmp/gpu --out OUT
python -m benchmarks.gpu run --tiny
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from autoprune.core.errors import AutopruneError
from benchmarks.gpu.install import DEMO, WHEELS, install, python_of
from benchmarks.gpu.setup import Setup

PIECE_BYTES = 60_000_000
SECONDS = 480.0


def main() -> None:
    arguments = _parser().parse_args()
    try:
        arguments.do(arguments)
    except AutopruneError as error:
        sys.exit(f"error: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu")
    commands = parser.add_subparsers(required=True)
    pack = commands.add_parser("pack", help="collect what a bare GPU machine lacks; needs a package index")
    pack.set_defaults(do=_pack)
    pack.add_argument("--into", type=Path, default=Path(".gpu"), help="folder of the pieces  [.gpu]")
    pack.add_argument("--python", default="3.12", help="the machine's version of Python  [3.12]")
    pack.add_argument("--piece-bytes", type=int, default=PIECE_BYTES, help=f"of a piece  [{PIECE_BYTES}]")
    pack.add_argument("--present", type=Path, help="list of what the machine has  [present.txt, beside this]")
    pack.add_argument("--exclude", nargs="*", default=[], metavar="NAME", help="packages it has besides")
    pack.add_argument(
        "--include", nargs="*", default=[], metavar="NAME", help="packages to carry all the same"
    )
    pack.add_argument("--tiny", action="store_true", help="a tiny random model in place of the demo's")
    into = commands.add_parser("install", help="an environment from pieces, without network")
    into.set_defaults(do=_install)
    into.add_argument("--from", dest="source", type=Path, default=Path(".gpu"), help="their folder  [.gpu]")
    run = commands.add_parser("run", help="all parts, in one file of results")
    run.set_defaults(do=_run)
    run.add_argument(
        "--from", dest="source", type=Path, default=Path(".gpu"), help="installed folder  [.gpu]"
    )
    run.add_argument("--out", type=Path, default=Path("."), help="folder of gpu.json  [here]")
    run.add_argument("--seconds", type=float, default=SECONDS, help=f"limit of all parts  [{SECONDS:g}]")
    run.add_argument("--only", nargs="+", default=[], metavar="PART", help="parts by name  [all]")
    run.add_argument("--tiny", action="store_true", help="the same on the CPU with a tiny model: a minute")
    return parser


def _pack(asked: argparse.Namespace) -> None:
    from packaging.utils import canonicalize_name

    from benchmarks.gpu.demo import write_demo, write_tiny
    from benchmarks.gpu.pieces import write_pieces
    from benchmarks.gpu.wheels import PRESENT, download_wheels, read_present

    begun = time.monotonic()
    present = read_present(asked.present or PRESENT)
    present |= {canonicalize_name(name): None for name in asked.exclude}
    for name in asked.include:
        present.pop(canonicalize_name(name), None)
    with tempfile.TemporaryDirectory(prefix="autoprune-") as name:
        content = Path(name)
        for folder in (WHEELS, DEMO):
            (content / folder).mkdir()
        for conflict in download_wheels(content / WHEELS, python=asked.python, present=present):
            print(f"warning: {conflict}", file=sys.stderr)
        wheels = {path.name: path.stat().st_size for path in sorted((content / WHEELS).iterdir())}
        seconds = time.monotonic() - begun
        print(f"{len(wheels)} wheels, {sum(wheels.values()) / 1e6:.1f} MB, {seconds:.0f} s", flush=True)
        about = (write_tiny if asked.tiny else write_demo)(content / DEMO)
        manifest = write_pieces(
            content, asked.into, limit=asked.piece_bytes, python=asked.python, demo=about, wheels=wheels
        )
    for piece in manifest["pieces"]:
        print(f"{asked.into / piece['name']}  {piece['bytes'] / 1e6:.1f} MB  {piece['sha256'][:16]}")
    print(f"{time.monotonic() - begun:.0f} s in all")


def _install(asked: argparse.Namespace) -> None:
    begun = time.monotonic()
    print(install(asked.source.resolve()))
    print(f"installed in {time.monotonic() - begun:.0f} s; its Python is {python_of(asked.source)}")


def _run(asked: argparse.Namespace) -> None:
    from benchmarks.gpu.parts import chosen, parts_of
    from benchmarks.gpu.run import RESULT, run_parts
    from benchmarks.gpu.searches import environment

    with tempfile.TemporaryDirectory(prefix="autoprune-gpu-") as name:
        setup = _tiny_setup(Path(name)) if asked.tiny else _setup(asked.source.resolve())
        parts = chosen(parts_of(setup), asked.only)
        record = run_parts(setup, parts, asked.out, seconds=asked.seconds, environment=environment(setup))
    print(f"{asked.out / RESULT}: {record['seconds']:.0f} s of {asked.seconds:g}")


def _setup(source: Path) -> Setup:
    """The demo's model on this machine's GPU; caches stay beside it for another call."""
    if not (source / DEMO).is_dir():
        raise AutopruneError(f"{source} holds no {DEMO}: pack and install first, or give --tiny")
    import torch

    if not torch.cuda.is_available():
        raise AutopruneError(
            f"torch {torch.__version__} sees no GPU here; run it on a machine that has one, or give --tiny"
        )
    return Setup.for_gpu(source / DEMO, source / "work", cores=len(os.sched_getaffinity(0)))


def _tiny_setup(folder: Path) -> Setup:
    from benchmarks.gpu.demo import write_tiny

    (folder / DEMO).mkdir()
    write_tiny(folder / DEMO)
    return Setup.tiny(folder / DEMO, folder / "work")


if __name__ == "__main__":
    main()
