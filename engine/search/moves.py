"""The neighbours of a plan: other survivors at its seams, and swaps of kept and dropped layers."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

from engine.judge.objectives import Stage
from engine.judge.similarity import cosine
from engine.passes.forward import Capture
from engine.passes.sensitivity import Sensitivity
from engine.plans.description import runs
from engine.plans.rules import RULES
from engine.types import Block, Plan


def moves(base: Plan, sensitivity: Sensitivity, survivors: tuple[str, ...]) -> Iterator[tuple[Stage, Plan]]:
    """Yield other survivors at every seam, then shifts of runs of dropped layers by one, then all swaps by their estimate."""
    ends = [block.home for block in base.blocks[1:]] + [base.source_depth]
    for place, (block, end) in enumerate(zip(base.blocks, ends, strict=True)):
        group = [Block(layer, ((layer, 1.0),)) for layer in range(block.home, end)]
        for rule in survivors if len(group) > 1 else ():
            changed = RULES[rule].run(group)
            yield "survivor", replace(base, blocks=(*base.blocks[:place], changed, *base.blocks[place + 1 :]))
    kept = set(base.kept)
    gone = set(range(base.source_depth)) - kept
    for first, last in runs(sorted(gone)):  # shifts by one are the most promising neighbours
        for back, lost in ((first, last + 1), (last, first - 1)):
            if lost in kept:
                yield "swap", swapped(base, back, lost)
    swaps = [(sensitivity.without((gone - {back}) | {lost}), back, lost) for back in gone for lost in kept]
    for _, back, lost in sorted(swaps):
        yield "swap", swapped(base, back, lost)


def swapped(base: Plan, back: int, lost: int) -> Plan:
    """Return a plan in which layer `back` is restored and layer `lost` dropped; a survivor that involved one of them is undone."""
    blocks = {block.home: block for block in base.blocks if block.home != lost}
    for home, block in blocks.items():
        if any(home < layer <= block.mix[-1][0] for layer in (back,)) or block.mix[-1][0] == lost != home:
            blocks[home] = Block(home, ((home, 1.0),))
    blocks[back] = Block(back, ((back, 1.0),))
    return replace(base, blocks=tuple(blocks[home] for home in sorted(blocks)))


def double_swaps(base: Plan, sensitivity: Sensitivity) -> Iterator[tuple[Stage, Plan]]:
    """Yield two swaps at once, in the order of their estimate."""
    kept = set(base.kept)
    gone = set(range(base.source_depth)) - kept
    pairs = itertools.product(itertools.combinations(sorted(gone), 2), itertools.combinations(sorted(kept), 2))
    ranked = sorted((sensitivity.without((gone - set(back)) | set(lost)), back, lost) for back, lost in pairs)
    for _, back, lost in ranked:
        once = swapped(base, back[0], lost[0])
        yield "swap", swapped(once, back[1], lost[1])


def most_influential(records: Sequence[Capture], keep: int) -> tuple[int, ...]:
    """Return the `keep` layers with the highest block influence over some passes (2403.03853, eq. 1)."""
    turned = [
        -sum(float(cosine(*(record.states[point][0].float() for point in (layer, layer + 1))).sum()) for record in records)
        for layer in range(len(records[0].states) - 1)
    ]
    return tuple(sorted(sorted(range(len(turned)), key=lambda layer: turned[layer])[len(turned) - keep :]))
