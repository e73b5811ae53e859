"""Runtimes a model can be shipped to. `get_target("openvino")`; each promises the same contract.

`target.Target` is that contract: which levels are real there, how a model is saved, loaded and timed, and
how many bytes it takes. Each runtime has its module or folder and imports no other but `packed`. The module
of a target is imported when it is asked for. Imports `compress`, `models` and what is below. Begin with
`target`.
"""

import importlib
from importlib import metadata

from autoprune.core.errors import AutopruneError
from autoprune.targets.target import (
    IN_TORCH,
    PLAIN,
    STORAGES,
    Runner,
    Target,
    is_fast,
    kept_at,
    size_on_disk,
)

_TARGETS = {
    "openvino": ("openvino.target", "OpenVino"),
    "onnx": ("onnx.target", "Onnx"),
    "packed": ("packed", "Packed"),
    "compressed-tensors": ("compressed_tensors.target", "CompressedTensors"),
    "torch": ("torch_cuda", "Torch"),
    "gguf": ("gguf.target", "Gguf"),
}
"""Module and class of each; a module is imported when its target is asked for."""

_PACKAGES = {
    "openvino": ("openvino",),
    "onnx": ("onnx", "onnxruntime"),
    "compressed-tensors": ("compressed-tensors",),
    "torch": ("torchao",),
    "gguf": ("gguf",),
}
"""What each is made of beside torch and transformers, which write all of them."""

NAMES = tuple(_TARGETS)

__all__ = [
    "NAMES",
    "Runner",
    "Target",
    "check_storage",
    "get_target",
    "is_fast",
    "kept_at",
    "size_on_disk",
    "versions_of",
]


def check_storage(target: str, storage: str) -> None:
    """Raise `AutopruneError` for a way of storing files that there is none, or that a target lacks."""
    if storage not in STORAGES:
        raise AutopruneError(f"storage {storage!r} does not exist; choose one of {', '.join(STORAGES)}")
    if storage != PLAIN and target != "packed":
        raise AutopruneError(
            f"storage {storage} is of target packed alone: {target} opens its files as they are. Give "
            "--target packed with it"
        )


def get_target(name: str, *, storage: str = PLAIN, builder: str | None = None) -> Target:
    """The target of that name.

    Args:
        storage: how its files keep tensors; of target packed alone anything but plain.
        builder: function that may be called for a model that is not from transformers; a file alone makes
            nothing run.

    Raises:
        AutopruneError: for an unknown name, one whose packages are not installed, and a storage it lacks.
    """
    check_storage(name, storage)
    if name not in _TARGETS:
        raise AutopruneError(f"target {name!r} does not exist; choose one of {', '.join(NAMES)}")
    module, kind = _TARGETS[name]
    of_kind = getattr(importlib.import_module(f"autoprune.targets.{module}"), kind)
    given = {"builder": builder} if builder and name in IN_TORCH else {}
    if storage != PLAIN:
        given["storage"] = storage
    target: Target = of_kind(**given)
    return target


def versions_of(name: str) -> dict[str, str]:
    """Versions of the packages that a target's files, and how fast they run, depend on."""
    versions = {}
    for package in ("torch", "transformers", *_PACKAGES.get(name, ())):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = ""
    return versions
