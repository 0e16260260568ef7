"""Measure a plan's speed and peak memory against its source."""

import os
import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import torch
from transformers import DynamicCache

from engine.errors import SettingsError
from engine.jobs import Job, Progress
from engine.judge.memory import PeakMemory
from engine.messages import Message
from engine.plans.live import live_network
from engine.plans.rules import untouched
from engine.types import Model, Plan

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def measure_speed(model: Model, plan: Plan, prompt_tokens: int | None = None, new_tokens: int = 32, rounds: int = 5) -> Job["Speed"]:
    """Time one pass over a prompt (prefill) and greedy decoding from its cache, one token at a time, batch 1.

    Source and plan alternate in every round, so that other load on the machine affects both; the ratios of single rounds show the
    uncertainty. Each first runs one warm-up, which is not timed and measures the peak memory. The prompt has 128 tokens, or as many as fit.

    Raises:
        PlanError: the plan does not fit the model.
        SettingsError: the tokens exceed the model's context.
    """
    longest = getattr(model.config, "max_position_embeddings", None)
    if prompt_tokens is None:
        prompt_tokens = min(128, (longest or 160) - new_tokens)
    if min(prompt_tokens, new_tokens, rounds) < 1 or (longest and prompt_tokens + new_tokens > longest):
        raise SettingsError(
            "{prompt_tokens} prompt tokens, {new_tokens} new tokens and {rounds} rounds cannot be timed: each must be "
            "at least 1, and the tokens must fit in the model's context of {longest}",
            prompt_tokens=prompt_tokens,
            new_tokens=new_tokens,
            rounds=rounds,
            longest=longest,
        )
    networks = [live_network(model, side) for side in (untouched(plan.source_depth), plan)]
    prompt = torch.arange(prompt_tokens, device=model.source.device)[None] % model.config.vocab_size
    yield Progress(Message("Timing: warming up"), 0.0)
    with model.lock:
        peaks = [peak_once(network, prompt, new_tokens) for network in networks]
    timed: list[tuple[tuple[float, float], ...]] = []
    for turn in range(1, rounds + 1):
        yield Progress(Message("Timing: round {turn} of {rounds}", turn=turn, rounds=rounds), turn / (rounds + 1))
        with model.lock:
            timed.append(tuple(time_once(network, prompt, new_tokens) for network in networks))
    return _speed(model, plan, timed, peaks, prompt_tokens, new_tokens)


def peak_once(network: "PreTrainedModel", prompt: torch.Tensor, new_tokens: int) -> int:
    """Return the bytes of a network's weights plus the peak of torch's other storages during `time_once`."""
    with PeakMemory() as memory:
        time_once(network, prompt, new_tokens)
    return memory.peak + sum(tensor.nbytes for tensor in network.parameters())


@torch.no_grad()
def time_once(network: "PreTrainedModel", prompt: torch.Tensor, new_tokens: int) -> tuple[float, float]:
    """Return the seconds of one prefill of token ids [1, tokens], and of `new_tokens` decoding steps after it.

    As in generation, only the last token's logits are computed; an end-of-text token does not stop decoding.
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
    if device.type != "cpu":
        torch.accelerator.synchronize(device)  # kernels run asynchronously
    return time.perf_counter()


def _speed(
    model: Model, plan: Plan, timed: list[tuple[tuple[float, float], ...]], peaks: list[int], prompt_tokens: int, new_tokens: int
) -> "Speed":
    tokens = (prompt_tokens, new_tokens)
    rates = [[[tokens[part] / turn[side][part] for turn in timed] for part in (0, 1)] for side in (0, 1)]  # [source, plan][prefill, decode]
    (source_prefill, source_decode), (plan_prefill, plan_decode) = [[median(rounds) for rounds in side] for side in rates]
    prefill, decode = ([plan / source for source, plan in zip(rates[0][part], rates[1][part], strict=True)] for part in (0, 1))
    return Speed(
        device=model.source.device,
        dtype=model.spec.dtype,
        threads=torch.get_num_threads(),
        processors=os.cpu_count() or 1,
        prompt_tokens=prompt_tokens,
        new_tokens=new_tokens,
        rounds=len(timed),
        source_prefill=source_prefill,
        plan_prefill=plan_prefill,
        source_decode=source_decode,
        plan_decode=plan_decode,
        prefill_ratio=plan_prefill / source_prefill,
        decode_ratio=plan_decode / source_decode,
        prefill_range=(min(prefill), max(prefill)),
        decode_range=(min(decode), max(decode)),
        depth_ratio=plan.depth / plan.source_depth,
        source_peak=peaks[0],
        plan_peak=peaks[1],
    )


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens per second of source and plan, medians over `rounds`, at batch 1 on `threads` threads of a machine with `processors`.

    The `_ratio`s of prefill and decode are plan / source of those medians, above 1 where the plan is faster. The `_range`s are the lowest
    and highest plan / source of any round: with five rounds a 94 % interval of the median round's ratio, for any noise distribution,
    and the ratio of medians is always inside. A range that contains 1 does not show which is faster. `depth_ratio` is the plan's depth
    divided by the source's: the share of the source's time that decoding would take if only blocks cost time, to compare with 1 /
    decode_ratio. The `_peak`s are bytes: the weights plus the peak of torch's other storages while reading the prompt and writing the new
    tokens.
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
    prefill_range: tuple[float, float]
    decode_range: tuple[float, float]
    depth_ratio: float
    source_peak: int
    plan_peak: int
