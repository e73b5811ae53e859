"""The page of the browser example in a real browser: its tokens and answers are those of Python."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoprune.tasks.data.demo import demo_rows
from tests.examples.long import LONG
from tests.report.test_report import browser, chromium  # noqa: F401 (a fixture)
from tests.support.paths import ROOT
from tests.support.tiny_search import environment

pytestmark = [pytest.mark.slow, pytest.mark.demo, LONG]

ROWS = 100
ODD = ("", "Ünïcödé, naïve café — “quoted”…", "日本の映画 is 100% great!!! :-)", "a" * 300, "so " * 400)
OURS = ("EINTEGRITY", "EUSAGE", "ETARGET", "EJSONPARSE")
"""Errors of npm that are of our own lock file; all others are of the registry or the way to it."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's folder, made at small size."""
    if shutil.which("npm") is None:
        pytest.skip("no npm on PATH, with which onnxruntime-web is fetched")
    base = tmp_path_factory.mktemp("browser")
    line = [sys.executable, "-m", "examples.browser", "--small", "--work", str(base / "work")]
    env = environment(base / "cache", PYTHONPATH=str(ROOT))
    done = subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True, timeout=1500, check=False)
    print(done.stdout)
    if done.returncode and "npm error" in done.stderr and not any(word in done.stderr for word in OURS):
        [code] = re.findall(r"npm error code (\S+)", done.stderr)[:1] or ["no code"]
        pytest.skip(f"the npm registry cannot be reached ({code})")
    assert done.returncode == 0, done.stdout + done.stderr
    (after,) = re.findall(r" MB to ([\d.]+) MB, ", done.stdout)
    assert float(after) <= 5
    return base / "work" / "site"


@pytest.fixture(scope="module")
def page(site: Path, browser: Any) -> Iterator[Any]:  # noqa: F811 (a fixture)
    """The page, its model loaded; it may ask for nothing but its own files."""
    from examples.browser.__main__ import server

    running = server(site, 0)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    here = f"http://127.0.0.1:{running.server_port}/"
    opened = browser.new_page()
    asked: list[str] = []
    wrong: list[str] = []
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.goto(here)
    opened.wait_for_function("document.getElementById('facts').textContent !== ''", timeout=120_000)
    yield opened
    running.shutdown()
    running.server_close()
    assert not wrong
    assert all(url.startswith((here, "data:", "blob:")) for url in asked), asked


@pytest.mark.browser
def test_tokens_and_logits_are_those_of_python(site: Path, page: Any) -> None:
    import onnxruntime
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(site)
    session = onnxruntime.InferenceSession(site / "model.onnx", providers=["CPUExecutionProvider"])
    texts = [row["text"] for row in demo_rows()[-ROWS:]]
    same, far = 0, 0.0
    for text in [*texts, *ODD]:
        told = page.evaluate("text => window.answer(text)", text)
        tokens = tokenizer(text, truncation=True, max_length=128, return_tensors="np")
        assert told["ids"] == tokens["input_ids"][0].tolist(), text
        given = {port.name: tokens[port.name] for port in session.get_inputs()}
        logits = session.run(None, given)[0][0]
        same += int(np.argmax(told["logits"]) == logits.argmax())
        far = max(far, float(np.abs(np.array(told["logits"]) - logits).max()))
    print(f"{same} of {ROWS + len(ODD)} answers are the same; logits differ by {far:.4f} at most")
    assert same >= ROWS + len(ODD) - 2
    assert far < 0.3


@pytest.mark.browser
def test_what_is_typed_is_answered(page: Any) -> None:
    shares = []
    for text in ("a wonderful, moving and beautiful masterpiece", "a dull, stupid and boring failure"):
        page.fill("#text", text)
        page.wait_for_function("text => document.getElementById('answer').dataset.text === text", arg=text)
        shares.append(page.evaluate("document.getElementById('share').value"))
    assert shares[0] > shares[1]
    assert re.search(r"MB, \d+ tokens, [\d.]+ ms", page.inner_text("#facts"))
