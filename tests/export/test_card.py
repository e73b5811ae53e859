"""The model card: what the hub reads in it, what a person reads, and names that mean harm."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as some
import pytest
import yaml
from huggingface_hub import ModelCard

from autoprune.export.card import base_of, model_card
from autoprune.export.export_record import BaseRecord, ExportRecord

ABOUT: dict[str, Any] = {
    "target": "openvino", "storage": "plain", "budget": "20.0 MB", "trial": 7, "run": "my-run", "steps": 12,
    "base": {"name": "some-bert", "hub_id": "my-org/some-bert", "revision": "abc123", "license": "mit",
             "tensors_sha256": "1" * 64},
    "dataset": "reviews.csv", "measured_on": "openvino", "protocol": "As it was timed.",
    "data": {"dataset": "reviews.csv", "fingerprint": "2" * 64, "labels": ["bad", "good"], "seed": 3,
             "max_length": 64, "validation_rows": 500},
    "measured": {"size_bytes": 19_000_000, "latency_ms": 10.0, "latency_low_ms": 9.5, "latency_high_ms": 11.0,
                 "accuracy": 81.25, "test_accuracy": 80.5, "original_ms": 20.0},
    "command": "autoprune search my-org/some-bert --dataset reviews.csv --budget 20MB",
    "export": "autoprune export runs/my-run --trial 7 --target openvino -o small",
    "units": {"encoder.layer.0.attention": {"ratio": 0.25, "bits": 4},
              "encoder.layer.0.feed_forward": {"ratio": 0.0, "bits": "w8a8"},
              "pooler.dense": {"ratio": 0.0, "bits": 32}},
    "unit_bytes": {"encoder.layer.0.attention": 1000, "encoder.layer.0.feed_forward": 2000,
                   "pooler.dense": 3000},
    "searched_with": {"autoprune": "0.1.0", "openvino": "2026.4"},
    "validated": {"passed": True, "size_bytes": 19_000_123, "accuracy": 81.25, "rows": 500,
                  "load_seconds": 0.31, "protocol": "Median of 15 calls.", "date": "2026-11-23",
                  "machine": "x86",
                  "latency": {"median_ms": 10.5, "low_ms": 10.1, "high_ms": 12.0, "original_ms": 21.0,
                              "ratio": 0.5},
                  "checks": [{"name": "bytes", "passed": True, "said": "19000123 bytes, 19000000 predicted"},
                             {"name": "accuracy", "passed": None, "said": "no data"}]},
}  # fmt: skip


def changed(**changes: Any) -> ExportRecord:
    """The record with other values at dotted paths (`a__b`)."""
    about = copy.deepcopy(ABOUT)
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = about
        for name in parents:
            place = place[name]
        place[last] = value
    return ExportRecord.model_validate(about)


def front_matter(card: str) -> dict[str, Any]:
    match = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)
    assert match is not None
    data: dict[str, Any] = yaml.safe_load(match[1])
    return data


def outside_code(card: str) -> str:
    """The text that is Markdown: without front matter, fenced blocks and code spans (CommonMark 4.5, 6.1)."""
    body = card.split("\n---\n", 1)[1]
    body = re.sub(r"(?ms)^(`{3,})[a-z]*\n.*?\n\1$", "", body)
    return re.sub(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", "", body)


def cells(card: str) -> list[int]:
    """Bars in each line of the card's tables, code spans counted: there, too, they end a cell."""
    body = re.sub(r"(?ms)^(`{3,})[a-z]*\n.*?\n\1$", "", card)
    return [line.count("|") for line in body.split("\n") if line.startswith("| ")]


def test_the_front_matter_says_what_the_hub_reads() -> None:
    data = front_matter(model_card(changed(), "small"))
    assert data["base_model"] == "my-org/some-bert"
    assert data["license"] == "mit"
    assert data["library_name"] == "autoprune"
    assert data["pipeline_tag"] == "text-classification"
    assert data["tags"] == ["autoprune", "openvino", "pruned", "quantized"]
    assert data["metrics"] == ["accuracy"]
    assert "datasets" not in data
    (index,) = data["model-index"]
    assert index["name"] == "small"
    found = {result["dataset"]["split"]: result["metrics"][0]["value"] for result in index["results"]}
    assert found == {"validation": 0.8125, "test": 0.805}


