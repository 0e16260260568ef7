"""Let the source write its own training text: no licence, no download, and exactly the distribution that distillation compares.

Each document is sampled from the begin token alone, at temperature 1 and without truncating the distribution, so that the text follows the
source's own distribution (data-free distillation, LLM-QAT, 2305.17888).
"""

import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.cache import content_key
from engine.corpus.settings import WritingSettings
from engine.errors import TextError
from engine.jobs import Job, Progress, retold
from engine.judge.generation import Generated, generate
from engine.messages import Message
from engine.plans.live import live_network
from engine.plans.rules import untouched
from engine.types import Model
from engine.untrusted import ForeignError, json_of, require_regular

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_PATIENCE = 16  # blank batches in a row before an error


@dataclass(frozen=True, slots=True)
class Written:
    """The documents and tokens in a file, and the seconds of the last writing."""

    documents: int
    tokens: int
    seconds: float


def write_own(model: Model, out: Path, settings: WritingSettings) -> Job[Written]:
    """Let the source write into a .jsonl file, one document per line (`text`, `tokens`, and `by`: model, seed, batch and its number).

    An unfinished file is continued, with the same result as an uninterrupted run: each batch's seed depends only on the seed and the
    batch's number.

    Raises:
        TextError: the file contains something else or cannot be written, or the source writes nothing.
    """
    by, began = _by(model, settings.checked()), time.monotonic()
    documents, tokens, number = _begun(out, by, settings.tokens)
    start, silent = tokens, 0
    network = live_network(model, untouched(model.spec.depth))
    while tokens < settings.tokens:
        report = partial(_told, settings, tokens, start, began)
        texts = yield from retold(_batch(model, network, settings, number), report)
        for text in texts:
            if tokens < settings.tokens:
                _append(out, text, {**by, "number": number})
                documents, tokens = documents + 1, tokens + text.tokens
        number, silent = number + 1, 0 if texts else silent + 1
        if silent == _PATIENCE:
            raise TextError(
                "the source wrote {patience} empty documents in a row; provide your own text", patience=_PATIENCE * settings.batch[0]
            )
    return Written(documents, tokens, time.monotonic() - began)


def _batch(model: Model, network: "PreTrainedModel", settings: WritingSettings, number: int) -> Job[list[Generated]]:
    """Return the documents of one batch that are not blank."""
    together, length = settings.batch
    prompts = [[beginning_of(model.tokenizer)]] * together
    seed = int(np.random.SeedSequence((settings.seed, number)).generate_state(1, np.uint64)[0] >> 1)  # torch takes 63 bits
    texts = yield from generate(model, network, prompts, length, seed, temperature=1.0, top_p=1.0)
    return [text for text in texts if text.text.strip()]


def _told(settings: WritingSettings, before: int, start: int, began: float, step: Progress) -> Progress:
    """Return the progress of writing for a batch at `step` that began with `before` tokens in the file."""
    together, length = settings.batch
    now = before + int((step.fraction or 0.0) * min(together * length, settings.tokens - before))
    speed = (now - start) / max(time.monotonic() - began, 1e-9)
    return Progress(
        Message("Writing text: {now} of {tokens} tokens, {speed:.0f} a second", now=now, tokens=settings.tokens, speed=speed),
        now / settings.tokens,
    )


def own_file(model: Model, folder: Path, settings: WritingSettings) -> Path:
    """Return the file in a folder for the text that the model writes with these settings."""
    return folder / f"self-{content_key(_by(model, settings), settings.tokens)[:16]}.jsonl"


def beginning_of(tokenizer: "PreTrainedTokenizerBase") -> int:
    """Return the tokenizer's default begin token, or else the end-of-text token.

    Raises:
        TextError: there is neither.
    """
    found = next(iter(tokenizer("")["input_ids"]), tokenizer.eos_token_id)
    found = tokenizer.bos_token_id if found is None else found
    if found is None:
        raise TextError("the model's tokenizer has no start token, so the model cannot write text without a prompt; provide your own text")
    return int(found)


def _by(model: Model, settings: WritingSettings) -> dict[str, Any]:
    """Return what determines a text: the same model, seed and batch write the same."""
    return {"model": model.fingerprint[:16], "dtype": model.spec.dtype, "seed": settings.seed, "batch": list(settings.batch)}


def _append(out: Path, text: Generated, by: dict[str, Any]) -> None:
    line = json.dumps({"text": text.text, "tokens": text.tokens, "by": by}, ensure_ascii=False)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        with suppress(OSError):  # remove an empty file
            if not out.stat().st_size:
                out.unlink()
        raise TextError("{out} cannot be written: {reason}", out=out, reason=error.strerror) from error


def _begun(out: Path, by: dict[str, Any], wanted: int) -> tuple[int, int, int]:
    """Return the documents and tokens in a file, and the number of the next batch. If more is wanted, the last batch is removed, because a
    killed run may have written only a part of it."""
    lines = _lines(out, by)
    if not lines or sum(tokens for _, tokens, _ in lines) >= wanted:
        return len(lines), sum(tokens for _, tokens, _ in lines), 0
    last = lines[-1][2]
    whole = [line for line in lines if line[2] < last]
    os.truncate(out, sum(size for size, _, _ in whole))
    return len(whole), sum(tokens for _, tokens, _ in whole), last


def _lines(out: Path, by: dict[str, Any]) -> list[tuple[int, int, int]]:
    """Return the bytes, the tokens and the batch of each complete line."""
    try:
        lines = out.read_bytes().splitlines(keepends=True) if out.exists() and require_regular(out) else []
    except ForeignError as error:
        raise TextError("{path} cannot be read: {error}", path=out, error=error) from error
    except OSError as error:
        raise TextError("{path} cannot be read: {error}", path=out, error=error.strerror) from error
    whole = [line for line in lines if line.endswith(b"\n")]
    try:
        facts = [(len(line), json_of(line.decode())) for line in whole]
        found = [(size, record["tokens"], record["by"]["number"], record["by"]) for size, record in facts]
        if (lines and not whole) or not all(
            type(tokens) is type(number) is int and made == {**by, "number": number} for _, tokens, number, made in found
        ):
            raise ValueError
    except (ValueError, KeyError, TypeError) as error:
        raise TextError("{out} already contains another text and is not overwritten; choose another name", out=out) from error
    return [line[:3] for line in found]
