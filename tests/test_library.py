"""Calibration, library and stitching: from a model and data to a really smaller model."""

from __future__ import annotations

import copy
import multiprocessing
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Tiny, logits
from torch import Tensor, nn

from autoprune.calibrate import Statistics, calibrate
from autoprune.errors import AutopruneError
from autoprune.library import Library
from autoprune.measure import logits_of
from autoprune.space import FLOAT_BITS, UNTOUCHED, Level
from autoprune.stitch import Stitched, replace_
from autoprune.targets.packed import torch_runner
from autoprune.task import divergence
from autoprune.units import Unit, Weight


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


def test_damage_is_zero_at_32_bits_and_falls_with_every_bit_more(tiny: Tiny) -> None:
    for unit in tiny.units:
        damage = tiny.library.build(unit, 0.0)
        assert set(damage) == set(unit.bits)
        assert damage[FLOAT_BITS] == 0.0
        by_bits = [damage[bits] for bits in sorted(unit.bits)]
        assert by_bits == sorted(by_bits, reverse=True), unit.name
        assert by_bits[0] > 10 * damage[8] > 0


def test_damage_rises_with_the_ratio(tiny: Tiny) -> None:
    for unit in tiny.units:
        by_ratio = [tiny.library.build(unit, ratio)[FLOAT_BITS] for ratio in unit.ratios]
        assert by_ratio == sorted(by_ratio), unit.name


def test_predicted_damage_of_a_level_is_of_the_measured_size(tiny: Tiny) -> None:
    for kind in ("word_embeddings", "attention", "feed_forward"):
        predicted = tiny.library.build(tiny.unit(kind), 0.0)[6]
        model = tiny.stitched_as(tiny.with_levels(**{kind: Level(0.0, 6)})).model
        assert predicted / 4 < measured_harm(tiny, model) < predicted * 4, kind


def test_an_untouched_variant_is_the_teachers_weight(tiny: Tiny) -> None:
    for unit in tiny.units:
        for path, variant in tiny.library.variants(unit, UNTOUCHED).items():
            module = tiny.model.get_submodule(path)
            assert variant.integers is None
            assert torch.equal(variant.value(), module.weight)  # type: ignore[arg-type]
            bias = getattr(module, "bias", None)
            assert (variant.bias is None) == (bias is None)
            assert bias is None or torch.equal(variant.bias, bias)


def test_a_variant_at_16_bits_is_half_rounded_exactly(tiny: Tiny) -> None:
    for unit in tiny.units:
        for path, variant in tiny.library.variants(unit, Level(0.0, 16)).items():
            weight: Tensor = tiny.model.get_submodule(path).weight  # type: ignore[assignment]
            assert torch.equal(variant.value(), weight.half().float())
            assert torch.equal(variant.value().half().float(), variant.value())


def test_rounding_does_not_move_the_mean_output(tiny: Tiny) -> None:
    unit = tiny.unit("feed_forward")
    for path, variant in tiny.library.variants(unit, Level(0.0, 2)).items():
        module: nn.Linear = tiny.model.get_submodule(path)  # type: ignore[assignment]
        mean = tiny.statistics[path].mean
        assert variant.bias is not None
        new, old = variant.value() @ mean + variant.bias, module.weight @ mean + module.bias
        torch.testing.assert_close(new, old, rtol=1e-4, atol=1e-4)


def test_a_level_that_a_unit_does_not_have_is_refused(tiny_bert: Tiny) -> None:
    unit = tiny_bert.unit("pooler")
    with pytest.raises(AutopruneError, match=r"pooler.dense has no level 0.5x4b"):
        tiny_bert.library.variants(unit, Level(0.5, 4))
    with pytest.raises(AutopruneError, match=r"pooler.dense has no level 0x2b"):
        tiny_bert.library.variants(unit, Level(0.0, 2))


def test_files_are_named_after_all_that_they_depend_on(tiny_bert: Tiny, tmp_path: Path) -> None:
    unit, other = tiny_bert.unit("attention"), tiny_bert.unit("feed_forward")
    make = {key: Library(tmp_path, tiny_bert.model, tiny_bert.statistics, key=key) for key in ("a", "b")}
    paths = [
        make["a"].path(unit, 0.5),
        make["b"].path(unit, 0.5),
        make["a"].path(unit, 0.25),
        make["a"].path(other, 0.5),
        make["a"].path(replace(unit, group_size=32), 0.5),
        make["a"].path(replace(unit, bits=(4, 32)), 0.5),
    ]
    assert len(set(paths)) == len(paths)
    twin = Library(tmp_path, tiny_bert.model, tiny_bert.statistics, key="a")
    assert twin.path(unit, 0.5) == paths[0]


