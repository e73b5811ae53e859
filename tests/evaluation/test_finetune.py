"""The brief fine-tune: what may move, what may not, and that what is stored is what computes."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.compress.integers import round_nearest
from autoprune.compress.stitch import Stitched
from autoprune.evaluation.distillation import Targets, distance, distillation_loss
from autoprune.evaluation.finetune import Recipe, _learn, dropout_layers, dropping, finetune
from autoprune.evaluation.lesson import Lesson
from autoprune.evaluation.measure import logits_of, teacher_answers
from autoprune.models.spec import Architecture
from autoprune.space.levels import Candidate, Level
from autoprune.targets.packed import torch_runner
from autoprune.tasks import kinds
from autoprune.tasks.answers import Answers, divergence
from autoprune.tasks.task import NO_LABEL, Arrays, Data, Encoded, Task
from tests.support.stored import half_of, integers_of
from tests.support.tiny import Tiny

FEW = Recipe(steps=6, batch_size=8, learning_rate=3e-3)
MANY = Recipe(steps=80, batch_size=24, learning_rate=2e-3)


def sure_teacher(tiny: Tiny) -> Answers:
    """Logits that say each row's label almost surely: far from any random model."""
    return Answers.plain(np.eye(3, dtype=np.float32)[tiny.task.train.labels] * 6)


def own_logits(tiny: Tiny, model: nn.Module) -> NDArray[np.float32]:
    return logits_of(torch_runner(model), tiny.task, tiny.task.train)


def apart(tiny: Tiny, one: Stitched, teacher: Answers) -> float:
    return divergence(own_logits(tiny, one.model), teacher)


def tuned(tiny: Tiny, stitched: Stitched, recipe: Recipe = FEW, *, seed: int = 0) -> Stitched:
    return finetune(stitched, Lesson(tiny.task, tiny.task.train, sure_teacher(tiny)), recipe, seed=seed)


