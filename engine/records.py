"""Records as JSON: a record is written as its fields, and read back by pydantic in strict mode.

Importing pydantic takes a tenth of a second, so it is imported only when something is read.
"""

import json
import math
from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from engine.untrusted import ForeignError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")


class _NullAsNaN:
    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(lambda value: math.nan if value is None else value, handler(source))


class _Count:
    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.int_schema(ge=0, lt=2**63)


class _Fingerprint:
    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.str_schema(pattern="^([0-9a-f]{64})?$")


FloatOrNaN = Annotated[float, _NullAsNaN()]  # may be NaN or infinite; in JSON both are null, which is read as NaN
Count = Annotated[int, _Count()]  # 0 or more, of at most 63 bits
Fingerprint = Annotated[str, _Fingerprint()]  # a SHA-256, or "" for none


@cache
def _adapter(kind: Any) -> "TypeAdapter[Any]":
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def to_json(record: Any) -> Any:
    """Return a record as JSON values; figures that are NaN or infinite become None."""
    from engine.cache import plain

    return plain(asdict(record))


def from_json(kind: type[T], value: Any, others: Literal["ignore", "forbid"] = "ignore") -> T:
    """Return the record of a type that JSON values describe; `others` says whether unknown keys are ignored or forbidden.

    Raises:
        ForeignError: a value is missing or of another type; the message names it.
    """
    from pydantic import ValidationError

    try:
        return _adapter(kind).validate_json(json.dumps(value), strict=True, extra=others)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where, reason = " ".join(map(str, first["loc"]))[:200] or "the file", first["msg"]
        if first["type"] != "missing" and not isinstance(first["input"], dict | list):
            reason += f", not {json.dumps(first['input'])[:80]}"
        raise ForeignError("{where}: {reason}", where=where, reason=reason) from error
