"""A plan as an ordinary transformers model in memory, made of the source's own tensors wherever it can be.

Judging needs states only and resumes from a recorded pass (engine/passes/forward.py); generation, timing and foreign harnesses
want a whole network with a cache. Building one costs no weights but the mixed and repaired projections.
"""

import copy
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from engine.models.families import architecture_of, blocks_of, resized_config
from engine.plans.surgery import Mixer
from engine.plans.words import require_depth
from engine.turns import heed
from engine.types import DepthPlan, Model


@torch.no_grad()
def live_network(model: Model, plan: DepthPlan) -> PreTrainedModel:
    """Return the network of a plan: of the source's class, dtype and device, in evaluation mode, without gradients.

    Its tensors are views of the source's storage, except projections that are summed or repaired; weights that are tied
    in the source are tied in it. It is read-only in spirit: what is written into a tensor in place is written into the
    source, but replacing tensors (`to`, `float`) leaves the source alone.

    Raises:
        PlanError: the plan is for another depth, or a repair of it is not on this machine.
    """
    require_depth(plan, len(blocks_of(model.network)))
    with model.lock:
        network = _skeleton(model.network, plan)
        _borrow_outside_blocks(model.network, network)
        mixer = Mixer(model.network, keep=1)  # each block is asked for once; the network itself holds what is made
        for place, block in enumerate(plan.blocks):
            _fill(blocks_of(network)[place], blocks_of(model.network)[block.home], mixer.overrides(block))
    network.generation_config = copy.deepcopy(model.network.generation_config)
    for layer in blocks_of(network):
        layer.register_forward_pre_hook(lambda *_: heed())  # whoever drives it, a harness or generate, can be stopped
    assert not [name for name, tensor in network.state_dict().items() if tensor.is_meta]
    return network.eval()


def _skeleton(source: Any, plan: DepthPlan) -> Any:
    """Return a network of the plan's depth with every tensor on the meta device.

    By torch's device context and not accelerate's `init_empty_weights`, which patches torch.nn.Module for all threads of
    the process: another tab may be opening a model.
    """
    config = resized_config(source.config, plan.kept)
    config._attn_implementation = source.config._attn_implementation  # no part of a config's dictionary
    with torch.device("meta"):
        return type(source)(config)


def _borrow_outside_blocks(source: Any, network: Any) -> None:
    """Give embeddings, final norm, head and rotary tables the source's tensors; what is one tensor there is one here."""
    inside = f"{architecture_of(source.config).blocks}."
    twins: dict[int, nn.Parameter] = {}
    for path, module in network.named_modules():
        if not f"{path}.".startswith(inside):
            twin = source.get_submodule(path)
            for name in module._parameters:
                if (tensor := twin._parameters[name]) is not None:
                    module._parameters[name] = twins.setdefault(id(tensor), _view(tensor))
            _borrow_buffers(twin, module)


def _fill(block: nn.Module, home: nn.Module, overrides: dict[str, torch.Tensor]) -> None:
    """Give a block its home's tensors, or those that override them."""
    for path, module in block.named_modules():
        for name, tensor in home.get_submodule(path)._parameters.items():
            if tensor is not None:
                module._parameters[name] = _view(overrides.get(f"{path}.{name}" if path else name, tensor))
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
