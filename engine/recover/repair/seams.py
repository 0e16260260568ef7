"""The seams of a plan, where it can be repaired, and the practice texts held out from a repair."""

from engine.types import Plan

_HELD_OUT = 3  # every third pack is held out


def seams(plan: Plan) -> tuple[tuple[int, int], ...]:
    """Return (place, point) of every seam: the block, and the source's point that its output replaces."""
    ends = [block.home for block in plan.blocks[1:]] + [plan.source_depth]
    return tuple(
        (place, end)
        for place, (block, end) in enumerate(zip(plan.blocks, ends, strict=True))
        if end != block.home + 1 or block.mix != ((block.home, 1.0),)
    )


def held_out(packs: int) -> tuple[int, ...]:
    """Return the indices of the packs that are held out from a repair."""
    return tuple(range(0, packs, _HELD_OUT))


def held_share(packs: int) -> float:
    """Return the held-out share of `packs` packs of equal size."""
    return len(held_out(packs)) / packs
