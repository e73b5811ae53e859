"""A tagger: which mark follows each word, for text that comes without any, as from a speech recognizer.

    python -m examples.tagger [--full]

Shows: token classification from json lines (a list of words and a list of tags a row), a model without a
head that gets one, macro F1, and the export at work on a sentence. The rows are the film reviews of the
built-in demo, whose own commas and full stops are the tags: real labels, and nobody had to write them.
Small is MiniLM's first two layers and 900 reviews; full is all of MiniLM and all 12,752.
"""

from __future__ import annotations

import re
from pathlib import Path

from autoprune.tasks.data.demo import demo_rows
from examples.commands import Example, example, sizes
from examples.inputs import FEW_LEVELS, minilm, write_lines

TAGS = {"": "NONE", ",": "COMMA", ".": "END", "!": "END", "?": "END"}
WORD = re.compile(r"([A-Za-z'-]+)([,.!?]?)")
SENTENCE = "what a strange film it is long dark and full of rain but you will not forget it"


def tagged(text: str) -> dict[str, list[str]]:
    """Words in lower case, and the mark after each.

    >>> tagged("Dark, slow. Fine!")
    {'words': ['dark', 'slow', 'fine'], 'tags': ['COMMA', 'END', 'END']}
    """
    pairs = WORD.findall(text)
    return {"words": [word.lower() for word, _ in pairs], "tags": [TAGS[mark] for _, mark in pairs]}


def marked(words: list[str], tags: list[str]) -> str:
    """Words with the marks that tags stand for.

    >>> marked(["dark", "slow"], ["COMMA", "END"])
    'dark, slow.'
    """
    marks = {"NONE": "", "COMMA": ",", "END": "."}
    return " ".join(word + marks[tag] for word, tag in zip(words, tags, strict=True))


def tags_of(folder: Path, words: list[str]) -> list[str]:
    """What an export says of each word: the answer at the word's first token."""
    import transformers

    from autoprune import load

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    names = transformers.AutoConfig.from_pretrained(folder).id2label
    tokens = tokenizer(words, is_split_into_words=True, return_tensors="np")
    owners = tokens.word_ids()
    answers = load(folder)(**tokens).logits[0].argmax(-1)
    return [names[int(answers[owners.index(k)])] for k in range(len(words))]


def words_of_search(asked: Example, rows: Path) -> list[object]:
    """What `autoprune search` is told."""
    words: list[object] = [minilm(2 if asked.small else 6), "--dataset", rows]
    words += ["--task", "token-classification", "--max-length", 48, "--teacher-rate", "3e-4"]
    if not asked.small:
        return [*words, "--budget", "6MB", "--teacher-epochs", 3, "--trials", 32]
    words += ["--budget", "5MB", "--teacher-epochs", 2, "--trials", 1, "--finetune-steps", 5, "--workers", 0]
    words += ["--space", FEW_LEVELS, "--limit-rows", 600, 150, 150, "--calibration-rows", 32]
    return [*words, "--sequence", 48]


def main() -> None:
    """Write the rows, search, export, and mark a sentence."""
    asked = example(__doc__, "tagger")
    rows = asked.work / "tagged.jsonl"
    every = (tagged(row["text"]) for row in demo_rows())
    write_lines(rows, (row for row in every if len(row["words"]) > 3))
    front = asked.search("run", *words_of_search(asked, rows))
    folder = asked.export("run", "tagger")
    print(sizes(front))
    words = SENTENCE.split()
    print("in ", SENTENCE)
    print("out", marked(words, tags_of(folder, words)))


if __name__ == "__main__":
    main()
