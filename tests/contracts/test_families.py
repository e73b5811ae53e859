"""Every family, its space shipped or drafted: what holds of all models holds of a tiny random one of each."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from autoprune.compress.stitch import with_whole_vocabulary
from autoprune.compress.surgery import FewerTokens, replace_
from autoprune.core.errors import AutopruneError
from autoprune.evaluation.finetune import Recipe, finetune
from autoprune.evaluation.lesson import Lesson
from autoprune.evaluation.measure import logits_of, teacher_answers
from autoprune.models.find_space import find_space
from autoprune.models.outputs import outputs_of
from autoprune.models.split_embedding import parted
from autoprune.models.state import aliases, state_of
from autoprune.models.unit import Unit
from autoprune.models.units import find_units
from autoprune.sensitivity.fisher_scores import Sensitivity, measure_sensitivity
from autoprune.sensitivity.token_removal import with_measured_removal
from autoprune.space.levels import UNTOUCHED, Level
from autoprune.space.storage import FLOAT_BITS, STATIC8
from autoprune.targets import get_target, size_on_disk
from autoprune.targets.packed import Packed, read_packed, torch_runner
from autoprune.tasks.answers import Answers, divergence
from tests.support.families import (
    FAMILIES,
    ROWS,
    VOCABULARY,
    Case,
    EfficientNet,
    draft_of,
    made,
    make_case,
    rows_of,
)
from tests.support.family_checks import SAME, answers, gap, halved, lowered, masked, mixed, on_target
from tests.support.stored import half_of, integers_of


@pytest.fixture(scope="session")
def library_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("families")


@pytest.fixture
def case(request: pytest.FixtureRequest, library_folder: Path) -> Case:
    """The family that a test is for."""
    return make_case(request.param, library_folder)


DRAFTED: dict[str, dict[str, int]] = {
    "modernbert": {},  # query, key and value are one layer, as are gate and input
    "deberta-v3": {"neurons": 2},  # attention is cut into a fixed number of heads
    "albert": {"heads": 1, "neurons": 1},  # the one layer that all share
    "phi": {"heads": 2, "neurons": 2},
    "phi3": {},  # fused layers, as ModernBERT's
    "swin": {"neurons": 4},  # a table has a bias for each head of all
    "convnext": {"neurons": 4},
    "regnet-x": {"channels": 1},  # inside the blocks are convolutions in groups
    "regnet-y": {"channels": 4},
    "mobilenet_v3": {"channels": 3},
    "resnext": {},
    "unet": {"channels": 5},
}
"""Units of a drafted space that lose parts, by what they lose."""

SHIPPED = [name for name, family in FAMILIES.items() if family.space]
PRUNED = [name for name in FAMILIES if DRAFTED.get(name, {"": 1})]


def families(*names: str) -> pytest.MarkDecorator:
    """The named families, or all."""
    return pytest.mark.parametrize("case", names or list(FAMILIES), indirect=True)


# ---- what a model is brought into, and what is found in it --------------------------------------


@families()
def test_the_canonical_form_answers_as_the_model_did(case: Case) -> None:
    plain, canonical = made(case.name)
    assert float(answers(case, plain).float().std(0).mean()) > 0.01  # rows are answered differently
    assert gap(answers(case, canonical), answers(case, plain)) < 30 * SAME  # tens of norms were folded
    left = {type(module).__name__ for module in canonical.modules()}
    assert not left & {"BatchNorm2d", "Conv1D"}


@families(*SHIPPED)
def test_its_space_is_found_by_its_type_and_covers_its_large_weights(case: Case) -> None:
    file, name = find_space("auto", case.tiny.model)
    assert name == f"{case.family.space}.yaml"
    assert find_units(case.tiny.model, file, source=name) == case.tiny.units
    covered = [path for unit in case.tiny.units for w in unit.weights for path in (w.path, w.tied) if path]
    assert len(set(covered)) == len(covered)
    kinds = (nn.Linear, nn.Conv2d, nn.Embedding)
    left = {path for path, module in case.tiny.model.named_modules() if isinstance(module, kinds)} - set(
        covered
    )
    heads = {"classifier", "classifier.out_proj", "score"}  # of few classes
    few = ("token_type", "relative", "embed_positions")
    assert not {path for path in left - heads if not path.rpartition(".")[2].startswith(few)}


@families(*DRAFTED)
def test_without_a_shipped_space_one_is_drafted_that_names_every_layer_once(case: Case) -> None:
    with pytest.raises(AutopruneError, match="autoprune inspect MODEL --write-space"):
        find_space("auto", case.tiny.model)
    assert Counter(unit.removed for unit in case.tiny.units if unit.prunable) == DRAFTED[case.name]
    covered = [weight.path for unit in case.tiny.units for weight in unit.weights]
    named = [path for left in draft_of(case.name).left if not left.stored for path in left.paths]
    kinds = (nn.Linear, nn.Conv2d, nn.Embedding)
    layers = [path for path, module in case.tiny.model.named_modules() if isinstance(module, kinds)]
    assert sorted(path for path in covered + named if path in layers) == sorted(layers)


def test_a_model_of_a_type_not_named_is_found_by_its_structure() -> None:
    class Lite(EfficientNet):
        """Of no type that a space names."""

    assert find_space("auto", Lite())[1] == "efficientnet_pytorch.yaml"


# ---- removal ------------------------------------------------------------------------------------


@families(*PRUNED)
@pytest.mark.parametrize("ratio", [0.5, 1.0])
def test_removing_equals_masking(case: Case, ratio: float) -> None:
    stitched = case.tiny.stitched_as(lowered(case, ratio))
    assert any(level.ratio for _, level in stitched.levels.items)
    assert sum(p.numel() for p in stitched.model.parameters()) < sum(
        p.numel() for p in case.tiny.model.parameters()
    )
    assert gap(answers(case, stitched.model), answers(case, masked(case, stitched))) < SAME


@families()
def test_rows_of_a_unit_lose_the_same_pieces(case: Case) -> None:
    stitched = case.tiny.stitched_as(lowered(case, 0.5))
    for unit in case.tiny.units:
        kept = case.tiny.library.kept(unit, stitched.levels[unit.name].ratio)
        for weight in unit.rows:
            old, new = (weight_of(model, weight.path) for model in (case.tiny.model, stitched.model))
            assert torch.equal(new, old[unit.at(kept, weight.rows)] if unit.prunable else old)
            assert tuple(new.flatten(1).shape) == unit.shapes(stitched.levels[unit.name].ratio)[weight.path]


def weight_of(model: nn.Module, path: str) -> Tensor:
    """The weight of a layer."""
    weight = model.get_submodule(path).weight
    assert isinstance(weight, Tensor)
    return weight


@families("llama", "qwen3", "gemma3")
def test_heads_that_share_a_key_and_value_head_go_together(case: Case) -> None:
    unit = case.tiny.unit("attention")
    assert (unit.pieces, [w.rows // unit.pieces for w in unit.rows]) == (4, [16, 8, 8])
    model = case.tiny.stitched_as(lowered(case, 0.75)).model
    sizes = [model.get_submodule(w.path).out_features for w in unit.rows]
    assert sizes == [16, 8, 8]


# ---- nothing done, and saving -------------------------------------------------------------------


@families()
def test_untouched_units_give_the_teachers_answers_bit_for_bit(case: Case) -> None:
    stitched = case.tiny.stitched_as(case.tiny.space.untouched())
    assert torch.equal(answers(case, stitched.model), answers(case, case.tiny.model))
    assert not parted(stitched.model)
    model = copy.deepcopy(case.tiny.model)
    for unit in case.tiny.units:
        for path, variant in case.tiny.library.variants(unit, UNTOUCHED).items():
            replace_(model, path, variant.value(), variant.bias)
    assert torch.equal(answers(case, model), answers(case, case.tiny.model))


@families()
def test_a_packed_model_reloads_to_the_same_answers(case: Case, tmp_path: Path) -> None:
    stitched = case.tiny.stitched_as(mixed(case))
    packed = Packed(builder=case.architecture.builder)
    packed.save(stitched, tmp_path, case.tiny.task.batch(case.tiny.task.test, [0, 1]))
    back = read_packed(tmp_path, builder=case.architecture.builder)
    assert gap(answers(case, back.model), answers(case, stitched.model)) < SAME  # memory is aligned otherwise
    assert back.activations == stitched.activations
    assert dict(back.levels.items) == {u: level for u, level in stitched.levels.items if level != UNTOUCHED}
    assert aliases(back.model) == aliases(stitched.model) == aliases(case.tiny.model)
    mine, theirs = state_of(stitched.model), state_of(back.model)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())


@families()
def test_8_bit_activations_do_less_harm_than_the_fewest_bits(case: Case) -> None:
    task, tiny = case.tiny.task, case.tiny
    teacher = teacher_answers(torch_runner(tiny.model, task.kind), task, task.test)
    harm = {}
    for level in (Level.of(0.0, "w8a8"), Level.of(0.0, 2)):
        stitched = tiny.stitched(level)
        harm[level.storage.written] = divergence(measured(case, stitched.model, teacher), teacher)
        rounded = {w.path for unit in tiny.units if STATIC8 in unit.storages for w in unit.weights}
        assert set(stitched.activations) == (rounded if level.storage.rounds_inputs else set())
    assert 0 < harm["w8a8"] < harm[2]


@families("deberta-v3", "albert", "gemma")
def test_damage_is_predicted_of_layers_used_otherwise_than_once_a_row(case: Case) -> None:
    """DeBERTa's keys of places serve all rows, ALBERT's layer is called again, Gemma's rows are scaled."""
    tiny, task, level = case.tiny, case.tiny.task, Level.of(0.0, 4)
    kinds = {"deberta-v3": ("query_proj", "key_proj"), "albert": ("attention", "feed_forward")}
    units = [unit for unit in tiny.units if unit.kind in kinds.get(case.name, ("word_embeddings",))]
    teacher = teacher_answers(torch_runner(tiny.model, task.kind), task, task.train)
    told = measure_sensitivity(tiny.model, units, tiny.library, task, task.train, rows=ROWS, seed=0).damage()
    for unit in units:
        model = tiny.stitched_as(tiny.space.untouched().with_level(unit.name, level)).model
        seen = divergence(measured(case, model, teacher), teacher)
        # A language model's directions are drawn, and few: Llama's are told 1.2 to 2.6 times as large.
        most = 3.0 if task.kind.predicts_next_token else 1.3
        assert seen / 1.3 < told[unit.name][level] < most * seen


