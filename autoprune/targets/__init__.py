"""Runtimes a model can be shipped to. `get_target("openvino")`; each promises the same contract."""

import importlib
from importlib import metadata

from autoprune.errors import AutopruneError
from autoprune.targets.contract import Runner, Target, is_fast, kept_at, size_on_disk, stores

_TARGETS = {
    "openvino": ("openvino", "OpenVino"),
    "onnx": ("onnx", "Onnx"),
    "packed": ("packed", "Packed"),
    "compressed-tensors": ("compressed_tensors", "CompressedTensors"),
    "torch": ("torchao", "Torch"),
    "gguf": ("gguf", "Gguf"),
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
    "get_target",
    "is_fast",
    "kept_at",
    "size_on_disk",
    "stores",
    "versions_of",
]


def get_target(name: str) -> Target:
    """The target of that name.

    Raises:
        AutopruneError: for an unknown name, or one whose packages are not installed.
    """
    if name not in _TARGETS:
        raise AutopruneError(f"target {name!r} does not exist; choose one of {', '.join(NAMES)}")
    module, kind = _TARGETS[name]
    target: Target = getattr(importlib.import_module(f"autoprune.targets.{module}"), kind)()
    return target


def versions_of(name: str) -> dict[str, str]:
    """Versions of the packages that a target's files, and how fast they run, depend on."""
    found = {}
    for package in ("torch", "transformers", *_PACKAGES.get(name, ())):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = ""
    return found
