"""Cache the states along the candidates of Algorithm 1, up to the points where later candidates branch off.

Algorithm 1 restarts from the top repeatedly. A candidate at a pointer differs from the previous one at that pointer only further up, so the
states up to there can be reused. In the single queue of `Trails`, the candidates of a deep model evict each other before they are reused;
here each pointer has its own recent paths.
"""

from collections import Counter, OrderedDict
from dataclasses import dataclass, field

import torch

from engine.passes.forward import Capture, Trails
from engine.types import Block

_KEPT = 32  # paths that start with the same fold
_SPARSEST = 8  # at least one in this many states along a path is kept, until whole paths are evicted


@dataclass(eq=False, slots=True)
class _Path:
    """Blocks run one after another, and the states after some of them, by the number of blocks."""

    blocks: tuple[Block, ...]
    states: dict[int, torch.Tensor] = field(default_factory=dict)


class FoldTrails(Trails):
    """`Trails` with paths grouped by where they leave the source. It holds at most `budget` bytes: beyond that every other state is
    evicted, and finally the least recently used paths."""

    def __init__(self, budget: int) -> None:
        super().__init__(budget)
        self._paths: OrderedDict[tuple[int, int, Block], list[_Path]] = OrderedDict()
        self._held: Counter[int] = Counter()  # how many paths hold a state, by its id
        self._stride = 1
        self._now: _Path | None = None

    def longest(self, record: Capture, blocks: tuple[Block, ...], start: int, state: torch.Tensor) -> tuple[int, torch.Tensor]:
        """See `Trails.longest`; the next calls of `leave` continue this path."""
        self._now = None
        if start >= len(blocks):
            return start, state
        key = (id(record), start, blocks[start])
        paths = self._paths.setdefault(key, [])
        self._paths.move_to_end(key)
        self._now = path = self._branch(paths, blocks)
        place = max(path.states, default=start)
        return (place, path.states[place]) if place > start else (start, state)

    def leave(self, record: Capture, leading: tuple[Block, ...], state: torch.Tensor) -> None:
        """See `Trails.leave`."""
        if self._now is None:
            return
        self._now.blocks = leading
        if len(leading) % self._stride == 0:
            self._hold(self._now, len(leading), state)
        while self._bytes > self._budget:
            self._shrink()

    def _branch(self, paths: list[_Path], blocks: tuple[Block, ...]) -> _Path:
        """Return a path that begins like these blocks, now the last of `paths`; the path it branches from is kept unless it ends there."""
        shared = [_shared(path.blocks, blocks) for path in paths]
        best = max(range(len(paths)), key=shared.__getitem__, default=None)
        if best is None:
            paths.append(_Path(()))
            return paths[-1]
        old = paths.pop(best)
        paths.append(old)
        if len(old.blocks) > shared[best]:
            paths.append(_Path(blocks[: shared[best]]))
            for place in [place for place in old.states if place <= shared[best]]:
                self._hold(paths[-1], place, old.states[place])
        while len(paths) > _KEPT:
            self._drop(paths.pop(0))
        return paths[-1]

    def _hold(self, path: _Path, place: int, state: torch.Tensor) -> None:
        if place in path.states:
            self._let_go(path, place)
        path.states[place] = state
        self._bytes += 0 if self._held[id(state)] else state.nbytes
        self._held[id(state)] += 1

    def _let_go(self, path: _Path, place: int) -> None:
        state = path.states.pop(place)
        self._held[id(state)] -= 1
        if not self._held[id(state)]:
            del self._held[id(state)]
            self._bytes -= state.nbytes

    def _drop(self, path: _Path) -> None:
        for place in list(path.states):
            self._let_go(path, place)

    def _shrink(self) -> None:
        """Free memory: evict every other state, or else the least recently used paths."""
        if self._stride < _SPARSEST:
            self._stride *= 2
            for path in [path for paths in self._paths.values() for path in paths]:
                for place in [place for place in path.states if place % self._stride]:
                    self._let_go(path, place)
            return
        _, paths = self._paths.popitem(last=False)
        for path in paths:
            self._drop(path)
        self._now = None if self._now in paths else self._now


def _shared(a: tuple[Block, ...], b: tuple[Block, ...]) -> int:
    """Return how many leading blocks two paths share."""
    return next((place for place, (x, y) in enumerate(zip(a, b, strict=False)) if x is not y and x != y), min(len(a), len(b)))
