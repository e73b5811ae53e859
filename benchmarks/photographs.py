"""What reading photographs takes: peak memory and seconds of a dry run over many large JPEG files.

    python -m benchmarks.photographs [--count 5000] [--limits 1000 100 200] [--most-gb 4] [-o FILE.json]

One photograph of 6000 x 4000 pixels is made; a few files of it, which differ in a byte, are linked many
times, half of them in each of two classes, in folders of splits. The model is a ViT of random weights that
takes 224 x 224. A run that takes more than `--most-gb` is stopped, so that it harms nothing else on the
machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

WIDTH, HEIGHT, SIDE = 6000, 4000, 224
SHARES = {"train": 0.7, "validation": 0.1, "test": 0.2}
COPIES = 50
LOOK_EVERY_S = 0.2


def main() -> None:
    """Measure and print; write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--limits", type=int, nargs=3, default=None, metavar=("TRAIN", "VALIDATION", "TEST"))
    parser.add_argument("--most-gb", type=float, default=4.0)
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        size = write_photographs(Path(folder) / "photographs", given.count)
        write_model(Path(folder) / "vit")
        words = [sys.executable, "-c", "from autoprune.cli.main import main; main()", "search", "vit"]
        words += ["--dataset", "photographs", "--target", "packed", "--dry-run"]
        words += ["--limit-rows", *map(str, given.limits)] if given.limits else []
        row = {"photographs": given.count, "megapixels": WIDTH * HEIGHT / 1e6, "file_bytes": size}
        row |= {"limits": given.limits} | measured(words, folder, given.most_gb * 1e9)
    print(json.dumps(row, indent=1))
    if given.output is not None:
        given.output.write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")


def write_photographs(folder: Path, count: int) -> int:
    """One photograph, a few copies, and links to these; bytes of a file."""
    from PIL import Image

    rng = np.random.default_rng(0)
    rough = Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8))
    pixels = np.asarray(rough.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)).astype(np.int16)
    pixels += rng.integers(-6, 7, pixels.shape, dtype=np.int16)
    folder.mkdir()
    first = folder.parent / "0.jpg"
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(first, quality=85)
    copies = [first, *(folder.parent / f"{number}.jpg" for number in range(1, COPIES))]
    for number, path in enumerate(copies[1:]):
        path.write_bytes(first.read_bytes() + bytes([number]))  # after the end of the picture
    for split, share in SHARES.items():
        for number in range(round(count * share)):
            path = folder / split / f"class {number % 2}" / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(copies[number // 2 % COPIES], path)
    return first.stat().st_size


def write_model(folder: Path) -> None:
    """A small ViT of random weights, with a processor."""
    import transformers

    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = transformers.ViTConfig(**shape, image_size=SIDE, patch_size=32, num_labels=2)
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    settings = {"image_processor_type": "ViTImageProcessor", "size": {"height": SIDE, "width": SIDE}}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")


def measured(words: list[str], folder: str, most_bytes: float) -> dict[str, object]:
    """Peak resident bytes and seconds of a command, which is stopped at `most_bytes`."""
    started, peak, is_stopped = time.monotonic(), 0, False
    with subprocess.Popen(
        words, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as run:
        while run.poll() is None:
            peak = max(peak, resident_bytes(run.pid))
            if peak > most_bytes:
                is_stopped = True
                run.kill()
                break
            time.sleep(LOOK_EVERY_S)
        said = run.communicate()[1]
    return {
        "peak_bytes": peak,
        "seconds": round(time.monotonic() - started, 1),
        "stopped": is_stopped,
        "exit_code": run.returncode,
        "said": said.splitlines()[-6:],
    }


def resident_bytes(pid: int) -> int:
    """Bytes of a process in memory; 0 where it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


if __name__ == "__main__":
    main()
