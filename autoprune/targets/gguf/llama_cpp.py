"""llama.cpp by way of llama-cpp-python: a BERT classifier in a .gguf file, run on the CPU."""

from __future__ import annotations

import logging
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoprune.core.errors import AutopruneError
from autoprune.tasks.task import Batch


class Llama:
    """A loaded file. It computes row by row, without padding: llama.cpp packs what it is given."""

    def __init__(self, path: Path, *, threads: int) -> None:
        try:
            import llama_cpp  # type: ignore[import-not-found,import-untyped,unused-ignore]
        except (ImportError, OSError, RuntimeError) as error:
            raise AutopruneError(
                f"llama-cpp-python is installed and cannot be loaded ({error}). Install it again, or remove "
                "it: target gguf then decodes the file and runs it with torch"
            ) from error
        logging.getLogger("llama-cpp-python").setLevel(logging.CRITICAL + 1)  # it prints every tensor
        self._lib: Any = llama_cpp
        options = llama_cpp.llama_model_default_params()
        options.n_gpu_layers = 0
        self._model = llama_cpp.llama_model_load_from_file(bytes(path), options)
        if not self._model:
            raise AutopruneError(f"{path} cannot be loaded by llama.cpp")
        self._tokens = int(llama_cpp.llama_model_n_ctx_train(self._model))
        self._classes = int(llama_cpp.llama_model_n_cls_out(self._model))
        context = llama_cpp.llama_context_default_params()
        context.n_ctx = context.n_batch = context.n_ubatch = self._tokens  # a text goes at once
        context.n_seq_max = 1
        context.n_threads = context.n_threads_batch = threads
        context.embeddings = True  # the classifier is one of its poolings
        self._context = llama_cpp.llama_init_from_model(self._model, context)
        if not self._context:
            llama_cpp.llama_model_free(self._model)
            raise AutopruneError(f"{path} cannot be run by llama.cpp")
        self._row = llama_cpp.llama_batch_init(self._tokens, 0, 1)
        for k in range(self._tokens):
            self._row.n_seq_id[k], self._row.logits[k] = 1, True
            self._row.seq_id[k][0] = 0
        weakref.finalize(self, _free, llama_cpp, self._row, self._context, self._model)

    def __call__(self, batch: Batch) -> NDArray[np.float32]:
        """Logits [b k]."""
        ids = batch["input_ids"]
        mask = batch.get("attention_mask", np.ones_like(ids))
        return np.stack(
            [self._logits(row, np.flatnonzero(seen)) for row, seen in zip(ids, mask, strict=True)]
        )

    def _logits(self, ids: NDArray[np.int64], places: NDArray[np.int64]) -> NDArray[np.float32]:
        """Logits [k] of one text: its tokens are those at `places`, which are their positions too."""
        count = len(places)
        if not 0 < count <= self._tokens:
            raise AutopruneError(f"a text has {count} tokens; the model takes 1 to {self._tokens}")
        row = self._row
        row.n_tokens = count
        np.ctypeslib.as_array(row.token, (count,))[:] = ids[places]
        np.ctypeslib.as_array(row.pos, (count,))[:] = places
        if status := self._lib.llama_encode(self._context, row):
            raise AutopruneError(f"llama.cpp cannot run a text of {count} tokens (status {status})")
        out = self._lib.llama_get_embeddings_seq(self._context, 0)
        return np.array(np.ctypeslib.as_array(out, (self._classes,)), np.float32)


def _free(lib: Any, row: Any, context: Any, model: Any) -> None:
    lib.llama_batch_free(row)
    lib.llama_free(context)
    lib.llama_model_free(model)
