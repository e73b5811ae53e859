"""What a visitor of the project meets: its workflow, templates and citation say what is so."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import yaml

from autoprune.cli.main import main
from tests.support.paths import ROOT

GITHUB = ROOT / ".github"


def read(path: Path) -> dict[str, Any]:
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(data, dict), path
    return data


def commands(script: str) -> list[list[str]]:
    """The words of the commands of a script, a line or a part of one each; what `if` asks is none."""
    parts = [part for line in script.splitlines() for part in re.split(r"&&|;|\bthen\b", line)]
    return [shlex.split(part, comments=True) for part in parts if not part.strip().startswith(("#", "if "))]


def made(script: str) -> list[str]:
    """The targets of make that a script asks for, in order."""
    return [word for words in commands(script) if words[:1] == ["make"] for word in words[1:]]


def packages(script: str) -> set[str]:
    """System packages that a script installs."""
    asked = [words for words in commands(script) if words[:2] == ["apt-get", "install"]]
    return {word for words in asked for word in words[2:] if re.fullmatch(r"[a-z][a-z0-9.+-]*", word)}


def test_the_workflow_does_what_our_own_ci_does() -> None:
    ours = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    workflow = read(GITHUB / "workflows" / "ci.yml")
    (job,) = workflow["jobs"].values()
    script = "\n".join(step["run"] for step in job["steps"] if "run" in step)
    assert made(ours) == ["lint", "audit", "test"]
    assert made(script) == [*made(ours), "examples"]
    assert packages(script) == packages(ours) == {"chromium", "postgresql"}
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(made(script)) <= set(targets)


def test_the_workflow_may_read_alone_and_has_our_python() -> None:
    workflow = read(GITHUB / "workflows" / "ci.yml")
    assert workflow["permissions"] == {"contents": "read"}
    (job,) = workflow["jobs"].values()
    least = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert job["container"]["image"].startswith(f"python:{least.removeprefix('>=')}")
    assert all(step["uses"].startswith("actions/") for step in job["steps"] if "uses" in step)
    assert True in workflow or "on" in workflow  # YAML 1.1 reads `on` as true


def test_templates_of_issues_are_forms_that_ask_for_what_is_needed() -> None:
    """The schema: github.com's "Syntax for GitHub's form schema"."""
    forms = {path.stem: read(path) for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml")}
    assert set(forms) == {"bug", "feature", "config"}
    for name in ("bug", "feature"):
        assert {"name", "description", "body"} <= set(forms[name])
        parts = forms[name]["body"]
        assert all(
            part["type"] in ("markdown", "textarea", "input", "dropdown", "checkboxes") for part in parts
        )
        assert all(part["attributes"]["label"] for part in parts)
        ids = [part["id"] for part in parts]
        assert len(set(ids)) == len(ids)
        assert any(part.get("validations", {}).get("required") for part in parts)
    asked = [part["attributes"]["label"] for part in forms["bug"]["body"]]
    (command,) = re.findall(r"`autoprune (\w+)`", " ".join(asked))
    assert command in main.commands


def test_files_and_commands_that_the_templates_name_exist() -> None:
    text = (GITHUB / "pull_request_template.md").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"`make ([a-z-]+)`", text)) <= set(targets)
    named = re.findall(r"`([\w./-]+/[\w./-]*)`", text) + re.findall(r"\b[A-Z]+\.md\b", text)
    assert named
    assert all((ROOT / name).exists() for name in named), named


def test_the_citation_is_of_this_version_and_license() -> None:
    """Required keys: the schema of the Citation File Format 1.2.0."""
    citation = read(ROOT / "CITATION.cff")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["cff-version"] == "1.2.0"
    assert citation["title"].startswith(project["name"])
    assert (str(citation["version"]), citation["license"]) == (project["version"], project["license"])
    for reference in citation["references"]:
        assert {"type", "title", "authors"} <= set(reference)
        (number,) = re.findall(r"https://arxiv\.org/abs/(\d{4}\.\d{5})", reference["url"])
        modules = [path.read_text(encoding="utf-8") for path in (ROOT / "autoprune").rglob("*.py")]
        assert reference["title"].startswith("Optuna") or any(number in text for text in modules), number
