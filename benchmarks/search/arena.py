"""An arena: one model whose candidates are measured the same way for every search that is compared.

A measurement here takes no clock, so it is exactly repeatable: the candidate is stitched, and fine-tuned
where the arena says so, its logits on a fixed set of validation rows give KL(teacher || model) and accuracy,
and its bytes and milliseconds are sums of tables (MiniLM's milliseconds are those of its target, measured
once). What was measured is kept on disk with the seconds it took; a search is charged those all the same.
"""

from __future__ import annotations

import copy
import functools
import json
import time
from dataclasses import asdict, dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from autoprune.compress.library_folder import VERSION as LIBRARY_VERSION
from autoprune.compress.stitch import stitch
from autoprune.compress.surgery import replace_
from autoprune.core.cache import cache_folder, content_key
from autoprune.core.files import read_json, write_json
from autoprune.core.progress import Progress
from autoprune.evaluation.finetune import Recipe, finetune
from autoprune.evaluation.jobs import Original
from autoprune.evaluation.lesson import Lesson
from autoprune.evaluation.timers import LocalTimer
from autoprune.evaluation.workbench import Workbench
from autoprune.evaluation.worker import make_worker
from autoprune.models.split_embedding import RARE, Parted
from autoprune.models.units import search_space
from autoprune.pipeline.inputs import Inputs, read_inputs
from autoprune.pipeline.prepare import prepare
from autoprune.run.config import DEMO_DEFAULTS, Config
from autoprune.sensitivity.fisher_scores import measure_sensitivity
from autoprune.space.costs import Costs
from autoprune.space.levels import UNTOUCHED, Candidate, Level, SearchSpace
from autoprune.space.trial import Measurement
from autoprune.targets import is_fast
from autoprune.targets.latency_table import Design
from autoprune.tasks.answers import divergence
from autoprune.tasks.scoring import accuracy

VERSION = 103
"""Raised when a measurement or a prediction here would come out differently."""

ROWS = {"minilm": 96, "digits": 360}
"""Validation rows of a measurement; of the digits all."""

BATCH = {"minilm": 16, "digits": 360}
SENSITIVITY_ROWS = 256


@dataclass(frozen=True)
class Arena:
    """A model's search space, what its levels cost, and how a candidate is measured.

    reference: the original's bytes and milliseconds with the accuracy of always naming the commonest
    class. setup_seconds: what predicting the damage took, charged to the searches that read it.
    """

    name: str
    space: SearchSpace
    costs: Costs
    reference: Measurement
    setup_seconds: float
    evaluator: Evaluator

    def evaluate(self, candidate: Candidate) -> tuple[Measurement, float]:
        """What a candidate measures, and the seconds that took when it was first done."""
        kl, percent, seconds = self.evaluator.measured(candidate)
        size, latency = self.costs.size_bytes(candidate), self.costs.latency_ms(candidate)
        return Measurement(size, latency, percent, kl=kl), seconds

    def restricted(self, space: SearchSpace) -> Arena:
        """The same with fewer levels to choose from."""
        return replace(self, space=space)

    @cached_property
    def range_bytes(self) -> tuple[int, int]:
        """Bytes of the smallest candidate and of the uniform 8-bit model: where searches are compared."""
        smallest = self.costs.smallest(self.space)
        return self.costs.size_bytes(smallest), self.costs.size_bytes(self.space.uniform(Level.of(0.0, 8)))


