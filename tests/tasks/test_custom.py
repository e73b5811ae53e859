"""A task and a model of the user's own, by the name of a function; pictures as models take them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from autoprune.core.errors import AutopruneError
from autoprune.core.references import given, named
from autoprune.models.image_processor import Pixels
from autoprune.models.loading import load_built
from autoprune.models.outputs import outputs_of
from autoprune.models.spec import Architecture, built
from autoprune.models.state import load_state_, state_of
from autoprune.pipeline.named import kind_asked_for, metric_of
from autoprune.run.config import Config
from autoprune.tasks.custom import own_task, task_hash
from autoprune.tasks.kinds import IMAGE_CLASSIFICATION, OWN
from autoprune.tasks.metrics import METRICS

MODULE = """
import numpy as np, torch
from torch import nn

def task():
    rng = np.random.default_rng(0)
    def split(n):
        x = rng.standard_normal((n, 3, 8, 8)).astype(np.float32)
        return {"inputs": {"pixel_values": x}, "labels": (x.mean((1, 2, 3)) > 0).astype(int)}
    return {"train": split(20), "validation": split(6), "test": split(6), "classes": ["low", "high"],
            "name": "share", "metric": share}

def share(answers, labels):
    return 100 * float((answers.argmax(1) == labels).mean())

def uneven():
    one = task(); one["test"]["labels"] = one["test"]["labels"][:-1]; return one

def bare():
    return {"train": 1}

def broken():
    raise RuntimeError("no such disk")

def net():
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.Linear(8, 2)]
    return nn.Sequential(*body)

def number():
    return 3
"""


PICTURES = """
import numpy as np
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU())
        self.head = torch.nn.Linear(4 * 36, 2)

    def forward(self, grey):
        return self.head(self.body(grey).flatten(1))

def net():
    return Net()

def rows(n, seed):
    grey = np.random.default_rng(seed).standard_normal((n, 1, 8, 8)).astype("float32")
    return {"inputs": {"grey": grey}, "labels": (grey.mean((1, 2, 3)) > 0).astype("int64")}

def share(answers, labels):
    return 100 * float((answers.argmax(1) == labels).mean())

def task():
    splits = {"train": rows(20, 0), "validation": rows(6, 1), "test": rows(6, 2)}
    return {**splits, "metric": share, "classes": ["low", "high"]}
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module of the user's, in the current folder."""
    (tmp_path / "mine_own.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    yield "mine_own"
    sys.modules.pop("mine_own", None)
    given.cache_clear()


def test_a_function_is_found_in_the_current_folder(module: str) -> None:
    assert named(f"{module}:net", what="model builder")().__class__ is nn.Sequential


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("mine_own", "give package.module:function"),
        ("mine_own:no such", "give package.module:function"),
        ("mine_own:nothing", "cannot be imported"),
        ("no_such_module:f", "No module named 'no_such_module'"),
        ("mine_own:MODULE_LEVEL", "cannot be imported"),
    ],
)
def test_what_is_no_function_is_said(module: str, reference: str, said: str) -> None:
    with pytest.raises(AutopruneError, match=said):
        named(reference, what="task")


def test_a_task_is_read_whole_and_the_same_twice(module: str) -> None:
    task = own_task(f"{module}:task")
    assert (task.kind, task.metric.name, task.label_names) == (OWN, "share", ("low", "high"))
    assert [len(part) for part in (task.train, task.validation, task.test)] == [20, 6, 6]
    perfect = np.eye(2, dtype=np.float32)[task.validation.labels]
    assert task.score(task.validation, perfect) == 100.0
    assert task.score(task.validation, perfect[:, ::-1]) == 0.0
    before = task_hash(task)
    given.cache_clear()
    assert task_hash(own_task(f"{module}:task")) == before


@pytest.mark.parametrize(
    ("name", "said"),
    [("uneven", "as many rows"), ("bare", "a mapping with train, validation, test, metric is needed"),
     ("broken", "raised RuntimeError: no such disk"), ("number", "gave int")],
)  # fmt: skip
def test_a_task_that_is_none_is_said(module: str, name: str, said: str) -> None:
    with pytest.raises(AutopruneError, match=said):
        own_task(f"{module}:{name}")