def test_a_file_that_is_there_is_used_and_not_written_again(tiny_bert: Tiny, tmp_path: Path) -> None:
    unit = tiny_bert.unit("attention")
    first = Library(tmp_path, tiny_bert.model, tiny_bert.statistics, key="k")
    damage = first.build(unit, 0.5)
    stat = first.path(unit, 0.5).stat()
    second = Library(tmp_path, tiny_bert.model, tiny_bert.statistics, key="k")
    assert second.build(unit, 0.5) == damage
    second.variants(unit, Level(0.5, 4))
    after = first.path(unit, 0.5).stat()
    assert (after.st_mtime_ns, after.st_ino) == (stat.st_mtime_ns, stat.st_ino)
    assert [path.name for path in tmp_path.iterdir()] == [first.path(unit, 0.5).name]


def test_two_processes_may_build_the_same_variants_at_once(tmp_path: Path) -> None:
    library, unit = small_library(tmp_path)
    jobs = [(unit, ratio) for ratio in unit.ratios for _ in range(2)]
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(2, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        damages = pool.starmap(library.build, jobs, chunksize=1)
    assert damages[0::2] == damages[1::2]
    assert sorted(tmp_path.iterdir()) == sorted(library.path(unit, ratio) for ratio in unit.ratios)
    alone, _ = small_library(tmp_path / "alone")
    for ratio in unit.ratios:
        level = Level(ratio, 4)
        mine, theirs = alone.variants(unit, level), library.variants(unit, level)
        assert all(torch.equal(theirs[path].value(), mine[path].value()) for path in ("a", "b"))


def small_library(folder: Path) -> tuple[Library, Unit]:
    """A library that another process can be sent without the rest of a model."""
    torch.manual_seed(0)
    teacher = nn.ModuleDict({"a": nn.Linear(64, 256), "b": nn.Linear(256, 64)})
    rows, cols = (Weight("a", 256, 64, True),), (Weight("b", 64, 256, True),)
    ratios = (0.0, 0.25, 0.5, 0.75)
    unit = Unit("u", "u", rows, cols, 1, 64, 64, ratios, (2, 4, 8, FLOAT_BITS))
    seen = {name: Statistics(torch.eye(i), torch.zeros(i), torch.ones(o), 1.0)
            for name, i, o in (("a", 64, 256), ("b", 256, 64))}  # fmt: skip
    return Library(folder, teacher, seen, key="k"), unit


# ---- stitching ----------------------------------------------------------------------------------


def test_every_unit_untouched_gives_the_teachers_logits_bit_for_bit(tiny: Tiny) -> None:
    stitched = tiny.stitched_as(tiny.space.untouched())
    batch = tiny.task.batch(tiny.task.test, range(8))
    assert torch.equal(logits(stitched.model, batch), logits(tiny.model, batch))
    assert not stitched.integers
    assert not stitched.half


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
    check_sizes(tiny, tiny.stitched(Level(0.0, bits)))
    check_sizes(tiny, tiny.stitched(Level(0.5, bits)))


def test_a_mixed_state_weighs_what_the_units_say(tiny: Tiny) -> None:
    check_sizes(tiny, tiny.stitched_as(tiny.mixed))


def check_sizes(tiny: Tiny, stitched: Stitched) -> None:
    for unit in tiny.units:
        held = sum(bytes_of(stitched, weight.path) for weight in unit.weights)
        assert held == unit.size_bytes(stitched.levels[unit.name]), unit.name


def bytes_of(stitched: Stitched, path: str) -> int:
    """Bytes of one module's tensors as a file would hold them."""
    module = stitched.model.get_submodule(path)
    weight: Tensor = module.weight  # type: ignore[assignment]
    bias = getattr(module, "bias", None)
    total = 4 * len(bias) if bias is not None else 0
    if path in stitched.integers:
        one = stitched.integers[path]
        codes, zeros = one.codes.numel() * one.bits, one.zero.numel() * one.bits
        return total + -(-codes // 8) + -(-zeros // 8) + 2 * one.scale.numel()
    return total + (2 if path in stitched.half else 4) * weight.numel()


def test_the_model_computes_with_exactly_what_will_be_stored(tiny: Tiny) -> None:
    stitched = tiny.stitched_as(tiny.mixed)
    assert {one.bits for one in stitched.integers.values()} == {3, 4, 6, 8}
    assert len(stitched.half) == 1
    for path, one in stitched.integers.items():
        assert torch.equal(one.dequantize(), stitched.model.get_submodule(path).weight)  # type: ignore[arg-type]
        assert stitched.floats[path].shape == one.codes.shape
    for path in stitched.half:
        weight: Tensor = stitched.model.get_submodule(path).weight  # type: ignore[assignment]
        assert torch.equal(weight.half().float(), weight)


def test_stitched_models_share_no_memory(tiny_bert: Tiny) -> None:
    once, again = (tiny_bert.stitched_as(tiny_bert.mixed).model for _ in range(2))
    mine = {p.data_ptr() for p in once.parameters() if p.numel()}
    assert mine.isdisjoint(p.data_ptr() for p in again.parameters())
    assert mine.isdisjoint(p.data_ptr() for p in tiny_bert.model.parameters())
