"""The rows of one split, and where each of them stands in the source.

Shapes: h height and w width of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from autoprune.tasks.data.columns import Text, text_key
from autoprune.tasks.data.images import Images, digest


class Place(NamedTuple):
    """Where a row stands in its source: the table it was read from, and its number there; the first is 0."""

    table: str
    row: int


@dataclass(frozen=True)
class Rows:
    """Inputs by column and the label of each row.

    texts: one column, or two for pairs; of token classification each text is a tuple of words; () of
    images. labels: classes; or numbers; or a tuple of classes a row, one a word; () where there are none.
    images: uint8 [h w 3], of sizes that may differ, each decoded when it is asked for; read-only, for a grey
    one is a view of one plane. image_keys: a hash of each image, equal for equal ones. places: where each
    row was read; () where it was not read from a source. groups: what the rows' source says stays together;
    () where it says nothing.
    """

    texts: tuple[tuple[Text, ...], ...]
    labels: tuple[int, ...] | tuple[float, ...] | tuple[tuple[int, ...], ...]
    images: Images = field(default_factory=Images, hash=False)
    image_keys: tuple[str, ...] = field(default=(), hash=False, repr=False)
    places: tuple[Place, ...] = field(default=(), hash=False, repr=False)
    groups: tuple[str, ...] = field(default=(), hash=False, repr=False)

    def __len__(self) -> int:
        return len(self.images or (self.texts[0] if self.texts else self.labels))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Rows):
            return NotImplemented
        same = (self.texts, self.labels) == (other.texts, other.labels)
        return same and [*map(digest, self.images)] == [*map(digest, other.images)]

    def keys(self) -> list[str]:
        """The key of each row: rows with one key are the same; case and spacing of texts do not count."""
        if self.image_keys:
            return list(self.image_keys)
        return [text_key(texts) for texts in zip(*self.texts, strict=True)]

    def held_together(self) -> list[str]:
        """Of each row what stays together in one split: its group, or else its text or picture."""
        if self.groups:
            return [f"group {group}" for group in self.groups]
        return [f"text {key}" for key in self.keys()]

    def pick(self, chosen: Sequence[int]) -> Rows:
        """Some rows, in the order given."""
        return Rows(
            tuple(tuple(column[k] for k in chosen) for column in self.texts),
            tuple(self.labels[k] for k in chosen) if self.labels else (),  # type: ignore[arg-type]
            Images([self.images.stored[k] for k in chosen] if self.images else ()),
            tuple(self.image_keys[k] for k in chosen) if self.image_keys else (),
            tuple(self.places[k] for k in chosen) if self.places else (),
            tuple(self.groups[k] for k in chosen) if self.groups else (),
        )
