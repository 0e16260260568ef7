"""Build rows of tokens from texts: each text is read and tokenised once, and found again by its content."""

import itertools
import json
import os
import shutil
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine.atomic import making
from engine.cache import content_key
from engine.corpus.decontamination import judged_on
from engine.corpus.reading import Document, content_of, documents
from engine.corpus.rows import DOMAINS, STARTS, TOKENS, Rows, is_whole, open_rows, write_index
from engine.corpus.settings import WritingSettings
from engine.corpus.writing import own_file, write_own
from engine.errors import SettingsError, TextError
from engine.jobs import Job, Progress
from engine.messages import Message
from engine.models.texts import BUNDLED, bundled, require_known
from engine.types import Model

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

SELF = "self"
WRITING = WritingSettings()
LIMIT = 100_000_000  # tokens
_FORM = 1  # version of the file format; other versions are rebuilt
_AT_ONCE = 64  # documents tokenised together
_PIECE = 200_000  # characters of a document tokenised at once
_BEGINNINGS = 5  # number of dropped documents whose beginnings are reported


def corpus(
    model: Model, choice: str | Sequence[str], length: int, folder: Path, limit: int = LIMIT, own: WritingSettings = WRITING
) -> Job[Rows]:
    """Read texts (see `documents`; `self` is text written by the source, see `write_own`) into rows of `length` tokens.

    Each of several choices is a domain named after it, unless its documents name their own. Reading stops after `limit` tokens. The tokens
    are stored in `folder`, where the same texts with the same tokenizer are found again. Documents that overlap with the evaluation texts
    are dropped.

    Raises:
        TextError: a text is missing or cannot be read, overlaps with the evaluation texts in all its documents, or is shorter than one row.
        SettingsError: the model's context is shorter than `length`.
    """
    longest = getattr(model.config, "max_position_embeddings", None) or length
    if not 2 <= length <= longest:
        raise SettingsError(
            "a row has {length} tokens; a training row needs at least 2 and at most the model's context of {longest}",
            length=length,
            longest=longest,
        )
    choices = (choice,) if isinstance(choice, str) else tuple(choice)
    read = list(choices)
    if SELF in read:
        path = own_file(model, folder, own)
        yield from write_own(model, path, own)
        read[read.index(SELF)] = str(path)
    name = ", ".join(choices)
    judging = [bundled(language, "evaluation").fingerprint for language in BUNDLED]
    contents = [(one if len(choices) > 1 else "", content_of(path)) for one, path in zip(choices, read, strict=True)]
    fingerprint = content_key(_FORM, contents, _tokenizer_key(model.tokenizer), judging, limit)
    made = folder / f"corpus-{fingerprint[:16]}"
    if not is_whole(made):
        shutil.rmtree(made, ignore_errors=True)
        named = dict(zip(choices, read, strict=True))
        yield from _build(model, _each(named, model.tokenizer), name, made, limit)
    return open_rows(made, name, fingerprint, length)


def _tokenizer_key(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Return a fingerprint of everything that determines a tokenizer's output."""
    rules = json.loads(tokenizer.backend_tokenizer.to_str()) if tokenizer.is_fast else {"vocabulary": tokenizer.get_vocab()}
    made = {key: value for key, value in rules.items() if key not in ("truncation", "padding")}  # settings of the last call
    return content_key(made, tokenizer.chat_template, tokenizer.eos_token_id, type(tokenizer).__name__)


def _each(named: dict[str, str], tokenizer: "PreTrainedTokenizerBase") -> Iterator[Document]:
    """Yield the documents of some choices, each in the domain that it names; without one, in its choice's domain if there are several
    choices."""
    for name, path in named.items():
        for document in documents(path, tokenizer):
            domain = document.domain or (name if len(named) > 1 else "")
            yield Document(document.text, domain, document.templated)


def _build(model: Model, read: Iterator[Document], name: str, made: Path, limit: int) -> Job[None]:
    """Write the tokens of documents into a folder, which appears complete or not at all."""
    try:
        made.parent.mkdir(parents=True, exist_ok=True)
        with making(made.parent, ".corpus-") as aside:
            begun = aside / made.name
            begun.mkdir()
            yield from _lay(model, read, name, begun, limit)
            try:
                os.rename(begun, made)
            except OSError:
                if not made.exists():  # another process finished first
                    raise
    except OSError as error:
        raise TextError("the tokens cannot be written to {parent}: {reason}", parent=made.parent, reason=error.strerror) from error


def _lay(model: Model, read: Iterator[Document], name: str, folder: Path, limit: int) -> Job[None]:
    dtype = np.dtype(np.uint16 if model.config.vocab_size <= 1 << 16 else np.uint32)
    starts, domains, places, dropped = array("q", [0]), array("I"), dict[str, int](), list[str]()
    with (folder / TOKENS).open("wb") as file:
        while starts[-1] < limit and (some := list(itertools.islice(read, _AT_ONCE))):
            yield Progress(Message("Reading the text: {starts} tokens", starts=starts[-1]))
            judging = {document for document in some if judged_on(document.text)}
            dropped += [" ".join(document.text[:200].split()[:8]) for document in some if document in judging]
            for document, ids in _tokenised(model.tokenizer, model.config, [document for document in some if document not in judging]):
                np.asarray(ids, dtype).tofile(file)
                starts.append(starts[-1] + len(ids))
                domains.append(places.setdefault(document.domain, len(places)))
    if not domains:
        raise TextError(
            "all {count} documents of {name} overlap with the evaluation texts, which must not be trained on; provide other text",
            count=len(dropped),
            name=name,
        )
    np.save(folder / STARTS, np.asarray(starts))
    np.save(folder / DOMAINS, np.asarray(domains))
    facts = {"dtype": dtype.name, "domains": list(places), "dropped": len(dropped), "beginnings": dropped[:_BEGINNINGS]}
    write_index(folder, facts)


def _tokenised(
    tokenizer: "PreTrainedTokenizerBase", config: "PretrainedConfig", some: Iterable[Document]
) -> Iterator[tuple[Document, list[int]]]:
    """Yield documents with their tokens by the tokenizer's defaults, ending with the end-of-text token if there is one."""
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    for templated, group in itertools.groupby(some, lambda document: document.templated):
        alike = list(group)
        rows = tokenizer([document.text[:_PIECE] for document in alike], add_special_tokens=not templated, verbose=False)["input_ids"]
        for document, first in zip(alike, rows, strict=True):
            ids = [*first, *_rest(tokenizer, document.text)]
            yield document, require_known([*ids, *(end if ids[-1:] != end else [])], config, document.text)


def _rest(tokenizer: "PreTrainedTokenizerBase", text: str) -> Iterator[int]:
    """Yield the tokens after a text's first piece: tokenising a whole book at once would take a hundred times its bytes."""
    for start in range(_PIECE, len(text), _PIECE):
        yield from tokenizer(text[start : start + _PIECE], add_special_tokens=False, verbose=False)["input_ids"]
