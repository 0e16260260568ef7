"""Documents to train on, one after another, from whatever a person has: files, folders, a set of the Hub, the bundled texts.

Documents are read one at a time, so that a file may be larger than memory.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.cache import content_key, file_digest
from engine.errors import TextError, reason_of
from engine.judge.practice import kept_apart
from engine.models.texts import BUNDLED, bundled
from engine.untrusted import LARGE, ForeignError, json_of, require_regular

BUNDLES = {"practice": BUNDLED, **{language: (language,) for language in BUNDLED}}
HUB = "hub:"
SUFFIXES = (".txt", ".jsonl", ".parquet")
_COLUMNS = ("text", "messages", "domain")


@dataclass(frozen=True, slots=True)
class Document:
    """One text and the named domain that it belongs to, "" where there is none; `templated` where a chat template has already
    written its special tokens."""

    text: str
    domain: str = ""
    templated: bool = False


def name_of(choice: str) -> str:
    """Return what a choice is called in what others read: without the folders that it lies in, which are nobody else's business."""
    return choice if choice.startswith(HUB) else Path(choice).name


def documents(choice: str, tokenizer: Any) -> Iterator[Document]:
    """Yield the documents of a choice, blank ones left out: `practice`, `english` or `korean` for the bundled texts, `hub:org/name` (or
    `hub:org/name/config`) for the training split of a set of the Hub, or a path to a file or folder.

    A .txt file's documents are separated by blank lines; where it has no blank line each line is one. A .jsonl file or a .parquet file
    holds `text`, or `messages`, which go through the tokenizer's chat template. A record's `domain`, else the sub-folder that a file
    lies in, names the document's domain.

    Raises:
        TextError: it is missing, cannot be read as what it should be, or holds no text.
    """
    found = (document for document in _read(choice, tokenizer) if document.text.strip())
    first = next(found, None)
    if first is None:
        raise TextError(f"{choice} holds no text to train on")
    yield first
    yield from found


def content_of(choice: str) -> str:
    """Return the fingerprint of what a choice holds, by content; a set of the Hub is told by its name, which is all that can be known of
    it before it is read.

    Raises:
        TextError: it is missing or cannot be read.
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
        raise TextError(f"{path} cannot be read: {error}") from error
    except (OSError, ValueError) as error:  # a NUL in its name is the latter
        raise TextError(f"{choice!r} cannot be read: {reason_of(error)}") from error


def _read(choice: str, tokenizer: Any) -> Iterator[Document]:
    if choice in BUNDLES:
        for language in BUNDLES[choice]:
            yield from map(Document, kept_apart(bundled(language, "practice")).texts)
    elif choice.startswith(HUB):
        yield from _hub(choice, tokenizer)
    else:
        for path, domain in _files(Path(choice)):
            yield from _READERS[path.suffix.lower()](path, domain, tokenizer)


def _files(path: Path) -> list[tuple[Path, str]]:
    """Return a file, or the files of a folder in order, each with the sub-folder that it lies in."""
    if not path.exists():
        raise TextError(f"{path} does not exist; name a .txt, .jsonl or .parquet file, a folder of those, hub:org/name, practice or self")
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise TextError(f"{path} is no text to train on; its name ends in none of {', '.join(SUFFIXES)}")
        return [(path, "")]
    inside = ((file, file.relative_to(path).parts) for file in sorted(path.rglob("*")) if file.suffix.lower() in SUFFIXES)
    found = [(file, parts[0] if len(parts) > 1 else "") for file, parts in inside if not any(part.startswith(".") for part in parts)]
    if not found:
        raise TextError(f"{path} holds none of {', '.join(SUFFIXES)}")
    return found


# --- One kind of file each ---


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a UTF-8 file, without their ends, and their numbers from 1 on."""
    number = 0
    try:
        require_regular(path)
        with path.open("rb") as file:
            while line := file.readline(LARGE + 1):
                number += 1
                if len(line) > LARGE:
                    raise ForeignError(f"line {number} has more than {LARGE / 1e6:.0f} MB")
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise TextError(f"{path} is not UTF-8 (line {number}); save it as UTF-8") from error
    except ForeignError as error:
        raise TextError(f"{path} cannot be read: {error}") from error
    except OSError as error:
        raise TextError(f"{path} cannot be read: {error.strerror}") from error


