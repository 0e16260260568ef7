"""Rules that fold a group of consecutive blocks into one. All are affine: the coefficients add up to 1."""

from collections.abc import Callable, Sequence

from engine.errors import PlanError
from engine.settings import Registry
from engine.types import Block, Plan

RULES: Registry[Callable[[Sequence[Block]], Block]] = Registry("rule")


def _compose(home: int, parts: Sequence[tuple[float, Block]]) -> Block:
    total: dict[int, float] = {}
    for weight, block in parts:
        for layer, coefficient in block.mix:
            total[layer] = total.get(layer, 0.0) + weight * coefficient
    return Block(home, tuple((layer, value) for layer, value in sorted(total.items()) if value != 0.0))


@RULES.register("reference", "the last layer's projections with the first layer's norms, as LaCo's code computes", reference="2402.11187")
def reference(group: Sequence[Block]) -> Block:
    """Return the last block's projections under the first block's norms: the result of LaCo's published code.

    Its loop adds (W_d - W) to W for each absorbed d, so each step overwrites the previous one (METHODS 1.2 of the project's notes; LaCo
    issue 5). We compute the result directly, without the loop's rounding errors.
    """
    return _compose(group[0].home, [(1.0, group[-1])])


@RULES.register("paper", "Eq. 1 as printed", reference="2402.11187")
def paper(group: Sequence[Block]) -> Block:
    """Return W + sum over absorbed d of (W_d - W): 2402.11187, Eq. 1 as printed. It equals `reference` for two blocks only."""
    return _compose(group[0].home, [(2.0 - len(group), group[0]), *((1.0, block) for block in group[1:])])


@RULES.register("mean", "the mean of the projections")
def mean(group: Sequence[Block]) -> Block:
    """Return the mean of the projections, under the first block's norms."""
    return _compose(group[0].home, [(1.0 / len(group), block) for block in group])


@RULES.register("keep-first", "the first layer whole, the others dropped")
def keep_first(group: Sequence[Block]) -> Block:
    """Return the first block unchanged; the others are dropped."""
    return group[0]


@RULES.register("keep-last", "the last layer whole, the others dropped")
def keep_last(group: Sequence[Block]) -> Block:
    """Return the last block unchanged; the others are dropped."""
    return group[-1]


def untouched(depth: int) -> Plan:
    """Return the plan that changes nothing in a model of this depth."""
    return Plan(depth, tuple(Block(layer, ((layer, 1.0),)) for layer in range(depth)), "untouched")


def fold(blocks: tuple[Block, ...], first: int, count: int, rule: str) -> tuple[Block, ...]:
    """Return blocks with `count` of them, starting at index `first`, folded into one by a rule."""
    if count < 2 or first < 0 or first + count > len(blocks):
        raise PlanError(
            "cannot fold {count} blocks from block {first} in a model of {depth} blocks", count=count, first=first, depth=len(blocks)
        )
    return (*blocks[:first], RULES.require(rule).run(blocks[first : first + count]), *blocks[first + count :])


def fold_spans(depth: int, spans: Sequence[tuple[int, int]], rule: str) -> Plan:
    """Return the plan that folds each span (first, last) of source layers, both included; overlapping spans are joined.

    Raises:
        PlanError: a span is outside the model or has fewer than two layers.
    """
    joined: list[list[int]] = []
    for first, last in sorted(spans):
        if not (0 <= first < last < depth):
            raise PlanError(
                "a fold must span at least two layers between 0 and {depth}; got {first} to {last}", depth=depth - 1, first=first, last=last
            )
        if joined and first <= joined[-1][1]:
            joined[-1][1] = max(last, joined[-1][1])
        else:
            joined.append([first, last])
    blocks = untouched(depth).blocks
    for first, last in reversed(joined):
        blocks = fold(blocks, first, last - first + 1, rule)
    return Plan(depth, blocks, "hand-made", (("rule", rule), ("spans", tuple(map(tuple, joined)))))
