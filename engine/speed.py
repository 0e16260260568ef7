"""How fast a plan runs beside its source, measured, and what it takes to hold, counted."""

import os
import time
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from transformers import DynamicCache

from engine.architectures import blocks_of, depth_of, resized_config
from engine.checkpoint import places_in
from engine.errors import SettingsError
from engine.export import plan_outputs
from engine.jobs import Job, Progress
from engine.live import live_network
from engine.plans import require_depth, untouched
from engine.types import DepthPlan, Model

# --- Speed ---


def measure_speed(model: Model, plan: DepthPlan, prompt_tokens: int | None = None, new_tokens: int = 32, rounds: int = 5) -> Job["Speed"]:
    """Time one pass over a prompt (prefill) and greedy decoding from its cache, a token at a time, batch 1.

    Source and plan take turns in every round, after a round each that does not count: what else the machine is doing then
    falls on both, and the ratios are the medians of the rounds' own ratios. The prompt has 128 tokens, or what fits.

    Raises:
        PlanError: the plan does not fit the model. SettingsError: the tokens do not fit in the model's context.
    """
    longest = getattr(model.config, "max_position_embeddings", None)
    if prompt_tokens is None:
        prompt_tokens = min(128, (longest or 160) - new_tokens)
    if min(prompt_tokens, new_tokens, rounds) < 1 or (longest and prompt_tokens + new_tokens > longest):
        raise SettingsError(
            f"{prompt_tokens} prompt tokens, {new_tokens} new tokens and {rounds} rounds cannot be timed: "
            f"each is at least 1, and the model's context is {longest} tokens"
        )
    networks = [live_network(model, side) for side in (untouched(plan.source_depth), plan)]
    prompt = torch.arange(prompt_tokens, device=model.source.device)[None] % model.config.vocab_size
    timed: list[tuple[tuple[float, float], ...]] = []
    for turn in range(rounds + 1):
        yield Progress(f"Timing: round {turn} of {rounds}" if turn else "Timing: warming up", turn / (rounds + 1))
        with model.lock:
            seconds = tuple(time_once(network, prompt, new_tokens) for network in networks)
        if turn:
            timed.append(seconds)
    return _speed(model, plan, timed, prompt_tokens, new_tokens)