def _paragraphs(path: Path) -> Iterator[Iterator[str]]:
    """Yield the lines of each run of lines that are not blank."""
    lines = (line for _, line in _lines(path))
    return (run for written, run in itertools.groupby(lines, lambda line: bool(line.strip())) if written)


def _txt(path: Path, domain: str, _tokenizer: Any) -> Iterator[Document]:
    apart = next(itertools.islice(_paragraphs(path), 1, None), None) is not None  # a blank line stands between two that are not
    for paragraph in _paragraphs(path):
        for text in ["\n".join(paragraph)] if apart else paragraph:
            yield Document(text, domain)


def _jsonl(path: Path, domain: str, tokenizer: Any) -> Iterator[Document]:
    for number, line in _lines(path):
        if line.strip():
            try:
                record = json_of(line)
            except ForeignError as error:
                raise TextError(f"{path}: line {number} is no JSON that can be read: {error}") from error
            yield _document(record, domain, tokenizer, f"{path}: line {number}")


def _parquet(path: Path, domain: str, tokenizer: Any) -> Iterator[Document]:
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise TextError(f"{path} needs pyarrow to be read: pip install 'layerscope[train]'") from error
    try:
        with ParquetFile(path) as file:
            columns = [name for name in _COLUMNS if name in file.schema_arrow.names]
            for number, record in enumerate(
                record for rows in file.iter_batches(batch_size=256, columns=columns) for record in rows.to_pylist()
            ):
                yield _document(record, domain, tokenizer, f"{path}: row {number}")
    except (OSError, ValueError) as error:  # pyarrow's own errors are one or the other
        raise TextError(f"{path} cannot be read: {reason_of(error)}") from error


def _hub(choice: str, tokenizer: Any) -> Iterator[Document]:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise TextError(f"{choice} needs datasets to be read: pip install 'layerscope[train]'") from error
    organisation, *rest = choice.removeprefix(HUB).split("/", 2)
    if not rest:
        raise TextError(f"'{choice}' is no set of the Hub; write hub:org/name, or hub:org/name/config")
    try:
        for number, record in enumerate(load_dataset(f"{organisation}/{rest[0]}", *rest[1:], split="train", streaming=True)):
            yield _document(record, "", tokenizer, f"{choice}: row {number}")
    except TextError:
        raise
    except Exception as error:  # whatever goes wrong far away
        raise TextError(f"{choice} cannot be fetched: {reason_of(error)}") from error


def _document(record: Any, domain: str, tokenizer: Any, where: str) -> Document:
    """Return what a record says: its `text`, else its `messages` in the tokenizer's chat template."""
    text, messages = (record.get(key) if isinstance(record, dict) else None for key in _COLUMNS[:2])
    if not isinstance(text, str) and not isinstance(messages, list):
        raise TextError(f"{where} has neither a text nor messages")
    own = str(record.get("domain") or domain)
    return Document(text, own) if isinstance(text, str) else Document(_in_template(messages, tokenizer, where), own, templated=True)


def _in_template(messages: Any, tokenizer: Any, where: str) -> str:
    if not tokenizer.chat_template:
        raise TextError(f"{where} holds messages, and the model's tokenizer has no chat template; write them as text")
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False).rstrip()
    except Exception as error:  # a template is a program of somebody else's
        raise TextError(f"{where} holds messages that the chat template refuses: {reason_of(error)}") from error


_READERS = {".txt": _txt, ".jsonl": _jsonl, ".parquet": _parquet}
