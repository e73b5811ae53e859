"""Code of the user: the modules that are named and what they import beside them, found and not run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from autoprune.core.errors import AutopruneError
from autoprune.jobs.user_code import top_level, user_code


def write(folder: Path, **files: str) -> None:
    """Files by their path, with two underscores for a slash."""
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def test_named_modules_and_their_neighbours_are_sent(tmp_path: Path) -> None:
    write(
        tmp_path,
        mymodels__init="",
        mymodels__build="import json, torch\nfrom helper import one\ndef make(): ...\ntask = make\n"
        "raise SystemExit('never run')\n",
        helper="def f():\n    import deeper.inner\n",
        deeper__inner="from . import x\nimport nowhere_at_all\n",
        stranger="",
    )
    (tmp_path / "mymodels" / "rows.csv").write_text("a\n")
    (tmp_path / "mymodels" / ".git").mkdir()
    (tmp_path / "mymodels" / ".git" / "HEAD").write_text("")
    code = user_code(["mymodels.build:make", "mymodels.build:task", "json:loads"], tmp_path)
    assert code.content is not None
    sent = {file.path for file in code.content.files}
    assert sent == {"code/mymodels/init.py", "code/mymodels/build.py", "code/mymodels/rows.csv",
                    "code/helper.py", "code/deeper/inner.py"}  # fmt: skip
    assert (code.named, code.installed) == (("mymodels.build", "json"), ("json",))
    assert "mymodels.build" not in sys.modules
    assert top_level(tmp_path) == [
        str(tmp_path / name) for name in ("deeper", "helper.py", "mymodels", "stranger.py")
    ]


def test_the_same_code_elsewhere_has_the_same_key(tmp_path: Path) -> None:
    keys = []
    for name, text in (("a", "X = 1\n"), ("b", "X = 1\n"), ("c", "X = 2\n")):
        write(tmp_path / name, made="import other\nrows = 1\n", other=text)
        content = user_code(["made:rows"], tmp_path / name).content
        assert content is not None
        keys.append(content.key)
    assert keys[0] == keys[1] != keys[2]


def test_installed_packages_are_named_and_not_sent(tmp_path: Path) -> None:
    code = user_code(["sklearn.datasets:load_iris"], tmp_path)
    assert (code.content, code.installed) == (None, ("sklearn",))


def test_more_than_100_mb_are_refused_with_the_largest_files(tmp_path: Path) -> None:
    write(tmp_path, big__init="")
    with (tmp_path / "big" / "weights.npy").open("wb") as file:
        file.truncate(101_000_000)
    with pytest.raises(AutopruneError, match=r"at most 100 MB.*big/weights\.npy 101\.0 MB"):
        user_code(["big:rows"], tmp_path)


def test_what_cannot_be_imported_is_refused_here(tmp_path: Path) -> None:
    write(tmp_path, broken="def f(:\n")
    (tmp_path / "compiled.cpython-311-x86_64-linux-gnu.so").write_bytes(b"")
    with pytest.raises(AutopruneError, match="Mend it before it is sent"):
        user_code(["broken:f"], tmp_path)
    with pytest.raises(AutopruneError, match="'nowhere' is in no folder"):
        user_code(["nowhere:f"], tmp_path)


@pytest.mark.parametrize(
    ("text", "is_there"),
    [
        ("def rows(): ...\n", True), ("class rows: ...\n", True), ("if True:\n    rows = len\n", True),
        ("from other import rows\n", True), ("import other as rows\n", True), ("from other import *\n", True),
        ("globals()['ro' + 'ws'] = len\n", True), ("def __getattr__(name): ...\n", True),
        ("", False), ("def row(): ...\n", False), ("def f():\n    return rows\n", False),
    ],
)  # fmt: skip
def test_a_function_that_its_module_does_not_bind_is_refused_here(
    text: str, is_there: bool, tmp_path: Path
) -> None:
    write(tmp_path, made=text)
    if is_there:
        assert user_code(["made:rows"], tmp_path).named == ("made",)
        return
    with pytest.raises(AutopruneError, match=r"made:rows.*made\.py binds no 'rows'"):
        user_code(["made:rows"], tmp_path)
