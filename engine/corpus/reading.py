"""Read training documents one after another from files, folders, Hub data sets or the bundled texts.

Documents are read one at a time, so a file may be larger than memory.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.cache import content_key, file_digest
from engine.errors import TextError, reason_of
from engine.judge.practice import kept_apart
from engine.messages import Message
from engine.models.texts import BUNDLED, bundled
from engine.untrusted import LARGE, ForeignError, json_of, require_regular

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BUNDLES = {"practice": BUNDLED, **{language: (language,) for language in BUNDLED}}
HUB = "hub:"
SUFFIXES = (".txt", ".jsonl", ".parquet")
_COLUMNS = ("text", "messages", "domain")


@dataclass(frozen=True, slots=True)
class Document:
    """One text and its domain ("" if unnamed); `templated` if a chat template has already added its special tokens."""

    text: str
    domain: str = ""
    templated: bool = False


def name_of(choice: str) -> str:
    """Return the name of a choice for published records: without its parent folders, which are private."""
    return choice if choice.startswith(HUB) else Path(choice).name


def documents(choice: str, tokenizer: "PreTrainedTokenizerBase") -> Iterator[Document]:
    """Yield the documents of a choice, without blank ones: `practice`, `english` or `korean` for the bundled texts, `hub:org/name` (or
    `hub:org/name/config`) for the training split of a Hub data set, or a path to a file or folder.

    A .txt file's documents are separated by blank lines; without a blank line, each line is a document. A .jsonl or .parquet file contains
    `text`, or `messages`, which go through the tokenizer's chat template. A document's domain is its record's `domain`, or else the
    subfolder of its file.

    Raises:
        TextError: the choice is missing, cannot be read in its format, or contains no text.
    """
    found = (document for document in _read(choice, tokenizer) if document.text.strip())
    first = next(found, None)
    if first is None:
        raise TextError("{choice} contains no training text", choice=choice)
    yield first
    yield from found


def content_of(choice: str) -> str:
    """Return the fingerprint of a choice's content; a Hub data set is identified by its name, because its content is unknown before
    reading.

    Raises:
        TextError: the choice is missing or cannot be read.
    """
    if choice in BUNDLES:
        return content_key([bundled(language, "practice").fingerprint for language in BUNDLES[choice]])
    if choice.startswith(HUB):
        return content_key(choice)
    try:
        found = _files(Path(choice))
        for path, _ in found:
            require_regular(path)
        return content_key([(domain, path.suffix.lower(), file_digest(path)) for path, domain in found])
    except ForeignError as error:
        raise TextError("{path} cannot be read: {error}", path=path, error=error) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise TextError("{path!r} cannot be read: {error}", path=choice, error=reason_of(error)) from error


def _read(choice: str, tokenizer: "PreTrainedTokenizerBase") -> Iterator[Document]:
    if choice in BUNDLES:
        for language in BUNDLES[choice]:
            yield from map(Document, kept_apart(bundled(language, "practice")).texts)
    elif choice.startswith(HUB):
        yield from _hub(choice, tokenizer)
    else:
        for path, domain in _files(Path(choice)):
            yield from _READERS[path.suffix.lower()](path, domain, tokenizer)


def _files(path: Path) -> list[tuple[Path, str]]:
    """Return a file, or the files of a folder in order, each with its subfolder."""
    if not path.exists():
        raise TextError(
            "{path} does not exist; name a .txt, .jsonl or .parquet file, a folder of those, hub:org/name, practice or self", path=path
        )
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise TextError(
                "{path} cannot be read as training text; its name must end in one of {choices}", path=path, choices=", ".join(SUFFIXES)
            )
        return [(path, "")]
    inside = ((file, file.relative_to(path).parts) for file in sorted(path.rglob("*")) if file.suffix.lower() in SUFFIXES)
    found = [(file, parts[0] if len(parts) > 1 else "") for file, parts in inside if not any(part.startswith(".") for part in parts)]
    if not found:
        raise TextError("{path} contains no file of type {choices}", path=path, choices=", ".join(SUFFIXES))
    return found


# --- One kind of file each ---


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line numbers of a UTF-8 file, starting at 1, and its lines without their ends."""
    number = 0
    try:
        require_regular(path)
        with path.open("rb") as file:
            while line := file.readline(LARGE + 1):
                number += 1
                if len(line) > LARGE:
                    raise ForeignError("line {number} has more than {large:.0f} MB", number=number, large=LARGE / 1e6)
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise TextError("{path} is not UTF-8 (line {number}); save it as UTF-8", path=path, number=number) from error
    except ForeignError as error:
        raise TextError("{path} cannot be read: {error}", path=path, error=error) from error
    except OSError as error:
        raise TextError("{path} cannot be read: {error}", path=path, error=error.strerror) from error


