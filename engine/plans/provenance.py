"""How each part of a plan was made, from the plan itself: method, settings, texts, and whether weights were refitted."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from engine.types import Part, Plan

_TOLD = ("texts", "practice", "practice_tokens", "tokens", "refit")  # settings shown in separate fields, and fingerprints


@dataclass(frozen=True, slots=True)
class Made:
    """How one part was made: "depth", "width" or "masks".

    `texts` names the texts its method read, `tokens` how many tokens of them; "" and None where it read none or did not record it. `refit`
    is true where weights of this part were refitted.
    """

    part: str
    method: str
    settings: tuple[tuple[str, Any], ...]
    texts: str
    tokens: int | None
    refit: bool


def made(plan: Plan) -> tuple[Made, ...]:
    """Return how each part of a plan was made, in order."""
    solved = {
        "depth": any(block.refits for block in plan.blocks),
        "width": any(block.trim.refits for block in plan.blocks if block.trim),
        "masks": False,  # a method that changes weights has another name
    }
    return tuple(_made(name, part, solved[name]) for name, part in parts(plan))


def parts(plan: Plan) -> Iterator[tuple[str, Part]]:
    """Yield the parts that a plan has, by name."""
    yield "depth", Part(plan.method, plan.settings)
    if plan.width is not None:
        yield "width", plan.width
    if plan.masks is not None:
        yield "masks", plan.masks


def _made(name: str, part: Part, refit: bool) -> Made:
    facts = dict(part.settings)
    tokens = facts.get("practice_tokens", facts.get("tokens"))
    settings = tuple((key, value) for key, value in part.settings if key not in _TOLD)
    return Made(name, part.method, settings, str(facts.get("texts", "")), tokens, refit)
