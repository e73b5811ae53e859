"""A forward pass that pauses at chosen layers, so that several passes can go layer by layer together."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Pause:
    """Where a pass has paused: a layer's path, and the tensor that goes in or came out."""

    path: str
    tensor: Tensor


class Walk:
    """One forward pass, in a thread of its own that computes only while `advance` waits for it."""

    def __init__(self, run: Callable[[], object]) -> None:
        self._run = run
        self._go, self._paused = threading.Semaphore(0), threading.Semaphore(0)
        self._at: Pause | None = None
        self._error: BaseException | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._walk, daemon=True)
        self._thread.start()

    def advance(self) -> Pause | None:
        """Go on to the next pause; None at the end of the pass. Raises what the pass raised."""
        if not self._thread.is_alive():
            return None
        self._go.release()
        self._paused.acquire()
        if self._error is not None:
            raise self._error
        return self._at

    def close(self) -> None:
        """End the pass where it is."""
        self._closed = True
        self._go.release()
        self._thread.join()

    def pause(self, path: str, tensor: Tensor) -> None:
        """Called by a layer's hook, in the thread of the pass."""
        self._at = Pause(path, tensor)
        self._paused.release()
        self._go.acquire()
        if self._closed:
            raise _LeftError

    def _walk(self) -> None:
        self._go.acquire()
        try:
            if not self._closed:
                _HERE.walk = self
                with torch.no_grad():
                    self._run()
        except _LeftError:
            pass
        except BaseException as error:  # raised again by `advance`, in the thread that waits
            self._error = error
        finally:
            self._at = None
            self._paused.release()


class _LeftError(Exception):
    """Ends a pass that is closed."""


_HERE = threading.local()
"""The walk of this thread, if any, so that one hook serves all passes through a layer."""


@contextlib.contextmanager
def pausing(model: nn.Module, paths: Iterable[str], *, before: bool) -> Iterator[None]:
    """Make each walk through `model` pause at layers: before one with its input, or after with its output."""
    handles = []
    for path in paths:
        module = model.get_submodule(path)
        if before:
            handles.append(module.register_forward_pre_hook(_before(path)))
        else:
            handles.append(module.register_forward_hook(_after(path)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _before(path: str) -> Callable[[nn.Module, Any], None]:
    def hook(module: nn.Module, args: Any) -> None:
        _pause(path, args[0])

    return hook


def _after(path: str) -> Callable[[nn.Module, Any, Any], None]:
    def hook(module: nn.Module, args: Any, output: Any) -> None:
        _pause(path, output)

    return hook


def _pause(path: str, tensor: Tensor) -> None:
    walk = getattr(_HERE, "walk", None)
    if walk is not None:
        walk.pause(path, tensor)
