"""Searches as files of a cluster's own tools: held to schemas, run by shells, and never broken out of."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as some
import jsonschema
import pytest
import yaml
from click.testing import CliRunner

from autoprune.cli.main import main
from autoprune.core.errors import AutopruneError
from autoprune.jobs.renders import KINDS, render

ROOT = Path(__file__).parents[2]
SCHEMAS = Path(__file__).parents[1] / "support" / "schemas"
EXAMPLE = shlex.split(
    "search my-org/my-bert --dataset my-org/reviews --budget 20MB --workers 16 --latency-node edge"
)
DEPLOYED = {
    "rayjob": "rayjob.yaml",
    "slurm": "slurm.sh",
    "skypilot": "skypilot.yaml",
    "cluster": "ray-cluster.yaml",
}
PASSWORD = "pa55-w0rd-of-the-database"

WORDS = some.lists(
    some.one_of(
        some.text(some.characters(codec="utf-8", exclude_characters="\0"), max_size=12),
        some.sampled_from(
            ["$(touch broken)", "`touch broken`", "; touch broken", "'; touch broken; '",
             '"; touch broken; "', "\ntouch broken\n", "# x", "}}", "{{ x }}", "$(X)", "*", "- a: b",
             "\u2028broken: 1", "\x85a: 1", "\x1b",
             "--", "&&", "|| touch broken", "\\", "~", "!!python/object/apply:os.system [touch broken]"]
        ),
    ).filter(lambda word: word.partition("=")[0] not in OPTIONS),
    max_size=5,
)  # fmt: skip
OPTIONS = {"-o", "--output", "--address", "--workers", "--storage", "--cpus-per-trial", "--gpus-per-trial",
           "--latency-node"}  # fmt: skip


def of_yaml(text: str) -> dict[str, Any]:
    return dict(yaml.safe_load(text))


# ---- what is in deploy/ -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_files_of_deploy_are_what_is_rendered(kind: str) -> None:
    written = (ROOT / "deploy" / DEPLOYED[kind]).read_text(encoding="utf-8")
    assert written == render(kind, EXAMPLE), (
        f"python -m tests.support.write_deploy writes deploy/{DEPLOYED[kind]}"
    )


# ---- schemas ------------------------------------------------------------------------------------

CASES = [
    EXAMPLE,
    ["search"],
    shlex.split("search ./m --gpus-per-trial 0.5 --workers 4 --cpus-per-trial 2"),
    shlex.split(f"search m --latency-node device=pi-5 --storage postgresql://me:{PASSWORD}@db/x"),
]


@pytest.mark.parametrize("words", CASES, ids=range(len(CASES)))
def test_a_rayjob_is_what_kuberay_takes(words: list[str]) -> None:
    job = of_yaml(render("rayjob", words))
    jsonschema.Draft202012Validator(json.loads((SCHEMAS / "rayjob.json").read_text())).validate(job)
    if (folder := os.environ.get("AUTOPRUNE_SCHEMAS")) is not None:
        resource = of_yaml((Path(folder) / "ray.io_rayjobs.yaml").read_text(encoding="utf-8"))
        (version,) = (v for v in resource["spec"]["versions"] if v["name"] == "v1")
        jsonschema.Draft202012Validator(closed(version["schema"]["openAPIV3Schema"])).validate(job)


def closed(schema: Any) -> Any:
    """A schema of Kubernetes that allows no field it does not name: the server would drop such a one."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    out = {name: closed(part) for name, part in schema.items()}
    names_all = (
        isinstance(schema.get("properties"), dict) and "x-kubernetes-preserve-unknown-fields" not in schema
    )
    if names_all and schema.get("type") == "object" and "additionalProperties" not in schema:
        out["additionalProperties"] = not schema["properties"]
    return out


@pytest.mark.parametrize("words", CASES, ids=range(len(CASES)))
def test_a_task_is_what_skypilot_takes(words: list[str]) -> None:
    task = of_yaml(render("skypilot", words))
    jsonschema.Draft202012Validator(json.loads((SCHEMAS / "skypilot_task.json").read_text())).validate(task)
    assert checked_by_bash(task["run"]) == ""


@pytest.mark.parametrize("words", CASES, ids=range(len(CASES)))
def test_a_cluster_is_what_ray_up_takes(words: list[str]) -> None:
    import ray.autoscaler

    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    cluster = of_yaml(render("cluster", words))
    jsonschema.Draft7Validator(schema).validate(cluster)
    for command in (*cluster["head_start_ray_commands"], *cluster["worker_start_ray_commands"]):
        assert checked_by_bash(command) == ""