class Evaluator:
    """Measures candidates of one teacher on fixed rows, and remembers on disk.

    recipe: of the fine-tune before each measurement; with no steps there is none.
    """

    def __init__(self, workbench: Workbench, rows: int, batch: int, recipe: Recipe) -> None:
        self._workbench, self._units, self._recipe = workbench, workbench.setting.units, recipe
        data = workbench.task.validation
        chosen = np.random.default_rng(0).permutation(len(data))[:rows]
        chosen = chosen[np.argsort(data.lengths[chosen], kind="stable")]  # less padding
        self.labels: NDArray[np.int64] = data.labels[chosen]
        self._batches = [
            {
                name: torch.from_numpy(x)
                for name, x in workbench.task.batch(data, chosen[k : k + batch]).items()
            }
            for k in range(0, len(chosen), batch)
        ]
        self._model = copy.deepcopy(workbench.teacher)
        self._now = dict.fromkeys((unit.name for unit in self._units), UNTOUCHED)
        self._modules: dict[tuple[str, Level], dict[str, nn.Module]] = {}
        self._ranks: dict[tuple[str, Level], torch.Tensor] = {}
        self.teacher_logits = self._logits(workbench.teacher)
        taught = [asdict(recipe)] if recipe.steps else []
        self.key = content_key(VERSION, LIBRARY_VERSION, workbench.setting.key, rows, batch, *taught)
        self._path = cache_folder() / "benchmarks" / f"{self.key}.jsonl"
        self._known: dict[str, tuple[float, float, float]] = {}
        self._read = 0
        self._catch_up()

    @property
    def count(self) -> int:
        """Candidates measured so far, by any process before this one and by this one."""
        return len(self._known)

    def measured(self, candidate: Candidate) -> tuple[float, float, float]:
        """KL in nats, accuracy in percent, and the seconds they took."""
        name = name_of(candidate)
        if name not in self._known:
            self._catch_up()
        if name not in self._known:
            self._fill(candidate)  # the library is made once for all searches, on nobody's time
            start = time.perf_counter()
            logits = self._logits(
                self._trained(candidate) if self._recipe.steps else self._put_together(candidate)
            )
            seconds = time.perf_counter() - start
            kl = max(divergence(logits, self.teacher_logits), 0.0)
            self._known[name] = kl, accuracy(logits, self.labels), seconds
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([name, *self._known[name]]) + "\n")
        return self._known[name]

    def _catch_up(self) -> None:
        """Read what other processes wrote since the last look."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._read)
            lines = file.read().splitlines(keepends=True)
        for line in lines:
            if not line.endswith(b"\n"):  # being written, or a process was killed as it wrote
                break
            self._read += len(line)
            try:
                name, kl, percent, seconds = json.loads(line)
            except ValueError:
                continue
            self._known[name] = kl, percent, seconds

    @property
    def blank_kl(self) -> float:
        """KL of a model that answers every row with the mean of the teacher's answers, nats."""
        odds = np.exp(self.teacher_logits - self.teacher_logits.max(-1, keepdims=True))
        mean = np.log((odds / odds.sum(-1, keepdims=True)).mean(0))
        return divergence(np.broadcast_to(mean, odds.shape), self.teacher_logits)

    def differs(self, candidate: Candidate) -> float:
        """Largest difference of logits from those of `stitch`: the short cut here must give 0."""
        self._fill(candidate)
        whole = stitch(self._workbench.teacher, self._units, candidate, self._workbench.library).model
        return float(np.abs(self._logits(whole) - self._logits(self._put_together(candidate))).max())

    def _put_together(self, candidate: Candidate) -> nn.Module:
        """As `stitch`, but in one model of which only units at another level than before are changed."""
        for unit in self._units:
            level = candidate[unit.name]
            if level != self._now[unit.name]:
                for path, module in self._modules[unit.name, level].items():
                    parent, _, name = path.rpartition(".")
                    holder = self._model.get_submodule(parent)
                    setattr(holder, name, module)
                    if isinstance(holder, Parted) and name == RARE:
                        holder.ranks = self._ranks[unit.name, level]
                self._now[unit.name] = level
        return self._model

    def _trained(self, candidate: Candidate) -> nn.Module:
        """The candidate after its fine-tune."""
        bench = self._workbench
        lesson = Lesson(bench.task, bench.task.train, bench.setting.train_answers)
        return finetune(
            bench.stitched(candidate), lesson, self._recipe, seed=0,
            again=lambda: bench.stitched(candidate), teacher=bench.teacher,
        ).model  # fmt: skip

    def _fill(self, candidate: Candidate) -> None:
        """Make the modules of a candidate's levels that are not in memory yet."""
        for unit in self._units:
            level = candidate[unit.name]
            if (unit.name, level) in self._modules:
                continue
            scratch = (
                copy.deepcopy(self._workbench.teacher) if level != UNTOUCHED else self._workbench.teacher
            )
            if level != UNTOUCHED:
                for path, variant in self._workbench.library.variants(unit, level).items():
                    places = variant.places
                    replace_(scratch, path, variant.value(), variant.bias, variant.activations, places=places)
            self._modules[unit.name, level] = {w.path: scratch.get_submodule(w.path) for w in unit.weights}
            for weight in unit.weights:
                holder = scratch.get_submodule(weight.path.rpartition(".")[0])
                if isinstance(holder, Parted):
                    self._ranks[unit.name, level] = holder.ranks

    def _logits(self, model: nn.Module) -> NDArray[np.float32]:
        with torch.inference_mode():
            return np.concatenate([model(**batch).logits.numpy() for batch in self._batches])


def name_of(candidate: Candidate) -> str:
    """A candidate as short text: its levels, in the order of the units."""
    return " ".join(f"{level.ratio:g}x{level.storage.bits}" for _, level in candidate.items)


