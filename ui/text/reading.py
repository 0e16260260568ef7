"""Read the terminal's JSON files again. A user may have edited them, so every figure is checked: present, of its type, finite."""

from typing import TYPE_CHECKING, Annotated, Any, Self, TypeAlias, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, model_validator

from engine.errors import LayerscopeError
from engine.judge.evaluation import Protocol, TextScore
from engine.judge.memory import Memory
from engine.judge.speed import Speed
from engine.methods.depth.laco import Trial

_Count = Annotated[int, Field(ge=0, lt=2**63)]
_Figure = float | None  # None stands for what is no number


class _Told(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


def _like(record: type, figure: Any = float) -> Any:
    """Return what the JSON of one of our records is like, its figures of a type."""
    kinds = {int: _Count, float: figure}
    fields: dict[str, Any] = {name: (kinds.get(kind, kind), ...) for name, kind in get_type_hints(record).items()}
    return create_model(record.__name__, __base__=_Told, **fields)


if TYPE_CHECKING:
    _PROTOCOL: TypeAlias = _Told
    _TEXT: TypeAlias = _Told
    _TRIAL: TypeAlias = _Told
    _SPEED: TypeAlias = _Told
    _MEMORY: TypeAlias = _Told
else:
    _PROTOCOL, _TEXT, _TRIAL, _SPEED, _MEMORY = (
        _like(Protocol),
        _like(TextScore, _Figure),
        _like(Trial, _Figure),
        _like(Speed),
        _like(Memory),
    )


class _Perplexity(_Told):
    source: _Figure
    plan: _Figure
    ratio: _Figure
    interval: tuple[_Figure, _Figure]


class _Evaluation(_Told):
    perplexity: _Perplexity
    kl: _Figure
    top1_agreement: _Figure
    cosine: _Figure
    protocol: _PROTOCOL
    texts: list[_TEXT]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        """A plan that can be judged has every figure."""
        if self.perplexity.plan is not None and None in (self.perplexity.source, self.perplexity.ratio, self.kl, self.top1_agreement):
            raise ValueError("a figure is missing")
        return self


class _Proposal(BaseModel):
    trials: list[_TRIAL]


class _Gains(BaseModel):
    speed: _SPEED | None
    memory: _MEMORY


def trials_from_json(value: Any) -> list[dict[str, Any]]:
    """Return the trials in what `propose` wrote.

    Raises:
        LayerscopeError: it is something else.
    """
    return _read(_Proposal, value, "propose").model_dump()["trials"]


def evaluation_from_json(value: Any) -> dict[str, Any]:
    """Return what `evaluate` wrote.

    Raises:
        LayerscopeError: it is something else.
    """
    return _read(_Evaluation, value, "evaluate").model_dump()


def gains_from_json(value: Any) -> dict[str, Any]:
    """Return the speed and the memory that `measure` wrote, those that it measured.

    Raises:
        LayerscopeError: it is something else.
    """
    return _read(_Gains, value, "measure").model_dump(exclude_none=True)


def _read(kind: type[BaseModel], value: Any, verb: str) -> BaseModel:
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = " ".join(map(str, first["loc"])) or "the file"
        raise LayerscopeError(
            "this is not what {verb} writes: {where}: {reason}", verb=verb, where=where[:200], reason=first["msg"]
        ) from error