def test_the_hub_s_own_reader_takes_it() -> None:
    card = ModelCard(model_card(changed(), "small"))
    assert card.data.eval_results is not None
    assert {result.dataset_split: result.metric_value for result in card.data.eval_results} == {
        "validation": 0.8125, "test": 0.805
    }  # fmt: skip


def test_the_function_that_loading_needs_is_named() -> None:
    about = changed(target="packed")
    assert "load('small', builder='mine:build')" in model_card(about, "small", builder="mine:build")
    assert "builder" not in model_card(about, "small")


def test_what_is_not_known_is_left_out() -> None:
    about = changed(
        base__hub_id=None, base__license=None, base__revision=None, measured__test_accuracy=None,
        validated__accuracy=None, measured__original_ms=None, unit_bytes={},
    )  # fmt: skip
    card = model_card(about, "small")
    data = front_matter(card)
    assert not {"base_model", "license", "model-index"} & data.keys()
    assert "None" not in card


def test_what_the_runtime_does_with_no_settings_has_a_column_of_its_own() -> None:
    timing = {"median_ms": 4.25, "low_ms": 4.0, "high_ms": 5.0, "original_ms": 8.5, "ratio": 0.5}
    own = {"settings": "bfloat16", "accuracy": 80.75, "latency": timing, "failure": ""}
    card = model_card(changed(validated__defaults=own), "small")
    rows = [line.split(" | ") for line in card.splitlines() if line.startswith("| ")]
    measured = {row[0].removeprefix("| "): row[-1].removesuffix(" |") for row in rows if len(row) == 4}
    assert measured[""] == "with no settings (bfloat16)"
    assert measured["size, bytes"] == "19000123"
    assert measured["accuracy on validation, %"] == "80.75"
    assert measured["latency, ms"] == "4.25"
    assert measured["10th and 90th percentile, ms"] == "4.00 to 5.00"
    assert measured["times as fast"] == "2.00"
    failure = own | {"accuracy": None, "latency": None, "failure": "it died"}
    for without in (None, failure):
        assert "no settings" not in model_card(changed(validated__defaults=without), "small")


def test_another_target_claims_no_score_that_was_not_measured_on_it() -> None:
    data = front_matter(model_card(changed(measured_on="onnx"), "small"))
    assert [result["dataset"]["split"] for result in data["model-index"][0]["results"]] == ["validation"]


def test_a_data_set_of_the_hub_is_linked() -> None:
    data = front_matter(model_card(changed(data__dataset="my-org/reviews"), "small"))
    assert data["datasets"] == ["my-org/reviews"]
    assert data["model-index"][0]["results"][0]["dataset"]["type"] == "my-org/reviews"


def test_a_person_reads_figures_levels_and_commands() -> None:
    card = model_card(changed(), "small")
    assert "**19.00 MB, accuracy 81.2 % on 500 validation rows, 2.00 times as fast as the original.**" in card
    assert "| size, bytes | 19000000 | 19000123 |" in card
    assert "| 10th and 90th percentile, ms | 9.50 to 11.00 | 10.10 to 12.00 |" in card
    assert "| times as fast | 2.00 | 2.00 |" in card
    assert "| `encoder.layer.0.attention` | 25 % | 4 | 1000 |" in card
    assert "| `encoder.layer.0.feed_forward` | 0 % | w8a8 | 2000 |" in card
    assert "| accuracy | not checked | `no data` |" in card
    assert f"{ABOUT['command']}\n{ABOUT['export']}" in card
    assert "As it was timed." in card


@pytest.mark.parametrize("target", ["openvino", "onnx", "packed", "compressed-tensors", "torch", "gguf"])
def test_every_python_block_is_python(target: str) -> None:
    blocks = model_card(changed(target=target), 'it\'s "small"').split("```python\n")[1:]
    assert len(blocks) == (2 if target in ("openvino", "onnx", "compressed-tensors") else 1)
    for block in blocks:
        compile(block.partition("\n```")[0], "card", "exec")


