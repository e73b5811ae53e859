"""Which architectures go through the whole pipe, on random weights?

    python -m benchmarks.architectures [NAME...]

For a tiny random model of each family: its search space is the shipped one or is drafted; the model without
half of what can be removed is compared with the one in which it is masked; and two compressed models are
saved for OpenVINO, ONNX Runtime and as a packed file, read again, and compared in answers and bytes. What is
refused is noted with the line that says why. Prints a line a family, and without NAME writes
`results/architectures.json` and the page `docs/architectures.md`. About three minutes on a core.
"""

from __future__ import annotations

import os
import sys
import tempfile
from importlib import metadata
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import transformers

from autoprune.core.files import write_json
from benchmarks.architectures.measure import REFUSED, Row, measure
from benchmarks.architectures.table import PAGE, RESULTS, page
from tests.support.families import EVERY

PACKAGES = ("torch", "transformers", "openvino", "onnx", "onnxruntime")


def main(names: list[str]) -> int:
    """Measure, print, and write where all families were measured; 2 for a name that is none."""
    if unknown := sorted(set(names) - EVERY.keys()):
        print(f"no family {unknown[0]!r}; there are {', '.join(EVERY)}", file=sys.stderr)
        return 2
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    rows = []
    for name in names or EVERY:
        with tempfile.TemporaryDirectory(prefix="autoprune-") as folder:
            os.environ["AUTOPRUNE_CACHE"] = str(Path(folder) / "cache")  # nothing made earlier is believed
            rows.append(measure(name, Path(folder)))
        print(line_of(rows[-1]), flush=True)
    if not names:
        versions = {package: metadata.version(package) for package in PACKAGES}
        write_json(RESULTS, {"versions": versions, "rows": [row.as_json() for row in rows]})
        PAGE.write_text(page(rows), encoding="utf-8")
    return 0


def line_of(row: Row) -> str:
    """A family in a line, for people."""
    if row.refusal:
        return f"{row.family:18} {REFUSED}: {row.refusal}"
    removed = ", ".join(f"{what} of {count}" for what, count in row.parts.items()) or "nothing"
    masked = "" if row.masked_against_removed is None else f" (masked {row.masked_against_removed:.0e})"
    said = []
    for target, saved in row.targets.items():
        if saved.refusal:
            said.append(f"{target} refused: {saved.refusal:.90}")
            continue
        bytes_off = saved.saved_bytes["mixed"] - saved.predicted_bytes["mixed"]
        said.append(f"{target} {bytes_off:+,} B, off {saved.off['halved']:.0e} / {saved.off['mixed']:.0e}")
    space = row.space or row.status
    return f"{row.family:18} {space:24} {row.units} units, {removed}{masked}; {'; '.join(said)}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