def measured(case: Case, model: nn.Module, teacher: Answers) -> Any:
    """A model's answers to all rows, as the teacher's are kept."""
    task = case.tiny.task
    return logits_of(torch_runner(model, task.kind), task, task.test, watched=teacher.watched)


@families("bert-embedding", "bert-parts", "llama", "vit", "resnet-bottleneck", "efficientnet")
@pytest.mark.parametrize("target", ["packed", "openvino"])
def test_predicted_bytes_are_the_saved_files(case: Case, target: str, tmp_path: Path) -> None:
    into, tiny = get_target(target), case.tiny
    example = tiny.task.batch(tiny.task.test, [0, 1])
    sizes = {}
    plan = tiny.offered(into, mixed(case))
    for name, candidate in (("original", tiny.space.untouched()), ("mixed", plan)):
        (tmp_path / name).mkdir()
        into.save(tiny.stitched_as(candidate), tmp_path / name, example)
        sizes[name] = size_on_disk(into, tmp_path / name)
    predicted = tiny.predicted_bytes(into, plan, sizes["original"])
    # Graph text, a thousandth of a model of real size, is a twentieth of these.
    text = sum((1200 if plan[u.name].storage.rounds_inputs else 100) * len(u.weights) for u in tiny.units)
    room = 0.005 * sizes["mixed"] + (text if target == "openvino" else 40 * len(tiny.statistics))
    assert predicted == pytest.approx(sizes["mixed"], abs=room)


