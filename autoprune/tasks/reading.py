"""What a kind of task reads of a table, and the names by which its columns are found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

TEXT_PAIRS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("sentence_a", "sentence_b"),
    ("text1", "text2"),
)
TEXT_COLUMNS = ("text", "sentence", "review", "content", "sms", "tweet", "question", "comment", "message")
DOCUMENT_COLUMNS = (*TEXT_COLUMNS, "document", "article", "body")
LABEL_COLUMNS = ("label", "labels", "category", "class", "target", "sentiment")
SCORE_COLUMNS = ("score", "similarity", "similarity_score", "relatedness_score", "stars", "rating")
WORD_COLUMNS = ("tokens", "words")
TAG_COLUMNS = ("ner_tags", "pos_tags", "chunk_tags", "tags", "labels")
IMAGE_COLUMNS = ("image", "img", "picture", "file", "path", "pixel_values", "file_name")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a kind of task reads of a table: its inputs, and labels where it has some.

    what: the input, as messages name it; of "tokens" a row has a list of words, each with a tag. inputs,
    labels: the names of columns, the likelier first; pairs come before. most: how many input columns there
    may be. is_each_text_a_row: whether the texts of a pair and the lines of a file are rows of their own.
    """

    what: Literal["text", "tokens", "image", "arrays"]
    inputs: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    pairs: tuple[tuple[str, ...], ...] = ()
    most: int = 1
    is_each_text_a_row: bool = False

    @property
    def has_words(self) -> bool:
        """Whether a row is a list of words, each with a tag."""
        return self.what == "tokens"

    @property
    def has_images(self) -> bool:
        """Whether a row is an image."""
        return self.what == "image"

    @property
    def option(self) -> str:
        """The option of the command line that names the input columns."""
        return "--image-column" if self.has_images else "--text-column"

    @property
    def label_word(self) -> str:
        """What a row's label is called in messages."""
        return "tags" if self.has_words else "label"

    @property
    def needs(self) -> str:
        """What a row must have, in words."""
        if self.has_words:
            return f"{self.what} and {self.label_word}"
        what = f"a{'n' * (self.what[0] in 'aeiou')} {self.what}"
        return f"{what} and a {self.label_word}" if self.labels else what

    @property
    def is_plain_text(self) -> bool:
        """Whether rows are texts without labels, so that text files will do."""
        return self.what == "text" and not self.labels