@torch.no_grad()
def time_once(network: Any, prompt: torch.Tensor, new_tokens: int) -> tuple[float, float]:
    """Return the seconds of one prefill of token ids [1, tokens], and of `new_tokens` steps of decoding after it.

    As in generation only the last token's logits are made; an end of text does not end it.
    """
    cache = DynamicCache(config=network.config)
    began = _now(prompt.device)
    logits = network(input_ids=prompt, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
    filled = _now(prompt.device)
    for _ in range(new_tokens):
        token = logits[:, -1].argmax(-1, keepdim=True)
        logits = network(input_ids=token, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
    return filled - began, _now(prompt.device) - filled


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)  # kernels run behind the program's back
    return time.perf_counter()


def _speed(model: Model, plan: DepthPlan, timed: list[tuple[tuple[float, float], ...]], prompt_tokens: int, new_tokens: int) -> "Speed":
    sides = [[[turn[side][part] for turn in timed] for part in (0, 1)] for side in (0, 1)]  # [source, plan][prefill, decode]
    (source_prefill, source_decode), (plan_prefill, plan_decode) = sides
    return Speed(
        device=model.source.device,
        dtype=model.spec.dtype,
        threads=torch.get_num_threads(),
        processors=os.cpu_count() or 1,
        prompt_tokens=prompt_tokens,
        new_tokens=new_tokens,
        rounds=len(timed),
        source_prefill=median(prompt_tokens / seconds for seconds in source_prefill),
        plan_prefill=median(prompt_tokens / seconds for seconds in plan_prefill),
        source_decode=median(new_tokens / seconds for seconds in source_decode),
        plan_decode=median(new_tokens / seconds for seconds in plan_decode),
        prefill_ratio=median(a / b for a, b in zip(source_prefill, plan_prefill, strict=True)),
        decode_ratio=median(a / b for a, b in zip(source_decode, plan_decode, strict=True)),
        depth_ratio=plan.depth / plan.source_depth,
    )


# --- Memory ---


def memory_of(model: Model, plan: DepthPlan, context: int = 4096, batch: int = 1) -> "Memory":
    """Count what source and plan take to hold and to run at a context of `context` tokens and a batch; nothing is run.

    Raises:
        PlanError: the plan does not fit the model. ExportError: the checkpoint lacks a tensor that the plan needs.
        SettingsError: context or batch is below 1.
    """
    require_depth(plan, depth_of(model.config))
    if context < 1 or batch < 1:
        raise SettingsError(f"a context of {context} tokens and a batch of {batch} hold nothing; each is at least 1")
    blocks = [tuple(block.parameters()) for block in blocks_of(model.network)]
    inside = {id(tensor) for block in blocks for tensor in block}
    rest = tuple(tensor for tensor in model.network.parameters() if id(tensor) not in inside)
    kept = (*rest, *(tensor for home in plan.kept for tensor in blocks[home]))
    every = (*rest, *(tensor for block in blocks for tensor in block))
    outputs, _ = plan_outputs(model.config, plan, places_in(model.folder), "auto")
    return Memory(
        context=context,
        batch=batch,
        source_parameters=sum(tensor.numel() for tensor in every),
        plan_parameters=sum(tensor.numel() for tensor in kept),
        source_weights=sum(tensor.nbytes for tensor in every),
        plan_weights=sum(tensor.nbytes for tensor in kept),
        source_cache=cache_bytes(model.config, model.network.dtype, context, batch),
        plan_cache=cache_bytes(resized_config(model.config, plan.kept), model.network.dtype, context, batch),
        plan_disk=sum(output.bytes for output in outputs.values()),
        depth_ratio=plan.depth / plan.source_depth,
    )


def cache_bytes(config: Any, dtype: torch.dtype, context: int, batch: int = 1) -> int:
    """Return the bytes of keys and values that transformers' cache holds after `context` tokens.

    Which layers slide, and how far, is asked of the cache itself; a window of w tokens keeps the last w - 1.
    """
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    windows = [getattr(layer, "sliding_window", None) for layer in DynamicCache(config=config).layers]
    tokens = sum(context if window is None else min(context, window - 1) for window in windows)
    return 2 * heads * width * tokens * batch * dtype.itemsize


# --- Records ---


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens a second of source and plan, medians over `rounds`, at batch 1 on `threads` threads of a machine with
    `processors`.

    The `_ratio`s of prefill and decode are the median over rounds of plan / source, above 1 where the plan is faster.
    `depth_ratio` is the plan's depth over the source's: the share of the source's time that decoding would take if the
    blocks were all it costs, to be held against 1 / decode_ratio.
    """

    device: str
    dtype: str
    threads: int
    processors: int
    prompt_tokens: int
    new_tokens: int
    rounds: int
    source_prefill: float
    plan_prefill: float
    source_decode: float
    plan_decode: float
    prefill_ratio: float
    decode_ratio: float
    depth_ratio: float


@dataclass(frozen=True, slots=True)
class Memory:
    """What source and plan take, in bytes but for the parameters, which count shared storage once.

    `_weights` at the dtype the model is open in, `_cache` the keys and values of `context` tokens and a batch at that
    dtype, `plan_disk` the tensors that an export in the checkpoint's own dtype writes. `depth_ratio` is the plan's depth
    over the source's.
    """

    context: int
    batch: int
    source_parameters: int
    plan_parameters: int
    source_weights: int
    plan_weights: int
    source_cache: int
    plan_cache: int
    plan_disk: int
    depth_ratio: float
