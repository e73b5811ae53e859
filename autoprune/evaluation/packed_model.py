"""A stitched model as the bytes of its packed file, and back."""

from __future__ import annotations

import tempfile
from pathlib import Path

from autoprune.compress.stitch import Stitched
from autoprune.models.spec import Architecture
from autoprune.targets.packed import read_packed, write_packed


def packed_bytes(stitched: Stitched) -> bytes:
    """A stitched model in the packed layout."""
    with tempfile.TemporaryDirectory(prefix="autoprune-") as name:
        path = Path(name) / "model.safetensors"
        write_packed(stitched, path)
        return path.read_bytes()


def unpacked(artifact: bytes, architecture: Architecture) -> Stitched:
    """A stitched model from its packed bytes and the teacher's architecture."""
    with tempfile.TemporaryDirectory(prefix="autoprune-") as name:
        folder = Path(name)
        (folder / "model.safetensors").write_bytes(artifact)
        architecture.write(folder)
        return read_packed(folder, builder=architecture.builder)
