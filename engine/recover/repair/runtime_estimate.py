"""Estimate the work of a repair, and its time at the pace of the model's last passes.

Work is counted in parameters times tokens: a block's for each token it is run over, and the head's where next-token distributions are
needed. Solving for the maps is negligible.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.models.texts import PACK_TOKENS
from engine.passes.forward import work_of_pass
from engine.recover.repair.seams import held_share, seams
from engine.types import Model, Plan


@dataclass(frozen=True, slots=True)
class Effort:
    """The work of a repair: the passes over the source, the bare plan's score, and for each seam one fit and the evaluation of each of its
    `options`."""

    source: float
    bare: float
    fits: tuple[float, ...]
    judged: tuple[float, ...]
    options: int

    @property
    def total(self) -> float:
        """The total work."""
        return self.source + self.bare + sum(self.fits) + self.options * sum(self.judged)


def effort(model: Model, plan: Plan, options: int, tokens: int) -> Effort:
    """Return the work of repairing a plan on `tokens` practice tokens, with `options` candidate maps per seam."""
    blocks, head = _sizes(model, plan)
    held = tokens * held_share(-(-tokens // PACK_TOKENS))
    fitted, places = tokens - held, [place for place, _ in seams(plan)]
    starts = [min(plan.prefix, *places[:1]), *places[:-1]] if places else []
    fits = tuple(fitted * sum(blocks[start : place + 1]) for start, place in zip(starts, places, strict=True))
    judged = tuple(held * (sum(blocks[place:]) + head) for place in places)
    return Effort(work_of_pass(model, tokens), held * (sum(blocks[plan.prefix :]) + 2 * head), fits, judged, options)


def judging(model: Model, plan: Plan, tokens: int) -> float:
    """Return the work of evaluating a plan before and after repair on `tokens` tokens."""
    blocks, head = _sizes(model, plan)
    return work_of_pass(model, tokens) + tokens * (2 * sum(blocks[plan.prefix :]) + 3 * head)


def _sizes(model: Model, plan: Plan) -> tuple[Sequence[int], int]:
    return [model.spec.block_parameters[home] for home in plan.kept], model.network.get_output_embeddings().weight.numel()
