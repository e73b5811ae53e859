"""A small language model that writes: the same prompt before and after.

    python -m examples.writer [--full]

Shows: `--task causal-lm`, where the metric is perplexity and latency is that of one token, and an export
that writes by itself (`autoprune.load(DIR).generate`). Small is a Llama of 0.9 M parameters, fitted here
to film plots and reviews within a minute, so it knows little; full is SmolLM2-135M-Instruct on news
articles, whose packages benchmarks/zoo_requirements.txt names. Its published weights were rounded to 4
bits before anything here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from autoprune.tasks.data.demo import demo_rows
from benchmarks.harness.packages import made
from examples.commands import Example, example, sizes
from examples.inputs import plots, write_lines

VOCABULARY, WINDOW, BATCH, STEPS = 2000, 48, 16, 250
SHAPE: dict[str, Any] = {
    "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 4, "max_position_embeddings": 256, "tie_word_embeddings": True,
}  # fmt: skip
PROMPTS = {True: "A young man who", False: "The president said on Monday that"}
WORDS = 24


def texts() -> list[str]:
    """Plots and reviews, in an order that a seed draws."""
    import random

    every = [*plots().values(), *(row["text"] for row in demo_rows())]
    random.Random(0).shuffle(every)
    return [" ".join(text.split()) for text in every]


def small_llama() -> Path:
    """A byte-pair tokenizer and a Llama, both made from the texts, in a folder as transformers keeps it."""
    with made("small-llama", None, SHAPE, VOCABULARY, WINDOW, BATCH, STEPS) as (path, temporary):
        if temporary is not None:
            _fit(temporary)
    return path


def _fit(folder: Path) -> None:
    import tokenizers
    import torch
    import transformers

    learned = tokenizers.ByteLevelBPETokenizer()
    learned.train_from_iterator(texts(), vocab_size=VOCABULARY, special_tokens=["<s>", "</s>"])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=learned._tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    ends = tokenizer.eos_token_id
    ids = torch.tensor([k for text in texts() for k in (*tokenizer(text)["input_ids"], ends)])
    torch.manual_seed(0)
    config = transformers.LlamaConfig(vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=1, **SHAPE)
    model = transformers.LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=STEPS)
    for _ in range(STEPS):
        starts = torch.randint(len(ids) - WINDOW, (BATCH,))
        rows = torch.stack([ids[start : start + WINDOW] for start in starts])
        model(input_ids=rows, labels=rows).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def words_of_search(asked: Example) -> list[object]:
    """What `autoprune search` is told."""
    words: list[object] = ["--task", "causal-lm", "--dataset"]
    if not asked.small:
        from benchmarks.harness import models

        words = [models.smollm2(), *words, models.news(), "--budget", "72MB", "--finetune-steps", 0]
        return [*words, "--limit-rows", 205, 16, 30, "--trials", 10]
    rows = asked.work / "texts.jsonl"
    write_lines(rows, ({"text": text} for text in texts()))
    words = [small_llama(), *words, rows, "--budget", "600kB", "--finetune-steps", 5, "--trials", 1]
    words += ["--workers", 0, "--limit-rows", 400, 60, 60, "--calibration-rows", 32]
    return [*words, "--max-length", WINDOW, "--sequence", 32]


def written(model: Any, tokenizer: Any, prompt: str) -> str:
    """The likeliest continuation. model: with `generate`, from torch or from autoprune."""
    ids = tokenizer(prompt, return_tensors=model[0])["input_ids"]
    return str(tokenizer.decode(model[1].generate(ids, max_new_tokens=WORDS)[0], skip_special_tokens=True))


def main() -> None:
    """Search, export, and let both write."""
    import transformers

    from autoprune import load

    asked = example(__doc__, "writer")
    words = words_of_search(asked)
    front = asked.search("run", *words)
    folder = asked.export("run", "writer")
    print(sizes(front))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    original = transformers.AutoModelForCausalLM.from_pretrained(str(words[0])).eval()
    original.generation_config.do_sample = False
    print("before:", written(("pt", original), tokenizer, PROMPTS[asked.small]))
    print("after: ", written(("np", load(folder)), tokenizer, PROMPTS[asked.small]))


if __name__ == "__main__":
    main()
