"""Block by block against the whole model at once; what is kept of a block; how blocks are dealt out."""

from __future__ import annotations

import copy
import gc
import itertools
import resource
import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
import yaml
from torch import Tensor, nn

from autoprune.compress.library import Library
from autoprune.compress.statistics import calibrate
from autoprune.core.errors import AutopruneError
from autoprune.models.blocks import block_of, by_block, shares
from autoprune.models.outputs import outputs_of
from autoprune.models.spec import Architecture
from autoprune.models.unit import Unit
from autoprune.models.units import find_units
from autoprune.sensitivity import fisher_scores, tied_head
from autoprune.sensitivity.block_replay import Catcher, is_alike
from autoprune.sensitivity.fisher_directions import DirectionRows, of_classes, signs, unpacked_signs
from autoprune.sensitivity.fisher_scores import Sensitivity, measure_sensitivity
from autoprune.sensitivity.recorder import Recorder, gradients_at
from autoprune.sensitivity.tensor_file import Store
from autoprune.sensitivity.weight_changes import Change
from autoprune.space.levels import Level
from autoprune.space.space_file import SpaceFile
from autoprune.tasks.kinds import CAUSAL_LM, TEXT_CLASSIFICATION
from autoprune.tasks.task import Encoded, Task
from tests.support.tiny import Tiny, assert_same_scores

ROWS, SEED, VOCABULARY = 6, 5, 96

SPACES = {
    "llama": """
        word_embeddings: {at: model.embed_tokens, tied: lm_head, quantize: {bits: [4, 8, 16], group_size: 16}}
        attention:
          at: model.layers.*.self_attn
          rows: [q_proj, k_proj, v_proj]
          cols: [o_proj]
          prune: {by: head, ratios: [0.5]}
          quantize: {bits: [4, 8], activations: 8, group_size: 16}
        feed_forward:
          at: model.layers.*.mlp
          rows: [gate_proj, up_proj]
          cols: [down_proj]
          prune: {by: neuron, ratios: [0.5]}
          quantize: {bits: [4, 16], group_size: 16}
        """,
    "gpt2": """
        word_embeddings: {at: transformer.wte, tied: lm_head, quantize: {bits: [4, 16], group_size: 16}}
        positions: {at: transformer.wpe, quantize: {bits: [4], group_size: 16}}
        attention:
          at: transformer.h.*.attn
          rows: [c_attn.query, c_attn.key, c_attn.value]
          cols: [c_proj]
          prune: {by: head, ratios: [0.5]}
          quantize: {bits: [4], group_size: 16}
        feed_forward:
          at: transformer.h.*.mlp
          rows: [c_fc]
          cols: [c_proj]
          prune: {by: neuron, ratios: [0.5]}
          quantize: {bits: [4], group_size: 16}
        """,
    "bert": """
        word_embeddings: {at: bert.embeddings.word_embeddings, quantize: {bits: [4], group_size: 16}}
        attention:
          at: bert.encoder.layer.*.attention
          rows: [self.query, self.key, self.value]
          cols: [output.dense]
          prune: {by: head, ratios: [0.5]}
          quantize: {bits: [4], group_size: 16}
        feed_forward:
          at: bert.encoder.layer.*
          rows: [intermediate.dense]
          cols: [output.dense]
          prune: {by: neuron, ratios: [0.5]}
          quantize: {bits: [4, 8], activations: 8, group_size: 16}
        pooler: {at: bert.pooler.dense, quantize: {bits: [4], group_size: 16}}
        """,
}


def config(family: str) -> Any:
    if family == "llama":
        return transformers.LlamaConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, vocab_size=VOCABULARY, tie_word_embeddings=True,
            max_position_embeddings=32, initializer_range=0.2,
        )  # fmt: skip
    if family == "gpt2":
        return transformers.GPT2Config(
            n_embd=32, n_layer=3, n_head=4, vocab_size=VOCABULARY, n_positions=32, initializer_range=0.2
        )
    return transformers.BertConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, num_labels=7,
        vocab_size=VOCABULARY, max_position_embeddings=32, initializer_range=0.2,
    )  # fmt: skip


