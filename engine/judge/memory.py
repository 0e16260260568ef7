"""The memory of a plan and its source: sizes are counted, the peak is measured."""

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import DynamicCache

from engine.errors import SettingsError
from engine.models.families import depth_of
from engine.models.files.tensors import places_in
from engine.models.shapes import shape_of
from engine.plans.description import require_depth, weigh
from engine.plans.outputs import plan_outputs
from engine.plans.trimming import form_of
from engine.records import Count
from engine.types import Model, Plan

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def memory_of(model: Model, plan: Plan, context: int = 4096, batch: int = 1) -> "Memory":
    """Count the memory of source and plan at a context of `context` tokens and a batch size; nothing is run.

    Raises:
        PlanError: the plan does not fit the model.
        ExportError: the checkpoint lacks a tensor that the plan needs.
        SettingsError: context or batch is below 1.
    """
    require_depth(plan, depth_of(model.config))
    if context < 1 or batch < 1:
        raise SettingsError("context is {context} and batch is {batch}; both must be at least 1", context=context, batch=batch)
    every = tuple(model.network.parameters())
    parameters, _ = weigh(model.spec, plan)
    form = form_of(model.config, plan)
    outputs = plan_outputs(model.config, plan, form, places_in(model.folder), "auto")
    return Memory(
        context=context,
        batch=batch,
        source_parameters=sum(tensor.numel() for tensor in every),
        plan_parameters=parameters,
        source_weights=sum(tensor.nbytes for tensor in every),
        plan_weights=parameters * model.network.dtype.itemsize,
        source_cache=cache_bytes(model.config, model.network.dtype, context, batch),
        plan_cache=cache_bytes(form.config, model.network.dtype, context, batch),
        plan_disk=sum(output.bytes for output in outputs.values()),
        depth_ratio=plan.depth / plan.source_depth,
    )


def cache_bytes(config: "PretrainedConfig", dtype: torch.dtype, context: int, batch: int = 1) -> int:
    """Return the bytes of keys and values in transformers' cache after `context` tokens."""
    return sum(cache_by_layer(config, dtype, context, batch))


def cache_by_layer(config: "PretrainedConfig", dtype: torch.dtype, context: int, batch: int = 1) -> tuple[int, ...]:
    """Return each layer's share of `cache_bytes`.

    The cache itself says which layers have a sliding window; a window of w tokens keeps the last w - 1.
    """
    shape = shape_of(config)
    windows = [getattr(layer, "sliding_window", None) for layer in DynamicCache(config=config).layers]
    tokens = (context if window is None else min(context, window - 1) for window in windows)
    return tuple(2 * shape.size("key") * count * batch * dtype.itemsize for count in tokens)


class PeakMemory(TorchDispatchMode):
    """While entered, tracks the storages that torch creates on any device: `peak` is the maximum of their bytes alive at once.

    Earlier storages, such as the weights, and a kernel's internal buffers are not counted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = {tensor.untyped_storage()._cdata for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, torch.Tensor)}
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in known and storage._cdata not in self._seen:
                    self._seen.add(storage._cdata)
                    self.now += storage.nbytes()
                    weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return made

    def _gone(self, name: int, size: int) -> None:
        self._seen.discard(name)
        self.now -= size


@dataclass(frozen=True, slots=True)
class Memory:
    """Sizes of source and plan, in bytes except for parameters, which count shared storage once.

    `_weights` are in the model's current dtype; `_cache` are the keys and values of `context` tokens and a batch in that dtype; `plan_disk`
    are the tensors of an export in the checkpoint's own dtype. `depth_ratio` is the plan's depth divided by the source's.
    """

    context: Count
    batch: Count
    source_parameters: Count
    plan_parameters: Count
    source_weights: Count
    plan_weights: Count
    source_cache: Count
    plan_cache: Count
    plan_disk: Count
    depth_ratio: float
