"""Build a plan as an ordinary transformers model in memory, from the source's own tensors where possible.

Evaluation needs only states and resumes from a recorded pass (engine/passes/forward.py). Generation, timing and external harnesses need a
whole network with a cache. Building one allocates memory only for mixed and repaired projections.
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
from engine.plans.trimming import Cutter, form_of, role_of
from engine.types import Model, Plan, Trim


@torch.no_grad()
def live_network(model: Model, plan: Plan, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """Return the network of a plan in evaluation mode, without gradients, of the source's class and on its device. Its dtype is the
    source's, or `dtype`, to which sums, scaled and cut tensors are then rounded only once.

    Tensors are views of the source's storage, except those that are mixed, repaired, cut or masked; weights tied in the source are tied
    here. Writing into a tensor in place would change the source, so treat the network as read-only. Replacing tensors (`to`, `float`) does
    not affect the source.

    Raises:
        PlanError: the plan is for another depth, one of its tensors is not on this machine, or the family does not support its shape.
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
        layer.register_forward_pre_hook(lambda *_: check_cancelled())  # so that every caller, a harness or generate, can be cancelled
    assert not [name for name, tensor in network.state_dict().items() if tensor.is_meta]
    return network.eval()


def _skeleton(source: Any, plan: Plan) -> Any:
    """Return a network of the plan's shape with every tensor on the meta device.

    This uses torch's device context, not accelerate's `init_empty_weights`: that patches torch.nn.Module for all threads, and another tab
    may be opening a model.
    """
    config = form_of(source.config, plan).config
    config._attn_implementation = source.config._attn_implementation  # not included in the config's dictionary
    with torch.device("meta"):
        return type(source)(config)


def _borrow_outside_blocks(source: Any, network: PreTrainedModel, cutter: Cutter, trim: Trim | None, dtype: torch.dtype | None) -> None:
    """Set the source's tensors for embeddings, final norm, head and rotary tables; tied tensors stay tied."""
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
    """Set a block's parameters, each from `made(name)`, and its home's buffers."""
    for path, module in block.named_modules():
        for name, there in module._parameters.items():
            if there is not None:
                module._parameters[name] = _view(made(f"{path}.{name}" if path else name))
        _borrow_buffers(home.get_submodule(path), module)


def _borrow_buffers(source: nn.Module, module: nn.Module) -> None:
    if module._buffers:
        for name in module._buffers:
            module._buffers[name] = source._buffers[name]
        # A rotary table that grew with a long text keeps its length in a plain attribute next to the buffer.
        module.__dict__.update({name: value for name, value in vars(source).items() if name.endswith("max_seq_len_cached")})


def _view(tensor: torch.Tensor) -> nn.Parameter:
    """Return a new parameter over the same storage, so that casting one network does not cast the other."""
    return nn.Parameter(tensor.detach(), requires_grad=False)
