"""What points add to the hypervolume of known ones: several points, each beside those chosen before it.

Letters: m points, n known points, q points of a lattice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoprune.strategy.hypervolume import added_area, covered, covers, unit_lattice
from autoprune.strategy.solver.knapsack import undominated
from autoprune.strategy.solver.planes import Floats


@dataclass
class Gains:
    """What points would add to the area that known ones dominate in a plane, and to the volume.

    points [m 3]: in the unit cube. front [n 2]: known points in the plane. plane: its axes. dominated [m q]:
    which points of the lattice, of those that no known point dominates, each dominates; of no lattice where
    volume does not count.
    """

    points: Floats
    front: Floats
    plane: tuple[int, int]
    dominated: NDArray[np.bool_]

    @classmethod
    def of(cls, points: Floats, known: Floats, *, plane: tuple[int, int], volume: bool) -> Gains:
        """Over the known points [n 3]."""
        lattice = unit_lattice() if volume else unit_lattice()[:0]
        return cls(points, known[:, plane], plane, covers(points, lattice[~covered(known, lattice)]))

    def each(self) -> Floats:
        """Of every point [m]: area, and volume where it counts."""
        area = added_area(self.points[:, self.plane], self.front)
        volume: Floats = self.dominated.sum(1) / len(unit_lattice())
        return area + volume

    def largest(self, count: int) -> list[int]:
        """Numbers of so many points, each adding most beside those before it; fewer where no other adds."""
        taken: list[int] = []
        while len(taken) < count:
            gain = self.each()
            k = int(np.argmax(gain))
            if gain[k] <= 0:
                break
            taken.append(k)
            if len(taken) < count:
                self._take(k)
        return taken

    def _take(self, k: int) -> None:
        """Count a point among the known."""
        front = np.concatenate([self.front, self.points[k : k + 1, self.plane]])
        self.front = front[undominated(*front.T)]
        self.dominated = self.dominated[:, ~self.dominated[k]]
