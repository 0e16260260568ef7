"""Text as rows of tokens: packed end to end without padding, in an order that depends only on the seed and the position.

All documents are in one memory-mapped file in the order they were read. Held-out documents and domains are computed from document numbers,
and so is the next row; a resumed run needs one integer for its position.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.cache import file_digest, read_marked, write_marked
from engine.errors import SettingsError, TextError
from engine.models.texts import PACK_TOKENS, Pack, pack_rows
from engine.untrusted import ForeignError, require_regular

HELD_OUT = 20  # every 20th document is held out
TOKENS, STARTS, DOMAINS, INDEX = "tokens.bin", "starts.npy", "domains.npy", "index.json"


@dataclass(frozen=True, eq=False, slots=True)
class Batch:
    """Rows of tokens: ids and positions int64 [rows, tokens], and each row's number in its corpus.

    Positions restart at each document and at each row. Given these positions and `use_cache=False` (it checks them only then), transformers
    masks the documents of a row from each other.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    numbers: torch.Tensor


@dataclass(frozen=True, eq=False, slots=True)
class Laid:
    """Some documents of a token file, laid end to end: `starts` [documents] are their offsets in the file, `edges` [documents + 1] their
    boundaries in the concatenation."""

    tokens: np.ndarray
    starts: np.ndarray
    edges: np.ndarray

    def __len__(self) -> int:
        return int(self.edges[-1])

    def window(self, begin: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Return ids and positions [length] starting at `begin`."""
        first, last = np.searchsorted(self.edges, (begin, begin + length - 1), "right") - 1
        pieces = []
        for place in range(first, last + 1):
            shift = self.starts[place] - self.edges[place]
            pieces.append(self.tokens[shift + max(begin, self.edges[place]) : shift + min(begin + length, self.edges[place + 1])])
        return np.concatenate(pieces).astype(np.int64), np.concatenate([np.arange(len(piece)) for piece in pieces])

    def pieces(self, length: int, tokens: int) -> Iterator[list[int]]:
        """Yield the documents in order, in pieces of 2 to `length` tokens, up to `tokens` tokens in total."""
        for begin, end in pairwise(self.edges.tolist()):
            for start in range(begin, end, length):
                size = min(length, end - start, tokens)
                if size > 1:
                    yield self.window(start, size)[0].tolist()
                    tokens -= size


@dataclass(frozen=True, eq=False, slots=True)
class DomainRows:
    """The documents of one domain, for training and held out."""

    domain: str
    train: Laid
    held: Laid


@dataclass(frozen=True, slots=True)
class Dropped:
    """The number of documents dropped because they overlap with the evaluation texts, and the beginnings of the first of them."""

    count: int = 0
    beginnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False, slots=True)
class Rows:
    """A corpus as rows of `length` tokens; `fingerprint` covers its texts and the tokenizer."""

    name: str
    fingerprint: str
    length: int
    parts: tuple[DomainRows, ...]
    dropped: Dropped = Dropped()

    def __len__(self) -> int:
        return self._ends()[-1]

    @property
    def domains(self) -> tuple[str, ...]:
        """The names of the domains; a single "" if none is named."""
        return tuple(part.domain for part in self.parts)

    @property
    def tokens(self) -> int:
        """The number of training tokens before any is repeated."""
        return sum(len(part.train) for part in self.parts)

    def of(self, domain: str) -> "Rows":
        """Return the rows of one domain only."""
        return replace(self, parts=tuple(part for part in self.parts if part.domain == domain))

    def number(self, k: int, seed: int) -> int:
        """Return the corpus number of the run's row k, with alternating domains."""
        turn, part = divmod(k, len(self.parts))
        return self.number_in(part, turn, seed)

    def number_in(self, part: int, turn: int, seed: int) -> int:
        """Return the corpus number of a domain's row at its turn: it goes through all its rows, in a new order each time."""
        ends = self._ends()
        begin = ends[part - 1] if part else 0
        epoch, place = divmod(turn, ends[part] - begin)
        return begin + int(_order(seed, epoch, ends[part] - begin)[place])

    def row(self, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return ids and positions [length] of the run's row k."""
        return self._at(self.number(k, seed))

    def reading(self, count: int, seed: int) -> list[int]:
        """Return the distinct corpus numbers of a run's first `count` rows, in order."""
        return list(dict.fromkeys(self.number(k, seed) for k in range(count)))

    def batch(self, step: int, size: int, seed: int) -> Batch:
        """Return the run's rows step * size up to (step + 1) * size.

        Raises:
            TextError: there are fewer rows than a batch has.
        """
        if len(self) < size:
            raise TextError(
                "{self_name} has {count} rows of {length} tokens, fewer than one batch of {size} rows; provide more "
                "text or lower the batch size",
                self_name=self.name,
                count=len(self),
                length=self.length,
                size=size,
            )
        return self.some(self.number(k, seed) for k in range(step * size, (step + 1) * size))

    def some(self, numbers: Iterable[int]) -> Batch:
        """Return the rows of these numbers as one batch."""
        wanted = list(numbers)
        ids, positions = zip(*map(self._at, wanted), strict=True)
        return Batch(torch.from_numpy(np.stack(ids)), torch.from_numpy(np.stack(positions)), torch.tensor(wanted))

    def held_out(self, tokens: int) -> tuple[Pack, ...]:
        """Return packs of the held-out documents, up to `tokens` tokens, equally many of each domain; documents are cut into pieces of
        `length` tokens.

        Raises:
            SettingsError: `tokens` is too small for any prediction.
        """
        pieces = [piece for part in self.parts for piece in part.held.pieces(self.length, tokens // len(self.parts))]
        if not pieces:
            raise SettingsError(
                "{tokens} tokens of {count} domains are too few to evaluate on; allow more tokens", tokens=tokens, count=len(self.parts)
            )
        packs = pack_rows(list(enumerate(pieces)), max(self.length, PACK_TOKENS))
        return tuple(replace(pack, name=self.name, fingerprint=self.fingerprint) for pack in packs)

    def _at(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        ends = self._ends()
        part = int(np.searchsorted(ends, number, "right"))
        return self.parts[part].train.window((number - (ends[part - 1] if part else 0)) * self.length, self.length)

    def _ends(self) -> list[int]:
        return np.cumsum([len(part.train) // self.length for part in self.parts]).tolist()


@lru_cache(maxsize=16)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(count)


def is_whole(folder: Path) -> bool:
    """Return whether a folder contains a complete and unchanged corpus."""
    found = read_marked(folder / INDEX)
    try:
        return found is not None and all(
            require_regular(folder / name) >= 0 and file_digest(folder / name) == digest for name, digest in found["files"].items()
        )
    except (OSError, ForeignError):
        return False


def write_index(folder: Path, facts: dict[str, Any]) -> None:
    """Write the index of a corpus whose other files are in the folder."""
    write_marked(folder / INDEX, {**facts, "files": {name: file_digest(folder / name) for name in (TOKENS, STARTS, DOMAINS)}})


def open_rows(folder: Path, name: str, fingerprint: str, length: int) -> Rows:
    """Open the corpus in a folder (see engine/corpus/building.py).

    Raises:
        TextError: a domain is shorter than one row.
    """
    index = read_marked(folder / INDEX)
    assert index is not None
    tokens = np.memmap(folder / TOKENS, index["dtype"], "r")
    starts, domains = np.load(folder / STARTS), np.load(folder / DOMAINS)
    parts = tuple(_part(domain, tokens, starts, np.flatnonzero(domains == place)) for place, domain in enumerate(index["domains"]))
    for part in parts:
        if len(part.train) < length:
            facts = f"{name} ({part.domain})" if part.domain else name
            raise TextError(
                "{facts} has {count} training tokens, fewer than one row of {length}; provide more text",
                facts=facts,
                count=len(part.train),
                length=length,
            )
    return Rows(name, fingerprint, length, parts, Dropped(index["dropped"], tuple(index["beginnings"])))


def _part(domain: str, tokens: np.ndarray, starts: np.ndarray, numbers: np.ndarray) -> DomainRows:
    """Return a domain of these documents: every 20th is held out, or the last if there are fewer; of a single document its last 20th."""
    begin, end = starts[numbers], starts[numbers + 1]
    if len(numbers) == 1:
        cut = np.maximum(begin, end - np.maximum(2, (end - begin) // HELD_OUT))
        return DomainRows(domain, _laid(tokens, begin, cut), _laid(tokens, cut, end))
    held = np.arange(1, len(numbers) + 1) % HELD_OUT == 0
    held[-1] |= not held.any()
    return DomainRows(domain, _laid(tokens, begin[~held], end[~held]), _laid(tokens, begin[held], end[held]))


def _laid(tokens: np.ndarray, begin: np.ndarray, end: np.ndarray) -> Laid:
    return Laid(tokens, begin, np.concatenate([[0], np.cumsum(end - begin)]))
