"""Calibration, library and stitching: from a model and data to a really smaller model."""

from __future__ import annotations

import copy
import multiprocessing
import os
import random
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from autoprune.compress import library_folder
from autoprune.compress.library import Library
from autoprune.compress.statistics import Statistics, calibrate
from autoprune.compress.stitch import Stitched
from autoprune.compress.surgery import FewerTokens, replace_
from autoprune.compress.variants import Variant
from autoprune.core.errors import AutopruneError
from autoprune.evaluation.measure import logits_of
from autoprune.models.unit import Unit, Weight
from autoprune.space.levels import UNTOUCHED, Level
from autoprune.space.storage import FLOAT_BITS, storages_of
from autoprune.targets.packed import torch_runner
from autoprune.tasks.answers import divergence
from tests.support.stored import half_of, integers_of
from tests.support.tiny import Tiny, logits


def recalibrated(tiny: Tiny, *, rows: int = 24, seed: int = 0) -> dict[str, Statistics]:
    return calibrate(tiny.model, list(tiny.statistics), tiny.task, tiny.task.train, rows=rows, seed=seed)


def row_inputs(tiny: Tiny, row: int) -> dict[str, Tensor]:
    """One row alone, without padding."""
    length = int(tiny.task.train.lengths[row])
    batch = tiny.task.batch(tiny.task.train, [row])
    return {name: torch.from_numpy(x)[:, :length] for name, x in batch.items()}


def seen_by(tiny: Tiny, rows: Iterator[int] | range) -> dict[str, Tensor]:
    """Every input of every recorded module, row by row, end to end."""
    seen: dict[str, list[Tensor]] = {path: [] for path in tiny.statistics}
    handles = [
        tiny.model.get_submodule(path).register_forward_hook(
            lambda module, args, output, path=path: seen[path].append(args[0].detach())
        )
        for path in seen
    ]
    for row in rows:
        with torch.no_grad():
            tiny.model(**row_inputs(tiny, row))
    for handle in handles:
        handle.remove()
    return {path: torch.cat([tokens_of(x) for x in inputs]) for path, inputs in seen.items()}


def tokens_of(x: Tensor) -> Tensor:
    """Inputs [b s i] or [b i] as [t i], numbers of embeddings [b s] as [t]."""
    return x.flatten(0, -2) if x.is_floating_point() else x.flatten()


def same_state(one: nn.Module, other: nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(x, theirs[name]) for name, x in mine.items())


def measured_harm(tiny: Tiny, model: nn.Module) -> float:
    """Mean KL of a model from the teacher's, nats a row."""
    data = tiny.task.train
    ours, theirs = (logits_of(torch_runner(m), tiny.task, data) for m in (model, tiny.model))
    return divergence(ours, theirs)


# ---- calibration --------------------------------------------------------------------------------


