"""Read untrusted files safely: only regular files of bounded size, UTF-8, and JSON without values that JSON cannot represent (NaN, numbers
beyond float range, lone surrogates, excessive nesting).

Every reader of such a file starts here, and reports the problem with its own error.
"""

import json
import math
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from engine.messages import Message, MessageError

SMALL = 16 << 20  # bytes: configs, cards, plans, indices
LARGE = 256 << 20  # bytes: tokenizers, and results with many plans
_DIGITS = 300  # digits of an integer, so that it fits a float; tokenizers write 1e30 in full
DEEPEST = 64  # nested lists and objects


class ForeignError(MessageError, ValueError):
    """The fault of a file, in words that follow "cannot be read:"."""


def real_path(path: str | Path) -> Path:
    """Return a path with "~" and links resolved as far as possible: the home folder may be unknown, and links may be circular.

    Raises:
        ValueError: it is not a valid path.
    """
    path = Path(path)
    with suppress(RuntimeError):
        path = path.expanduser()
    return Path(os.path.realpath(path))  # Path.resolve raises on circular links


def require_regular(path: Path, most: int | None = None) -> int:
    """Return a file's size in bytes.

    Raises:
        ForeignError: it is not a regular file (a pipe or a device may never end), or exceeds `most` bytes.
        OSError: as for `open`.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ForeignError(Message("it is a folder") if stat.S_ISDIR(status.st_mode) else Message("it is a pipe or a device"))
    if most is not None and status.st_size > most:
        raise ForeignError(
            "it has {file_size:.0f} MB, and at most {large:.0f} MB are read", file_size=status.st_size / 1e6, large=most / 1e6
        )
    return status.st_size


def text_in(path: Path, most: int = SMALL) -> str:
    """Return the text of a UTF-8 file, without its byte order mark.

    Raises:
        ForeignError: as `require_regular`, or the file is not UTF-8.
        OSError: the file cannot be read.
    """
    require_regular(path, most)
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ForeignError("it is not UTF-8 (byte {start})", start=error.start) from error


def json_of(text: str) -> Any:
    """Return the JSON value of a text.

    Raises:
        ForeignError: it is not JSON, or contains NaN, a number beyond float range, a lone surrogate, or more than DEEPEST nested lists.
    """
    try:
        value = json.loads(text, parse_constant=_no_number, parse_int=_whole, parse_float=_fraction)
    except ForeignError:
        raise
    except (ValueError, RecursionError) as error:
        raise ForeignError("it is not valid JSON ({error})", error=str(error)[:100]) from error
    _require_sound(value)
    return value


def json_in(path: Path, most: int = SMALL) -> Any:
    """Return the JSON value in a file; see `text_in` and `json_of`."""
    return json_of(text_in(path, most))


def object_in(path: Path, most: int = SMALL) -> dict[str, Any]:
    """Return the JSON object in a file; see `json_in`.

    Raises:
        ForeignError: the value is not an object.
    """
    value = json_in(path, most)
    if not isinstance(value, dict):
        raise ForeignError("it is not a JSON object")
    return value


def _whole(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise ForeignError("it contains a number of {count} digits", count=len(digits))
    return int(digits)


def _fraction(digits: str) -> float:
    if math.isinf(found := float(digits)):
        raise ForeignError("it contains {digits}, which is out of the range of a float", digits=digits[:20])
    return found


def _no_number(name: str) -> NoReturn:
    raise ForeignError("it is not valid JSON ({name} is not a finite number)", name=name)


def _require_sound(value: Any) -> None:
    """Raise ForeignError if a value is nested too deeply, or contains text that cannot be encoded."""
    waiting = [(value, 1)]
    while waiting:
        one, depth = waiting.pop()
        if depth > DEEPEST:
            raise ForeignError("it has more than {deepest} nested lists", deepest=DEEPEST)
        if isinstance(one, dict):
            waiting += [(part, depth + 1) for item in one.items() for part in item]
        elif isinstance(one, list):
            waiting += [(part, depth + 1) for part in one]
        elif isinstance(one, str) and not one.isascii() and any("\ud800" <= letter <= "\udfff" for letter in one):
            raise ForeignError("it contains an incomplete character (a lone surrogate)")
