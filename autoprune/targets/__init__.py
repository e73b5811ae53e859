"""Runtimes a model can be shipped to. `get_target("openvino")`; each promises the same contract."""

from autoprune.errors import AutopruneError
from autoprune.targets.contract import Runner, Target, size_on_disk

NAMES = ("openvino", "packed")

__all__ = ["NAMES", "Runner", "Target", "get_target", "size_on_disk"]


def get_target(name: str) -> Target:
    """The target of that name.

    Raises:
        AutopruneError: for an unknown name.
    """
    if name == "openvino":
        from autoprune.targets.openvino import OpenVino

        return OpenVino()
    if name == "packed":
        from autoprune.targets.packed import Packed

        return Packed()
    raise AutopruneError(f"target {name!r} does not exist; choose one of {', '.join(NAMES)}")