def states_equal(one: nn.Module, other: nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def weight_at(stitched: Stitched, path: str) -> Tensor:
    weight: Tensor = stitched.model.get_submodule(path).weight  # type: ignore[assignment]
    return weight


def is_embedding(stitched: Stitched, path: str) -> bool:
    return isinstance(stitched.model.get_submodule(path), nn.Embedding)


@pytest.fixture(scope="module")
def before(tiny: Tiny) -> Stitched:
    """A candidate with every kind of level."""
    candidate = tiny.mixed.with_level(tiny.units[-2].name, Level.of(0.0, 16))
    return tiny.stitched_as(candidate)


@pytest.fixture(scope="module")
def after(tiny: Tiny, before: Stitched) -> Stitched:
    """That candidate after a few steps."""
    return tuned(tiny, before)


def test_no_steps_give_the_same_model(tiny: Tiny, before: Stitched) -> None:
    assert tuned(tiny, before, Recipe(steps=0, batch_size=8, learning_rate=1e-3)) is before


def test_integers_are_within_range_and_are_exactly_what_computes(after: Stitched) -> None:
    for path, integers in integers_of(after).items():
        assert int(integers.codes.max()) <= 2**integers.bits - 1, path
        assert integers.codes.dtype == integers.zero.dtype == torch.uint8
        assert integers.scale.dtype == torch.float16
        assert torch.equal(integers.dequantize(), weight_at(after, path)), path


def test_half_weights_are_still_half_floats(after: Stitched) -> None:
    assert half_of(after)
    for path in half_of(after):
        assert torch.equal(weight_at(after, path).half().float(), weight_at(after, path)), path


def test_zero_points_bits_and_levels_stay_and_scales_are_trained(before: Stitched, after: Stitched) -> None:
    assert integers_of(after).keys() == integers_of(before).keys()
    assert half_of(after) == half_of(before)
    assert after.levels == before.levels
    for path, integers in integers_of(before).items():
        assert torch.equal(integers_of(after)[path].scale, integers.scale) == is_embedding(before, path)
        assert torch.equal(integers_of(after)[path].zero, integers.zero)
        assert integers_of(after)[path].bits == integers.bits


def test_the_result_has_the_inputs_modules_and_shapes(before: Stitched, after: Stitched) -> None:
    mine, theirs = before.model.state_dict(), after.model.state_dict()
    assert {name: x.shape for name, x in mine.items()} == {name: x.shape for name, x in theirs.items()}
    for path in integers_of(before):
        assert type(after.model.get_submodule(path)) in (nn.Linear, nn.Embedding)
    assert not after.model.training
    assert all(p.requires_grad and p.device.type == "cpu" for p in after.model.parameters())


def test_the_input_is_left_as_it_is(tiny: Tiny, before: Stitched) -> None:
    model, integers = copy.deepcopy(before.model), copy.deepcopy(integers_of(before))
    floats = copy.deepcopy(before.floats)
    tuned(tiny, before)
    assert states_equal(before.model, model)
    assert all(p.requires_grad and p.grad is None for p in before.model.parameters())
    assert all(torch.equal(integers_of(before)[p].codes, integers[p].codes) for p in integers)
    assert all(torch.equal(before.floats[p], floats[p]) for p in floats)


def test_the_same_seed_gives_the_same_bits_and_another_does_not(
    tiny: Tiny, before: Stitched, after: Stitched
) -> None:
    again = tuned(tiny, before)
    assert states_equal(again.model, after.model)
    assert all(
        torch.equal(integers_of(again)[p].codes, integers_of(after)[p].codes) for p in integers_of(after)
    )
    assert not states_equal(tuned(tiny, before, seed=1).model, after.model)


def test_the_global_random_state_does_not_matter(tiny: Tiny, before: Stitched, after: Stitched) -> None:
    torch.manual_seed(123)
    np.random.seed(123)
    assert states_equal(tuned(tiny, before).model, after.model)


def test_embeddings_are_not_touched(before: Stitched, after: Stitched) -> None:
    tables = [path for path, m in before.model.named_modules() if isinstance(m, nn.Embedding)]
    assert len(tables) >= 2
    for path in tables:
        assert torch.equal(weight_at(after, path), weight_at(before, path)), path


def test_the_gradient_reaches_every_weight_through_its_rounding(before: Stitched, after: Stitched) -> None:
    for path, integers in integers_of(before).items():
        if not is_embedding(before, path):
            was_turned = not torch.equal(integers_of(after)[path].codes, integers.codes)
            assert was_turned == (path in before.pruned), path
    for path in half_of(before):
        if not is_embedding(before, path):
            assert not torch.equal(weight_at(after, path), weight_at(before, path)), path
    moved = dict(after.model.named_parameters())
    for name, old in before.model.named_parameters():
        if name.endswith("bias") and ".k_lin." not in name and ".key." not in name:
            assert not torch.equal(old, moved[name]), name  # softmax cannot see a key's bias


def test_a_step_too_small_to_turn_a_code_keeps_the_librarys_codes(tiny: Tiny, before: Stitched) -> None:
    still = tuned(tiny, before, Recipe(steps=2, batch_size=8, learning_rate=1e-12))
    for path, integers in integers_of(before).items():
        assert torch.equal(integers_of(still)[path].codes, integers.codes), path


def test_a_model_of_floats_alone_trains_too(tiny_bert: Tiny) -> None:
    stitched = tiny_bert.stitched_as(tiny_bert.space.untouched())
    result = tuned(tiny_bert, stitched)
    assert not integers_of(result)
    assert not states_equal(result.model, stitched.model)


def test_with_many_steps_on_few_rows_it_learns_what_the_teacher_says(tiny: Tiny) -> None:
    stitched, teacher = tiny.stitched(Level.of(0.5, 3)), sure_teacher(tiny)
    result = tuned(tiny, stitched, MANY)
    assert apart(tiny, stitched, teacher) > 1.0
    assert apart(tiny, result, teacher) < 0.2 * apart(tiny, stitched, teacher)


@pytest.mark.parametrize("rate", [1e-5, 1e-3, 1e-1, 10.0])
def test_no_learning_rate_makes_it_worse_on_the_rows_it_saw(tiny_bert: Tiny, rate: float) -> None:
    stitched = tiny_bert.stitched(Level.of(0.0, 4))
    teacher = Answers.plain(own_logits(tiny_bert, tiny_bert.model))
    recipe = Recipe(steps=6, batch_size=8, learning_rate=rate)
    data = tiny_bert.task.train
    result = finetune(stitched, Lesson(tiny_bert.task, data, teacher), recipe, seed=0)
    assert apart(tiny_bert, result, teacher) <= apart(tiny_bert, stitched, teacher)


@pytest.mark.parametrize("seed", range(3))
def test_a_model_that_is_the_teacher_already_can_be_tuned(tiny_bert: Tiny, seed: int) -> None:
    stitched = tiny_bert.stitched_as(tiny_bert.space.untouched())
    noise = np.random.default_rng(seed).normal(0, 1e-7, (24, 3)).astype(np.float32)
    teacher = Answers.plain(own_logits(tiny_bert, tiny_bert.model) + noise)
    result = finetune(stitched, Lesson(tiny_bert.task, tiny_bert.task.train, teacher), FEW, seed=0)
    assert apart(tiny_bert, result, teacher) < 1e-4


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_teacher_that_is_not_finite_is_an_error(tiny_bert: Tiny, bad: float) -> None:
    stitched = tiny_bert.stitched(Level.of(0.0, 4))
    teacher = Answers.plain(np.full((24, 3), bad, np.float32))
    with pytest.raises(FloatingPointError, match=r"nan|inf"):
        finetune(stitched, Lesson(tiny_bert.task, tiny_bert.task.train, teacher), FEW, seed=0)


def test_a_learning_rate_that_blows_up_is_an_error_with_its_step(tiny_bert: Tiny) -> None:
    stitched = tiny_bert.stitched(Level.of(0.0, 32))
    recipe = Recipe(steps=8, batch_size=8, learning_rate=1e30)
    with pytest.raises(FloatingPointError, match=r"loss became (nan|inf) at fine-tune step \d"):
        tuned(tiny_bert, stitched, recipe)


def test_every_step_is_made_within_the_room(tiny_bert: Tiny) -> None:
    entered = []

    @contextlib.contextmanager
    def room() -> Iterator[None]:
        entered.append("in")
        yield
        entered.append("out")

    stitched = tiny_bert.stitched(Level.of(0.0, 4))
    lesson = Lesson(tiny_bert.task, tiny_bert.task.train, sure_teacher(tiny_bert))
    finetune(stitched, lesson, FEW, seed=0, step_room=room)
    steps = len(entered)
    assert steps >= 2 * FEW.steps
    finetune(stitched, lesson, FEW, seed=0, step_room=room, teacher=tiny_bert.model)
    assert len(entered) - steps > steps + 2 * len(integers_of(stitched)) / 3
    assert entered == ["in", "out"] * (len(entered) // 2)


# ---- without a copy -----------------------------------------------------------------------------


def test_without_a_copy_the_bits_are_the_same(tiny: Tiny, before: Stitched, after: Stitched) -> None:
    def again() -> Stitched:
        return replace(before, model=copy.deepcopy(before.model))

    given = again()
    data, teacher = tiny.task.train, sure_teacher(tiny)
    found = finetune(given, Lesson(tiny.task, data, teacher), FEW, seed=0, again=again)
    assert found.model is given.model
    assert states_equal(found.model, after.model)
    assert all(
        torch.equal(integers_of(found)[p].codes, integers_of(after)[p].codes) for p in integers_of(after)
    )
    assert not any(p.grad is not None for p in found.model.parameters())


def test_without_a_copy_harm_is_undone_by_making_the_model_again(tiny_bert: Tiny) -> None:
    candidate = tiny_bert.space.uniform(Level.of(0.0, 4))
    made: list[Stitched] = []

    def again() -> Stitched:
        made.append(tiny_bert.stitched_as(candidate))
        return made[-1]

    data, recipe = tiny_bert.task.train, Recipe(steps=4, batch_size=8, learning_rate=1e3)
    teacher = Answers.plain(own_logits(tiny_bert, tiny_bert.model))
    result = finetune(again(), Lesson(tiny_bert.task, data, teacher), recipe, seed=0, again=again)
    assert len(made) == 2
    assert result is made[1]
    assert states_equal(result.model, tiny_bert.stitched_as(candidate).model)


def test_what_needs_no_mending_is_given_back(tiny_bert: Tiny) -> None:
    given = tiny_bert.stitched_as(tiny_bert.space.untouched())
    teacher = Answers.plain(own_logits(tiny_bert, tiny_bert.model))
    state = {name: tensor.clone() for name, tensor in given.model.state_dict().items()}
    data = tiny_bert.task.train
    result = finetune(
        given, Lesson(tiny_bert.task, data, teacher), FEW, seed=0, again=lambda: pytest.fail("made again")
    )
    assert result is given
    assert all(torch.equal(state[name], tensor) for name, tensor in given.model.state_dict().items())


# ---- every kind of task -------------------------------------------------------------------------

BERT = {
    "model_type": "bert", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "vocab_size": 60, "max_position_embeddings": 32, "initializer_range": 0.2,
    "hidden_dropout_prob": 0.0,
}  # fmt: skip
LLAMA = {
    "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 60, "tie_word_embeddings": True,
    "max_position_embeddings": 32, "initializer_range": 0.3,
}  # fmt: skip
RESNET = {
    "model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1],
    "layer_type": "basic", "num_labels": 4,
}  # fmt: skip
CONFIGS = {
    kinds.TEXT_CLASSIFICATION: BERT | {"num_labels": 3},
    kinds.TOKEN_CLASSIFICATION: BERT | {"num_labels": 5},
    kinds.TEXT_REGRESSION: BERT | {"num_labels": 1, "problem_type": "regression"},
    kinds.SENTENCE_EMBEDDING: BERT,
    kinds.CAUSAL_LM: LLAMA,
    kinds.IMAGE_CLASSIFICATION: RESNET,
}


def data_of(kind: kinds.TaskKind) -> Data:
    rng = np.random.default_rng(0)
    if kind == kinds.IMAGE_CLASSIFICATION:
        pixels = rng.normal(size=(48, 3, 16, 16)).astype(np.float32)
        return Arrays({"pixel_values": pixels}, rng.integers(0, 4, 48))
    lengths = rng.integers(4, 15, 48)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = rng.integers(1, 60, starts[-1]).astype(np.int32)
    labels: NDArray[np.generic] = rng.integers(0, 3, 48)
    if kind == kinds.TOKEN_CLASSIFICATION:
        labels = np.where(rng.random(len(ids)) < 0.6, rng.integers(0, 5, len(ids)), NO_LABEL)
        labels[starts[:-1]] = 1
    elif kind == kinds.TEXT_REGRESSION:
        labels = rng.normal(size=48).astype(np.float32)
    return Encoded(ids, np.zeros(len(ids), np.uint8), starts, labels)


@dataclass(frozen=True)
class OfKind:
    """A random model of a kind of task, rounded to 2 bits; the model's own answers are the teacher's."""

    task: Task
    model: nn.Module
    stitched: Stitched
    teacher: Answers

    def answers(self, one: Stitched) -> NDArray[np.float32]:
        run = torch_runner(one.model, self.task.kind)
        return logits_of(run, self.task, self.task.train, watched=self.teacher.watched)

    def loss(self, one: Stitched) -> float:
        return divergence(self.answers(one), self.teacher)

    def tuned(self, recipe: Recipe, **more: object) -> Stitched:
        data = self.task.train
        return finetune(self.stitched, Lesson(self.task, data, self.teacher), recipe, seed=0, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=list(CONFIGS), ids=str)
def of_kind(request: pytest.FixtureRequest) -> OfKind:
    kind, data = request.param, data_of(request.param)
    image = (3, 16, 16) if kind == kinds.IMAGE_CLASSIFICATION else None
    architecture = Architecture(kind, CONFIGS[kind], image=image)
    torch.manual_seed(0)
    model = architecture.empty()
    names = {kinds.IMAGE_CLASSIFICATION: ("pixel_values",), kinds.CAUSAL_LM: ("input_ids",)}
    inputs = names.get(kind, ("input_ids", "attention_mask"))
    labels = (
        () if kind in (kinds.TEXT_REGRESSION, kinds.SENTENCE_EMBEDDING, kinds.CAUSAL_LM) else tuple("abcde")
    )
    task = Task(data, data, data, labels, inputs, 0, kind, kind.usual_metric)
    teacher = teacher_answers(torch_runner(model, kind), task, data)
    rounded, integers = copy.deepcopy(model), {}
    for path, module in rounded.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and path not in ("lm_head", "classifier"):
            codes = round_nearest(module.weight.detach().flatten(1), bits=2, group_size=16)
            integers[path] = codes
            module.weight = nn.Parameter(codes.dequantize().reshape(module.weight.shape))
    stitched = Stitched(rounded, integers, Candidate(()), architecture, touched=tuple(integers))
    return OfKind(task, model, stitched, teacher)


def test_the_loss_falls_for_every_kind(of_kind: OfKind) -> None:
    result = of_kind.tuned(Recipe(steps=30, batch_size=16, learning_rate=1e-3))
    assert of_kind.loss(result) < 0.9 * of_kind.loss(of_kind.stitched)
    for path, integers in integers_of(result).items():
        weight: Tensor = result.model.get_submodule(path).weight  # type: ignore[assignment]
        assert torch.equal(integers.dequantize().reshape(weight.shape), weight), path


def test_reconstruction_alone_mends_every_kind(of_kind: OfKind) -> None:
    hardly_trained = Recipe(steps=1, batch_size=48, learning_rate=1e-12)
    result = of_kind.tuned(hardly_trained, teacher=of_kind.model)
    assert of_kind.loss(result) < 0.9 * of_kind.loss(of_kind.stitched)
    for path, integers in integers_of(result).items():
        weight: Tensor = result.model.get_submodule(path).weight  # type: ignore[assignment]
        assert torch.equal(integers.dequantize().reshape(weight.shape), weight), path


def test_harm_is_undone_for_every_kind(of_kind: OfKind) -> None:
    assert of_kind.tuned(Recipe(steps=3, batch_size=16, learning_rate=1e4)) is of_kind.stitched


def test_distance_is_the_divergence_for_every_kind(of_kind: OfKind) -> None:
    task, teacher, rows = of_kind.task, of_kind.teacher, np.array([3, 1, 7])
    run = torch_runner(of_kind.stitched.model, task.kind)
    logits = run(task.batch(task.train, rows))
    at = task.answered(task.train, rows)
    answers = torch.from_numpy(logits if at is None else logits[at])
    places = teacher.places(rows)
    watched = None if teacher.watched is None else teacher.watched[places]
    some = Answers(teacher.values[places], np.arange(len(places) + 1), watched, teacher.spread)
    expected = divergence(of_kind.answers(of_kind.stitched)[places], some)
    assert float(distance(answers, Targets.of(teacher, rows))) == pytest.approx(expected, rel=2e-4, abs=1e-7)


def test_a_kind_with_labels_learns_from_them_too(of_kind: OfKind) -> None:
    task, rows = of_kind.task, np.arange(6)
    values = torch.from_numpy(torch_runner(of_kind.stitched.model, task.kind)(task.batch(task.train, rows)))
    at = task.answered(task.train, rows)
    answers = values if at is None else values[torch.from_numpy(at[0]), torch.from_numpy(at[1])]
    wanted, labels = Targets.of(of_kind.teacher, rows), torch.from_numpy(task.labels(task.train, rows))
    more = float(distillation_loss(answers, wanted, labels, task) - distance(answers, wanted))
    if not task.has_labels:
        assert more == 0.0
    elif task.is_probable:
        truth = -answers.log_softmax(-1)[torch.arange(len(labels)), labels].mean()
        assert more == pytest.approx(0.05 * float(truth), rel=1e-3)
    else:
        truth = (answers[:, 0] - labels).square().mean() / (2 * of_kind.teacher.spread)
        assert more == pytest.approx(0.05 * float(truth), rel=1e-3)


def test_a_vocabularys_batch_in_parts_gives_the_gradients_of_the_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, architecture = data_of(kinds.CAUSAL_LM), Architecture(kinds.CAUSAL_LM, LLAMA)
    torch.manual_seed(0)
    model = architecture.empty()
    task = Task(data, data, data, (), ("input_ids",), 0, kinds.CAUSAL_LM, kinds.CAUSAL_LM.usual_metric)
    teacher = teacher_answers(torch_runner(model, task.kind), task, data)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    found = []
    for size in (3, 16):
        monkeypatch.setattr(Task, "evaluation_batch", size)
        model.zero_grad(set_to_none=True)
        _learn(model, Lesson(task, data, teacher), np.arange(10), 0, parts=1)
        found.append([parameter.grad for parameter in model.parameters()])
    for part, whole in zip(*found, strict=True):
        torch.testing.assert_close(part, whole, rtol=1e-4, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_it_trains_and_the_result_comes_back_whole(tiny: Tiny, before: Stitched) -> None:
    teacher, cuda = sure_teacher(tiny), torch.device("cuda")
    result = finetune(before, tiny.task, tiny.task.train, teacher, MANY, seed=0, device=cuda)
    assert all(p.device.type == "cpu" for p in result.model.parameters())
    for path, integers in integers_of(result).items():
        assert integers.codes.device.type == "cpu"
        assert torch.equal(integers.dequantize(), weight_at(result, path)), path
    assert apart(tiny, result, teacher) < 0.2 * apart(tiny, before, teacher)


def test_under_another_teacher_it_nears_that_one_and_is_judged_by_it(tiny_bert: Tiny) -> None:
    tiny = tiny_bert
    stitched = tiny.stitched_as(tiny.space.untouched())
    own = teacher_answers(torch_runner(tiny.model), tiny.task, tiny.task.train)
    lesson = Lesson(tiny.task, tiny.task.train, own, taught=sure_teacher(tiny))
    found = finetune(stitched, lesson, FEW, seed=0)
    assert finetune(stitched, replace(lesson, taught=None), FEW, seed=0) is stitched  # nothing to mend
    assert apart(tiny, found, sure_teacher(tiny)) < apart(tiny, stitched, sure_teacher(tiny))
    assert apart(tiny, found, own) > apart(tiny, stitched, own)
    with pytest.raises(ValueError, match="answered by the original alone"):
        finetune(stitched, lesson, replace(FEW, augment=True), seed=0, teacher=tiny.model)


def test_dropout_is_of_the_seed_and_leaves_the_model_and_the_global_state_as_they_were(
    tiny: Tiny, before: Stitched, after: Stitched
) -> None:
    dropped = replace(FEW, dropout=0.3)
    torch.manual_seed(5)
    first = torch.rand(1)
    torch.manual_seed(5)
    one = tuned(tiny, before, dropped)
    assert torch.equal(torch.rand(1), first)
    torch.manual_seed(6)
    assert states_equal(one.model, tuned(tiny, before, dropped).model)
    assert not states_equal(one.model, after.model)
    layers = dropout_layers(one.model)
    assert layers
    assert [(layer.p, layer.training) for layer in layers] == [
        (layer.p, layer.training) for layer in dropout_layers(before.model)
    ]


def test_dropout_drops_while_it_is_on() -> None:
    model = nn.Sequential(nn.Linear(4, 64), nn.Dropout(0.1), nn.BatchNorm1d(64)).eval()
    x = torch.ones(3, 4)
    plain = model(x)
    with dropping(model, 0.5, seed=0):
        assert not model[2].training
        once = model(x)
    with dropping(model, 0.5, seed=0):
        assert torch.equal(model(x), once)
    with dropping(model, 0.0, seed=0):
        assert torch.equal(model(x), plain)
    assert not torch.equal(once, plain)
    assert torch.equal(model(x), plain)


def test_weight_decay_shrinks_weights_and_spares_norms(tiny_bert: Tiny) -> None:
    stitched = tiny_bert.stitched_as(tiny_bert.space.untouched())
    goal = sure_teacher(tiny_bert)
    recipe = Recipe(steps=6, batch_size=8, learning_rate=1e-3)
    plain = finetune(stitched, Lesson(tiny_bert.task, tiny_bert.task.train, goal), recipe, seed=0)
    decayed = finetune(
        stitched,
        Lesson(tiny_bert.task, tiny_bert.task.train, goal),
        replace(recipe, weight_decay=20.0),
        seed=0,
    )
    path = "classifier"
    assert weight_at(decayed, path).norm() < 0.97 * weight_at(plain, path).norm()
    norm = next(path for path, module in plain.model.named_modules() if isinstance(module, nn.LayerNorm))
    assert torch.allclose(weight_at(decayed, norm), weight_at(plain, norm), atol=0.02)