@pytest.mark.parametrize("words", CASES, ids=range(len(CASES)))
def test_a_script_of_slurm_is_read_by_bash(words: list[str]) -> None:
    script = render("slurm", words)
    assert script.startswith("#!/bin/bash\n#SBATCH ")
    assert checked_by_bash(script) == ""


def checked_by_bash(script: str) -> str:
    """What bash says of a script that it reads and does not run."""
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    return done.stderr


# ---- what the words ask for ---------------------------------------------------------------------


def test_a_rayjob_ends_its_cluster_tries_again_and_times_on_the_labelled_group() -> None:
    job = of_yaml(render("rayjob", EXAMPLE, name="small", image="registry/autoprune:1", nodes=4))["spec"]
    assert (job["shutdownAfterJobFinishes"], job["backoffLimit"]) == (True, 3)
    assert job["ttlSecondsAfterFinished"] > 0
    cluster = job["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    workers, latency = cluster["workerGroupSpecs"]
    assert (workers["replicas"], "labels" in workers) == (4, False)
    (container,) = workers["template"]["spec"]["containers"]
    assert container["image"] == "registry/autoprune:1"
    assert container["resources"]["limits"] == {"cpu": "4", "memory": "16Gi"}
    assert (latency["replicas"], latency["labels"]) == (1, {"latency-node": "edge"})


@pytest.mark.parametrize(
    ("words", "nodes", "cpus", "gpus"),
    [
        ("search m", None, 8, 0),
        ("search m --workers 3", None, 3, 0),
        ("search m --workers=16 --gpus-per-trial=0.25", 2, 8, 2),
        ("search m --workers 4 --workers 6 --cpus-per-trial 1.5", 1, 9, 0),
    ],
)
def test_machines_have_room_for_the_workers(words: str, nodes: int | None, cpus: int, gpus: int) -> None:
    script = render("slurm", words.split(), nodes=nodes)
    assert f"start=(--num-cpus {cpus} --num-gpus {gpus})" in script
    assert ("--gpus-per-node" in script) == (gpus > 0)


def test_the_number_of_workers_is_always_said() -> None:
    assert "--workers 8" in render("slurm", ["search", "m"])
    assert "--workers" not in render("slurm", ["search", "m", "--workers=3"]).replace("--workers=3", "")


@pytest.mark.parametrize("kind", KINDS)
def test_a_password_of_the_database_is_in_no_file_and_its_variable_is_named(kind: str) -> None:
    for option in (
        ["--storage", f"postgresql://me:{PASSWORD}@db/x"],
        [f"--storage=postgresql://me:{PASSWORD}@db/x"],
    ):
        text = render(kind, [*EXAMPLE, *option])
        assert PASSWORD not in text
        assert "me:***" not in text
        assert ("AUTOPRUNE_STORAGE" in text) == (kind != "cluster")
    assert "--storage postgresql://db/x" in render(kind, [*EXAMPLE, "--storage", "postgresql://db/x"])


@pytest.mark.parametrize(
    ("words", "settings", "said"),
    [
        (["export", "run"], {}, "--render is of a search"),
        ([], {}, "--render is of a search"),
        (["search", "m", "--address", "auto"], {}, "leave --address 'auto' out"),
        (["search", "m", "--workers", "0"], {}, "--workers 0 needs no cluster"),
        (["search", "m", "--workers", "many"], {}, "--workers 'many': give a number"),
        (["search", "m", "-o"], {}, "-o needs a value"),
        (["search", "m", "--latency-node", "a b"], {}, "value in --latency-node 'a b' cannot be"),
        (["search", "m", "--latency-node", "$(x)=edge"], {}, "name of the label in --latency-node"),
        (["search", "m", "--dataset", "https://h/x?token=abc"], {}, r"x\?token=\*\*\*' holds a password"),
        (["search", "\udce9"], {}, "is no UTF-8 text"),
        (["search", "m"], {"name": "x;y"}, "name 'x;y' cannot be"),
        (["search", "m"], {"image": "a b"}, "image 'a b' cannot be"),
        (["search", "m"], {"hosts": ["$(x)"]}, r"host '\$\(x\)' cannot be"),
    ],
)
def test_what_cannot_be_is_said(words: list[str], settings: dict[str, Any], said: str) -> None:
    with pytest.raises(AutopruneError, match=said):
        render("rayjob", words, **settings)


def test_a_kind_that_does_not_exist_is_said() -> None:
    with pytest.raises(
        AutopruneError, match="--render 'nomad' does not exist; there are rayjob, slurm, skypilot"
    ):
        render("nomad", EXAMPLE)


# ---- words stay words ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with stand-ins for what clusters have: each runs, or writes down, what it is given."""
    folder = tmp_path_factory.mktemp("tools")
    programs = {
        "autoprune": 'printf "%s\\0" "$@" > words',
        "scontrol": "printf 'one\\ntwo\\n'",
        "srun": 'SLURM_NODEID=0 exec "$@"',
        "ray": 'case $1 in symmetric-run) while [ "$1" != -- ]; do shift; done; shift; exec "$@";; '
        "start) exec sleep 60;; esac",
    }
    for name, program in programs.items():
        (folder / name).write_text(f"#!/bin/bash\n{program}\n")
        (folder / name).chmod(0o755)
    return folder


def ran(script: str, tools: Path, folder: Path) -> list[str]:
    """The words that `autoprune` is called with by a script."""
    for file in folder.iterdir():
        file.unlink()
    variables = {"SLURM_JOB_NODELIST": "x", "SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2"}
    variables |= {"SKYPILOT_NODE_IPS": "one\ntwo", "SKYPILOT_NODE_RANK": "0", "SKYPILOT_NUM_NODES": "2"}
    environment = {"PATH": f"{tools}:{os.environ['PATH']}", **variables}
    done = subprocess.run(
        ["bash"],
        input=script,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert [file.name for file in folder.iterdir()] == ["words"]
    return (folder / "words").read_bytes().decode().split("\0")[:-1]


def expected(words: Sequence[str], run: str) -> list[str]:
    return ["search", *words, "--workers", "8", "--address", "auto", "-o", run]


@hypothesis.settings(deadline=None, max_examples=15)
@hypothesis.given(words=WORDS)
@pytest.mark.parametrize("kind", ["rayjob", "slurm", "skypilot"])
def test_no_word_breaks_out(
    kind: str, words: list[str], tools: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = render(kind, ["search", *words])
    script = {"rayjob": entrypoint, "skypilot": task_script}.get(kind, str)(text)
    run = "runs/autoprune" if kind == "slurm" else "/runs/autoprune"
    assert ran(script, tools, tmp_path_factory.mktemp("ran")) == expected(words, run)
    plain = render(kind, ["search"])
    if kind != "slurm":  # apart from the command the file is the same
        assert {**of_yaml(text), "spec": 0, "run": 0} == {**of_yaml(plain), "spec": 0, "run": 0}


def entrypoint(text: str) -> str:
    return str(of_yaml(text)["spec"]["entrypoint"])


def task_script(text: str) -> str:
    return str(of_yaml(text)["run"])


@hypothesis.settings(deadline=None, max_examples=100)
@hypothesis.given(words=WORDS)
def test_no_word_gets_out_of_the_comment_of_a_cluster(words: list[str]) -> None:
    assert of_yaml(render("cluster", ["search", *words])) == of_yaml(render("cluster", ["search"]))


def test_a_run_that_is_there_is_gone_on_with(tools: Path, tmp_path: Path) -> None:
    (tmp_path / "run.json").touch()
    script = entrypoint(render("rayjob", ["search", "m", "-o", str(tmp_path)]))
    (tmp_path / "at").mkdir()
    assert ran(script, tools, tmp_path / "at") == ["resume", str(tmp_path), "--address", "auto"]


# ---- the image ----------------------------------------------------------------------------------


def test_the_image_has_a_user_of_its_own_no_build_tools_and_the_versions_of_constraints() -> None:
    text = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    steps = [line.split(maxsplit=1) for line in text.splitlines() if line and line[0] not in "# "]
    starts = [k for k, (step, _) in enumerate(steps) if step == "FROM"]
    assert [steps[k][1].split()[0] for k in starts] == ["python:3.11-slim"] * 2
    last = steps[starts[-1] :]
    assert [what for step, what in last if step == "USER"] == ["autoprune"]
    assert not [what for step, what in last if step == "RUN" and ("apt" in what or "pip" in what)]
    assert [what for step, what in last if step == "COPY"] == ["--from=built /opt/autoprune /opt/autoprune"]
    assert any("-c constraints.txt" in what for step, what in steps if step == "RUN")
    assert "--uid 1000" in text  # as the pods of a RayJob run
    for step, what in steps[: starts[-1]]:
        if step == "COPY":
            assert all((ROOT / name).exists() for name in what.split()[:-1])


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_line_prints_the_file_and_sends_nothing(kind: str) -> None:
    words = ["search", "my-org/my-bert", "--budget", "20MB", "--dataset", "a b.csv", "--workers", "16"]
    done = CliRunner().invoke(main, ["submit", "--render", kind, *words, "--name", "night"])
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == render(kind, words, name="night")


def test_a_kind_of_file_that_does_not_exist_is_refused() -> None:
    done = CliRunner().invoke(main, ["submit", "--render", "pbs", "search", "m", "--budget", "20MB"])
    assert done.exit_code == 2
    assert "--render 'pbs' does not exist; there are rayjob, slurm, skypilot, cluster" in done.stderr
