"""Settings of a recovery, with their defaults. Imports no torch."""

from dataclasses import dataclass, field
from typing import Literal

from engine.corpus.settings import UPDATES, Update
from engine.errors import SettingsError
from engine.settings import Action, control

TEACHERS = ("auto", "live", "stored")
TRACKED = ("none", "trackio", "tensorboard", "wandb")  # see engine/recover/run/tracking.py, which imports torch
LANGUAGES = ("english", "korean")  # of the bundled texts; see engine/models/texts.py, which imports torch
# The highest learning rate, by the student's number of parameters: the first was measured on the demo, the others follow Minitron's rule, a
# fifth of the rate used to train such models from scratch.
_RATES = ((3e8, 3e-4), (2e9, 1e-4), (float("inf"), 5e-5))
_LORA_RATES = ((1e9, 2e-3), (float("inf"), 5e-4))
_ROWS, _LENGTH = control("rows of text per forward pass", 1), control("tokens per row", 2)
_ACCUMULATE = control("forward passes whose gradients are accumulated per step", 1)
_EVERY = control("steps between evaluations on the held-out text of each domain", 1)
_UPDATE_OR_NOT = control(
    "domain weighting: read more of the domains whose loss is furthest above the reference. A domain below it keeps "
    "its weight (as printed in the paper) or gets a lower one (as coded); none: all domains in equal parts",
    choices=("none", *UPDATES),
)
_REFERENCES = control("the reference loss of each domain in nats per token; default: the source's loss", page=False)
_OWN = control("tokens that the source writes for the text self", 1)


@dataclass(frozen=True, slots=True)
class RecoverySettings:
    """Settings of a recovery. Its budget is either `minutes` or `tokens`."""

    train: str = field(default="all", metadata=control("trained parameters: all, lora, or seams"))
    loss: str | None = field(default=None, metadata=control("kl, ce, cosine, mse, local, or a sum such as 0.5*kl+0.5*ce; default: kl"))
    minutes: float | None = field(
        default=None, metadata=control("budget in minutes; the number of steps is measured first", 0.0, page=False)
    )
    tokens: int | None = field(default=None, metadata=control("or: budget in tokens", 1, page=False))
    until: float | None = field(
        default=None,
        metadata=control("stop at this multiple of the source's perplexity on held-out text of the training kind", 1.0),
    )
    rate: float | None = field(
        default=None,
        metadata=control("peak learning rate; default: by size, 3e-4 below 0.3 billion parameters (lora: 2e-3)", 0.0),
    )
    rows: int = field(default=4, metadata=_ROWS)
    length: int = field(default=256, metadata=_LENGTH)
    accumulate: int = field(default=1, metadata=_ACCUMULATE)
    seed: int = field(default=0, metadata=control("random seed of the text order, of dropout, and of the text that the source writes", 0))
    own: int = field(default=30_000, metadata=_OWN)
    recompute: bool = field(default=False, metadata=control("recompute activations in the backward pass, which needs less memory"))
    teacher: str = field(
        default="auto",
        metadata=control("run the source with the student (live), or store its most likely tokens first (stored)", choices=TEACHERS),
    )
    top: int = field(default=64, metadata=control("stored tokens per position", 1))
    correct_teacher: float = field(
        default=0.0,
        metadata=control(
            "teacher correction: the share of the budget in which the source is fitted to the text first; not for text "
            "that it wrote itself",
            0.0,
            0.5,
            0.05,
        ),
    )
    update: Literal["none"] | Update = field(default="none", metadata=_UPDATE_OR_NOT)
    every: int = field(default=50, metadata=_EVERY)
    references: dict[str, float] | None = field(default=None, metadata=_REFERENCES)
    measure: bool = field(default=False, metadata=control("only measure the time of a step, then wait to be resumed", page=False))
    track: str = field(default="none", metadata=control("also send the metrics to a tracker", choices=TRACKED))
    language: str = field(default="english", metadata=control("language of the bundled evaluation texts", choices=LANGUAGES))

    def checked(self) -> "RecoverySettings":
        """Return these settings.

        Raises:
            SettingsError: there is not exactly one budget, or a value is invalid.
        """
        if (self.minutes is None) == (self.tokens is None):
            raise SettingsError("name one budget: minutes or tokens")
        if self.language not in LANGUAGES:
            raise SettingsError(
                "unknown language '{language}'; choose one of {choices}", language=self.language, choices=", ".join(LANGUAGES)
            )
        if self.teacher not in TEACHERS:
            raise SettingsError("unknown teacher '{teacher}'; choose one of {choices}", teacher=self.teacher, choices=", ".join(TEACHERS))
        if self.update not in ("none", *UPDATES):
            raise SettingsError(
                "unknown update '{update}'; choose one of {choices}", update=self.update, choices=", ".join(("none", *UPDATES))
            )
        if self.update != "none" and self.teacher == "stored":
            raise SettingsError(
                "the teacher's outputs cannot be stored while the proportions of domains change; omit --update, or use --teacher live"
            )
        _require_positive(self, "minutes", "tokens", "until", "rate", "rows", "accumulate", "own", "top", "every")
        if not 0 <= self.correct_teacher <= 0.5:
            raise SettingsError(
                "the share of the budget for teacher correction is {correct_teacher:g}; it must be between 0 and 0.5",
                correct_teacher=self.correct_teacher,
            )
        if not 0 <= self.seed < 1 << 31:
            raise SettingsError("the seed is {seed}; it must be between 0 and 2147483647", seed=self.seed)
        if self.until is not None and self.until < 1:
            raise SettingsError(
                "the target ratio is {until:g}; it must be at least 1 (the source's own perplexity), such as 1.2", until=self.until
            )
        return self

    def rate_for(self, parameters: int) -> float:
        """Return the highest learning rate for a student of `parameters` parameters."""
        table = _LORA_RATES if self.train == "lora" else _RATES
        return self.rate or next(rate for most, rate in table if parameters <= most)


