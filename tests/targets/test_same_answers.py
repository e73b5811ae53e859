"""A graph that answers otherwise than its module is refused before a search, whatever the reason."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from autoprune.compress.stitch import Stitched
from autoprune.core.errors import AutopruneError
from autoprune.models.loading import Loaded
from autoprune.models.spec import Architecture
from autoprune.models.units import search_space
from autoprune.targets import get_target
from autoprune.targets.same_answers import check_same_answers
from autoprune.targets.sizes import sizes_of
from autoprune.tasks.kinds import IMAGE_CLASSIFICATION
from tests.support.families import FAMILIES, ResNet, made, make_case, task_of
from tests.support.family_checks import mixed, on_target

TASK = task_of(FAMILIES["torchvision"])


class Counting(ResNet):
    """Answers by how many rows there are, which tracing makes a number of the graph."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * float(len(x))


def loaded(model: nn.Module) -> Loaded:
    builder = f"{type(model).__module__}:{type(model).__name__}"
    architecture = Architecture(IMAGE_CLASSIFICATION, {}, builder, None, folded=False)
    return Loaded(model.eval(), None, True, architecture)


@pytest.mark.parametrize("target", ["openvino", "onnx"])
def test_what_is_decided_by_the_traced_rows_is_refused(target: str) -> None:
    torch.manual_seed(0)
    model = Counting()
    with pytest.raises(AutopruneError) as caught:
        sizes_of(loaded(model), (), search_space((), lambda unit, level: True), get_target(target), TASK)
    said = str(caught.value)
    assert f"Counting, saved uncompressed for target {target}, answers otherwise there than in torch" in said
    assert "Choose --target packed" in said


@pytest.mark.parametrize("target", ["openvino", "onnx"])
def test_a_model_that_is_carried_over_passes(target: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = ResNet().eval()
    into = get_target(target)
    into.save(
        Stitched.plain(model, loaded(model).architecture), tmp_path, TASK.batch(TASK.validation, [0, 1])
    )
    check_same_answers(model, into, tmp_path, TASK)
    with torch.no_grad():
        model.fc.weight.mul_(1.5)
    with pytest.raises(AutopruneError, match="answers otherwise there"):
        check_same_answers(model, into, tmp_path, TASK)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("openvino", "cannot be converted to OpenVINO: No conversion rule found for operations: aten::histc"),
        ("onnx", "cannot be exported to ONNX by torch: Exporting the operator 'aten::histc'"),
    ],
)
def test_an_operation_without_a_counterpart_is_named_in_one_line(
    target: str, said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "library").mkdir()
    case = make_case("mixtral", tmp_path / "library")
    with pytest.raises(AutopruneError) as caught:
        on_target(case, get_target(target), mixed(case), tmp_path / "out")
    assert str(caught.value).startswith("MixtralForCausalLM ")
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert "graph(" not in "".join(capfd.readouterr())


def test_a_functions_model_is_built_anew_by_the_targets_that_a_search_asks(tmp_path: Path) -> None:
    name = "unet"
    model, architecture = made(name)[1], FAMILIES[name].architecture
    batch = TASK.batch(TASK.validation, [0, 1])
    target = get_target("packed", builder=architecture.builder)
    target.save(Stitched.plain(model, architecture), tmp_path, batch)
    check = target.load(tmp_path)(batch)
    assert check == pytest.approx(model(torch.from_numpy(batch["pixel_values"])).detach().numpy(), abs=1e-5)
    with pytest.raises(AutopruneError, match="not called unasked"):
        get_target("packed").load(tmp_path)
