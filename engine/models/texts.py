"""Texts to packs of tokens: texts laid end to end in one row, each with positions of its own.

transformers sees positions start anew and masks the texts from each other, so there is no padding anywhere: nothing to
leave out of a mean, nothing computed for nothing.
"""

import hashlib
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from engine.errors import TextError
from engine.types import TextSet
from engine.untrusted import LARGE, ForeignError, text_in

BUNDLED = ("english", "korean")
MAX_TEXT_TOKENS = 2048  # longer texts are cut; a calibration text is a sentence or a paragraph
BROKEN, _PARTED = "\ufffd", 4  # what part of a character decodes to, and into how many tokens it may be parted
_LETTERS, _MORE = 16, 64  # of a text, that are read for each of its first tokens; tokens beyond them, so that the cut changes none
PACK_TOKENS = 512  # short texts fill packs of about this size: attention is quadratic in it


@dataclass(frozen=True, eq=False, slots=True)
class Pack:
    """Texts laid end to end: token ids and positions [1, tokens]; `spans` says (text, start, stop) of each. `name` and `fingerprint`
    are those of the calibration that they are of, where somebody wants to tell of it."""

    ids: torch.Tensor
    positions: torch.Tensor
    spans: tuple[tuple[int, int, int], ...]
    name: str = ""
    fingerprint: str = ""

    def first_tokens(self) -> torch.Tensor:
        """Return a bool tensor [tokens], True at the first token of each text."""
        return self.positions[0] == 0

    def last_tokens(self) -> torch.Tensor:
        """Return the places [texts] of each text's last token."""
        return torch.tensor([stop - 1 for _, _, stop in self.spans])


def calibration_of(texts: tuple[str, ...], name: str = "texts") -> TextSet:
    """Return a calibration of these texts, blank ones left out.

    Raises:
        TextError: no text is left.
    """
    texts = tuple(text.strip() for text in texts if text.strip())
    if not texts:
        raise TextError(f"{name} holds no text; write one text a line, five to ten sentences are enough")
    return TextSet(name, texts, hashlib.sha256(json.dumps(texts).encode()).hexdigest())


def bundled(language: str, purpose: str = "calibration") -> TextSet:
    """Return the texts that Layerscope ships for "english" or "korean".

    `purpose` is "calibration" (a few sentences, for similarity), "practice" (paragraphs that search and repair fit to) or
    "evaluation" (paragraphs that only judge); no text serves two purposes.
    """
    text = (assets_folder() / "texts" / f"{purpose}-{language}.txt").read_text(encoding="utf-8")
    return calibration_of(tuple(text.splitlines()), language if purpose == "calibration" else f"{purpose}-{language}")


def texts_for(choice: str, purpose: str = "calibration") -> TextSet:
    """Return the bundled texts of a language, or those of a file; see `bundled` and `read_texts`."""
    return bundled(choice, purpose) if choice in BUNDLED else read_texts(Path(choice))


def assets_folder() -> Path:
    """Return the folder of texts, templates and scripts that ship with Layerscope."""
    return Path(__file__).resolve().parents[2] / "assets"


def read_texts(path: Path) -> TextSet:
    """Read a calibration from a UTF-8 file, one text a line.

    Raises:
        TextError: the file is missing, empty or not UTF-8.
    """
    try:
        return calibration_of(tuple(text_in(path, LARGE).splitlines()), str(path))
    except FileNotFoundError as error:
        raise TextError(f"{path} does not exist; name a UTF-8 file with one text a line") from error
    except ForeignError as error:
        raise TextError(f"{path} cannot be read: {error}") from error
    except OSError as error:
        raise TextError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # a NUL in its name
        raise TextError(f"{str(path)!r} cannot be read: {error}") from error


def packs_of(tokenizer: Any, config: Any, calibration: TextSet) -> tuple[Pack, ...]:
    """Tokenise a calibration as the tokenizer does by default, and lay the texts into packs, in order.

    Texts are cut at the model's longest context or at MAX_TEXT_TOKENS, whichever is less.

    Raises:
        TextError: a text has no token.
    """
    limit = min(MAX_TEXT_TOKENS, getattr(config, "max_position_embeddings", None) or MAX_TEXT_TOKENS)
    rows: list[tuple[int, list[int]]] = []
    for text, words in enumerate(calibration.texts):
        row = tokens_of(tokenizer, config, words, limit)
        if not row:
            raise TextError(f"the tokenizer makes no token of the text {words[:40]!r}")
        rows.append((text, row))
    return pack_rows(rows)


def tokens_of(tokenizer: Any, config: Any, text: str, limit: int | None = None) -> list[int]:
    """Return the tokens of a text as the tokenizer makes them by default; the first `limit` of them where that is given, for which no
    more of a long text is read than they need.

    Raises:
        TextError: the tokenizer makes a token that the model has no embedding of.
    """
    read = len(text) if limit is None else _LETTERS * (limit + _MORE)
    while len(ids := tokenizer(text[:read])["input_ids"]) < (limit or 0) + _MORE and read < len(text):
        read *= 4
    return require_known(ids[:limit], config, text)


def require_known(ids: list[int], config: Any, text: str) -> list[int]:
    """Return the tokens of a text, having seen that the model has an embedding of each.

    Raises:
        TextError: it has not.
    """
    if ids and max(ids) >= config.vocab_size:
        raise TextError(f"the tokenizer makes token {max(ids)} of the text {text[:40]!r}, and the model knows {config.vocab_size} tokens")
    return ids


def tokens_in(packs: Sequence[Pack]) -> int:
    """Return how many tokens lie in some packs."""
    return sum(pack.ids.shape[1] for pack in packs)


def beginning(packs: Sequence[Pack], tokens: int) -> int:
    """Return how many leading packs lie within so many tokens; at least one."""
    return max(1, sum(end <= tokens for end in itertools.accumulate(pack.ids.shape[1] for pack in packs)))


def read_in(packs: Sequence[Pack]) -> tuple[tuple[str, Any], ...]:
    """Return what a plan's settings tell of packs that its method read: the texts' name and fingerprint, and how many tokens."""
    named = {(pack.name, pack.fingerprint) for pack in packs if pack.name}
    texts = [item for name, mark in sorted(named) for item in (("texts", name), ("practice", mark))]
    return (*texts, ("tokens", tokens_in(packs)))


def characters_at(decode: Callable[[Any], str], ids: torch.Tensor, place: int) -> tuple[int, int]:
    """Return the tokens (first, past the last) that are least to be decoded for the characters of the token at a place to be whole.

    A tokenizer of bytes may part a character: Hangul takes three. Where no neighbours make it whole, the token stands alone.
    """
    for more in range(2 * _PARTED):
        for first in range(max(0, place - more), min(place, len(ids) - 1 - more) + 1):
            if BROKEN not in decode(ids[first : first + more + 1]):
                return first, first + more + 1
    return place, place + 1


def pack_rows(rows: Sequence[tuple[int, list[int]]], size: int = PACK_TOKENS) -> tuple[Pack, ...]:
    """Lay rows of tokens, each with its text's number, into packs of at most `size` tokens, in order; a longer row has
    a pack to itself."""
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