SAVED = [name for name in DRAFTED if name not in ("phi3", "regnet-x")]


@families("gemma3", "qwen3-classes", *SAVED)
@pytest.mark.parametrize("target", ["openvino", "onnx"])
def test_a_saved_model_answers_alike_and_takes_the_bytes_predicted(
    case: Case, target: str, tmp_path: Path
) -> None:
    saved = on_target(case, get_target(target), halved(case), tmp_path / "halved")
    assert saved.off < 1e-4
    text = 40 * sum(len(unit.weights) for unit in case.tiny.units)
    assert saved.predicted_bytes == pytest.approx(saved.saved_bytes, abs=0.005 * saved.saved_bytes + text)


# ---- vocabularies -------------------------------------------------------------------------------


@families("gpt2", "llama")
@pytest.mark.parametrize("level", [Level.of(0.0, 4), Level.of(0.0, 16)])
def test_tied_weights_stay_one_tensor(case: Case, level: Level, tmp_path: Path) -> None:
    unit = case.tiny.unit("word_embeddings")
    (weight,) = unit.weights
    assert weight.tied == "lm_head"
    stitched = case.tiny.stitched_as(case.tiny.with_levels(word_embeddings=level))
    Packed().save(stitched, tmp_path, case.tiny.task.batch(case.tiny.task.test, [0, 1]))
    for model in (stitched.model, read_packed(tmp_path).model):
        embedding, output = (model.get_submodule(path) for path in (weight.path, weight.tied))
        assert output.weight is embedding.weight
        assert not torch.equal(weight_of(model, weight.tied), weight_of(case.tiny.model, weight.path))


