"""Sequences and sets that grow by one and share what they had before, whatever their length.

Each is a view of the first members of a list or a dictionary that all versions share. Versions that came
before stay as they were; where an old one is grown again, it is copied.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from itertools import islice
from typing import Generic, Self, TypeVar, cast, overload

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)


class GrowingTuple(Sequence[Item], Generic[Item]):
    """A sequence that grows at its end; equal to any sequence of the same members in order.

    >>> few = GrowingTuple("ab")
    >>> more = few.plus("c")
    >>> list(few), list(more), more == ("a", "b", "c"), more[1:]
    (['a', 'b'], ['a', 'b', 'c'], True, ('b', 'c'))
    """

    __slots__ = ("_items", "_size")

    def __init__(self, items: Iterable[Item] = ()) -> None:
        self._items = list(items)
        self._size = len(self._items)

    def plus(self, item: Item) -> Self:
        """The sequence with one more at its end."""
        grown = type(self)()
        grown._items = self._items if len(self._items) == self._size else self._items[: self._size]
        grown._items.append(item)
        grown._size = self._size + 1
        return grown

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, place: int) -> Item: ...
    @overload
    def __getitem__(self, place: slice) -> Self: ...
    def __getitem__(self, place: int | slice) -> Item | Self:
        if isinstance(place, slice):
            return type(self)(self._items[k] for k in range(*place.indices(self._size)))
        return self._items[range(self._size)[place]]

    def __iter__(self) -> Iterator[Item]:
        return islice(iter(self._items), self._size)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, GrowingTuple | tuple | list):
            return NotImplemented
        return len(self) == len(other) and all(x == y for x, y in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(tuple(self))


class GrowingSet(AbstractSet[Key], Generic[Key]):
    """A set that grows; equal to any set of the same members.

    >>> few = GrowingSet([1, 2])
    >>> more = few.plus(3)
    >>> 3 in few, 3 in more, more == {1, 2, 3}, more.plus(3) is more
    (False, True, True, True)
    """

    __slots__ = ("_places", "_size")

    def __init__(self, items: Iterable[Key] = ()) -> None:
        self._places: dict[Key, int] = {}
        for item in items:
            self._places.setdefault(item, len(self._places))
        self._size = len(self._places)

    def plus(self, item: Key) -> Self:
        """The set with one more member, or the same where it is one already."""
        if item in self:
            return self
        grown = type(self)()
        is_last = len(self._places) == self._size
        grown._places = self._places if is_last else {member: k for k, member in enumerate(self)}
        grown._places[item] = self._size
        grown._size = self._size + 1
        return grown

    def __contains__(self, item: object) -> bool:
        place = self._places.get(cast(Key, item))
        return place is not None and place < self._size

    def __iter__(self) -> Iterator[Key]:
        return islice(iter(self._places), self._size)

    def __len__(self) -> int:
        return self._size

    def __repr__(self) -> str:
        return repr(set(self))
