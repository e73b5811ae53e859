"""Is a review good or bad? A model of at most 5 MB answers in the reader's browser; no text leaves the page.

    python -m examples.browser [--full] [--serve PORT]

Shows: a search for target onnx, its export, and a page that runs the file with onnxruntime-web
(WebAssembly) and the tokenizer's JavaScript twin, `@huggingface/tokenizers`. Both come from the npm
registry in the versions of `page/package-lock.json`, so `npm` is needed once; what is written below
`site` needs nothing but a web server. Small is MiniLM's first layer, fitted to 3,000 reviews; full is
all of MiniLM on all 12,752.
"""

from __future__ import annotations

import functools
import http.server
import shutil
import subprocess
from pathlib import Path

from examples.commands import Example, example, parser_of, sizes
from examples.inputs import FEW_LEVELS, minilm, quick_sentiment, reviews

PAGE = Path(__file__).with_name("page")
MODEL_FILES = ("model.onnx", "tokenizer.json", "tokenizer_config.json", "config.json")
VENDOR = (
    "onnxruntime-web/dist/ort.wasm.min.mjs",
    "onnxruntime-web/dist/ort-wasm-simd-threaded.mjs",
    "onnxruntime-web/dist/ort-wasm-simd-threaded.wasm",
    "@huggingface/tokenizers/dist/tokenizers.min.mjs",
)


def words_of_search(asked: Example) -> list[object]:
    """What `autoprune search` is told."""
    words: list[object] = [quick_sentiment() if asked.small else minilm(), "--dataset", reviews()]
    words += ["--target", "onnx", "--budget", "5MB"]
    if not asked.small:
        return [*words, "--max-length", 64, "--trials", 32]
    words += ["--trials", 1, "--workers", 0, "--finetune-steps", 5]
    words += ["--space", FEW_LEVELS, "--limit-rows", 600, 150, 150, "--calibration-rows", 32]
    return [*words, "--max-length", 32, "--sequence", 32]


def installed(folder: Path) -> Path:
    """The packages of `package-lock.json`, checked by hash; none of their scripts is run."""
    if shutil.which("npm") is None:
        raise SystemExit(
            "npm is needed to fetch onnxruntime-web, and is not on PATH: install Node.js, or have "
            "onnxruntime in Python run an export for target onnx, as its README.md says"
        )
    folder.mkdir(exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(PAGE / name, folder)
    line = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    line += ["--fetch-retries=1", "--fetch-timeout=30000"]  # or a registry out of reach is waited for long
    print("$", *line, flush=True)
    subprocess.run(line, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return folder / "node_modules"


def make_site(model: Path, packages: Path, site: Path) -> None:
    """The page, the model and what runs it, in one folder."""
    (site / "vendor").mkdir(parents=True, exist_ok=True)
    for name in ("index.html", "app.mjs"):
        shutil.copy(PAGE / name, site)
    for name in MODEL_FILES:
        shutil.copy(model / name, site)
    for name in VENDOR:
        shutil.copy(packages / name, site / "vendor")


def server(site: Path, port: int) -> http.server.ThreadingHTTPServer:
    """A server of the folder, for this machine alone. port: 0 for any that is free."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(site))
    return http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)


def main() -> None:
    """Search, export, make the site, and serve it where asked."""
    parser = parser_of(__doc__)
    parser.add_argument("--serve", type=int, metavar="PORT", help="serve the page here, until Ctrl-C")
    port = parser.parse_args().serve
    asked = example(__doc__, "browser", parser=parser)
    site = asked.work / "site"
    packages = None if (site / "vendor").exists() else installed(asked.work / "npm")
    front = asked.search("run", *words_of_search(asked))
    model = asked.export("run", "model")
    print(sizes(front))
    if packages is not None:
        make_site(model, packages, site)
    for path in sorted(path for path in site.rglob("*") if path.is_file()):
        print(f"{path.stat().st_size:>12,} bytes  {path.relative_to(site)}")
    if port is None:
        print(f"Look at it: python -m examples.browser --{'small' if asked.small else 'full'} --serve 8000")
        return
    with server(site, port) as running:
        print(f"http://127.0.0.1:{running.server_port}/", flush=True)
        running.serve_forever()


if __name__ == "__main__":
    main()
