"""What several points add to a front, one beside the other."""

from __future__ import annotations

import hypothesis
import hypothesis.extra.numpy as arrays
import hypothesis.strategies as some
import numpy as np
import pytest

from autoprune.strategy.gains import Gains
from autoprune.strategy.solver.planes import BYTES, DAMAGE, MS, Floats

cubes = arrays.arrays(
    np.int64, some.tuples(some.integers(1, 9), some.just(3)), elements=some.integers(0, 20)
).map(lambda x: x / 20)


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(cubes, cubes, some.booleans(), some.sampled_from([(BYTES, DAMAGE), (MS, DAMAGE)]))
def test_each_adds_most_beside_the_known_and_those_before_it(
    points: Floats, known: Floats, volume: bool, plane: tuple[int, int]
) -> None:
    taken = Gains.of(points, known, plane=plane, volume=volume).largest(len(points))
    assert len(set(taken)) == len(taken)
    for k in taken:
        gain = Gains.of(points, known, plane=plane, volume=volume).each()
        assert gain[k] == pytest.approx(gain.max())
        assert gain[k] > 0
        known = np.concatenate([known, points[k : k + 1]])
    assert Gains.of(points, known, plane=plane, volume=volume).each() == pytest.approx(0.0)


def test_of_no_known_points_the_best_dominates_its_whole_box() -> None:
    points = np.array([[0.5, 0.5, 0.5], [0.25, 0.9, 0.2]])
    gains = Gains.of(points, points[:0], plane=(BYTES, DAMAGE), volume=False)
    assert gains.each().tolist() == pytest.approx([0.25, 0.6])
    assert gains.largest(1) == [1]
    assert gains.largest(2) == [1]  # nothing of the first is left