@dataclass(frozen=True)
class Made:
    """A random model with its units, rows and library."""

    model: nn.Module
    units: tuple[Unit, ...]
    task: Task
    library: Library

    def measured(self, units: tuple[Unit, ...] | None = None) -> Sensitivity:
        data = self.task.train
        return measure_sensitivity(
            self.model, units or self.units, self.library, self.task, data, rows=ROWS, seed=SEED
        )


@pytest.fixture(scope="module", params=list(SPACES))
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(request.param, tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make("llama", tmp_path_factory.mktemp("library"))


def make(family: str, folder: Path) -> Made:
    kind = TEXT_CLASSIFICATION if family == "bert" else CAUSAL_LM
    torch.manual_seed(0)
    model = Architecture(kind, config(family).to_dict()).empty()
    file = SpaceFile.model_validate({"version": 1, "units": yaml.safe_load(SPACES[family])})
    units = find_units(model, file, source=family)
    rng = np.random.default_rng(0)
    lengths = np.array([3, 9, 9, 12, 5, 7, 16, 9])
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = rng.integers(1, VOCABULARY, starts[-1]).astype(np.int32)
    data = Encoded(ids, np.zeros(len(ids), np.uint8), starts, rng.integers(0, 7, len(lengths)))
    names = ("input_ids", "attention_mask") if kind == TEXT_CLASSIFICATION else ("input_ids",)
    task = Task(data, data, data, tuple("abcdefg"), names, 0, kind)
    weights = [weight for unit in units for weight in unit.weights]
    tied = {weight.path: weight.tied for weight in weights if weight.tied}
    paths = [weight.path for weight in weights]
    statistics = calibrate(model, paths, task, data, rows=8, seed=0, tied=tied)
    return Made(model, units, task, Library(folder, model, statistics, key=family))


# ---- the same scores ----------------------------------------------------------------------------


def test_block_by_block_gives_what_the_whole_model_gives(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = made.measured()
    assert all(
        np.abs(score).max() > 0 for table in whole.scores.values() for score in list(table.values())[1:]
    )
    ran = []
    kept = fisher_scores._Survey.block
    monkeypatch.setattr(fisher_scores._Survey, "block", lambda *args: ran.append(args[1]) or kept(*args))
    monkeypatch.setattr(fisher_scores, "CHANGES_BYTES", 1)
    assert_same_scores(made.measured(), whole)
    inside = [unit.name for group in ran for unit in group]
    assert len(inside) == 6
    assert inside == [unit.name for unit in made.units if block_of(made.model, unit)]


def test_shares_of_units_give_what_all_give(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = made.measured()
    monkeypatch.setattr(fisher_scores, "CHANGES_BYTES", 1)
    dealt = shares(made.model, made.units, 2)
    assert len(dealt) == 2
    assert_same_scores(Sensitivity.merged(made.measured(share) for share in dealt), whole)


def test_a_vocabulary_in_parts_gives_what_it_gives_whole(
    llama: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = llama.measured(llama.units[:1])
    monkeypatch.setattr(tied_head, "MOMENT_BYTES", 4 * 32 * (4 * 2 + 4) * 7)  # seven tokens at a time
    assert_same_scores(llama.measured(llama.units[:1]), whole)


def rows_of(made: Made) -> DirectionRows:
    chosen = np.random.default_rng(SEED).permutation(len(made.task.train))[:ROWS]
    return DirectionRows(made.task, made.task.train, chosen, SEED, 0.0)


def test_a_tied_vocabularys_scores_are_finite_differences(llama: Made) -> None:
    unit, level, step = llama.units[0], Level.of(0.0, 4), 3e-3  # norms are in float32 inside
    found = llama.measured((unit,)).scores[unit.name][level]
    candidate = llama.library.variants(unit, level)[unit.weights[0].path]
    old = llama.model.get_parameter("lm_head.weight").detach()
    rows, truth = rows_of(llama), torch.zeros(ROWS, 2, dtype=torch.float64)
    for at, inputs in rows.batches():
        with torch.no_grad():
            output = outputs_of(llama.model, inputs, CAUSAL_LM)
            ends = []
            for sign in (1, -1):
                model = copy.deepcopy(llama.model).double()
                model.get_parameter("lm_head.weight").add_(sign * step * (candidate.value() - old).double())
                ends.append(outputs_of(model, inputs, CAUSAL_LM))
        slope = (ends[0] - ends[1]) / (2 * step)
        for k, direction in enumerate(rows.directions(output, at)):
            truth[torch.from_numpy(at), k] = (slope * direction).sum((1, 2))
    expected = truth.flatten().numpy()
    np.testing.assert_allclose(found, expected, rtol=5e-3, atol=1e-4 * abs(expected).max())


def test_a_block_that_takes_more_than_its_arguments_is_done_with_the_whole_model(
    llama: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its output is scaled by what an attribute of the model says, as it would be by a cache."""
    model = copy.deepcopy(llama.model)
    layer, state = model.get_submodule("model.layers.1"), {"inside": False}
    model.register_forward_pre_hook(lambda *_: state.update(inside=True))
    model.register_forward_hook(lambda *_: state.update(inside=False))
    layer.register_forward_hook(lambda _, args, output: output * (1.0 if state["inside"] else 0.5))
    other = Made(model, llama.units, llama.task, llama.library)
    monkeypatch.setattr(fisher_scores, "CHANGES_BYTES", 1)
    assert_same_scores(other.measured(), llama.measured())
    with Store() as store:
        catchers = {k: Catcher(model.get_submodule(f"model.layers.{k}"), store) for k in (0, 1)}
        for catcher in catchers.values():
            catcher.begin(2, {})
        model(input_ids=torch.ones(2, 5, dtype=torch.long), use_cache=False)
        for catcher in catchers.values():
            catcher.remove()
        assert is_alike(catchers[0], store)
        assert not is_alike(catchers[1], store)


def test_the_model_is_left_without_hooks(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {name: tensor.clone() for name, tensor in made.model.state_dict().items()}
    monkeypatch.setattr(fisher_scores, "CHANGES_BYTES", 1)
    made.measured()
    assert all(torch.equal(before[name], tensor) for name, tensor in made.model.state_dict().items())
    assert all(parameter.grad is None for parameter in made.model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in made.model.modules())


# ---- layers used in unusual ways ----------------------------------------------------------------


class Windows(nn.Module):
    """A layer used twice, of tokens that are laid end to end, before a function that works in place."""

    def __init__(self, *, in_place: bool, flat: bool) -> None:
        super().__init__()
        self.layer, self.in_place, self.flat = nn.Linear(4, 4), in_place, flat

    def forward(self, x: Tensor) -> Tensor:
        rows = len(x)
        for _ in range(2):
            x = x.reshape(-1, 4) if self.flat else x
            x = nn.functional.leaky_relu(self.layer(x), 0.2, inplace=self.in_place)
        return x.reshape(rows, -1, 4)


def moments(model: Windows, x: Tensor, direction: Tensor) -> Tensor:
    """d / dW of each row's output times the direction, by the recorder."""
    recorder = Recorder(model.layer)
    recorder.begin(len(x))
    output = model(x)
    gradients, _ = gradients_at([output], [[direction]], [use.edge for use in recorder.uses])
    change = Change(torch.eye(16).reshape(16, 4, 4), torch.zeros(16, 4), {})
    found = recorder.scores(gradients, change)
    recorder.remove()
    assert found is not None
    return found[:, 0].T


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("flat", [False, True])
def test_gradients_of_every_use_are_found(in_place: bool, flat: bool) -> None:
    torch.manual_seed(0)
    model = Windows(in_place=in_place, flat=flat)
    x, direction = torch.randn(3, 5, 4), torch.randn(3, 5, 4)
    found = moments(model, x, direction)
    for row in range(3):
        (truth,) = torch.autograd.grad((model(x[row : row + 1]) * direction[row]).sum(), model.layer.weight)
        torch.testing.assert_close(found[row], truth.flatten())


# ---- directions ---------------------------------------------------------------------------------


def test_signs_are_fair_and_a_rows_own() -> None:
    drawn = unpacked_signs(signs([np.random.default_rng(k) for k in range(400)], 1, 13)[:, 0], 13)
    assert set(drawn.unique().tolist()) == {-1.0, 1.0}
    assert abs(float(drawn.mean())) < 0.05
    assert float((drawn.T @ drawn / 400 - torch.eye(13)).abs().max()) < 0.2
    alone = unpacked_signs(signs([np.random.default_rng(7)], 1, 13)[:, 0], 13)
    assert torch.equal(alone[0], drawn[7])


def test_drawn_directions_have_the_fisher_information_as_mean() -> None:
    logits = torch.randn(1, 9, generator=torch.Generator().manual_seed(0)).expand(20_000, 9)
    draws = [np.random.default_rng(k) for k in range(20_000)]
    drawn = torch.cat(list(of_classes(logits, draws, 2)))
    p = logits[0].softmax(-1)
    torch.testing.assert_close(drawn.T @ drawn / len(drawn), p.diag() - p[:, None] * p, rtol=0.0, atol=4e-3)


# ---- what is kept -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int64, torch.bool])
def test_a_tensor_comes_back_from_the_file(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    given = [(torch.randn(shape) * 9).to(dtype) for shape in ((3, 4), (), (0, 5), (2, 3, 1))]
    given.append(given[0].T)
    given.append(given[0][:1].expand(4, 4))
    with Store() as store:
        kept = [store.put(tensor) for tensor in given]
        for tensor, at in zip(given, kept, strict=True):
            back = store.get(at)
            assert back.dtype == dtype
            assert torch.equal(back, tensor)


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with Store() as store:
        store.put(torch.ones(1000))
        assert store.size == 4000
        assert not list(tmp_path.iterdir())


def test_what_blocks_share_is_kept_once() -> None:
    block, mask = nn.ModuleList([nn.Identity(), nn.Identity()]), torch.ones(100)
    with Store() as store:
        catchers, known = [Catcher(module, store) for module in block], {}
        for catcher in catchers:
            catcher.begin(1, known)
            catcher.module(mask)
        assert catchers[0].calls[0][0].args == catchers[1].calls[0][0].args
        mask.mul_(2.0)
        block[0](mask)
        assert torch.equal(store.get(catchers[0].calls[0][1].args[0]), mask)


def test_a_full_disk_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    was = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with Store() as store, pytest.raises(AutopruneError, match=r"no room .* TMPDIR"):
            store.put(torch.ones(1000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, was)


# ---- who does which -----------------------------------------------------------------------------


def test_units_belong_to_their_layers(llama: Made) -> None:
    found = by_block(llama.model, llama.units)
    assert list(found) == ["", "model.layers.0", "model.layers.1", "model.layers.2"]
    assert [len(units) for units in found.values()] == [1, 2, 2, 2]


@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_blocks_are_dealt_whole_and_in_order(made: Made, count: int) -> None:
    dealt = shares(made.model, made.units, count)
    assert len(dealt) <= count
    assert [unit for share in dealt for unit in share] == [
        u for b in by_block(made.model, made.units).values() for u in b
    ]
    blocks = [{block_of(made.model, unit) for unit in share} for share in dealt]
    assert all(not a & b for a, b in itertools.combinations(blocks, 2))


def test_memory_of_a_batch_is_given_back(llama: Made) -> None:
    """No graph outlives its batch: what holds one is dropped when the block's gradients are kept."""
    with Store() as store:
        catcher = Catcher(llama.model.get_submodule("model.layers.0"), store)
        catcher.begin(1, {})
        out = outputs_of(llama.model, {"input_ids": torch.ones(1, 4, dtype=torch.long)}, CAUSAL_LM)
        catcher.keep(iter([torch.zeros(2, 1, 4, 32)]))
        del out
        gc.collect()
        assert all(not call.edges for call in catcher.calls[0])
        catcher.remove()


@pytest.mark.parametrize("count", [1, 2, 3, 20])
def test_units_are_shared_out_whole_and_in_a_row(tiny: Tiny, count: int) -> None:
    dealt = shares(tiny.model, tiny.units, count)
    assert sorted(given.name for share in dealt for given in share) == sorted(
        unit.name for unit in tiny.units
    )
    assert 1 <= len(dealt) <= count
    for block in by_block(tiny.model, tiny.units).values():
        assert sum(any(unit in share for unit in block) for share in dealt) == 1