def test_a_card_says_how_a_sentence_encoder_pools() -> None:
    told = {"target": "packed", "data__task": "sentence-embedding"}
    head = {"pooling": "the vector of its first token, made of length 1", "has_sentence_head": True}
    card = model_card(changed(**told, **head), "small")
    assert "How a text's vector is made: `the vector of its first token, made of length 1`." in card
    assert "vectors = model.sentence_head(hidden, tokens['attention_mask'])" in card
    plain = model_card(changed(**told, pooling="the mean"), "small")
    assert "sentence_head" not in plain


def test_coded_storage_says_that_units_are_counted_before_it() -> None:
    assert "bytes before entropy coding" in model_card(changed(target="packed", storage="entropy"), "small")


# ---- names that mean harm -----------------------------------------------------------------------

HOSTILE = (
    "</td><script>alert(1)</script>",
    "a\n---\nlicense: stolen\n---\n# b",
    "x`y``z```",
    "``` \n```\n# heading",
    "| a | b |",
    "\\|[click](javascript:alert(1))",
    "\\\\|`x`",
    "[click](javascript:alert(1))",
    "![x](https://evil.example/x.png)",
    "!!python/object/apply:os.system ['x']",
    "a: b # c",
    "'\"{}&*@",
    "\x1b[31mred\u202e\x00\u2028",
    "- item\n- item",
    "",
)


def with_names(name: str) -> ExportRecord:
    return changed(
        base__name=name, base__revision=name, dataset=name, data__dataset=name, run=name, command=f"x {name}",
        export=f"y {name}", data__labels=[name, name], units={name: {"ratio": 0.5, "bits": 4}},
        unit_bytes={name: 3}, searched_with={name: name}, validated__machine=name,
        validated__checks=[{"name": "bytes", "passed": False, "said": name}],
    )  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_breaks_out_of_yaml_or_markdown(name: str) -> None:
    harmless = model_card(with_names("harmless"), "harmless")
    card = model_card(with_names(name), name)
    plain, hostile = front_matter(harmless), front_matter(card)
    assert hostile.keys() == plain.keys()
    assert hostile["license"] == "mit"
    assert hostile["base_model"] == "my-org/some-bert"
    text = outside_code(card)
    assert text.count("\n") == outside_code(harmless).count("\n")
    assert cells(card) == cells(harmless)
    for harm in ("<script", "javascript:", "](", "stolen", "evil.example", "\x1b", "\u202e", "\x00"):
        assert harm not in text


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(some.text(alphabet="`|\\<>&[]()#-*_\n\r\t :'\"ab\u2028", max_size=12))
def test_no_name_adds_text_outside_code(name: str) -> None:
    card = model_card(with_names(name), name)
    harmless = model_card(with_names("harmless"), "harmless")
    assert outside_code(card) == outside_code(harmless)
    assert cells(card) == cells(harmless)


# ---- the base model -----------------------------------------------------------------------------


def test_a_local_model_s_own_card_names_its_license(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: apache-2.0\n---\n# model\n")
    found = base_of(str(tmp_path), None)
    assert found.as_json() == {
        "name": tmp_path.name,
        "hub_id": None,
        "revision": None,
        "license": "apache-2.0",
    }


NO_LICENSE = ("", "---\nlicense: [a, b]\n---\n", "---\nlicense: a b\n---\n", "---\n: : [\n---\n",
              "---\n- license\n---\n", "---\nlicense: |\n  x\n  y\n---\n")  # fmt: skip


@pytest.mark.parametrize("text", NO_LICENSE)
def test_a_card_without_a_plain_license_names_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "README.md").write_text(text)
    assert base_of(str(tmp_path), None).license is None


def test_a_model_of_the_hub_keeps_its_id_and_revision() -> None:
    found = base_of("my-org/never-downloaded", "v2")
    name = "my-org/never-downloaded"
    assert found == BaseRecord(name=name, hub_id=name, revision="v2", license=None)
