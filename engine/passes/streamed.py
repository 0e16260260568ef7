"""A network that is larger than memory: each module's tensors are there while it runs, by accelerate's hooks.

accelerate patches torch for the whole process while it builds on the meta device, so this is for processes of their own."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from accelerate import cpu_offload, init_empty_weights
from transformers import AutoModelForCausalLM

from engine.models.tensors import Output


class _Made(Mapping[str, torch.Tensor]):
    """The tensors of a network by the names of its parameters, each made of an output when it is asked for."""

    def __init__(self, network: Any, outputs: Mapping[str, Output], dtype: torch.dtype) -> None:
        self._outputs, self._dtype = outputs, dtype
        stem, twins = f"{network.base_model_prefix}.", dict[int, str]()
        self._names: dict[str, str] = {}
        for name, parameter in network.named_parameters(remove_duplicate=False):
            found = next((other for other in (name, name.removeprefix(stem)) if other in outputs), None)
            self._names[name] = twins.setdefault(id(parameter), found or name)  # tied weights are one output

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._outputs[self._names[name]].make().to(self._dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def streamed_network(config: Any, outputs: Mapping[str, Output], dtype: torch.dtype) -> Any:
    """Return the stock network of a config, in evaluation mode, whose tensors are made of `outputs` while they are needed."""
    with init_empty_weights(include_buffers=False):
        network: Any = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    network.tie_weights()
    cpu_offload(network, torch.device("cpu"), state_dict=_Made(network, outputs, dtype))
    return network.eval()