def candidate_named(name: str, space: SearchSpace) -> Candidate:
    """Inverse of `name_of`."""
    levels = [(float(r), int(b)) for r, b in (pair.split("x") for pair in name.split())]
    pairs = zip(space.units, levels, strict=True)
    return Candidate(tuple((choices.unit, Level.of(*level)) for choices, level in pairs))


# ---- the two arenas -----------------------------------------------------------------------------


def open_arena(name: str, rows: int | None = None, steps: int = 0) -> Arena:
    """The arena by name: `minilm` on film reviews (the built-in demo), or `digits`.

    steps: of the fine-tune before each measurement.
    """
    if name == "minilm":
        config = Config.of(max_length=int(DEMO_DEFAULTS["max_length"]))
    else:
        from benchmarks.search import digits

        folder = digits.make()
        config = Config.of(
            model=str(folder / "model"), dataset=str(folder / "data"),
            target="packed", max_length=digits.TOKENS, sequence=digits.TOKENS,
        )  # fmt: skip
    inputs = read_inputs(config)
    prepared = prepare(config, inputs, Progress())
    workbench = make_worker({"setting": prepared.setting}).workbench
    torch.set_num_threads(1)
    recipe = replace(prepared.recipe, steps=steps)
    evaluator = Evaluator(workbench, rows or ROWS[name], BATCH[name], recipe)
    damage, seconds = predicted_damage(workbench)
    costs = inputs.sizes.with_damage(damage)
    costs = (
        with_assumed_latency(costs, inputs) if name == "digits" else with_measured_latency(costs, workbench)
    )
    majority = 100.0 * float(np.bincount(evaluator.labels).max()) / len(evaluator.labels)
    whole = inputs.space.untouched()
    reference = Measurement(costs.size_bytes(whole), costs.latency_ms(whole), majority)
    return Arena(name, inputs.space, costs, reference, seconds, evaluator)


def predicted_damage(workbench: Workbench) -> tuple[dict[str, dict[Level, float]], float]:
    """Predicted damage of every unit at every level, nats a row, and the seconds it took; cached."""
    key = content_key(VERSION, LIBRARY_VERSION, workbench.setting.key, SENSITIVITY_ROWS)
    path = cache_folder() / "benchmarks" / f"damage-{key}.json"
    if not path.is_file():
        for unit in workbench.setting.units:
            for ratio in unit.ratios:
                workbench.library.build(unit, ratio)
        start = time.perf_counter()
        task, units = workbench.task, workbench.setting.units
        found = measure_sensitivity(
            workbench.teacher, units, workbench.library, task, task.train,
            rows=SENSITIVITY_ROWS, seed=0,
        )  # fmt: skip
        rows = {u: [[v.ratio, v.storage.written, d] for v, d in t.items()] for u, t in found.damage().items()}
        write_json(path, {"seconds": time.perf_counter() - start, "damage": rows})
    known = read_json(path)
    damage = {u: {Level.of(r, s): d for r, s, d in rows} for u, rows in known["damage"].items()}
    return damage, float(known["seconds"])


def with_measured_latency(costs: Costs, workbench: Workbench) -> Costs:
    """Costs with the target's table of milliseconds, timed once for a cache."""
    units, setting = workbench.setting.units, workbench.setting
    space = search_space(units, workbench.target.offers)
    design = Design(units, space, functools.partial(is_fast, workbench.target))
    probes = design.probes()
    key = content_key(VERSION, setting.key, setting.target, setting.batch, setting.sequence)
    path = cache_folder() / "benchmarks" / f"latency-{key}.json"
    if not path.is_file():
        timer = LocalTimer(workbench)
        whole = timer.time(Original()).original_ms
        # Each beside the original, so that drift of the machine cancels.
        write_json(path, [whole, *(timer.time(probe).quick_ratio for probe in probes)])
    whole, *taken = read_json(path)
    return design.fitted(probes, taken).applied(costs, whole)


def with_assumed_latency(costs: Costs, inputs: Inputs) -> Costs:
    """Costs with milliseconds that are made up, so that the digits' reference holds on any machine.

    Multiplications left at 1 GHz; 2, 4 and 8 bits take 1/1.86 of what other widths take, as uniform
    candidates of the demo did (results/speed.json). Embeddings are looked up for nothing.
    """
    table: dict[str, dict[Level, float]] = {}
    for unit, choices in zip(inputs.units, inputs.space.units, strict=True):
        table[choices.unit] = {}
        for level in choices.levels():
            work = sum(o * i for o, i in unit.shapes(level.ratio).values()) if unit.prunable else 0
            table[choices.unit][level] = work * 1e-6 / (1.86 if level.storage.bits in (2, 4, 8) else 1.0)
    return costs.with_latency(table, 0.2 * sum(times[UNTOUCHED] for times in table.values()))
