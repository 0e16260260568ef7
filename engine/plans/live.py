"""A plan as an ordinary transformers model in memory, made of the source's own tensors wherever it can be.

Judging needs states only and resumes from a recorded pass (engine/passes/forward.py); generation, timing and foreign harnesses
want a whole network with a cache. Building one costs no weights but the mixed and repaired projections.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from engine.model_lock import check_cancelled
from engine.models.families import blocks_of
from engine.plans.description import require_depth
from engine.plans.surgery import Mixer
from engine.plans.trimming import Cutter, plan_config, role_of
from engine.types import Model, Plan, Trim


@torch.no_grad()
def live_network(model: Model, plan: Plan, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """Return the network of a plan: of the source's class and device, in evaluation mode, without gradients; of the source's dtype, or of
    one that what is summed, scaled and cut is then rounded to but once.

    Its tensors are views of the source's storage, except what is summed, repaired, cut or masked; weights that are tied in
    the source are tied in it. It is read-only in spirit: what is written into a tensor in place is written into the
    source, but replacing tensors (`to`, `float`) leaves the source alone.

    Raises:
        PlanError: the plan is for another depth, a tensor of it is not on this machine, or the family has no such shape.
    """
    require_depth(plan, len(blocks_of(model.network)))
    with model.lock:
        network = _skeleton(model.network, plan)
        mixer = Mixer(model.network)
        _borrow_outside_blocks(model.network, network, mixer.cutter, plan.blocks[0].trim, dtype)
        for place, block in enumerate(plan.blocks):
            _fill(blocks_of(network)[place], blocks_of(model.network)[block.home], partial(mixer.parameter, block, dtype=dtype))
    network.generation_config = copy.deepcopy(model.network.generation_config)
    for layer in blocks_of(network):
        layer.register_forward_pre_hook(lambda *_: check_cancelled())  # whoever drives it, a harness or generate, can be stopped
    assert not [name for name, tensor in network.state_dict().items() if tensor.is_meta]
    return network.eval()


def _skeleton(source: Any, plan: Plan) -> Any:
    """Return a network of the plan's shape with every tensor on the meta device.

    By torch's device context and not accelerate's `init_empty_weights`, which patches torch.nn.Module for all threads of
    the process: another tab may be opening a model.
    """
    config = plan_config(source.config, plan)
    config._attn_implementation = source.config._attn_implementation  # no part of a config's dictionary
    with torch.device("meta"):
        return type(source)(config)


def _borrow_outside_blocks(source: Any, network: Any, cutter: Cutter, trim: Trim | None, dtype: torch.dtype | None) -> None:
    """Give embeddings, final norm, head and rotary tables the source's tensors; what is one tensor there is one here."""
    inside = f"{cutter.row.blocks}."
    twins: dict[int, nn.Parameter] = {}
    for path, module in network.named_modules():
        if not f"{path}.".startswith(inside):
            twin = source.get_submodule(path)
            for name in module._parameters:
                if (tensor := twin._parameters[name]) is not None:
                    ours = cutter.outside(role_of(cutter.row, f"{path}.{name}"), tensor, trim, dtype)
                    module._parameters[name] = twins.setdefault(id(tensor), _view(ours))
            _borrow_buffers(twin, module)
            if path == cutter.row.embedding and cutter.row.scaled_embedding:
                (scale,) = twin._buffers
                module._buffers[scale] = torch.full_like(twin._buffers[scale], network.config.hidden_size**0.5)


def _fill(block: nn.Module, home: nn.Module, made: Callable[[str], torch.Tensor]) -> None:
    """Give a block its parameters, each `made` by its name, and its home's buffers."""
    for path, module in block.named_modules():
        for name, there in module._parameters.items():
            if there is not None:
                module._parameters[name] = _view(made(f"{path}.{name}" if path else name))
        _borrow_buffers(home.get_submodule(path), module)


def _borrow_buffers(source: nn.Module, module: nn.Module) -> None:
    if module._buffers:
        for name in module._buffers:
            module._buffers[name] = source._buffers[name]
        # a rotary table that grew with a long text keeps its length beside itself, as a plain number
        module.__dict__.update({name: value for name, value in vars(source).items() if name.endswith("max_seq_len_cached")})


def _view(tensor: torch.Tensor) -> nn.Parameter:
    """Return a parameter of its own over the same storage, so that casting one network does not cast the other."""
    return nn.Parameter(tensor.detach(), requires_grad=False)
