"""The hypervolume of points that come one by one: what each adds to those before it.

A point adds the volume of its own box less what the others dominate of that box (While, Bradstreet and
Barone, A Fast Way of Calculating Exact Hypervolumes, 2012). Pure Python; imports no torch.
"""

from __future__ import annotations

from autoprune.strategy.pareto import Stairs

Costs = tuple[float, float, float]
"""Three numbers of which less is better: bytes, milliseconds, and percent that are wrong."""


class Growth:
    """The share of the box between a reference and the ideal (all 0) that the points so far dominate.

    >>> growth = Growth((10.0, 10.0, 10.0))
    >>> [growth.add(point) for point in ((5.0, 5.0, 5.0), (5.0, 0.0, 5.0), (9.0, 9.0, 9.0))]
    [0.125, 0.125, 0.0]
    >>> growth.volume
    0.25
    """

    def __init__(self, reference: Costs) -> None:
        self.reference = reference
        self.volume = 0.0
        self._members: list[Costs] = []
        self._box = reference[0] * reference[1] * reference[2]

    def add(self, point: Costs) -> float:
        """Add a point; what it adds. One that is at or beyond the reference adds nothing."""
        (a, b, c), (high, wide, deep) = point, self.reference
        if self._box <= 0 or a >= high or b >= wide or c >= deep:
            return 0.0
        for x, y, z in self._members:
            if x <= a and y <= b and z <= c:
                return 0.0
        shared = self._dominated([(max(q[0], a), max(q[1], b), max(q[2], c)) for q in self._members])
        gained = ((high - a) * (wide - b) * (deep - c) - shared) / self._box
        self._members = [q for q in self._members if not (a <= q[0] and b <= q[1] and c <= q[2])]
        self._members.append(point)
        self.volume += gained
        return gained

    def _dominated(self, points: list[Costs]) -> float:
        """Volume that points inside the reference dominate, by a sweep over the first number."""
        points.sort()
        stairs, area, total = Stairs(self.reference[1], self.reference[2]), 0.0, 0.0
        for k, (x, y, z) in enumerate(points):
            end = points[k + 1][0] if k + 1 < len(points) else self.reference[0]
            area += stairs.add(y, z)
            total += (end - x) * area
        return total
