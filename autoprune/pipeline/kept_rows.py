"""What a report shows of a validation row: a text that is cut, a word in its text, or a small picture."""

from __future__ import annotations

import base64
import importlib
import io
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoprune.run.answer_changes import LONGEST_PICTURE, LONGEST_TEXT, KeptRow
from autoprune.tasks.byte_images import ByteImages
from autoprune.tasks.data.splits import Splits
from autoprune.tasks.task import NO_LABEL, Arrays, Encoded, Task

PIXELS = 32
"""Most of a side of a small picture."""

QUALITIES = (60, 30)
"""Of a small picture as WebP; the second where the first takes too many bytes."""

TOKENS_BEFORE, TOKENS_AFTER = 48, 16
"""Tokens that are read of a text beside the one that is answered; what is more than `LONGEST_TEXT` is cut."""


@dataclass(frozen=True)
class RowsToShow:
    """The validation rows of a task.

    texts: the rows as they were read, where a row is a text with one answer.
    """

    task: Task
    texts: Splits | None
    tokenizer: Any

    def row(self, row: int, place: int | None = None) -> KeptRow:
        """What is shown of a row, or of one of its places."""
        data = self.task.validation
        if isinstance(data, Arrays):
            images = [values for values in data.inputs.values() if isinstance(values, ByteImages)]
            return KeptRow(picture=small_picture(images[0].bytes[row]) if len(images) == 1 else "")
        if place is None or not isinstance(data, Encoded):
            return KeptRow(text=cut(self._text(row)))
        return self._around(data, row, place)

    def short_text(self, row: int | np.integer[Any]) -> str:
        """The beginning of a row's text."""
        return cut(self._text(int(row)), LONGEST_TEXT // 2)

    def name(self, answer: int | np.integer[Any]) -> str:
        """A class by its name, or a token by its text."""
        number = int(answer)
        if self.task.kind.predicts_next_token:
            return cut(self._decoded(np.array([number])), 40)
        names = self.task.label_names
        return cut(names[number], 60) if 0 <= number < len(names) else f"class {number}"

    def row_of(self, k: int) -> tuple[int, int | None]:
        """Row of an answer, and its place among the answers to the row where there may be several."""
        if not self.task.kind.answers_each_token:
            return k, None
        row = int(np.searchsorted(self._starts, k, side="right")) - 1
        return row, k - int(self._starts[row])

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        return self.task.answer_starts(self.task.validation)

    def _text(self, row: int) -> str:
        data = self.task.validation
        if self.texts is not None and len(self.texts.validation) == len(data):
            return " / ".join(str(column[row]) for column in self.texts.validation.texts)
        if isinstance(data, Encoded):
            return self._decoded(data.ids[data.starts[row] : data.starts[row + 1]])
        return ""

    def _around(self, data: Encoded, row: int, place: int) -> KeptRow:
        """The text up to a token that came next; or a word with a tag, and the text on both its sides."""
        ids = data.ids[data.starts[row] : data.starts[row + 1]]
        if self.task.kind.predicts_next_token:
            before = self._decoded(ids[max(0, place + 1 - TOKENS_BEFORE) : place + 1])
            return KeptRow(text=cut_left(before))
        labels = data.labels[data.starts[row] : data.starts[row + 1]]
        spots = np.flatnonzero(labels != NO_LABEL)
        at = int(spots[place])
        end = int(spots[place + 1]) if place + 1 < len(spots) else at + 1
        begin = max(0, at - TOKENS_AFTER)
        text = self._decoded(ids[begin : at + TOKENS_AFTER])
        return KeptRow(text=cut(text), word=cut(self._decoded(ids[at:end]), 60))

    def _decoded(self, ids: NDArray[Any]) -> str:
        if self.tokenizer is None:
            return " ".join(map(str, ids.tolist()))
        return str(self.tokenizer.decode(ids.tolist(), skip_special_tokens=True))


def cut(text: str, most: int = LONGEST_TEXT) -> str:
    """The beginning of a text on one line.

    >>> cut("a  b" + chr(10) + "c"), cut("abcdef", 4)
    ('a b c', 'abc…')
    """
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "\u2026"


def cut_left(text: str, most: int = LONGEST_TEXT) -> str:
    """The end of a text on one line.

    >>> cut_left("abcdef", 4)
    '…def'
    """
    line = " ".join(text.split())
    return line if len(line) <= most else "\u2026" + line[1 - most :]


def small_picture(pixels: NDArray[np.uint8]) -> str:
    """A picture [c h w] as a data URI, at most `PIXELS` a side.

    "" where Pillow is missing or it takes too many bytes.
    """
    try:
        pillow: Any = importlib.import_module("PIL.Image")
    except ImportError:
        return ""
    plane = pixels[0] if len(pixels) != 3 else np.moveaxis(pixels, 0, -1)
    image = pillow.fromarray(np.ascontiguousarray(plane))
    image.thumbnail((PIXELS, PIXELS))
    for quality in QUALITIES:
        file = io.BytesIO()
        image.convert("RGB").save(file, "WEBP", quality=quality, method=6)
        uri = "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")
        if len(uri) <= LONGEST_PICTURE:
            return uri
    return ""