def test_moments_are_those_of_the_same_rows_without_padding(tiny: Tiny) -> None:
    for path, x in seen_by(tiny, range(24)).items():
        module, found = tiny.model.get_submodule(path), tiny.statistics[path]
        if isinstance(module, nn.Linear):
            torch.testing.assert_close(found.moment, x.T @ x / len(x), rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(found.mean, x.mean(0), rtol=1e-4, atol=1e-5)
            assert found.uses == pytest.approx(len(x) / 24)
        elif "word" in path:
            counts = torch.bincount(x.reshape(-1), minlength=module.weight.shape[0])  # type: ignore[union-attr, index]
            torch.testing.assert_close(found.moment, counts / 24)


def test_only_the_rows_asked_for_are_read(tiny_bert: Tiny) -> None:
    chosen = np.random.default_rng(5).permutation(24)[:7]
    seen = seen_by(tiny_bert, iter(int(row) for row in chosen))
    for path, found in recalibrated(tiny_bert, rows=7, seed=5).items():
        if found.mean.numel():
            x = seen[path]
            torch.testing.assert_close(found.moment, x.T @ x / len(x), rtol=1e-4, atol=1e-5)


def test_tokens_are_counted_in_all_rows_and_positions_in_those_asked_for(tiny: Tiny) -> None:
    found = recalibrated(tiny, rows=7, seed=5)
    words, places = (tiny.unit(f"{kind}_embeddings").rows[0].path for kind in ("word", "position"))
    counts = torch.bincount(torch.from_numpy(tiny.task.train.ids).long(), minlength=200)
    torch.testing.assert_close(found[words].moment, counts / 24)
    assert 0 < found[places].moment[0] <= 1
    assert found[places].moment.sum() != tiny.statistics[places].moment.sum()


def test_gradients_are_the_fisher_information_of_the_teachers_own_labels(tiny: Tiny) -> None:
    path = tiny.unit("feed_forward").cols[0].path
    exact = exact_fisher(tiny, path)
    drawn = torch.stack([recalibrated(tiny, seed=seed)[path].gradient for seed in range(16)])
    torch.testing.assert_close(drawn.mean(0).sum(), exact.sum(), rtol=0.15, atol=0)
    assert float(torch.corrcoef(torch.stack([drawn.mean(0), exact]))[0, 1]) > 0.9


def exact_fisher(tiny: Tiny, path: str) -> Tensor:
    """Mean over tokens of E_label[gradient^2] at a module's output, the labels summed over."""
    outputs: list[Tensor] = []
    handle = tiny.model.get_submodule(path).register_forward_hook(lambda m, a, output: outputs.append(output))
    total, tokens = torch.zeros(1), 0
    for row in range(24):
        logs = tiny.model(**row_inputs(tiny, row)).logits.log_softmax(-1)[0]
        for log in logs:
            (gradient,) = torch.autograd.grad(log, outputs[-1], retain_graph=True)
            total = total + log.exp().detach() * gradient[0].square().sum(0)
        tokens += outputs[-1].shape[1]
    handle.remove()
    return total / tokens


def test_calibration_leaves_the_model_as_it_was(tiny: Tiny) -> None:
    before = copy.deepcopy(tiny.model)
    tiny.model.train()
    try:
        recalibrated(tiny)
        assert tiny.model.training
    finally:
        tiny.model.eval()
    assert same_state(tiny.model, before)
    assert all(p.grad is None for p in tiny.model.parameters())
    assert not any(module._forward_hooks for module in tiny.model.modules())


def test_the_same_seed_gives_the_same_statistics(tiny_bert: Tiny) -> None:
    once, again = recalibrated(tiny_bert, seed=3), recalibrated(tiny_bert, seed=3)
    assert all(torch.equal(once[p].moment, again[p].moment) for p in once)
    assert all(torch.equal(once[p].gradient, again[p].gradient) for p in once)


@pytest.mark.parametrize("kind", ["attention", "feed_forward", "word_embeddings"])
def test_predicted_damage_of_a_small_change_is_of_the_measured_size(tiny: Tiny, kind: str) -> None:
    path = tiny.unit(kind).weights[-1].path
    module, seen = tiny.model.get_submodule(path), tiny.statistics[path]
    weight: Tensor = module.weight.detach()  # type: ignore[union-attr, operator, assignment]
    predicted, measured = 0.0, 0.0
    for seed in range(4):
        change = (
            0.03 * weight.std() * torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
        )
        if isinstance(module, nn.Embedding):
            predicted += 0.5 * float(seen.moment @ change.square() @ seen.gradient)
        else:
            harm = ((change @ seen.moment) * change).sum(1)
            predicted += 0.5 * seen.uses * float(seen.gradient @ harm)
        changed = copy.deepcopy(tiny.model)
        replace_(changed, path, weight + change, getattr(module, "bias", None))
        measured += measured_harm(tiny, changed)
    assert predicted / 3 < measured < predicted * 3


# ---- library ------------------------------------------------------------------------------------


def test_an_untouched_variant_is_the_teachers_weight(tiny: Tiny) -> None:
    for unit in tiny.units:
        for path, variant in tiny.library.variants(unit, UNTOUCHED).items():
            module = tiny.model.get_submodule(path)
            assert variant.stored is None
            assert torch.equal(variant.value(), module.weight)  # type: ignore[arg-type]
            bias = getattr(module, "bias", None)
            assert (variant.bias is None) == (bias is None)
            assert bias is None or torch.equal(variant.bias, bias)


def test_a_variant_at_16_bits_is_half_rounded_exactly(tiny: Tiny) -> None:
    for unit in tiny.units:
        for path, variant in tiny.library.variants(unit, Level.of(0.0, 16)).items():
            weight: Tensor = tiny.model.get_submodule(path).weight  # type: ignore[assignment]
            assert torch.equal(variant.value(), weight.half().float())
            assert torch.equal(variant.value().half().float(), variant.value())


def test_rounding_does_not_move_the_mean_output(tiny: Tiny) -> None:
    unit = tiny.unit("feed_forward")
    for path, variant in tiny.library.variants(unit, Level.of(0.0, 2)).items():
        module: nn.Linear = tiny.model.get_submodule(path)  # type: ignore[assignment]
        mean = tiny.statistics[path].mean
        assert variant.bias is not None
        new, old = variant.value() @ mean + variant.bias, module.weight @ mean + module.bias
        torch.testing.assert_close(new, old, rtol=1e-4, atol=1e-4)


def test_a_level_that_a_unit_does_not_have_is_refused(tiny_bert: Tiny) -> None:
    unit = tiny_bert.unit("pooler")
    with pytest.raises(AutopruneError, match=r"pooler.dense has no level 0.5x4b"):
        tiny_bert.library.variants(unit, Level.of(0.5, 4))
    with pytest.raises(AutopruneError, match=r"pooler.dense has no level 0x2b"):
        tiny_bert.library.variants(unit, Level.of(0.0, 2))


def test_rows_that_stay_are_all_where_none_are_removed(tiny: Tiny) -> None:
    for unit in tiny.units:
        assert torch.equal(tiny.library.kept_rows(unit, 0.0), torch.arange(unit.rows[0].rows))


def test_rows_that_stay_are_those_of_the_variants_in_order(tiny: Tiny) -> None:
    for unit in (unit for unit in tiny.units if unit.prunable):
        for ratio in unit.ratios:
            keep = tiny.library.kept_rows(unit, ratio)
            pieces = tiny.library.kept(unit, ratio)
            assert len(pieces) == unit.kept(ratio)
            assert (pieces.diff() > 0).all()
            assert torch.equal(keep, unit.at(pieces, unit.rows[0].rows))
            variants = tiny.library.variants(unit, Level.of(ratio, FLOAT_BITS))
            for one in unit.rows:
                weight: Tensor = tiny.model.get_submodule(one.path).weight  # type: ignore[assignment]
                assert torch.equal(variants[one.path].value(), weight[keep])


def test_rows_that_stay_are_the_files_whoever_asks(tmp_path: Path) -> None:
    library, unit = small_library(tmp_path)
    keep = library.kept_rows(unit, 0.5)
    seen = dict(library._statistics)
    seen["b"] = replace(seen["b"], moment=torch.linspace(0.1, 100.0, 256).diag())  # others would be kept
    folders = (tmp_path / "own", tmp_path)
    own, shared = (Library(folder, library._teacher, seen, key="k") for folder in folders)
    assert not torch.equal(own.kept_rows(unit, 0.5), keep)
    assert torch.equal(shared.kept_rows(unit, 0.5), keep)


def test_a_ratio_that_a_unit_does_not_have_is_refused(tiny_bert: Tiny) -> None:
    with pytest.raises(AutopruneError, match=r"pooler.dense has no ratio 0.5"):
        tiny_bert.library.kept_rows(tiny_bert.unit("pooler"), 0.5)


def test_files_are_named_after_all_that_they_depend_on(tiny_bert: Tiny, tmp_path: Path) -> None:
    unit, other = tiny_bert.unit("attention"), tiny_bert.unit("feed_forward")
    make = {key: Library(tmp_path, tiny_bert.model, tiny_bert.statistics, key=key) for key in ("a", "b")}
    paths = [
        make["a"].path(unit, 0.5),
        make["b"].path(unit, 0.5),
        make["a"].path(unit, 0.25),
        make["a"].path(other, 0.5),
        make["a"].path(replace(unit, group_size=32), 0.5),
        make["a"].path(replace(unit, storages=storages_of((4, 32))), 0.5),
    ]
    assert len(set(paths)) == len(paths)
    twin = Library(tmp_path, tiny_bert.model, tiny_bert.statistics, key="a")
    assert twin.path(unit, 0.5) == paths[0]


def test_a_file_that_is_there_is_used_and_not_written_again(tiny_bert: Tiny, tmp_path: Path) -> None:
    unit = tiny_bert.unit("attention")
    first = Library(tmp_path, tiny_bert.model, tiny_bert.statistics, key="k")
    first.build(unit, 0.5)
    stat = first.path(unit, 0.5).stat()
    second = Library(tmp_path, tiny_bert.model, tiny_bert.statistics, key="k")
    second.build(unit, 0.5)
    second.kept_rows(unit, 0.5)
    second.variants(unit, Level.of(0.5, 4))
    after = first.path(unit, 0.5).stat()
    assert (after.st_size, after.st_ino) == (stat.st_size, stat.st_ino)
    assert [path.name for path in tmp_path.iterdir()] == [first.path(unit, 0.5).name]


def test_two_processes_may_build_the_same_variants_at_once(tmp_path: Path) -> None:
    library, unit = small_library(tmp_path)
    jobs = [(unit, ratio) for ratio in unit.ratios for _ in range(2)]
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(2, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        pool.starmap(library.build, jobs, chunksize=1)
    assert sorted(tmp_path.iterdir()) == sorted(library.path(unit, ratio) for ratio in unit.ratios)
    alone, _ = small_library(tmp_path / "alone")
    for ratio in unit.ratios:
        level = Level.of(ratio, 4)
        mine, theirs = alone.variants(unit, level), library.variants(unit, level)
        assert equal(theirs, mine)
        assert torch.equal(library.kept_rows(unit, ratio), alone.kept_rows(unit, ratio))


def small_library(folder: Path) -> tuple[Library, Unit]:
    """A library that another process can be sent without the rest of a model, and its one unit."""
    library, units = several(folder, ratios=(0.0, 0.25, 0.5, 0.75), count=1)
    return library, units[0]


def several(
    folder: Path, *, limit: int | None = None, ratios: tuple[float, ...] = (0.0,), count: int = 4
) -> tuple[Library, list[Unit]]:
    """The same with several units of equal size."""
    torch.manual_seed(0)
    teacher, units, seen = nn.ModuleDict(), [], {}
    for k in range(count):
        a, b = ("a", "b") if k == 0 else (f"a{k}", f"b{k}")
        for name, i, o in ((a, 64, 256), (b, 256, 64)):
            teacher[name] = nn.Linear(i, o)
            low, high = -torch.ones(i), torch.ones(i)
            seen[name] = Statistics(torch.eye(i), torch.zeros(i), torch.ones(o), 1.0, low, high)
        rows, cols = (Weight(a, 256, 64, True),), (Weight(b, 64, 256, True),)
        units.append(Unit(f"u{k}", "u", rows, cols, 256, 64, 64, ratios, storages_of((2, 4, 8, FLOAT_BITS))))
    return Library(folder, teacher, seen, key="k", limit=limit), units


# ---- the library's folder -----------------------------------------------------------------------


def total_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def equal(one: Mapping[str, Variant], other: Mapping[str, Variant]) -> bool:
    """Whether variants are the same to the last bit."""
    return one.keys() == other.keys() and all(
        torch.equal(mine.weight, other[path].weight)
        and torch.equal(mine.value(), other[path].value())
        and torch.equal(mine.bias, other[path].bias)  # type: ignore[arg-type]
        for path, mine in one.items()
    )


def test_the_limit_is_read_as_a_budget_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(library_folder.LIMIT_VARIABLE, raising=False)
    assert library_folder.limit_bytes() == 20_000_000_000
    for text, expected in (("", 20 * 10**9), ("500MB", 500_000_000), (" 1.5 GiB ", 3 * 2**29)):
        monkeypatch.setenv(library_folder.LIMIT_VARIABLE, text)
        assert library_folder.limit_bytes() == expected


@pytest.mark.parametrize("text", ["5ms", "lots", "20", "0GB", "-3MB"])
def test_a_limit_that_is_no_size_is_refused_with_what_is_allowed(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(library_folder.LIMIT_VARIABLE, text)
    with pytest.raises(AutopruneError, match=f"AUTOPRUNE_LIBRARY_LIMIT='{text}' is no size; .* 20GB"):
        small_library(tmp_path)


@given(
    sizes=st.lists(st.integers(1, 50), min_size=1, max_size=12),
    order=st.randoms(use_true_random=False),
    limit=st.integers(1, 200),
)
def test_files_go_in_the_order_of_their_last_use_and_no_more_than_needed(
    sizes: list[int], order: random.Random, limit: int
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = [folder / f"{k:024x}.safetensors" for k in range(len(sizes))]
        order.shuffle(paths)
        for age, (path, size) in enumerate(zip(paths, sizes, strict=True)):  # the first is the oldest
            path.write_bytes(b"x" * size)
            os.utime(path, (1000 + age, 1000 + age))
        keep = order.choice(paths)
        removed = library_folder.make_room(folder, limit=limit, keep=keep)
        assert removed == [path for path in paths if path != keep][: len(removed)]
        assert sorted(folder.iterdir()) == sorted(set(paths) - set(removed))
        if sum(sizes) <= limit:
            assert not removed
        else:
            assert total_bytes(folder) <= 0.9 * limit or [keep] == list(folder.iterdir())
            last = sizes[paths.index(removed[-1])] if removed else 0
            assert total_bytes(folder) + last > 0.9 * limit


def test_what_is_not_the_librarys_is_never_removed_nor_counted(tmp_path: Path) -> None:
    strangers = [tmp_path / "notes.txt", tmp_path / "model.safetensors", tmp_path / ".hidden"]
    for path in strangers:
        path.write_bytes(b"x" * 10**6)
    library, unit = small_library(tmp_path)
    library._limit = 1
    library.build(unit, 0.5)
    assert all(path.exists() for path in strangers)
    assert {file.path for file in library_folder.holdings(tmp_path)} == {library.path(unit, 0.5)}


def test_a_killed_writers_leftovers_go_after_an_hour_and_a_living_ones_stay(tmp_path: Path) -> None:
    library, unit = small_library(tmp_path)
    for name, hours in (("old", 1.1), ("new", 0.9)):
        leftover = tmp_path / f".{library.path(unit, 0.5).name}.{name}"
        leftover.mkdir()
        (leftover / library.path(unit, 0.5).name).write_bytes(b"half a file")
        then = time.time() - hours * 3600
        os.utime(leftover, (then, then))
    assert [file.size_bytes for file in library_folder.leftovers(tmp_path)] == [11, 11]
    library.build(unit, 0.0)
    assert [file.path.name.rpartition(".")[2] for file in library_folder.leftovers(tmp_path)] == ["new"]


def test_the_folder_stays_within_its_limit_and_keeps_what_was_used_last(tmp_path: Path) -> None:
    library, units = several(tmp_path / "measured", count=1)
    library.build(units[0], 0.0)
    one = total_bytes(tmp_path / "measured")
    limit = int(3.5 * one)  # 90 % of which is three files
    library, units = several(tmp_path / "limited", limit=limit, count=5)
    paths = [library.path(unit, 0.0) for unit in units]
    for k in range(3):
        library.build(units[k], 0.0)
        os.utime(paths[k], (1000 + k, 1000 + k))
    library.variants(units[0], Level.of(0.0, 4))  # reading makes the oldest the newest
    for k in (3, 4):
        library.build(units[k], 0.0)
        assert total_bytes(tmp_path / "limited") <= limit
    assert [path.exists() for path in paths] == [True, False, False, True, True]


def test_variants_made_again_are_the_same_and_those_in_use_outlive_their_file(tmp_path: Path) -> None:
    library, units = several(tmp_path, limit=1, count=2)
    levels = [Level(0.0, storage) for storage in reversed(units[0].storages)]
    mapped = [library.variants(units[0], level) for level in levels]
    first = [{p: replace(v, weight=v.weight.clone()) for p, v in variants.items()} for variants in mapped]
    library.build(units[1], 0.0)
    assert not library.path(units[0], 0.0).exists()  # a limit below one file holds just that one
    assert library.path(units[1], 0.0).exists()
    assert all(equal(variants, other) for variants, other in zip(mapped, first, strict=True))
    again = [library.variants(units[0], level) for level in levels]
    assert all(equal(variants, other) for variants, other in zip(again, first, strict=True))


def test_a_limit_that_makes_variants_over_and_over_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    library, units = several(tmp_path, limit=1)
    for unit in (*units, *units):
        library.build(unit, 0.0)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "raise AUTOPRUNE_LIBRARY_LIMIT" in caplog.text


def spoil(path: Path, how: str) -> None:
    """Do to a file what a bad disk does; in a new file, as the old one may be mapped."""
    data = bytearray(path.read_bytes())
    header = int.from_bytes(data[:8], "little")
    match how:
        case "empty":
            data.clear()
        case "cut short":
            del data[-1]
        case "cut in the header":
            del data[header // 2 :]
        case "length":
            data[3] ^= 0x40
        case "note":
            data[data.index(b"u0")] ^= 1
        case "name":
            data[data.index(b"@4.codes") + 1] ^= 1
        case "tensors":
            for k in range(8 + header, len(data), 256):
                data[k] ^= 1
    spoiled = path.with_name("spoiled")
    spoiled.write_bytes(bytes(data))
    os.replace(spoiled, path)


DAMAGES = ["empty", "cut short", "cut in the header", "length", "note", "name", "tensors"]


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_file_is_made_again(tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture) -> None:
    library, unit = small_library(tmp_path)
    level = Level.of(0.5, 4)
    whole = library.variants(unit, level)
    spoil(library.path(unit, 0.5), how)
    assert equal(library.variants(unit, level), whole)
    assert "is made again" in caplog.text
    caplog.clear()
    assert equal(library.variants(unit, level), whole)
    assert not caplog.records


@pytest.mark.parametrize("how", DAMAGES)
def test_rows_of_a_damaged_file_are_right(tmp_path: Path, how: str) -> None:
    library, unit = small_library(tmp_path)
    keep, whole = library.kept_rows(unit, 0.5), library.variants(unit, Level.of(0.5, 4))
    spoil(library.path(unit, 0.5), how)
    assert torch.equal(library.kept_rows(unit, 0.5), keep)
    assert equal(library.variants(unit, Level.of(0.5, 4)), whole)


def test_any_byte_may_flip_and_the_variants_are_right(tmp_path: Path) -> None:
    library, unit = small_library(tmp_path)
    level = Level.of(0.75, 2)
    keep, whole = library.kept_rows(unit, 0.75), library.variants(unit, level)
    path = library.path(unit, 0.75)
    data = path.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    for place in (*range(0, header, 41), *range(header, len(data), len(data) // 40)):
        flipped = bytearray(data)
        flipped[place] ^= 1 << (place % 8)
        (tmp_path / "flipped").write_bytes(flipped)
        os.replace(tmp_path / "flipped", path)
        assert equal(library.variants(unit, level), whole), place
        assert torch.equal(library.kept_rows(unit, 0.75), keep), place


def test_a_file_that_goes_just_before_it_is_opened_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    library, unit = small_library(tmp_path)
    whole = library.variants(unit, Level.of(0.5, 4))
    monkeypatch.setattr("autoprune.compress.library.touch", lambda path: path.unlink())
    assert equal(library.variants(unit, Level.of(0.5, 4)), whole)
    assert not caplog.records


def test_a_new_file_that_goes_before_its_writer_reads_it_is_still_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library, unit = small_library(tmp_path)
    whole = library.variants(unit, Level.of(0.5, 4))
    library.path(unit, 0.5).unlink()
    monkeypatch.setattr(
        "autoprune.compress.library.make_room", lambda folder, *, limit, keep: [keep.unlink()]
    )
    assert equal(library.variants(unit, Level.of(0.5, 4)), whole)
    assert not library.path(unit, 0.5).exists()


def test_workers_that_drive_out_each_others_files_all_get_the_right_variants(tmp_path: Path) -> None:
    library, units = several(tmp_path / "shared", limit=1)
    alone, _ = several(tmp_path / "alone")
    right = [[digest(alone, unit, bits) for bits in (4, FLOAT_BITS)] for unit in units]
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(3, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        found = pool.starmap(read_in_turn, [(library, units, start) for start in range(3)], chunksize=1)
    assert all(answer == right for turns in found for answer in turns)
    library.build(units[0], 0.0)
    assert {file.path for file in library_folder.holdings(tmp_path / "shared")} == {
        library.path(units[0], 0.0)
    }


def read_in_turn(library: Library, units: list[Unit], start: int) -> list[list[list[int]]]:
    """What a worker reads that goes through all units several times, from its own start."""
    turns = []
    for _ in range(5):
        found = {}
        for k in range(len(units)):
            unit = units[(start + k) % len(units)]
            found[unit.name] = [digest(library, unit, bits) for bits in (4, FLOAT_BITS)]
        turns.append([found[unit.name] for unit in units])
    return turns


def digest(library: Library, unit: Unit, bits: int) -> int:
    """One number for all of a unit's variants in `bits`."""
    found = library.variants(unit, Level.of(0.0, bits)).values()
    return zlib.crc32(
        b"".join(x.numpy().tobytes() for v in found for x in (v.value(), v.bias) if x is not None)
    )


def test_a_file_says_what_it_holds(tmp_path: Path) -> None:
    library, unit = small_library(tmp_path)
    before = time.time()
    library.build(unit, 0.25)
    (held,) = library_folder.holdings(tmp_path)
    note = held.note
    assert note is not None
    assert (note.version, note.key, note.unit, note.kind) == (library_folder.VERSION, "k", "u0", "u")
    assert (note.ratio, note.bits) == (0.25, (2, 4, 8, 32))
    assert before <= note.made <= time.time()
    assert held.size_bytes == held.path.stat().st_size
    assert not held.problem


# ---- stitching ----------------------------------------------------------------------------------


def test_every_unit_untouched_gives_the_teachers_logits_bit_for_bit(tiny: Tiny) -> None:
    stitched = tiny.stitched_as(tiny.space.untouched())
    batch = tiny.task.batch(tiny.task.test, range(8))
    assert torch.equal(logits(stitched.model, batch), logits(tiny.model, batch))
    assert not integers_of(stitched)
    assert not half_of(stitched)


def test_one_unit_put_together_at_32_bits_gives_the_teachers_logits_too(tiny: Tiny) -> None:
    model = copy.deepcopy(tiny.model)
    for unit in tiny.units:
        for path, variant in tiny.library.variants(unit, UNTOUCHED).items():
            replace_(model, path, variant.value(), variant.bias)
    batch = tiny.task.batch(tiny.task.test, range(8))
    assert torch.equal(logits(model, batch), logits(tiny.model, batch))


def test_stitching_leaves_the_teacher_equal(tiny: Tiny) -> None:
    before = copy.deepcopy(tiny.model)
    stitched = tiny.stitched_as(tiny.mixed)
    with torch.no_grad():
        for parameter in stitched.model.parameters():
            parameter.zero_()
    assert same_state(tiny.model, before)


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8, 16, 32])
def test_the_stitched_state_weighs_what_the_units_say(tiny: Tiny, bits: int) -> None:
    check_sizes(tiny, tiny.stitched(Level.of(0.0, bits)))
    check_sizes(tiny, tiny.stitched(Level.of(0.5, bits)))


def test_a_mixed_state_weighs_what_the_units_say(tiny: Tiny) -> None:
    check_sizes(tiny, tiny.stitched_as(tiny.mixed))


def check_sizes(tiny: Tiny, stitched: Stitched) -> None:
    for unit in tiny.units:
        held = sum(bytes_of(stitched, weight.path) for weight in unit.weights)
        held += sum(4 * len(places) for places in places_of(stitched, unit))
        assert held == unit.size_bytes(stitched.levels[unit.name]), unit.name


def places_of(stitched: Stitched, unit: Unit) -> list[Tensor]:
    """Numbers by which ids are looked up in embeddings that lost tokens."""
    modules = (stitched.model.get_submodule(weight.path) for weight in unit.weights)
    return [module.places for module in modules if isinstance(module, FewerTokens)]


def bytes_of(stitched: Stitched, path: str) -> int:
    """Bytes of one module's tensors as a file would hold them."""
    module = stitched.model.get_submodule(path)
    weight: Tensor = module.weight  # type: ignore[assignment]
    bias = getattr(module, "bias", None)
    total = 4 * len(bias) if bias is not None else 0
    if path in integers_of(stitched):
        one = integers_of(stitched)[path]
        codes, zeros = one.codes.numel() * one.bits, one.zero.numel() * one.bits
        return total + -(-codes // 8) + -(-zeros // 8) + 2 * one.scale.numel()
    return total + (2 if path in half_of(stitched) else 4) * weight.numel()


def test_the_model_computes_with_exactly_what_will_be_stored(tiny: Tiny) -> None:
    stitched = tiny.stitched_as(tiny.mixed)
    assert {integers.bits for integers in integers_of(stitched).values()} == {3, 4, 6, 8}
    assert len(half_of(stitched)) == 1
    for path, integers in integers_of(stitched).items():
        assert torch.equal(integers.dequantize(), stitched.model.get_submodule(path).weight)  # type: ignore[arg-type]
        assert stitched.floats[path].shape == integers.codes.shape
    for path in half_of(stitched):
        weight: Tensor = stitched.model.get_submodule(path).weight  # type: ignore[assignment]
        assert torch.equal(weight.half().float(), weight)


def test_stitched_models_share_no_memory(tiny_bert: Tiny) -> None:
    once, again = (tiny_bert.stitched_as(tiny_bert.mixed).model for _ in range(2))
    mine = {p.data_ptr() for p in once.parameters() if p.numel()}
    assert mine.isdisjoint(p.data_ptr() for p in again.parameters())
    assert mine.isdisjoint(p.data_ptr() for p in tiny_bert.model.parameters())
