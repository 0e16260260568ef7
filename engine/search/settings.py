"""Settings of a search or a sweep: target, time, and options. Imports no torch."""

from dataclasses import dataclass, field

from engine.errors import SettingsError
from engine.methods.depth.baselines import require_target
from engine.settings import Action, control

SURVIVORS = ("keep-first", "reference", "mean")
MEASURED = 10  # shapes that are measured
TARGETS = ("layers", "parameters", "memory")  # kinds of targets given by a single amount


@dataclass(frozen=True, slots=True)
class Target:
    """The target of a plan; exactly one of the first three is given.

    `keep` layers, at most `parameters` parameters, or at most `bytes` bytes of weights and the KV cache of `batch` sequences of `context`
    tokens.
    """

    keep: int | None = field(default=None, metadata=control("layers to keep"))
    parameters: float | None = field(default=None, metadata=control("or: at most so many parameters"))
    bytes: float | None = None
    context: int = field(default=0, metadata=control("tokens in the KV cache", 0))
    batch: int = field(default=1, metadata=control("sequences of that length", 1))

    @classmethod
    def of(cls, kind: str, amount: float, context: int = 0) -> "Target":
        """Return a target of a kind in TARGETS: layers, millions of parameters, or megabytes including a KV cache."""
        if kind == "layers":
            return cls(keep=int(amount))
        return cls(bytes=amount * 1e6, context=context) if kind == "memory" else cls(parameters=amount * 1e6)

    def checked(self, depth: int) -> "Target":
        """Return this target, checked before any weight is read.

        Raises:
            SettingsError: no model of this depth can meet the target, or it is invalid.
        """
        if sum(value is not None for value in (self.keep, self.parameters, self.bytes)) != 1:
            raise SettingsError("name exactly one target: layers to keep, parameters, or gigabytes")
        if self.context < 0 or self.batch < 1:
            raise SettingsError(
                "the KV cache has {batch} sequences of {context} tokens; there must be at least 1 sequence and 0 tokens",
                batch=self.batch,
                context=self.context,
            )
        if self.keep is not None:
            require_target(depth, self.keep)
        return self


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """Settings of a search."""

    objective: str = field(default="kl", metadata=control("the objective to minimise"))
    seconds: float = field(default=120.0, metadata=control("time limit in seconds", 10, 600, 10))
    survivors: tuple[str, ...] = field(default=SURVIVORS, metadata=control("allowed survivors at a seam", choices=SURVIVORS))
    repair: bool = field(default=False, metadata=control("repair the best few plans and keep the best of them"))
    exhaustive: bool = field(
        default=False, metadata=control("try every plan and report how close the other methods come to the best; only for small models")
    )

    def checked(self) -> "SearchSettings":
        """Return these settings.

        Raises:
            SettingsError: the time is not positive, or a survivor is unknown.
        """
        if not self.seconds > 0:
            raise SettingsError("a search needs a positive time limit; got {seconds} seconds", seconds=self.seconds)
        if unknown := set(self.survivors) - set(SURVIVORS):
            raise SettingsError(
                "unknown survivors {unknown}; choose from {choices}", unknown=", ".join(sorted(unknown)), choices=", ".join(SURVIVORS)
            )
        return self


@dataclass(frozen=True, slots=True)
class SweepSettings:
    """Settings of a sweep over all rules, C and I."""

    seconds: float | None = field(
        default=None, metadata=control("time limit in seconds; without it, until everything is measured", 10, 3600, 10)
    )

    def checked(self) -> "SweepSettings":
        """Return these settings.

        Raises:
            SettingsError: the time is not positive.
        """
        if self.seconds is not None and not self.seconds > 0:
            raise SettingsError("a sweep needs a positive time limit; got {seconds} seconds", seconds=self.seconds)
        return self


@dataclass(frozen=True, slots=True)
class ShapesSettings:
    """Settings of a search for shapes near a budget of parameters."""

    measured: int = field(default=MEASURED, metadata=control("how many of the most promising are measured", 1, 20, 1))
    refit: bool = field(default=True, metadata=control("refit the projections that read cut parts in those that are measured"))
    seconds: float = field(
        default=30.0, metadata=control("how long each depth's layers are searched for; 0 takes the estimates' own", 0, page=False)
    )
    speed: bool = field(default=True, metadata=control("time those that are measured, and the source"))


SEARCH = Action(
    "search", "Search for a better plan than the greedy ones, for a target; the best plan after --seconds is written.", SearchSettings
)
SWEEP = Action(
    "sweep",
    "Write every plan that Layer Collapse can reach (all rules, C and I), with its cost: the most layers first, then the cheapest. "
    "It goes best first, so that --seconds, or Ctrl-C, leaves the most useful plans written.",
    SweepSettings,
)
SHAPES = Action(
    "shapes",
    "Rank all legal shapes near a budget over depth, heads, neurons and channels, measure the best, and write them with a plan.",
    ShapesSettings,
)
