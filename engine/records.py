"""The JSON of records. A record's is defined beside it, by a pydantic TypeAdapter of the record itself, and read in strict mode.

pydantic takes a tenth of a second to import, so that modules which every command imports name this one only inside functions.
"""

import json
import math
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, TypeAdapter, ValidationError

from engine.cache import plain
from engine.untrusted import ForeignError

T = TypeVar("T")

# A float that may be NaN or infinite. JSON has null for both, which is read as NaN.
Figure = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]


def to_json(adapter: TypeAdapter[T], record: T) -> Any:
    """Return a record as JSON values."""
    return plain(adapter.dump_python(record, mode="json", warnings=False))


def from_json(adapter: TypeAdapter[T], value: Any) -> T:
    """Return the record that JSON values describe; keys that it does not have are passed over.

    Raises:
        ForeignError: a value is missing or of another type; the message names it.
    """
    try:
        return adapter.validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = " ".join(map(str, first["loc"]))[:200]
        raise ForeignError("{where}: {reason}", where=where or "the file", reason=first["msg"]) from error