def _paragraphs(path: Path) -> Iterator[Iterator[str]]:
    """Yield the lines of each run of non-blank lines."""
    lines = (line for _, line in _lines(path))
    return (run for written, run in itertools.groupby(lines, lambda line: bool(line.strip())) if written)


def _txt(path: Path, domain: str, _tokenizer: Any) -> Iterator[Document]:
    apart = next(itertools.islice(_paragraphs(path), 1, None), None) is not None  # whether a blank line separates two paragraphs
    for paragraph in _paragraphs(path):
        for text in ["\n".join(paragraph)] if apart else paragraph:
            yield Document(text, domain)


def _jsonl(path: Path, domain: str, tokenizer: "PreTrainedTokenizerBase") -> Iterator[Document]:
    for number, line in _lines(path):
        if line.strip():
            try:
                record = json_of(line)
            except ForeignError as error:
                raise TextError("{path}: line {number} is not valid JSON: {error}", path=path, number=number, error=error) from error
            yield _document(record, domain, tokenizer, Message("{path}: line {number}", path=path, number=number))


def _parquet(path: Path, domain: str, tokenizer: "PreTrainedTokenizerBase") -> Iterator[Document]:
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise TextError("{path} cannot be read without pyarrow; run: pip install 'layerscope[train]'", path=path) from error
    try:
        with ParquetFile(path) as file:
            columns = [name for name in _COLUMNS if name in file.schema_arrow.names]
            for number, record in enumerate(
                record for rows in file.iter_batches(batch_size=256, columns=columns) for record in rows.to_pylist()
            ):
                yield _document(record, domain, tokenizer, Message("{choice}: row {number}", choice=path, number=number))
    except (OSError, ValueError) as error:  # pyarrow's own errors are subclasses of these
        raise TextError("{path} cannot be read: {error}", path=path, error=reason_of(error)) from error


def _hub(choice: str, tokenizer: "PreTrainedTokenizerBase") -> Iterator[Document]:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise TextError(
            "{choice} cannot be read without the package datasets; run: pip install 'layerscope[train]'", choice=choice
        ) from error
    organisation, *rest = choice.removeprefix(HUB).split("/", 2)
    if not rest:
        raise TextError("'{choice}' does not name a dataset on the Hub; write hub:org/name or hub:org/name/config", choice=choice)
    try:
        for number, record in enumerate(load_dataset(f"{organisation}/{rest[0]}", *rest[1:], split="train", streaming=True)):
            yield _document(record, "", tokenizer, Message("{choice}: row {number}", choice=choice, number=number))
    except TextError:
        raise
    except Exception as error:  # downloads may fail with any error
        raise TextError("{choice} cannot be downloaded: {reason}", choice=choice, reason=reason_of(error)) from error


def _document(record: Any, domain: str, tokenizer: "PreTrainedTokenizerBase", where: str) -> Document:
    """Return the document of a record: its `text`, or else its `messages` in the tokenizer's chat template."""
    text, messages = (record.get(key) if isinstance(record, dict) else None for key in _COLUMNS[:2])
    if not isinstance(text, str) and not isinstance(messages, list):
        raise TextError("{where} has neither the field text nor the field messages", where=where)
    own = str(record.get("domain") or domain)
    return Document(text, own) if isinstance(text, str) else Document(_in_template(messages, tokenizer, where), own, templated=True)


def _in_template(messages: Any, tokenizer: "PreTrainedTokenizerBase", where: str) -> str:
    if not tokenizer.chat_template:
        raise TextError(
            "{where} contains messages, but the model's tokenizer has no chat template; write the messages as text", where=where
        )
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False).rstrip()
    except Exception as error:  # templates are arbitrary programs
        raise TextError(
            "{where} contains messages that the chat template rejects: {reason}", where=where, reason=reason_of(error)
        ) from error


_READERS = {".txt": _txt, ".jsonl": _jsonl, ".parquet": _parquet}
