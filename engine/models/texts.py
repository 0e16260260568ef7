"""Tokenise texts into packs: texts laid end to end in one row, with positions that restart at each text.

transformers masks texts from each other where positions restart, so no padding is needed, computed or excluded from means.
"""

import hashlib
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from engine.errors import TextError
from engine.types import TextSet
from engine.untrusted import LARGE, ForeignError, text_in

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

BUNDLED = ("english", "korean")
MAX_TEXT_TOKENS = 2048  # longer texts are truncated; a calibration text is a sentence or a paragraph
BROKEN, _PARTED = "\ufffd", 4  # an incomplete character decodes to this; most tokens one character is split into
_LETTERS, _MORE = 16, 64  # characters read per wanted token; extra tokens read, so that truncating the text does not change the wanted ones
PACK_TOKENS = 512  # short texts share packs of about this size: attention is quadratic in it


@dataclass(frozen=True, eq=False, slots=True)
class Pack:
    """Texts laid end to end: token ids and positions [1, tokens]; `spans` gives (text, start, stop) of each. `name` and `fingerprint`
    identify the text set they come from, where it is to be recorded."""

    ids: torch.Tensor
    positions: torch.Tensor
    spans: tuple[tuple[int, int, int], ...]
    name: str = ""
    fingerprint: str = ""

    def first_tokens(self) -> torch.Tensor:
        """Return a bool tensor [tokens], True at the first token of each text."""
        return self.positions[0] == 0

    def last_tokens(self) -> torch.Tensor:
        """Return the positions [texts] of each text's last token in the pack."""
        return torch.tensor([stop - 1 for _, _, stop in self.spans])


def calibration_of(texts: tuple[str, ...], name: str = "texts") -> TextSet:
    """Return a text set of these texts, without blank ones.

    Raises:
        TextError: every text is blank.
    """
    texts = tuple(text.strip() for text in texts if text.strip())
    if not texts:
        raise TextError("{name} contains no text; write one text per line (five to ten sentences are enough)", name=name)
    return TextSet(name, texts, hashlib.sha256(json.dumps(texts).encode()).hexdigest())


def bundled(language: str, purpose: str = "calibration") -> TextSet:
    """Return the texts shipped with Layerscope for "english" or "korean".

    `purpose` is "calibration" (a few sentences, for similarity), "practice" (paragraphs that search and repair optimise on) or "evaluation"
    (paragraphs used only for evaluation); no text serves two purposes.
    """
    text = (assets_folder() / "texts" / f"{purpose}-{language}.txt").read_text(encoding="utf-8")
    return calibration_of(tuple(text.splitlines()), language if purpose == "calibration" else f"{purpose}-{language}")


def texts_for(choice: str, purpose: str = "calibration") -> TextSet:
    """Return a language's bundled texts, or the texts of a file; see `bundled` and `read_texts`."""
    return bundled(choice, purpose) if choice in BUNDLED else read_texts(Path(choice))


def assets_folder() -> Path:
    """Return the folder of texts, templates and scripts that ship with Layerscope."""
    return Path(__file__).resolve().parents[2] / "assets"


def read_texts(path: Path) -> TextSet:
    """Read a text set from a UTF-8 file, one text per line.

    Raises:
        TextError: the file is missing, empty or not UTF-8.
    """
    try:
        return calibration_of(tuple(text_in(path, LARGE).splitlines()), str(path))
    except FileNotFoundError as error:
        raise TextError("{path} does not exist; name a UTF-8 file with one text per line", path=path) from error
    except ForeignError as error:
        raise TextError("{path} cannot be read: {error}", path=path, error=error) from error
    except OSError as error:
        raise TextError("{path} cannot be read: {error}", path=path, error=error.strerror) from error
    except ValueError as error:  # a NUL in the path
        raise TextError("{path!r} cannot be read: {error}", path=str(path), error=error) from error


