"""Search for candidates: the one with the largest predicted gain in hypervolume, and answers to budgets.

Candidates come from the solver, under what finished trials taught about damage, what training leaves of it,
and latency (`damage_model`, `recovery_model`, `latency_model`), and from a local search that changes the
levels of one or two units. The acquisition function (`acquisition`) ranks them.

Letters: u units, n trials, m candidates, f candidates in flight, q points of a lattice.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

import numpy as np

from autoprune.space.budget import Budget
from autoprune.space.levels import Candidate
from autoprune.space.trial import Trial, without_trained_kl
from autoprune.strategy.acquisition import Acquisition, Scale
from autoprune.strategy.hypervolume import KL_FLOOR, resolved_kl, staircase, unit_lattice
from autoprune.strategy.records import Records, recorded
from autoprune.strategy.solver.mckp import Axis, Problem, solve, sweep
from autoprune.strategy.solver.planes import BYTES, DAMAGE, Choice, Floats
from autoprune.strategy.surrogates.damage_model import Features, Posterior
from autoprune.strategy.surrogates.latency_model import TimeFeatures, with_corrected_latency
from autoprune.strategy.surrogates.recovery_model import Outlook, Recovery, Sorts, Training

SWEPT_SIZES = 32
"""Sizes that the solver is asked for each time, spread over what is allowed."""

MS_PRICES = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0)
"""Prices of latency that the solver is asked at: in log-KL's worth of the whole range of milliseconds."""

BYTE_PRICES = (0.0, 0.3, 3.0, 1e6)
"""Prices of bytes where milliseconds are limited: from bytes that do not count to nothing but bytes."""

MOST_STEPS = 100_000
"""Levels that are looked at, at most, to find a new candidate in a space that was nearly tried out."""

ROUNDS, BEST, COPIES = 3, 24, 32
"""Local search: in each round so many of the best candidates are each changed so many times."""