def test_a_built_model_is_loaded_from_its_weights_with_its_norms_folded(module: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    model = built(f"{module}:net").eval()
    for norm in (module for module in model if isinstance(module, nn.BatchNorm2d)):
        norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr, operator]
        nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    loaded = load_built(f"{module}:net", str(tmp_path / "w.safetensors"), Pixels((8, 8)))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in loaded.model.modules())
    x = torch.randn(4, 3, 8, 8)
    with torch.no_grad():
        wanted, found = model(x), outputs_of(loaded.model, {"pixel_values": x}, IMAGE_CLASSIFICATION)
    assert torch.allclose(wanted, found, atol=1e-4)
    again = loaded.architecture.empty()
    load_state_(again, state_of(loaded.model))
    with torch.no_grad():
        assert torch.equal(outputs_of(again, {"pixel_values": x}, IMAGE_CLASSIFICATION), found)
    assert Architecture.from_config(loaded.architecture.described()) == loaded.architecture


def test_norms_are_folded_whatever_the_user_calls_the_input(tmp_path: Path, module: str) -> None:
    from safetensors.torch import save_file

    Path("mine_pictures.py").write_text(PICTURES, encoding="utf-8")
    model = built("mine_pictures:net").eval()
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    task = own_task("mine_pictures:task")
    loaded = load_built("mine_pictures:net", "w.safetensors", Pixels((8, 8)), kind=task.kind, task=task)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in loaded.model.modules())
    rows = {name: torch.as_tensor(one) for name, one in task.batch(task.validation, [0, 1]).items()}
    with torch.no_grad():
        assert torch.allclose(outputs_of(loaded.model, rows, OWN), outputs_of(model, rows, OWN), atol=1e-4)
    sys.modules.pop("mine_pictures", None)


def test_weights_that_do_not_fit_are_said(module: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(AutopruneError, match="give its --weights"):
        load_built(f"{module}:net", None, Pixels((8, 8)))
    with pytest.raises(AutopruneError, match=r"only \.safetensors is read"):
        load_built(f"{module}:net", "w.pth", Pixels((8, 8)))
    save_file({"0.weight": torch.zeros(8, 3, 3, 3)}, tmp_path / "w.safetensors")
    with pytest.raises(AutopruneError, match="cannot be loaded into mine_own:net"):
        load_built(f"{module}:net", str(tmp_path / "w.safetensors"), Pixels((8, 8)))
    with pytest.raises(AutopruneError, match="gave a int"):
        built(f"{module}:number")


def test_pictures_become_one_size_and_one_scale(tmp_path: Path) -> None:
    pixels = Pixels((8, 8), mean=(0.5,) * 3, std=(0.5,) * 3)
    images = [np.full((20, 30, 3), 255, np.uint8), np.zeros((8, 8, 3), np.uint8)]
    found = pixels(images)
    assert found.shape == (2, 3, 8, 8)
    assert found.dtype == np.float32
    assert np.allclose(found[0], 1.0, atol=1e-5)
    assert np.allclose(found[1], -1.0, atol=1e-5)
    pixels.write(tmp_path)
    assert Pixels.read(tmp_path) == pixels
    assert Pixels((4, 4), (0.5,), (0.5,))(images).shape == (2, 1, 4, 4)


def test_kinds_and_metrics_that_do_not_exist_are_said() -> None:
    assert kind_asked_for(Config.of(task="mine:task")) == OWN
    assert kind_asked_for(Config.of(model="package.models:build")) == IMAGE_CLASSIFICATION
    with pytest.raises(AutopruneError, match="there are auto, text-classification"):
        kind_asked_for(Config.of(task="poetry"))
    with pytest.raises(AutopruneError, match="and module:function for one of your own"):
        kind_asked_for(Config.of(task="own"))
    assert metric_of(Config.of(metric="f1"), IMAGE_CLASSIFICATION) == METRICS["f1"]
    with pytest.raises(AutopruneError, match="not one of task own, which brings its own"):
        metric_of(Config.of(metric="f1"), OWN)
    with pytest.raises(AutopruneError, match="there are accuracy, f1, matthews"):
        metric_of(Config.of(metric="perplexity"), IMAGE_CLASSIFICATION)
