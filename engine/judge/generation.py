"""Generate text with a plan and its source: the same prompts, decoded greedily and sampled, and measures of repetition.

The first visible failure of a folded model is a loop, which perplexity on given text does not show.
"""

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from transformers import DynamicCache, GenerationConfig

from engine.errors import SettingsError, TextError
from engine.jobs import Job, Progress, as_part
from engine.messages import Message
from engine.models.texts import require_known
from engine.plans.live import live_network
from engine.plans.rules import untouched
from engine.types import Model, Plan

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PROMPTS = (
    "The old lighthouse stood at the end of the pier, and every evening",
    "To make a simple vegetable soup, you first",
    "The main difference between a lake and a river is that",
    "Dear neighbour, I am writing to you because",
    "When the train finally arrived, the passengers",
    "Three good reasons to learn a second language are",
    "Water boils at a lower temperature on a high mountain because",
    "The small village had only one shop, which sold",
)
TEMPERATURE, TOP_P = 0.8, 0.95
LONGEST_UNIT = 20  # tokens; longer repeated units are paragraphs, not loops
LOOP_REPETITIONS = 3
_AT_ONCE = 0.5  # seconds of generation between two progress reports
DECODINGS = ("greedy", "sampled")
Verdict = Literal["stable", "loops", "empty"]


def generate_beside(
    model: Model, plan: Plan, prompts: Sequence[str] = PROMPTS, new_tokens: int = 60, seed: int = 0, chat: bool = False
) -> Job["tuple[Sample, ...]"]:
    """Continue each prompt with source and plan, greedily and sampled (temperature 0.8, top-p 0.95, the same seed for both), at most
    `new_tokens` tokens each. All prompts form one batch, so each step reads the weights once.

    With `chat`, a prompt is put into the tokenizer's chat template if it has one. Of the model's own generation config only the special
    tokens are used, because a repetition penalty, for example, would hide loops.

    Raises:
        PlanError: the plan does not fit the model.
        TextError: a prompt has no token.
        SettingsError: prompt and new tokens exceed the model's context.
    """
    rows = [encode(model, prompt, new_tokens, chat) for prompt in prompts]
    writers = [live_network(model, side) for side in (untouched(plan.source_depth), plan)]
    written: dict[str, list[list[Generated]]] = {decoding: [] for decoding in DECODINGS}
    for place, decoding in enumerate(DECODINGS):
        for side, writer in enumerate(writers):
            writing = generate(model, writer, rows, new_tokens, seed if decoding == "sampled" else None)
            label = Message(
                "Writing with {writer}, {decoding}", writer=(Message("the source"), Message("the plan"))[side], decoding=Message(decoding)
            )
            written[decoding].append((yield from as_part(writing, label, 2 * place + side, 4)))
    return tuple(
        Sample(prompt, decoding, *(side[index] for side in written[decoding]))
        for index, prompt in enumerate(prompts)
        for decoding in DECODINGS
    )


def encode(model: Model, prompt: str, new_tokens: int, chat: bool = False) -> list[int]:
    """Return a prompt's token ids; see `generate_beside`."""
    tokenizer = model.tokenizer
    if chat and tokenizer.chat_template:
        messages = [{"role": "user", "content": prompt}]
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]  # the template already contains special tokens
    else:
        ids = tokenizer(prompt)["input_ids"]
    if not ids:
        raise TextError("the tokenizer finds no token in the prompt {prompt!r}; write at least one word", prompt=prompt[:40])
    longest = getattr(model.config, "max_position_embeddings", None)
    if new_tokens < 1 or (longest and len(ids) + new_tokens > longest):
        raise SettingsError(
            "{count} prompt tokens and {new_tokens} new tokens do not fit in the model's context of {longest} tokens",
            count=len(ids),
            new_tokens=new_tokens,
            longest=longest,
        )
    return require_known(list(ids), model.config, prompt)