@dataclass(frozen=True)
class Aim:
    """The constants of a search: its space with costs, the budget, and scales."""

    problem: Problem
    features: Features
    sorts: Sorts
    budget: Budget
    scale: Scale
    lattice: Floats
    time_features: TimeFeatures
    other_teacher: bool = False

    @classmethod
    def of(
        cls,
        problem: Problem,
        budget: Budget,
        *,
        training: Training = Training(),  # noqa: B008
        answers: int | None = None,
    ) -> Aim:
        """The aim of a search under a budget.

        training: what trials that are promising get. answers: on validation, which say below what divergence
        candidates cannot be told apart; without them every divergence counts.
        """
        features = Features.of(problem)
        sorts = Sorts.of(problem, features, training)
        scale = Scale.of(problem, budget, resolved=KL_FLOOR if answers is None else resolved_kl(answers))
        times = TimeFeatures.of(problem)
        return cls(problem, features, sorts, budget, scale, unit_lattice(), times, training.other_teacher)

    def within(self, budget: Budget) -> Aim:
        """The same on the same scale, with candidates predicted to be within another budget."""
        return replace(self, budget=budget)

    def largest_gain(
        self,
        records: Records,
        in_flight: Choice,
        seen: AbstractSet[Candidate],
        *,
        seed: int,
        volume: bool,
    ) -> Candidate | None:
        """The new candidate within the budget with the largest gain; None where the search finds none.

        in_flight [f u]: candidates that are being evaluated; they count as if they came out as predicted.
        seen: candidates that are not new.
        volume: whether gain in (bytes, milliseconds, log KL) counts beside that in (bytes, log KL).
        """
        rng = np.random.default_rng(seed)
        acquisition = self._acquisition(records, in_flight, volume=volume)
        starts = self._starts(acquisition, records, rng)
        pool = self._searched(acquisition, acquisition.fitting(starts), rng)
        order = np.argsort(-acquisition.gain(pool), kind="stable")
        if len(pool) == 0 and not self._is_met(records):
            # A prediction alone does not rule out a limit of time: the quickest candidate is tried.
            copies = self._changed(starts[:BEST], rng)
            pool = acquisition.small_enough(_distinct(np.concatenate([starts, copies])))
            order = np.argsort(acquisition.problem.totals(pool).latency_ms, kind="stable")
        candidates = (self.problem.candidate(pool[k]) for k in order)
        return next((candidate for candidate in candidates if candidate not in seen), None)

    def batch(
        self,
        records: Records,
        in_flight: Choice,
        seen: AbstractSet[Candidate],
        *,
        seed: int,
        by_plane: int,
        by_volume: int,
    ) -> list[Candidate]:
        """New candidates within the budget for several workers, of one fit of the models; perhaps fewer.

        Each counts for those after it as those in flight do. The local search goes on from one to the next:
        it has one round for each but the first of its kind, which has as many as `largest_gain`.

        by_plane, by_volume: how many are chosen without and with gain in (bytes, milliseconds, log KL).
        """
        rng, taken = np.random.default_rng(seed), list[Candidate]()
        flat = self._acquisition(records, in_flight, volume=False)
        for count, volume in ((by_plane, False), (by_volume, True)):
            if not count:
                continue
            rows = [self.problem.chosen(candidate) for candidate in taken]
            acquisition = flat.counting(np.reshape(rows, (-1, len(self.problem.units))).astype(np.intp))
            if volume:
                acquisition = acquisition.by_volume(records)
            starts = acquisition.fitting(self._starts(acquisition, records, rng))
            pool = self._searched(acquisition, starts, rng)
            for _ in range(count):
                order = np.argsort(-acquisition.gain(pool), kind="stable")
                candidates = ((k, self.problem.candidate(pool[k])) for k in order)
                new = ((k, one) for k, one in candidates if one not in seen and one not in taken)
                k, candidate = next(new, (-1, None))
                if candidate is None:
                    break
                taken.append(candidate)
                acquisition = acquisition.counting(pool[k : k + 1])
                pool = self._searched(acquisition, np.concatenate([starts, pool]), rng, rounds=1)
        return taken

    def any_new(self, records: Records, seen: AbstractSet[Candidate], *, seed: int) -> Candidate | None:
        """Any candidate within the budget that is not in `seen`, by going through all; None without."""
        problem, rng = self._corrected(records), np.random.default_rng(seed)
        pair = (self.budget.size_bytes, self.budget.latency_ms)
        limits = np.array([np.inf if limit is None else limit for limit in pair])
        costs = np.stack([problem.size_bytes, problem.latency_ms])
        rest = np.cumsum(costs.min(2)[:, ::-1], 1)[:, ::-1]  # [2 u] of this unit and those after, at least
        room = limits - [problem.fixed_bytes, problem.fixed_ms]
        orders = [rng.permutation(len(levels)) for levels in problem.levels]
        chosen = np.zeros(len(orders), np.intp)
        waiting = [(0, int(k), room) for k in orders[0]]
        for _ in range(MOST_STEPS):
            if not waiting:
                return None
            u, k, room = waiting.pop()
            after = rest[:, u + 1] if u + 1 < len(orders) else 0.0
            if (costs[:, u, k] + after > room).any():
                continue
            chosen[u] = k
            if u + 1 < len(orders):
                waiting += [(u + 1, int(j), room - costs[:, u, k]) for j in orders[u + 1]]
            elif (candidate := problem.candidate(chosen)) not in seen:
                return candidate
        return None

    def answer(self, records: Records, budget: Budget) -> Candidate | None:
        """The candidate within any budget that is least damaged after training, by what trials taught.

        It may be one that was tried. None where no candidate is within the budget.
        """
        outlook, problem, rng = self.outlook(records), self._corrected(records), np.random.default_rng(0)
        tables = [problem.damage, outlook.damage.table(), outlook.table()]
        answers = [
            solve(_with_damage(problem, table), limit_bytes=budget.size_bytes, limit_ms=budget.latency_ms)
            for table in tables
        ]
        within = [chosen for chosen in answers if chosen is not None]
        if not within:
            return None
        settled = outlook.settled(records)
        measured = {row.tobytes(): kl for row, kl in zip(records.chosen, settled, strict=True)}

        def ranked(chosen: Choice) -> Choice:
            """Those within the budget, least divergence first; measured where it was."""
            totals = problem.totals(chosen)
            fits = totals.size_bytes <= (math.inf if budget.size_bytes is None else budget.size_bytes)
            fits &= totals.latency_ms <= (math.inf if budget.latency_ms is None else budget.latency_ms)
            kept = np.unique(chosen[fits], axis=0)
            kl = [measured.get(row.tobytes(), x) for row, x in zip(kept, outlook.kl(kept), strict=True)]
            order: Choice = kept[np.argsort(kl, kind="stable")]
            return order

        pool = ranked(np.concatenate([within, records.chosen]).astype(np.intp))
        for _ in range(ROUNDS):
            best = pool[:BEST]
            pool = ranked(np.concatenate([best, self._changed(best, rng)]))
        return self.problem.candidate(pool[0])

    def _is_met(self, records: Records) -> bool:
        """Whether no milliseconds are limited, or a trial was measured to be within the limit."""
        limit = self.budget.latency_ms
        return limit is None or bool((records.latency_ms <= limit).any())

    def outlook(self, records: Records) -> Outlook:
        """What trials taught about predicted damage, and about what training leaves of it."""
        damage = Posterior.of(self.features, records.chosen, records.kl).mean()
        return Outlook(damage, Recovery.of(self.sorts, records))

    def shares_left(self, trials: Iterable[Trial]) -> dict[Candidate, float]:
        """Share of its divergence that training is predicted to leave of each untrained candidate."""
        rows = recorded(map(without_trained_kl, trials) if self.other_teacher else trials)
        records = Records.of_rows(self.problem, rows)
        left = Recovery.of(self.sorts, records).left(records.chosen, records.kl)
        return {
            candidate: share
            for (candidate, *_), share in zip(rows, left.tolist(), strict=True)
            if math.isfinite(share)
        }

    def _acquisition(self, records: Records, in_flight: Choice, *, volume: bool) -> Acquisition:
        """The gain over the trials and candidates in flight [f u], by what these trials taught."""
        return Acquisition.of(
            self._corrected(records), self.outlook(records), records, in_flight,
            budget=self.budget, scale=self.scale, lattice=self.lattice, volume=volume,
        )  # fmt: skip

    def _searched(
        self, acquisition: Acquisition, pool: Choice, rng: np.random.Generator, *, rounds: int = ROUNDS
    ) -> Choice:
        """The best of candidates [m u] and changed copies of them, by a local search."""
        for _ in range(rounds):
            best = pool[np.argsort(-acquisition.gain(pool), kind="stable")[:BEST]]
            pool = _distinct(np.concatenate([best, acquisition.fitting(self._changed(best, rng))]))
        return pool

    def _corrected(self, records: Records) -> Problem:
        """The problem with milliseconds as the trials suggest."""
        return with_corrected_latency(self.problem, records.chosen, records.latency_ms, self.time_features)

    def _starts(self, acquisition: Acquisition, records: Records, rng: np.random.Generator) -> Choice:
        """Candidates that the local search begins with [m u]: the solver's, and the measured front."""
        problem, scale = acquisition.problem, self.scale
        low, high = scale.byte_range.low, scale.byte_range.high
        # Jitter, so that a size that was tried is not asked for again.
        steps = (np.arange(SWEPT_SIZES) + rng.random(SWEPT_SIZES)) / SWEPT_SIZES
        targets = low + (high - low) * steps**1.5
        targets[-1] = high if self.budget.size_bytes is None else self.budget.size_bytes
        prices = np.asarray(MS_PRICES if acquisition.volume else MS_PRICES[:1])
        measured = acquisition.known[: len(records.kl), (BYTES, DAMAGE)]
        pools = [records.chosen[staircase(measured)]]
        for variant in (problem, _with_damage(problem, acquisition.outlook.table())):
            span = scale.high_ms - scale.low_ms
            pools.append(_swept(variant, targets, prices, span=span, along="bytes"))
            if self.budget.latency_ms is not None:
                least = problem.fixed_ms + float(problem.latency_ms.min(1).sum())
                limits = least + (self.budget.latency_ms - least) * steps**0.5
                limits[-1] = self.budget.latency_ms
                byte_prices = np.asarray(BYTE_PRICES)
                pools.append(_swept(variant, limits, byte_prices, span=high - low, along="milliseconds"))
        return _distinct(np.concatenate(pools).astype(np.intp))

    def _changed(self, base: Choice, rng: np.random.Generator) -> Choice:
        """Copies of candidates with one or two units at another level [m u]: two may keep the size."""
        out = np.repeat(base, COPIES, axis=0)
        counts = np.array([len(levels) for levels in self.problem.levels])
        rows = np.arange(len(out))
        for _ in range(2):
            unit = rng.integers(len(counts), size=len(out))
            out[rows, unit] = (rng.random(len(out)) * counts[unit]).astype(np.intp)
        return out


def _with_damage(problem: Problem, table: Floats) -> Problem:
    """The problem with other damages [u l] of the levels that are offered."""
    return problem.with_damage(np.where(np.isfinite(problem.damage), table, np.inf))


def _swept(problem: Problem, targets: Floats, prices: Floats, *, span: float, along: Axis) -> Choice:
    """The solver's candidates for each limit and each price of the other cost, whose range is `span`."""
    free = sweep(problem, targets, np.zeros(1), along=along)
    middle = float(np.median(problem.totals(free).damage))
    return sweep(problem, targets, prices * middle * 3 / max(span, 1e-9), along=along).astype(np.intp)


def _distinct(chosen: Choice) -> Choice:
    """Candidates [m u], each once; `np.unique` of whole rows takes ten times as long."""
    keys = chosen @ np.random.default_rng(0).integers(2**63, size=chosen.shape[1], dtype=np.int64)
    return chosen[np.unique(keys, return_index=True)[1]]
