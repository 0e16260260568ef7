"""Which tensors the checkpoint of a plan holds, and how each is made of the source's."""

import re
from typing import Any

import torch

from engine.errors import ExportError
from engine.models.families import architecture_of
from engine.models.tensors import Output, TensorPlace, read_tensor
from engine.plans.surgery import mix_tensors, repaired
from engine.types import Block, DepthPlan


def plan_outputs(
    config: Any, plan: DepthPlan, places: dict[str, TensorPlace], dtype: str
) -> tuple[dict[str, Output], dict[str, TensorPlace]]:
    """Return what to write, by name, and where its sources lie. Numbers that are not floating point keep their dtype."""
    row = architecture_of(config)
    stems = (row.blocks, row.blocks.split(".", 1)[1])  # base-model checkpoints leave the first word out
    stem = next((s for s in stems if any(name.startswith(f"{s}.0.") for name in places)), None)
    if stem is None:
        raise ExportError(f"no tensor of the checkpoint is named {row.blocks}.0.…, so its layers cannot be told apart")
    pattern = re.compile(rf"{re.escape(stem)}\.(\d+)\.(.+)")
    layers: dict[int, list[str]] = {}
    outputs: dict[str, Output] = {}

    def add(name: str, parts: tuple[tuple[float, str], ...], repair: str = "") -> None:
        for _, part in parts:
            if part not in places:
                raise ExportError(f"the source holds no tensor {part}, which the plan needs")
        place = places[parts[0][1]]
        kind = getattr(torch, dtype) if dtype != "auto" and place.dtype.is_floating_point else place.dtype
        outputs[name] = Output(kind, place.shape, parts, repair)

    for name in places:
        if (match := pattern.fullmatch(name)) is None:
            add(name, ((1.0, name),))
        else:
            layers.setdefault(int(match[1]), []).append(match[2])
    for index, block in enumerate(plan.blocks):
        for rest in layers[block.home]:
            repair = block.repair if rest.rpartition(".")[0] == row.writes else ""
            add(f"{stem}.{index}.{rest}", _parts(stem, block, rest, row.projections), repair)
    return outputs, places


def _parts(stem: str, block: Block, rest: str, projections: tuple[str, ...]) -> tuple[tuple[float, str], ...]:
    mix = block.mix if rest.rpartition(".")[0] in projections else ((block.home, 1.0),)
    return tuple((weight, f"{stem}.{layer}.{rest}") for layer, weight in mix)


def make_output(output: Output, places: dict[str, TensorPlace], transposed: bool) -> torch.Tensor:
    """Return a tensor of the checkpoint: read, or summed and repaired, from where its sources lie."""
    parts = ((weight, read_tensor(name, places[name])) for weight, name in output.parts)
    if output.repair:
        return repaired(parts, output.dtype, output.repair, transposed)
    if len(output.parts) == 1 and output.parts[0][0] == 1.0:
        return next(parts)[1]
    return mix_tensors(parts, output.dtype)
