"""FLAP's bias (An et al. 2023, 2312.11983): cut inputs are replaced by their mean, a constant that is added to a bias.

With x the input of a consumer (o_proj, down_proj), and P its cut elements,

    b += W_P mean(x_P),

the mean over the tokens of practice texts in the untrimmed plan, as in the published code. The family's stock class must have the bias:
gpt2 always has it; llama has it with attention_bias or mlp_bias, which are turned on (other biases of the same switch are zero); qwen3 and
gemma3_text have it only in attention; the other families have none.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch

from engine.cache import Definition
from engine.errors import SettingsError
from engine.jobs import Job, scaled
from engine.methods.width.refit import with_tensor
from engine.models.families import architecture_of, blocks_of
from engine.models.texts import Pack
from engine.passes.sums import Sums
from engine.passes.walk import Walk
from engine.plans.surgery import Mixer
from engine.types import Block, Model, Plan

BIAS = Definition("bias", 1)
_READ = {"heads": "query", "neurons": "neuron"}  # axes that have a consumer, by the families' names


def has_bias(model: Model, axis: str) -> bool:
    """Return whether the stock class has a bias that can compensate for pruned parts of an axis."""
    row = architecture_of(model.config)
    if axis not in _READ:
        return False
    name = row.reader_of(_READ[axis])
    native = blocks_of(model.network)[0].get_submodule(name).bias is not None
    return native or any(name in projections for projections in row.biases.values())


def require_biases(model: Model, axes: Iterable[str]) -> None:
    """Raise SettingsError if the stock class lacks a bias that could compensate for cutting these axes."""
    consumers = [axis for axis in axes if axis in _READ]
    if not consumers:
        raise SettingsError("a bias compensates for pruned heads or neurons, and this trim prunes neither")
    for axis in consumers:
        if not has_bias(model, axis):
            name, family = architecture_of(model.config).reader_of(_READ[axis]), model.config.model_type
            raise SettingsError(
                "a bias cannot compensate for the {axis} of {family}: its stock class has no bias in {name}; use refit instead",
                axis=axis,
                family=family,
                name=name,
            )


def compensate(model: Model, before: Plan, after: Plan, packs: Sequence[Pack], axes: Iterable[str]) -> Job[Plan]:
    """Return the trimmed plan `after` with biases that compensate for the parts of `before` that it lacks on these axes.

    Raises:
        SettingsError: the stock class has no such bias.
    """
    axes = tuple(axes)
    require_biases(model, axes)
    walk, blocks = Walk(model, packs, before.blocks), list[Block]()
    names = [walk.mixer.cutter.row.reader_of(_READ[axis]) for axis in axes if axis in _READ]
    for place, (old, new) in enumerate(zip(before.blocks, after.blocks, strict=True)):
        seen: dict[str, Sums] = {}

        def see(name: str, x: torch.Tensor, pack: Pack, seen: dict[str, Sums] = seen) -> None:
            if name in names:
                seen.setdefault(name, Sums(x.shape[1])).add(x, pack)

        yield from scaled(walk.step(old, see), place / before.depth, (place + 1) / before.depth)
        for name, sums in seen.items():
            bias = _bias(walk.mixer, old, new, name, sums.total / sums.tokens)
            new = with_tensor(new, f"{name}.bias", bias.to(model.network.dtype))
        blocks.append(new)
    return replace(after, blocks=tuple(blocks))


def _bias(mixer: Mixer, old: Block, new: Block, name: str, mean: torch.Tensor) -> torch.Tensor:
    """Return a consumer's bias in the trimmed shape of `new`, from the mean [inputs] of its input in `old`."""
    assert new.trim is not None
    cutter, whole, axis = mixer.cutter, replace(old, trim=None), mixer.cutter.row.projections[name][1]
    there = None if old.trim is None else cutter.kept(axis, old.trim)
    lost = mean if there is None else mean.new_zeros(cutter.shape.size(axis)).index_copy(0, there, mean)
    if (left := cutter.kept(axis, new.trim)) is not None:
        lost = lost.index_fill(0, left, 0.0)
    bias = mixer.parameter(whole, f"{name}.bias").cpu().double() + mixer.weight(whole, name) @ lost
    return cutter.cut(f"{name}.bias", bias, new.trim)