def packs_of(tokenizer: "PreTrainedTokenizerBase", config: "PretrainedConfig", calibration: TextSet) -> tuple[Pack, ...]:
    """Tokenise a text set with the tokenizer's defaults, and lay the texts into packs, in order.

    Texts are truncated at the model's context length or at MAX_TEXT_TOKENS, whichever is less.

    Raises:
        TextError: a text has no token.
    """
    limit = min(MAX_TEXT_TOKENS, getattr(config, "max_position_embeddings", None) or MAX_TEXT_TOKENS)
    rows: list[tuple[int, list[int]]] = []
    for text, words in enumerate(calibration.texts):
        row = tokens_of(tokenizer, config, words, limit)
        if not row:
            raise TextError("the tokenizer finds no token in the text {words!r}", words=words[:40])
        rows.append((text, row))
    return pack_rows(rows)


def tokens_of(tokenizer: "PreTrainedTokenizerBase", config: "PretrainedConfig", text: str, limit: int | None = None) -> list[int]:
    """Return the tokens of a text with the tokenizer's defaults. With `limit`, return the first `limit` tokens and read only as much of a
    long text as they need.

    Raises:
        TextError: the tokenizer makes a token that the model has no embedding for.
    """
    read = len(text) if limit is None else _LETTERS * (limit + _MORE)
    while len(ids := tokenizer(text[:read])["input_ids"]) < (limit or 0) + _MORE and read < len(text):
        read *= 4
    return require_known(ids[:limit], config, text)


def require_known(ids: list[int], config: "PretrainedConfig", text: str) -> list[int]:
    """Return the tokens of a text after checking that the model has an embedding for each.

    Raises:
        TextError: a token has no embedding.
    """
    if ids and max(ids) >= config.vocab_size:
        raise TextError(
            "the tokenizer gives token {token} for the text {text!r}, but the model has only {vocab_size} tokens",
            token=max(ids),
            text=text[:40],
            vocab_size=config.vocab_size,
        )
    return ids


def tokens_in(packs: Sequence[Pack]) -> int:
    """Return the number of tokens in some packs."""
    return sum(pack.ids.shape[1] for pack in packs)


def beginning(packs: Sequence[Pack], tokens: int) -> int:
    """Return how many leading packs fit into `tokens` tokens; at least one."""
    return max(1, sum(end <= tokens for end in itertools.accumulate(pack.ids.shape[1] for pack in packs)))


def read_in(packs: Sequence[Pack]) -> tuple[tuple[str, Any], ...]:
    """Return the settings that record the packs a method read: the texts' names and fingerprints, and the number of tokens."""
    named = {(pack.name, pack.fingerprint) for pack in packs if pack.name}
    texts = [item for name, mark in sorted(named) for item in (("texts", name), ("practice", mark))]
    return (*texts, ("tokens", tokens_in(packs)))


def characters_at(decode: Callable[[Any], str], ids: torch.Tensor, place: int) -> tuple[int, int]:
    """Return the smallest token range (first, past the last) around a position that decodes to whole characters.

    A byte-level tokenizer may split a character: a Hangul character takes three bytes. If no range works, the token's own is returned.
    """
    for more in range(2 * _PARTED):
        for first in range(max(0, place - more), min(place, len(ids) - 1 - more) + 1):
            if BROKEN not in decode(ids[first : first + more + 1]):
                return first, first + more + 1
    return place, place + 1


def pack_rows(rows: Sequence[tuple[int, list[int]]], size: int = PACK_TOKENS) -> tuple[Pack, ...]:
    """Lay rows of tokens, each with its text's number, into packs of at most `size` tokens, in order; a longer row gets its own pack."""
    packs: list[Pack] = []
    waiting: list[tuple[int, list[int]]] = []
    for row in rows:
        if waiting and sum(len(ids) for _, ids in waiting) + len(row[1]) > size:
            packs.append(_pack(waiting))
            waiting = []
        waiting.append(row)
    return (*packs, _pack(waiting))


def _pack(rows: Sequence[tuple[int, list[int]]]) -> Pack:
    stops = list(itertools.accumulate(len(row) for _, row in rows))
    return Pack(
        ids=torch.tensor([[token for _, row in rows for token in row]]),
        positions=torch.tensor([[position for _, row in rows for position in range(len(row))]]),
        spans=tuple((text, stop - len(row), stop) for (text, row), stop in zip(rows, stops, strict=True)),
    )
