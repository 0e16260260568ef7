"""llama.cpp as a reference independent of transformers: its output on a GGUF file, in float32 where possible."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch


@contextmanager
def running(file: Path, context: int) -> Iterator[Any]:
    """Run llama.cpp on a file, in one thread and with a cache in float32; skip where it is not installed."""
    llama = pytest.importorskip("xllamacpp")
    settings = llama.CommonParams()
    settings.model.path, settings.n_ctx, settings.n_batch = str(file), context, context
    settings.n_parallel, settings.warmup, settings.verbosity = 1, False, 0
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
    settings.cache_type_k = settings.cache_type_v = llama.ggml_type.GGML_TYPE_F32
    settings.flash_attn_type = llama.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = llama.Server(settings)
    try:
        yield server
    finally:
        del server


def next_token(server: Any, ids: list[int], count: int) -> torch.Tensor:
    """Return the log-probabilities of the token after a prompt, NaN where it is not among the `count` likeliest.

    llama.cpp keeps back a token that ends the text, or that is half a letter; then the prompt is a bit shorter."""
    answer = server.handle_completions({"prompt": ids, "n_predict": 1, "n_probs": count, "temperature": 0.0, "cache_prompt": False})
    told = (answer["choices"][0].get("logprobs") or {}).get("content") or []
    found = torch.full((max(one["id"] for one in told[0]["top_logprobs"]) + 1,) if told else (0,), torch.nan)
    for one in told[0]["top_logprobs"] if told else ():
        found[one["id"]] = one["logprob"]
    return found


def apart(server: Any, network: Any, ids: torch.Tensor, count: int) -> tuple[float, int]:
    """Return how far a network's log-probabilities after a prompt are from llama.cpp's, at most, and on how many tokens that was seen."""
    for length in range(ids.shape[1], ids.shape[1] - 20, -1):
        theirs = next_token(server, ids[0, :length].tolist(), count)
        if len(theirs):
            break
    with torch.no_grad():
        ours = torch.log_softmax(network(ids[:, :length]).logits[0, -1].float(), -1)[: len(theirs)]
    seen = ~theirs.isnan()
    return float((ours - theirs)[seen].abs().max()), int(seen.sum())
