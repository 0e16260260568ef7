"""Settings of a pruning. Imports no torch."""

from dataclasses import dataclass, field

from engine.settings import Action, control

GROUPS = ("output", "layer", "global")
PATTERNS = ("2:4", "4:8")  # those that the page offers


@dataclass(frozen=True, slots=True)
class PruneSettings:
    """Settings of a pruning: the method, and either a sparsity or a pattern. `group` is the set of competing weights; None is the method's
    own."""

    method: str = field(default="wanda", metadata=control("the score by which weights are chosen"))
    sparsity: float | None = field(default=None, metadata=control("the share of the projections' weights to make zero"))
    pattern: str | None = field(default=None, metadata=control("or: so many of every few in a row, such as 2:4 or 4:8"))
    group: str | None = field(
        default=None, metadata=control(f"which weights compete: {', '.join(GROUPS)}; left out, the method's own", choices=GROUPS)
    )


PRUNE = Action(
    "prune", "Write a plan whose projections have zeros, in place of the masks it had; its tensors lie next to it.", PruneSettings
)
