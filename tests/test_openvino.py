"""What is special to OpenVINO here: it reports nothing, and its graph must have every weight."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Tiny

from autoprune.errors import AutopruneError
from autoprune.space import Level
from autoprune.stitch import Stitched
from autoprune.targets import get_target


def test_it_reports_nothing_over_the_network() -> None:
    code = (
        "import sys; from autoprune.targets import get_target; get_target('openvino'); import openvino;"
        "assert not [name for name in sys.modules if name.startswith('openvino_telemetry.')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_weight_that_its_graph_lacks_is_refused(tiny_bert: Tiny, tmp_path: Path) -> None:
    stitched = tiny_bert.stitched(Level(0.0, 4))
    lost = {"bert.nowhere": next(iter(stitched.integers.values()))}
    broken = Stitched(stitched.model, lost, frozenset(), {}, stitched.levels)
    with pytest.raises(AutopruneError, match=r"no weight self\.bert\.nowhere\.weight"):
        get_target("openvino").save(broken, tmp_path, tiny_bert.task.batch(tiny_bert.task.test, [0]))