@families("bert", "distilbert", "roberta-regression", "electra", "mpnet-embedding")
@pytest.mark.parametrize("bits", [4, FLOAT_BITS])
def test_ids_of_removed_tokens_are_answered_and_those_that_stay_as_before(case: Case, bits: int) -> None:
    candidate = case.tiny.with_levels(word_embeddings=Level.of(0.5, bits))
    model = case.tiny.stitched_as(candidate).model
    unit = case.tiny.unit("word_embeddings")
    kept = case.tiny.library.kept(unit, 0.5)
    embedding = model.get_submodule(unit.rows[0].path)
    assert isinstance(embedding, FewerTokens)
    assert embedding.weight.shape == (VOCABULARY // 2, unit.rows[0].columns)
    whole = case.tiny.stitched_as(case.tiny.with_levels(word_embeddings=Level.of(0.0, bits))).model
    for name, ids in (("kept", kept), ("all", torch.arange(VOCABULARY))):
        inputs = {"input_ids": ids[torch.randperm(len(ids))[:36]].reshape(3, 12)}
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        with torch.no_grad():
            mine, theirs = (outputs_of(model_, inputs, case.family.kind) for model_ in (model, whole))
        assert torch.isfinite(mine).all()
        assert torch.equal(mine, theirs) == (name == "kept")


@families("bert")
def test_the_tokens_that_stay_are_those_seen_most(case: Case) -> None:
    unit = case.tiny.unit("word_embeddings")
    counts = torch.bincount(torch.from_numpy(case.tiny.task.train.ids).long(), minlength=VOCABULARY)
    kept = case.tiny.library.kept(unit, 0.75)
    gone = torch.ones(VOCABULARY, dtype=torch.bool)
    gone[kept] = False
    assert counts[kept].min() >= counts[gone].max()


@families("bert-parts")
def test_a_vocabulary_in_parts_has_a_width_and_tokens_of_its_own_in_each(case: Case, tmp_path: Path) -> None:
    common, rare = case.tiny.units[:2]
    assert (common.name, rare.name) == (
        "embeddings.word_embeddings.common",
        "embeddings.word_embeddings.rare",
    )
    both = parted(case.tiny.model)[rare.rows[0].path.removesuffix(".rare")]
    assert common.pieces + rare.pieces == VOCABULARY
    counts = torch.bincount(torch.from_numpy(case.tiny.task.train.ids), minlength=VOCABULARY)
    assert 0.8 <= counts[both.order()[: common.pieces]].sum() / counts.sum() < 0.95
    plan = case.tiny.space.untouched()
    plan = plan.with_level(common.name, Level.of(0.0, 8)).with_level(rare.name, Level.of(0.5, 2))
    stitched = case.tiny.stitched_as(plan)
    assert {path.rpartition(".")[2]: integers.bits for path, integers in integers_of(stitched).items()} == {
        "common": 8, "rare": 2
    }  # fmt: skip
    for target in ("openvino", "onnx", "packed"):
        folder, into = tmp_path / target, get_target(target)
        folder.mkdir()
        into.save(stitched, folder, case.tiny.task.batch(case.tiny.task.test, [0, 1]))
        batch = case.tiny.task.batch(case.tiny.task.test, range(6))
        off = np.abs(into.load(folder)(batch) - answers(case, stitched.model).numpy())
        assert off.max() < 1e-5


@families("bert-parts")
@pytest.mark.parametrize("wrong", [-1, VOCABULARY])
def test_ranks_that_are_of_no_row_are_refused(case: Case, wrong: int, tmp_path: Path) -> None:
    rare = case.tiny.units[1]
    stitched = case.tiny.stitched_as(case.tiny.with_levels(word_embeddings=Level.of(0.0, 8)))
    ranks = stitched.model.get_submodule(rare.rows[0].path.removesuffix(".rare")).ranks
    ranks[3] = wrong  # type: ignore[operator]
    Packed().save(stitched, tmp_path, case.tiny.task.batch(case.tiny.task.test, [0, 1]))
    with pytest.raises(AutopruneError, match="its ranks are not those of 160 tokens among 160 rows"):
        read_packed(tmp_path)


@families("bert-parts")
def test_a_runtime_without_parts_gets_the_vocabulary_whole_and_the_same_rows(case: Case) -> None:
    common, rare = case.tiny.units[:2]
    plan = case.tiny.space.untouched()
    stitched = case.tiny.stitched_as(
        plan.with_level(common.name, Level.of(0.0, 4)).with_level(rare.name, Level.of(0.0, 2))
    )
    whole = with_whole_vocabulary(stitched)
    assert torch.equal(answers(case, whole.model), answers(case, stitched.model))
    ((path, one),) = integers_of(whole).items()
    assert (path, one.bits) == ("bert.embeddings.word_embeddings", 4)
    assert torch.equal(one.dequantize(), weight_of(whole.model, path))
    assert len(integers_of(stitched)) == 2
    fewer = case.tiny.stitched_as(plan.with_level(rare.name, Level.of(0.5, 2)))
    assert with_whole_vocabulary(fewer) is fewer


@families("bert", "bert-parts")
def test_removing_tokens_harms_text_with_other_words_as_much_as_predicted(case: Case, tmp_path: Path) -> None:
    """A tenth of the words that are measured on are any of all, and four tenths of the others."""
    tiny, task = case.tiny, case.tiny.task
    rng = np.random.default_rng(1)
    rows: Any = rows_of(case.family.kind, 128)
    anything = rng.integers(0, VOCABULARY, len(rows.ids)).astype(np.int32)
    drawn = rng.random(len(anything))
    here, there = (replace(rows, ids=np.where(drawn < share, anything, rows.ids)) for share in (0.1, 0.4))
    unit = next(unit for unit in tiny.units if unit.by_token)
    teacher = teacher_answers(torch_runner(tiny.model, task.kind), task, there)

    def seen(unit: Unit, level: Level) -> float:
        model = tiny.stitched_as(tiny.space.untouched().with_level(unit.name, level)).model
        return divergence(logits_of(torch_runner(model, task.kind), task, there), teacher)

    before = measure_sensitivity(tiny.model, [unit], tiny.library, task, here, rows=128, seed=0)
    after = with_measured_removal(before, [unit], seen)
    for level in (Level(0.5), Level.of(0.5, 4), Level.of(0.75, 3)):
        told, predicted = (costs.damage()[unit.name][level] for costs in (before, after))
        assert told < 0.6 * seen(unit, level)
        assert predicted == pytest.approx(
            seen(unit, level), rel=0.01 if level.storage.bits == FLOAT_BITS else 0.4
        )
    whole = Level.of(0.0, 4)
    assert after.damage()[unit.name][whole] == before.damage()[unit.name][whole]


@families("bert-parts")
def test_tokens_that_no_measured_row_has_are_no_free_removal(case: Case) -> None:
    tiny = case.tiny
    unit = next(unit for unit in tiny.units if unit.by_token)
    nothing = {level: np.zeros(64, np.float32) for level in unit.levels()}
    found = with_measured_removal(Sensitivity({unit.name: nothing}), [unit], lambda unit, level: level.ratio)
    assert all(harm == pytest.approx(level.ratio) for level, harm in found.damage()[unit.name].items())


# ---- what variants harm, and what a brief fine-tune mends ---------------------------------------


@families(
    "bert-tokens",
    "roberta-regression",
    "mpnet-embedding",
    "gpt2",
    "llama",
    "vit",
    "resnet",
    "efficientnet-lite",
)
def test_sensitivities_rank_variants_as_their_measured_divergence_does(case: Case) -> None:
    tiny, task = case.tiny, case.tiny.task
    teacher = teacher_answers(torch_runner(tiny.model, task.kind), task, task.train)
    found = measure_sensitivity(
        tiny.model, tiny.units, tiny.library, task, task.train, rows=ROWS, seed=0, spread=teacher.spread
    ).damage()
    predicted, seen = [], []
    for unit in tiny.units:
        for level in (
            Level.of(0.0, 8),
            Level.of(0.0, 4),
            Level.of(0.0, 3),
            Level.of(0.5, 32),
            Level.of(0.5, 4),
        ):
            if level.ratio in unit.ratios and level.storage in unit.storages:
                model = tiny.stitched_as(tiny.space.untouched().with_level(unit.name, level)).model
                predicted.append(found[unit.name][level])
                seen.append(divergence(measured(case, model, teacher), teacher))
    assert len(seen) >= 12
    assert spearmanr(predicted, seen).statistic > 0.9


@families(
    "bert", "bert-tokens", "roberta-regression", "bert-embedding", "llama", "gpt2", "vit", "efficientnet-lite"
)
def test_a_brief_fine_tune_mends_and_gives_rounded_weights(case: Case) -> None:
    tiny, task = case.tiny, case.tiny.task
    teacher = teacher_answers(torch_runner(tiny.model, task.kind), task, task.train)
    before = tiny.stitched_as(mixed(case))
    lesson, recipe = Lesson(task, task.train, teacher), Recipe(12, 8, 3e-5)
    after = finetune(before, lesson, recipe, seed=0, teacher=tiny.model)
    assert after is not before
    ends = [divergence(measured(case, result.model, teacher), teacher) for result in (before, after)]
    assert 0 < ends[1] < ends[0]
    for path, integers in integers_of(after).items():
        weight: Any = after.model.get_submodule(path).weight
        assert torch.equal(weight.flatten(1), integers.dequantize())
    for path in half_of(after):
        half: Any = after.model.get_submodule(path).weight
        assert torch.equal(half.half().float(), half)
    assert after.activations == before.activations
    assert aliases(after.model) == aliases(before.model)
