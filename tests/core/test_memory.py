"""Memory that is given back: cycles are found, and objects of imported modules gone through once."""

from __future__ import annotations

import gc
import sys
import types
import weakref

from autoprune.core.memory import give_memory_back


class Cycle:
    def __init__(self) -> None:
        self.me = self


def test_what_refers_only_to_itself_is_freed_each_time() -> None:
    for _ in range(3):
        gone = weakref.ref(Cycle())
        give_memory_back()
        assert gone() is None


def test_objects_of_modules_are_set_aside_once_and_again_after_an_import() -> None:
    give_memory_back()
    aside = gc.get_freeze_count()
    assert aside > 10_000
    kept = [Cycle() for _ in range(100)]
    give_memory_back()
    assert gc.get_freeze_count() <= aside  # nothing was imported since
    sys.modules["autoprune_test_memory"] = types.ModuleType("autoprune_test_memory")
    try:
        give_memory_back()
        assert gc.get_freeze_count() > aside
    finally:
        del sys.modules["autoprune_test_memory"], kept
