"""Time and memory of the width and weight studies, as ratios within one run: importance, Wanda, the memory of GBLM."""

import copy
import time
from collections.abc import Callable

import torch

from engine.jobs import drain
from engine.judge.cost import practice_texts
from engine.judge.practice import practice_packs
from engine.methods.masks.pruning import prune
from engine.methods.masks.selection import Wanted
from engine.models.families import blocks_of
from engine.models.texts import Pack
from engine.passes.sums import Sums
from engine.passes.walk import Walk
from engine.plans.rules import untouched
from engine.plans.tensor_store import for_now
from engine.types import Model
from tests import naive_masks as naive

Row = Callable[[str, str, str, bool], None]
_PRUNES = """
from engine.jobs import drain
from engine.judge.cost import practice_texts
from engine.judge.practice import practice_packs
from engine.methods.masks.pruning import prune
from engine.methods.masks.selection import Wanted
from engine.models.loading import open_model
from engine.models.sources import parse_source
from engine.plans.tensor_store import for_now
from engine.plans.rules import untouched
if {method!r}:
    model = drain(open_model(parse_source("demo")))
    with for_now():
        drain(prune(model, untouched(30), practice_packs(model, practice_texts("english"), 1500), {method!r}, Wanted(0.5)))
"""


def lab(model: Model, row: Row, peak: Callable[[str], int]) -> None:
    """Measure all of it; `peak` tells the most resident bytes of a fresh interpreter that runs a script."""
    packs = practice_packs(model, practice_texts("english"), 4000)
    _importance(model, packs, row)
    _wanda(model, packs[:6], row)
    _memory(model, row, peak)


def _importance(model: Model, packs: tuple[Pack, ...], row: Row) -> None:
    def plain() -> None:
        with torch.no_grad():
            for pack in packs:
                model.network.base_model(input_ids=pack.ids, position_ids=pack.positions, use_cache=False)

    def summed(gram: torch.dtype | None) -> None:
        walk, blocks = Walk(model, packs, untouched(30).blocks), untouched(30).blocks
        for block in blocks:
            seen: dict[str, Sums] = {}

            def see(name: str, x: torch.Tensor, pack: Pack, seen: dict[str, Sums] = seen) -> None:
                consumer = name in ("self_attn.o_proj", "mlp.down_proj")
                seen.setdefault(name, Sums(x.shape[1], gram if consumer else None)).add(x, pack)

            drain(walk.step(block, see))

    plain()
    times = [[_timed(plain), _timed(lambda: summed(None)), _timed(lambda: summed(torch.float32))] for _ in range(3)]
    for place, what, bar in ((1, "importance of all activation axes", 1.3), (2, "with the Gram matrices of the consumers", 2.2)):
        ratio = sorted(one[place] / one[0] for one in times)[1]
        row(f"{what} / a plain forward, {sum(p.ids.shape[1] for p in packs)} tokens", f"{ratio:.2f}", f"<= {bar}", ratio <= bar)


def _wanda(model: Model, packs: tuple[Pack, ...], row: Row) -> None:
    """Ours beside a transcription with hooks: seven hooks, one text at a time, two full passes, a Python sort for each row."""
    texts = [pack.ids[:, start:stop] for pack in packs for _, start, stop in pack.spans]

    def ours() -> None:
        with for_now():
            drain(prune(model, untouched(30), packs, "wanda", Wanted(0.5)))

    network = copy.deepcopy(model.network)
    ratio = _timed(ours) / _timed(lambda: _hooked(network, texts))
    row(f"Wanda / a hook transcription, {sum(text.shape[1] for text in texts)} tokens", f"{ratio:.2f}", "<= 0.5", ratio <= 0.5)


@torch.no_grad()
def _hooked(network: torch.nn.Module, texts: list[torch.Tensor]) -> None:
    states, calls = [], []

    def caught(_module: torch.nn.Module, args: tuple[torch.Tensor, ...], kwargs: dict[str, torch.Tensor]) -> None:
        states.append(args[0] if args else kwargs.pop("hidden_states"))
        calls.append(kwargs)

    hook = blocks_of(network)[0].register_forward_pre_hook(caught, with_kwargs=True)
    for ids in texts:
        network(input_ids=ids, use_cache=False)
    hook.remove()
    for block in blocks_of(network):
        found = {name: torch.zeros(module.in_features) for name, module in naive.projections(block).items()}

        def add(name: str, count: list[int], x: torch.Tensor, found: dict[str, torch.Tensor] = found) -> None:
            found[name] += x[0].float().norm(dim=0) ** 2
            count[0] += 1

        hooks = [
            module.register_forward_pre_hook(lambda _m, args, name=name, add=add: add(name, [0], args[0]))
            for name, module in naive.projections(block).items()
        ]
        for state, call in zip(states, calls, strict=True):
            block(state, **call)
        for one in hooks:
            one.remove()
        for name, module in naive.projections(block).items():
            scores = module.weight.abs() * (found[name] / len(texts)).sqrt()
            for line, weights in zip(scores.tolist(), module.weight, strict=True):
                order = sorted(range(len(line)), key=line.__getitem__)[: len(line) // 2]
                weights[order] = 0.0
        states = [_state(block(state, **call)) for state, call in zip(states, calls, strict=True)]


def _state(output: object) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output  # type: ignore[return-value]


def _memory(model: Model, row: Row, peak: Callable[[str], int]) -> None:
    """The peak of the whole process for full gradients; for block-local ones what is above the interpreter and its libraries, which
    beside so small a model are most of the rest."""
    weights = sum(parameter.numel() * 4 for parameter in model.network.parameters())
    full, local, bare = (peak(_PRUNES.format(method=method)) / weights for method in ("gblm", "gblm-local", ""))
    row(
        f"GBLM: peak resident memory / the model's float32 bytes ({full - bare:.2f} above the interpreter)",
        f"{full:.2f}",
        "<= 3.5",
        full <= 3.5,
    )
    own = local - bare
    row(f"block-local GBLM: the same above the interpreter ({local:.2f} with it)", f"{own:.2f}", "<= 1.6", own <= 1.6)


def _timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
