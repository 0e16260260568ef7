"""Files that come from elsewhere, read so that whatever they hold is known before anybody works with it: regular files alone, of a size
that is bounded, UTF-8, and JSON without what JSON cannot mean (NaN, a number beyond all floats, half a character, lists
too deep to walk).

Every reader of such a file begins here, and says in its own error what is wrong."""

import json
import math
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

SMALL = 16 << 20  # bytes: configs, cards, plans, indices
LARGE = 256 << 20  # bytes: tokenizers, and what verbs write of many plans
_DIGITS = 300  # of whole numbers, so that each has a float; tokenizers write 1e30 in full
DEEPEST = 64  # lists and objects in one another


class ForeignError(ValueError):
    """What is wrong with a file, in words that follow "cannot be read:"."""


def real_path(path: str | Path) -> Path:
    """Return where a path leads, "~" and links followed: as far as that is known, for somebody's home may be nowhere, and links may go
    round in circles.

    Raises:
        ValueError: it is no path at all.
    """
    path = Path(path)
    with suppress(RuntimeError):
        path = path.expanduser()
    return Path(os.path.realpath(path))  # Path.resolve raises on circles


def require_regular(path: Path, most: int | None = None) -> int:
    """Return how many bytes a file has.

    Raises:
        ForeignError: it is no regular file (a pipe and a device may never end), or has more than `most` bytes. OSError: as open does.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ForeignError("it is a folder" if stat.S_ISDIR(status.st_mode) else "it is a pipe or a device")
    if most is not None and status.st_size > most:
        raise ForeignError(f"it has {status.st_size / 1e6:.0f} MB, and at most {most / 1e6:.0f} MB are read")
    return status.st_size


def text_in(path: Path, most: int = SMALL) -> str:
    """Return the text of a UTF-8 file, without its byte order mark.

    Raises:
        ForeignError: as `require_regular`, or it is not UTF-8. OSError: it cannot be read.
    """
    require_regular(path, most)
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ForeignError(f"it is not UTF-8 (byte {error.start})") from error


def json_of(text: str) -> Any:
    """Return the JSON value that a text holds.

    Raises:
        ForeignError: it is no JSON, or holds NaN, a number beyond what a float can be, half a character, or more than DEEPEST lists in
            one another.
    """
    try:
        value = json.loads(text, parse_constant=_no_number, parse_int=_whole, parse_float=_fraction)
    except ForeignError:
        raise
    except (ValueError, RecursionError) as error:
        raise ForeignError(f"it is no JSON ({str(error)[:100]})") from error
    _require_sound(value)
    return value


def json_in(path: Path, most: int = SMALL) -> Any:
    """Return the JSON value in a file; see `text_in` and `json_of`."""
    return json_of(text_in(path, most))


def object_in(path: Path, most: int = SMALL) -> dict[str, Any]:
    """Return the JSON object in a file; see `json_in`.

    Raises:
        ForeignError: it is another value.
    """
    value = json_in(path, most)
    if not isinstance(value, dict):
        raise ForeignError("it is no JSON object")
    return value


def _whole(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise ForeignError(f"it holds a number of {len(digits)} digits")
    return int(digits)


def _fraction(digits: str) -> float:
    if math.isinf(found := float(digits)):
        raise ForeignError(f"it holds {digits[:20]}, which is beyond what a float can be")
    return found


def _no_number(name: str) -> NoReturn:
    raise ForeignError(f"it is no JSON ({name} is no finite number)")


def _require_sound(value: Any) -> None:
    """Raise ForeignError where a value is too deep to walk, or holds text that cannot be written again."""
    waiting = [(value, 1)]
    while waiting:
        one, depth = waiting.pop()
        if depth > DEEPEST:
            raise ForeignError(f"it has more than {DEEPEST} lists in one another")
        if isinstance(one, dict):
            waiting += [(part, depth + 1) for item in one.items() for part in item]
        elif isinstance(one, list):
            waiting += [(part, depth + 1) for part in one]
        elif isinstance(one, str) and not one.isascii() and any("\ud800" <= letter <= "\udfff" for letter in one):
            raise ForeignError("it holds half a character (a lone surrogate)")
