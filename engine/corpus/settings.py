"""Settings of the text that the source writes, and of the weighting of domains. Imports no torch."""

from dataclasses import dataclass, field
from typing import Literal

from engine.errors import SettingsError
from engine.settings import Action, control

Update = Literal["as printed", "as coded"]  # of a mixture of domains; see engine/corpus/domains.py
UPDATES: tuple[Update, ...] = ("as printed", "as coded")


@dataclass(frozen=True, slots=True)
class WritingSettings:
    """The amount of text that the source writes: about `tokens` tokens, in documents of at most `length`, `together` at once."""

    tokens: int = field(default=30_000, metadata=control("number of tokens to write; the last document is completed", 1))
    seed: int = field(default=0, metadata=control("random seed; the same seed writes the same text", 0))
    length: int = 256
    together: int = 32

    @property
    def batch(self) -> tuple[int, int]:
        """The number of documents written at once, and the most tokens of each: no more than requested."""
        return min(self.together, -(-self.tokens // self.length)), min(self.length, self.tokens)

    def checked(self) -> "WritingSettings":
        """Return these settings.

        Raises:
            SettingsError: fewer than 1 token is requested, or the seed is negative.
        """
        if min(self.tokens, self.length, self.together) < 1 or self.seed < 0:
            raise SettingsError(
                "the source cannot write {tokens} tokens with seed {seed}; choose at least 1 token and a seed of at least 0",
                tokens=self.tokens,
                seed=self.seed,
            )
        return self


WRITE = Action(
    "write", "Let a model write text of its own to train on, sampled at temperature 1 from the beginning of a text.", WritingSettings
)
