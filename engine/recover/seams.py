"""Where a plan can be repaired, and on which of the practice texts."""

from engine.types import Plan

_HELD_OUT = 3  # every third pack chooses, the others are fitted


def seams(plan: Plan) -> tuple[tuple[int, int], ...]:
    """Return (place, point) of every seam: the block, and the source's point that its output stands for."""
    ends = [block.home for block in plan.blocks[1:]] + [plan.source_depth]
    return tuple(
        (place, end)
        for place, (block, end) in enumerate(zip(plan.blocks, ends, strict=True))
        if end != block.home + 1 or block.mix != ((block.home, 1.0),)
    )


def held_out(packs: int) -> tuple[int, ...]:
    """Return which of so many packs a repair is not fitted to."""
    return tuple(range(0, packs, _HELD_OUT))


def held_share(packs: int) -> float:
    """Return the share of so many packs of one size that is held out."""
    return len(held_out(packs)) / packs
