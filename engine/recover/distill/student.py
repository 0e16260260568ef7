"""The student: a plan's network with its own weights, and the selection of trained parameters."""

import importlib.util
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import Parameter

from engine.errors import SettingsError
from engine.models.families import architecture_of, blocks_of
from engine.plans.live import live_network
from engine.recover.repair.seams import seams
from engine.settings import Registry
from engine.types import Model, Plan

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Trained = Mapping[str, Parameter]
TRAINS: Registry[Callable[[Any, Plan], Trained]] = Registry("kind of training")
RANK, ALPHA = 32, 64


def student_of(model: Model, plan: Plan) -> Any:
    """Return the network of a plan with its own float32 weights, in training mode, none of them trainable yet."""
    network = live_network(model, plan, torch.float32)
    for parameter in network.parameters():
        parameter.data = parameter.data.to(torch.float32, copy=True)
    return network.train()


def trained(network: "PreTrainedModel", plan: Plan, kind: str, seed: int = 0) -> Trained:
    """Return the trained parameters by name; embeddings and head are never trained. New ones are initialised from the seed, so that a
    restarted run starts identically.

    Raises:
        SettingsError: the kind is unknown, or does not fit the plan.
    """
    require_trainable(plan, kind)
    with torch.random.fork_rng(devices=[]):  # adapters are created on the CPU
        torch.manual_seed(seed)
        found = TRAINS[kind].run(network, plan)
    for parameter in found.values():
        parameter.requires_grad_(True)
    return found


def require_trainable(plan: Plan, kind: str) -> None:
    """Raise SettingsError unless the kind of training exists, fits the plan and is installed."""
    TRAINS.require(kind)
    if kind == "seams" and not seams(plan):
        raise SettingsError("this plan has no seam, because no layer is dropped or folded; train all parameters (all) or adapters (lora)")
    if kind == "lora" and plan.masks is not None:
        raise SettingsError("merging adapters would overwrite the zeros of the masks; train all parameters (all)")
    if kind == "lora" and importlib.util.find_spec("peft") is None:
        raise SettingsError("adapters need peft, which is not installed; run: pip install 'layerscope[train]'")


@TRAINS.register("all", "all parameters except embeddings and output head")
def everything(network: "PreTrainedModel", plan: Plan) -> Trained:
    """Return the parameters of all blocks and of the final norm."""
    row = architecture_of(network.config)
    return {name: one for name, one in network.named_parameters() if name.startswith((f"{row.blocks}.", f"{row.norm}."))}


@TRAINS.register("seams", "only the blocks on both sides of each seam")
def around_seams(network: "PreTrainedModel", plan: Plan) -> Trained:
    """Return the parameters of the block before each seam and of the one after it."""
    places = {place + side for place, _ in seams(plan) for side in (0, 1)}
    row = architecture_of(network.config)
    stems = tuple(f"{row.blocks}.{place}." for place in places)
    return {name: one for name, one in network.named_parameters() if name.startswith(stems)}


@TRAINS.register("lora", f"adapters of rank {RANK} on every projection, merged in the end (LoRA, 2106.09685)", reference="2106.09685")
def adapters(network: "PreTrainedModel", plan: Plan) -> Trained:
    """Add adapters to the projections of the blocks, in place, and return their parameters."""
    from peft import LoraConfig, inject_adapter_in_model

    row = architecture_of(network.config)
    names = [f"{row.blocks}.{place}.{name}" for place in range(len(blocks_of(network))) for name in row.projections]
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=names, fan_in_fan_out=row.transposed)
    inject_adapter_in_model(config, network)
    return {name: one for name, one in network.named_parameters() if "lora_" in name}


def merged(network: "PreTrainedModel") -> Any:
    """Return a network with its adapters merged into the stock weights; without adapters it is returned unchanged."""
    for _, module in _adapted(network):
        module.merge(safe_merge=True)
    return bare(network)


def bare(network: "PreTrainedModel") -> Any:
    """Return a network without its adapters."""
    for name, module in _adapted(network):
        network.set_submodule(name, module.base_layer)
    return network


def _adapted(network: "PreTrainedModel") -> list[tuple[str, Any]]:
    return [(name, one) for name, one in network.named_modules() if hasattr(one, "merge") and hasattr(one, "base_layer")]


def zeros_of(network: "PreTrainedModel", plan: Plan, learning: Trained) -> dict[str, torch.Tensor]:
    """Return where a plan's masks have zeros (bool), by the names of the trained parameters, which must stay zero there."""
    row = architecture_of(network.config)
    names = [f"{row.blocks}.{place}.{name}" for place, block in enumerate(plan.blocks) for name, _ in block.masks]
    return {name: learning[name] == 0 for name in names if name in learning}