@dataclass(frozen=True, slots=True)
class ShearSettings:
    """Settings of a shearing (see engine/recover/shear/shearing.py). Rates, schedule and loss are those of Sheared LLaMA's
    published runs."""

    tokens: int = field(default=100_000, metadata=control("training tokens", 1))
    loss: str = field(
        default="ce", metadata=control("cross entropy of the text (ce), KL from the source (kl), or a sum such as 0.5*kl+0.5*ce")
    )
    rate: float = field(default=1e-4, metadata=control("peak learning rate of the weights", 0.0))
    pull: float = field(default=1.0, metadata=control("peak learning rate of the masks and of the multipliers", 0.0))
    ramp: float = field(default=0.2, metadata=control("share of the steps in which the target decreases to its final value", 0.0, 1.0))
    settle: float = field(
        default=0.1, metadata=control("share of the last steps, with exact masks, in which only the weights are trained", 0.0, 1.0)
    )
    rows: int = field(default=4, metadata=_ROWS)
    length: int = field(default=256, metadata=_LENGTH)
    accumulate: int = field(default=1, metadata=_ACCUMULATE)
    seed: int = field(default=0, metadata=control("random seed of the text order, of the masks, and of the text that the source writes", 0))
    own: int = field(default=30_000, metadata=_OWN)
    every: int = field(default=50, metadata=_EVERY)
    update: Update = field(
        default="as printed",
        metadata=control(
            "whether a domain below its reference loss keeps its weight (as printed) or gets a lower one (as coded)", choices=UPDATES
        ),
    )
    references: dict[str, float] | None = field(default=None, metadata=_REFERENCES)

    def checked(self) -> "ShearSettings":
        """Return these settings.

        Raises:
            SettingsError: a value is invalid, or the update is unknown.
        """
        _require_positive(self, "tokens", "rate", "pull", "rows", "accumulate", "own", "every")
        if not (self.ramp >= 0 and self.settle >= 0 and self.ramp + self.settle < 1):
            raise SettingsError(
                "ramp is {ramp:g} and settle is {settle:g}; both are shares of the steps, at least 0 and together below 1",
                ramp=self.ramp,
                settle=self.settle,
            )
        if self.update not in UPDATES:
            raise SettingsError("unknown update '{update}'; choose one of {choices}", update=self.update, choices=", ".join(UPDATES))
        return self


def _require_positive(settings: RecoverySettings | ShearSettings, *names: str) -> None:
    """Raise SettingsError unless each of these settings is None or a finite number above 0."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and not 0 < value < float("inf"):
            raise SettingsError("{name} is {value:g}; it must be above 0", name=name, value=value)


RECOVER = Action(
    "recover",
    "Train a pruned model with its source as the teacher, and write a checkpoint of it. Exits 1 when a check fails.",
    RecoverySettings,
)
SHEAR = Action(
    "shear",
    "Learn which layers, heads, neurons and channels to leave out, down to a shape, and write a plan (Sheared LLaMA).",
    ShearSettings,
)
