"""Other acceptance measures for Algorithm 1, which LaCo (2402.11187) tried before it chose the cosine.

The paper reports that the KL divergence stays near 0 and CKA near 1 for every fold, so that neither separates plans. Each meter here
replaces a `SimilarityMeter` in `propose` and `frontier` and shares its pass over the source.
"""

import math
from functools import cached_property
from typing import ClassVar

import torch

from engine.cache import Definition
from engine.errors import TextError
from engine.judge.similarity import SimilarityMeter
from engine.measurements import Measurements
from engine.models.devices import exact
from engine.passes.forward import Capture, normed, resume
from engine.passes.logits import SourceLogs, divergence
from engine.types import Block

_FEWEST = 3  # tokens: CKA is undefined for one token, and always 1 for two


class AcceptanceMeter(SimilarityMeter):
    """A measure with one value per text, returned for both definitions of similarity: higher is more alike.

    It shares the captures, mixed blocks and trails of `cosine`, and stores its values under a key of its own.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1  # version of the formula

    def __init__(self, cosine: SimilarityMeter) -> None:
        super().__init__(cosine.model, cosine.calibration)
        self._cosine = cosine
        self._mixer = cosine._mixer
        self._measured = Measurements(self.key_of(Definition(f"acceptance-{self.name}", self.version)))

    @cached_property
    def captures(self) -> tuple[Capture, ...]:
        """The cosine meter's pass over the source."""
        return self._cosine.captures

    def keep_trails(self) -> None:
        """See `SimilarityMeter.keep_trails`; the states along a plan do not depend on the measure."""
        self._cosine.keep_trails()
        self._trails = self._cosine._trails

    @torch.no_grad()
    def _run(self, blocks: tuple[Block, ...], prefix: int) -> list[list[float | None]]:
        values: list[float | None] = []
        for record in self.captures:
            final = normed(self.model, resume(self.model, self._mixer, record, blocks, prefix, self._trails), blocks)
            for text, start, stop in record.pack.spans:
                if stop - start >= self._fewest():
                    value = self._value(text, record.final[0, start:stop], final[0, start:stop])
                    values.append(value if math.isfinite(value) else None)
        return [values, values]

    def _fewest(self) -> int:
        return 1

    def _value(self, text: int, source: torch.Tensor, plan: torch.Tensor) -> float:
        """Compare one text's final states [tokens, hidden]; NaN if they cannot be compared."""
        raise NotImplementedError


class KLMeter(AcceptanceMeter):
    """exp(-KL), in (0, 1], where KL is the divergence of a plan's next-token distribution from the source's over the text's tokens, in nats
    per token.

    T is then exp of minus the allowed nats per token: 0.9 allows 0.105, 0.5 allows 0.693. Algorithm 1 takes the mean over texts of
    exp(-KL), which is never below exp of minus the mean KL.
    """

    name = "kl"

    def __init__(self, cosine: SimilarityMeter) -> None:
        super().__init__(cosine)
        self._source = SourceLogs(cosine.model)

    def _value(self, text: int, source: torch.Tensor, plan: torch.Tensor) -> float:
        nats = sum(float(exact(divergence(p, q)).sum()) for p, q in self._source.paired(text, source, plan)) / len(source)
        return math.exp(-max(nats, 0.0)) if math.isfinite(nats) else math.nan


class CKAMeter(AcceptanceMeter):
    """Linear CKA (Kornblith et al. 2019, 1905.00414) of the final states (after the final norm) over a text's tokens.

    Texts of one or two tokens are left out, because their CKA carries no information.

    Raises:
        TextError: no text has three tokens.
    """

    name = "cka"

    def __init__(self, cosine: SimilarityMeter) -> None:
        super().__init__(cosine)
        if all(stop - start < _FEWEST for pack in self._packs for _, start, stop in pack.spans):
            raise TextError(
                "no text of {calibration_name} has {fewest} tokens, which CKA needs; write longer texts",
                calibration_name=self.calibration.name,
                fewest=_FEWEST,
            )

    def _fewest(self) -> int:
        return _FEWEST

    def _value(self, text: int, source: torch.Tensor, plan: torch.Tensor) -> float:
        return float(linear_cka(source, plan))


def linear_cka(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the linear CKA of [tokens, features] states, centred per feature: |B'A|^2 / (|A'A| |B'B|), in float64.

    It is computed from the tokens' Gram matrices, because a text has fewer tokens than a state has features. NaN if all tokens' states are
    equal. Source: Kornblith et al. 2019, 1905.00414, section 3.
    """
    x, y = (states - states.mean(0) for states in (exact(a), exact(b)))
    k, l = x @ x.T, y @ y.T
    return ((k * l).sum() / (k.norm() * l.norm())).clamp(0.0, 1.0)


METERS: dict[str, type[AcceptanceMeter]] = {meter.name: meter for meter in (KLMeter, CKAMeter)}