def generate(
    model: Model,
    network: "PreTrainedModel",
    prompts: Sequence[Sequence[int]],
    new_tokens: int,
    seed: int | None = None,
    temperature: float = TEMPERATURE,
    top_p: float = TOP_P,
) -> Job["list[Generated]"]:
    """Continue token ids with a live network of the model, at most `new_tokens` each; sampled if a seed is given.

    Prompts are padded on the left, with the padding masked. Tokens are generated in steps of about half a second, each continuing the
    previous step's cache and random state; the result equals one call of transformers' generate.
    """
    assert network is not model.network, "the source keeps its settings; give it as the live network of an untouched plan"
    config = decoding_config(model.network.generation_config, new_tokens, seed is not None, temperature, top_p)
    network.generation_config = GenerationConfig()  # transformers takes unset options from the network's own generation config
    stops, longest = _stops(config), max(map(len, prompts))
    ids = torch.tensor([[config.pad_token_id or 0] * (longest - len(row)) + list(row) for row in prompts])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in prompts])
    cache, noise, few = DynamicCache(config=network.config), torch.Generator().manual_seed(seed or 0).get_state(), 1
    while (done := ids.shape[1] - longest) < new_tokens and not all(stops.intersection(row) for row in ids[:, longest:].tolist()):
        yield Progress("", done / new_tokens)
        began = time.monotonic()
        config.max_new_tokens = min(few, new_tokens - done)
        ids, noise = _write_on(model, network, ids, mask, cache, config, noise)
        mask = torch.nn.functional.pad(mask, (0, ids.shape[1] - mask.shape[1]), value=1)
        few = 2 * few if time.monotonic() - began < _AT_ONCE / 2 else max(1, few // 2)
    return [measured(new, stops, model.tokenizer) for new in ids[:, longest:].tolist()]


@torch.no_grad()
def _write_on(
    model: Model,
    network: "PreTrainedModel",
    ids: torch.Tensor,
    mask: torch.Tensor,
    cache: Any,
    config: GenerationConfig,
    noise: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids [prompts, tokens] extended by `config.max_new_tokens`, and the random state after them."""
    device = model.source.device
    with model.lock, torch.random.fork_rng():  # transformers samples from torch's global generator; its state is restored
        torch.set_rng_state(noise)
        found = network.generate(ids.to(device), attention_mask=mask.to(device), past_key_values=cache, generation_config=config)
        return found.cpu(), torch.get_rng_state()


def decoding_config(own: Any, new_tokens: int, sampled: bool, temperature: float = TEMPERATURE, top_p: float = TOP_P) -> GenerationConfig:
    """Return greedy decoding, or sampling by temperature and top-p only, with a model's own special tokens."""
    choice: dict[str, Any] = (
        {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0} if sampled else {"do_sample": False}
    )
    stops = own.eos_token_id
    pad = own.pad_token_id if own.pad_token_id is not None else (stops[0] if isinstance(stops, list) else stops)
    return GenerationConfig(
        **choice,
        max_new_tokens=new_tokens,
        eos_token_id=stops,
        pad_token_id=pad,
        bos_token_id=own.bos_token_id,
        remove_invalid_values=True,  # a plan whose states overflow should write nonsense instead of raising an error
    )


def _stops(config: GenerationConfig) -> frozenset[int]:
    stops = config.eos_token_id
    return frozenset(stops if isinstance(stops, list) else () if stops is None else (stops,))


def measured(new: Sequence[int], stops: frozenset[int], tokenizer: "PreTrainedTokenizerBase") -> "Generated":
    """Return the text and the measures of new tokens, up to the end-of-text token."""
    words = list(itertools.takewhile(lambda token: token not in stops, new))
    return Generated(
        text=tokenizer.decode(words, skip_special_tokens=True),
        tokens=len(words),
        distinct_1=distinct(words, 1),
        distinct_2=distinct(words, 2),
        longest_repeat=longest_repeat(words),
        loops=is_loop(words),
    )


# --- Repetition ---


def distinct(tokens: Sequence[int], n: int) -> float:
    """Return the share of distinct n-grams among a sequence's n-grams; 1 where it has none (Li et al., 1510.03055)."""
    grams = [tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 1.0


def longest_repeat(tokens: Sequence[int], repetitions: int = 2) -> int:
    """Return the length of the longest run of one unit of 1 to 20 tokens repeated consecutively at least `repetitions` times, counting
    whole repetitions: 6 for A B A B A B and for A B A B A B A, 0 if nothing repeats."""
    longest = 0
    for unit in range(1, min(LONGEST_UNIT, len(tokens) // repetitions) + 1):
        same = 0  # consecutive tokens equal to the one a unit earlier
        for place in range(unit, len(tokens)):
            same = same + 1 if tokens[place] == tokens[place - unit] else 0
            whole = same // unit + 1
            if whole >= repetitions:
                longest = max(longest, whole * unit)
    return longest


def is_loop(tokens: Sequence[int]) -> bool:
    """Return whether a run of at least three whole repetitions of one unit covers at least half of the tokens."""
    return 0 < len(tokens) <= 2 * longest_repeat(tokens, LOOP_REPETITIONS)


def verdict(samples: "Sequence[Sample]") -> Verdict:
    """Return the verdict on a plan's samples.

    "empty": more than half of its texts are blank. "loops": it loops in more samples than the source, by at least a quarter of the samples
    (4 of the default 16); small models loop even unchanged when decoded greedily. "stable" otherwise: the plan writes without getting
    stuck, which does not mean that the text is good.
    """
    blank = sum(not sample.plan.text.strip() for sample in samples)
    if 2 * blank > len(samples):
        return "empty"
    excess = sum(sample.plan.loops for sample in samples) - sum(sample.source.loops for sample in samples)
    return "loops" if excess > 0 and 4 * excess >= len(samples) else "stable"


# --- Records ---


@dataclass(frozen=True, slots=True)
class Generated:
    """One continuation: its text, its number of tokens, the shares of distinct 1-grams and 2-grams in [0, 1], the length in tokens of its
    longest run of a repeated unit, and whether it loops (`is_loop`)."""

    text: str
    tokens: int
    distinct_1: float
    distinct_2: float
    longest_repeat: int
    loops: bool


@dataclass(frozen=True, slots=True)
class Sample:
    """One prompt continued by source and plan; `decoding` is "greedy" or "sampled"."""

    prompt: str
    decoding: str
    source: Generated
    plan: Generated
