"""What a model's folder holds, before its weights are loaded: adapters, rounded weights, code, prefixes."""

from __future__ import annotations

import builtins
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from autoprune.cli.main import main
from autoprune.core.errors import AutopruneError
from autoprune.models.checkpoint import WRAPPERS, config_of, header_of, wrapper_of
from autoprune.models.loading import load_pretrained
from autoprune.models.model_kind import kind_of
from tests.support.checkpoints import change_config, write_checkpoint, write_table

CODE = {
    "model_type": "odd-bert",
    "auto_map": {
        "AutoConfig": "configuration_odd.OddConfig",
        "AutoModelForSequenceClassification": "someone/repo--modeling_odd.Odd",
    },
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "model", num_labels=2)
    return tmp_path / "model"


@pytest.fixture
def no_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails where a question is put to whoever types."""

    def asked(*arguments: object) -> str:
        raise AssertionError(f"asked on stdin: {arguments}")

    monkeypatch.setattr(builtins, "input", asked)


def refused(folder: Path) -> str:
    """What each way to a model says, which must be the same."""
    with pytest.raises(AutopruneError) as kind:
        kind_of(str(folder))
    with pytest.raises(AutopruneError) as loaded:
        load_pretrained(str(folder), labels=2)
    assert str(kind.value) == str(loaded.value)
    return str(kind.value)


# ---- code that a model brings -------------------------------------------------------------------


@pytest.mark.usefixtures("no_questions")
@pytest.mark.parametrize("flag", [(), ("--trust-remote-code",)], ids=["plain", "trusted"])
@pytest.mark.parametrize("command", ["search", "inspect", "write-space"])
def test_code_that_a_model_brings_is_refused_and_never_asked_about(
    folder: Path, command: str, flag: tuple[str, ...]
) -> None:
    (folder / "configuration_odd.py").write_text("raise SystemExit('it was run')\n", encoding="utf-8")
    change_config(folder, **CODE)
    write_table(folder.parent / "rows.csv", ("0", "1"))
    arguments = {
        "search": ["search", str(folder), "--dataset", str(folder.parent / "rows.csv"), "--dry-run", *flag],
        "inspect": ["inspect", str(folder)],
        "write-space": ["inspect", str(folder), "--write-space", str(folder.parent / "new.yaml")],
    }[command]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2, done.output
    assert "needs code that it brings (configuration_odd.py, modeling_odd.py)" in done.output
    assert "module:function" in done.output


@pytest.mark.usefixtures("no_questions")
def test_a_type_that_transformers_know_is_loaded_without_the_code_beside_it(folder: Path) -> None:
    change_config(folder, auto_map=CODE["auto_map"])
    (folder / "configuration_odd.py").write_text("raise SystemExit('it was run')\n", encoding="utf-8")
    assert load_pretrained(str(folder), labels=2).has_head


# ---- rounded already ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"quant_method": "gptq", "bits": 4}, "(gptq, 4 bits)"),
        ({"quant_method": "awq"}, "(awq)"),
        ({"load_in_8bit": True}, "(load_in_8bit)"),
    ],
)
def test_a_model_that_is_rounded_is_named_so(folder: Path, told: dict[str, Any], said: str) -> None:
    change_config(folder, quantization_config=told)
    message = refused(folder)
    assert f"is quantized already {said}" in message


def test_weights_that_are_integers_are_named_whatever_the_config_says(folder: Path) -> None:
    path = folder / "model.safetensors"
    state = load_file(path)
    name = next(name for name in sorted(state) if name.endswith("query.weight"))
    save_file({**state, name: state[name].to(torch.int8)}, path, metadata={"format": "pt"})
    with pytest.raises(AutopruneError) as caught:
        load_pretrained(str(folder), labels=2)
    assert f"1 of its weights are no floats, as {name} (I8)" in str(caught.value)


def test_a_model_that_autoprune_made_is_named_so(folder: Path) -> None:
    change_config(folder, autoprune={"kind": "text-classification"})
    assert "made by autoprune" in refused(folder)


# ---- adapters -----------------------------------------------------------------------------------

ADAPTER = {"peft_type": "LORA", "base_model_name_or_path": "some/base"}


@pytest.mark.parametrize("has_weights", [True, False])
def test_an_adapter_is_named_alone_and_beside_weights(folder: Path, has_weights: bool) -> None:
    (folder / "adapter_config.json").write_text(json.dumps(ADAPTER), encoding="utf-8")
    if not has_weights:
        (folder / "config.json").unlink()
        (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    message = refused(folder)
    assert "has an adapter (LORA, adapter_config.json) of some/base" in message
    assert "merge_and_unload" in message


# ---- files and names ----------------------------------------------------------------------------


def test_a_folder_whose_model_lies_deeper_says_where(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "run" / "checkpoint-100")
    with pytest.raises(AutopruneError, match="sub-folders checkpoint-100 have one"):
        config_of(str(tmp_path / "run"))


BODY = "encoder.layer.0.output.dense.weight"


def test_a_tensor_of_the_body_that_lacks_is_named(folder: Path) -> None:
    change_tensors(folder, lambda tensors: {k: x for k, x in tensors.items() if not k.endswith(BODY)})
    with pytest.raises(AutopruneError, match=f"incomplete: .*{BODY} is not in its file"):
        load_pretrained(str(folder), labels=2)


def test_a_tensor_of_the_body_of_another_shape_is_named(folder: Path) -> None:
    change_tensors(folder, lambda tensors: {k: x[:-1] if k.endswith(BODY) else x for k, x in tensors.items()})
    with pytest.raises(AutopruneError, match=f"incomplete: .*{BODY} has another shape"):
        load_pretrained(str(folder), labels=2)


def test_a_model_without_a_tokenizer_says_so(folder: Path) -> None:
    for file in folder.iterdir():
        if file.name not in ("config.json", "model.safetensors"):
            file.unlink()
    with pytest.raises(AutopruneError, match="has no tokenizer"):
        load_pretrained(str(folder), labels=2)


def change_tensors(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    path = folder / "model.safetensors"
    save_file(
        {k: x.contiguous() for k, x in change(load_file(path)).items()}, path, metadata={"format": "pt"}
    )


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_a_wrappers_prefix_is_left_out(folder: Path, prefix: str) -> None:
    path = folder / "model.safetensors"
    before = load_pretrained(str(folder), labels=2).model.state_dict()
    save_file({f"{prefix}{name}": x for name, x in load_file(path).items()}, path, metadata={"format": "pt"})
    found = load_pretrained(str(folder), labels=2)
    assert found.has_head
    assert all(torch.equal(x, before[name]) for name, x in found.model.state_dict().items())
    assert any(repr(prefix) in note for note in found.notes)


def test_a_file_without_its_usual_note_of_who_wrote_it_is_read(folder: Path) -> None:
    """As `safetensors.torch.save_model` writes it."""
    path = folder / "model.safetensors"
    save_file(load_file(path), path)
    assert load_pretrained(str(folder), labels=2).has_head


@given(
    st.lists(st.text("abc.", min_size=1, max_size=8), min_size=1, max_size=6),
    st.lists(st.sampled_from(WRAPPERS)),
)
def test_any_nest_of_wrappers_is_found(names: list[str], wrappers: list[str]) -> None:
    prefix = "".join(wrappers)
    assert wrapper_of([prefix + name for name in names]) == prefix


def test_the_header_of_what_is_no_safetensors_is_one_error(tmp_path: Path) -> None:
    for content in (b"", b"\x08\x00\x00\x00\x00\x00\x00\x00[1,2,3]", b"x" * 40):
        (tmp_path / "w.safetensors").write_bytes(content)
        with pytest.raises(AutopruneError, match="is no safetensors file"):
            header_of(tmp_path / "w.safetensors")


def test_a_weight_that_is_no_number_is_named(folder: Path) -> None:
    def spoiled(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {k: torch.full_like(x, torch.nan) if k.endswith(BODY) else x for k, x in tensors.items()}

    change_tensors(folder, spoiled)
    with pytest.raises(AutopruneError, match=f"damaged: .*{BODY} holds NaN or Inf"):
        load_pretrained(str(folder), labels=2)
