"""Run a network that is larger than memory block by block: a module's tensors are loaded only while it runs.

Of an embedding only the rows looked up are read; in float64 the head is multiplied in parts. accelerate patches torch for the whole process
while it builds on the meta device, so run this in a separate process.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from accelerate import init_empty_weights
from torch import nn
from torch.overrides import TorchFunctionMode
from transformers import AutoModelForCausalLM

from engine.models.families import architecture_of, blocks_of
from engine.models.texts import Pack
from engine.passes.forward import state_of

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_ROWS = 8192  # rows of a float64 head per part
_Rows = slice | torch.Tensor
_ALL = slice(None)


class Weights(Protocol):
    """The tensors of a network, which may have other blocks than its config."""

    @property
    def homes(self) -> Sequence[int]:
        """The config's layer that each block corresponds to, from the bottom up."""

    def outside(self, name: str, rows: _Rows = _ALL) -> torch.Tensor | None:
        """Return a parameter outside the blocks, or rows of it; None if there is no such parameter."""

    def inside(self, place: int, name: str) -> torch.Tensor | None:
        """Return a block's parameter by its name in the block; None if there is no such parameter."""


@torch.no_grad()
def streamed_logits(
    config: "PretrainedConfig", weights: Weights, packs: Sequence[Pack], dtype: torch.dtype, trust_remote_code: bool = False
) -> list[torch.Tensor]:
    """Return the logits [1, tokens, vocabulary] on each pack of a config's network with these weights, run in `dtype`. Float64 results are
    returned in float32."""
    with init_empty_weights(include_buffers=False):
        network: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=trust_remote_code)
    return _StreamedRun(network.eval(), weights, dtype).logits(packs)


class _Unnarrowed(TorchFunctionMode):
    """Keeps float64 tensors in float64 where a module, such as a norm, casts to float32: two forms of a model would round differently."""

    def __torch_function__(self, func: Any, _types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        narrowing = func is torch.Tensor.float or (func is torch.Tensor.to and torch.float32 in (*args[1:], *kwargs.values()))
        return args[0] if narrowing and args[0].dtype == torch.float64 else func(*args, **kwargs)


class _StreamedRun:
    """One network whose tensors are made while they are needed."""

    def __init__(self, network: "PreTrainedModel", weights: Weights, dtype: torch.dtype) -> None:
        self._network, self._weights, self._dtype = network, weights, dtype
        self._row, self._place = architecture_of(network.config), 0
        stem = f"{self._row.blocks}."
        for path, module in network.named_modules():
            inside = path.removeprefix(stem).partition(".")[2] if path.startswith(stem) else None
            if path == self._row.embedding:
                module.register_forward_pre_hook(self._look_up)
            elif module._parameters:
                _lend(module, self._maker(path, inside))

    def logits(self, packs: Sequence[Pack]) -> list[torch.Tensor]:
        """Return the logits on each pack; all packs go through a block before the next."""
        layers = blocks_of(self._network)
        states, calls = zip(*(self._opened(pack) for pack in packs), strict=True)
        for place, home in enumerate(self._weights.homes):
            self._place = place
            states = tuple(
                state_of(layers[home](state, *args[home][0], **args[home][1])) for state, args in zip(states, calls, strict=True)
            )
        norm = self._network.get_submodule(self._row.norm)
        return [self._head(norm(state)) for state in states]

    def _opened(self, pack: Pack) -> tuple[torch.Tensor, list[tuple[tuple[Any, ...], dict[str, Any]]]]:
        """Return the state before the first block, and the other arguments of each layer of the config; no layer is run."""
        states, calls = list[torch.Tensor](), list[tuple[tuple[Any, ...], dict[str, Any]]]()

        def instead(hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            states.append(hidden_states)
            calls.append((args, kwargs))
            return hidden_states

        layers = blocks_of(self._network)
        for layer in layers:
            layer.forward = instead
        self._network.base_model(input_ids=pack.ids, position_ids=pack.positions, use_cache=False)
        for layer in layers:
            del layer.forward
        return states[0], calls

    def _maker(self, path: str, inside: str | None) -> Callable[[str], torch.Tensor | None]:
        def make(kind: str) -> torch.Tensor | None:
            weights, place = self._weights, self._place
            found = weights.outside(f"{path}.{kind}") if inside is None else weights.inside(place, f"{inside}.{kind}")
            return None if found is None else found.to(self._dtype)

        return make

    def _look_up(self, module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """Load only the embedding rows that are looked up, and renumber the token ids accordingly."""
        rows, numbers = args[0].unique(return_inverse=True)
        found = self._weights.outside(f"{self._row.embedding}.weight", rows)
        assert found is not None
        module._parameters["weight"] = nn.Parameter(found.to(self._dtype), requires_grad=False)
        return (numbers, *args[1:])

    def _head(self, state: torch.Tensor) -> torch.Tensor:
        """Return the logits of a state after the final norm."""
        size = self._network.get_output_embeddings().weight.shape[0]
        exact = self._dtype == torch.float64
        step = _ROWS if exact else size  # at once in the checkpoint's dtype, like the stock network
        parts = []
        for start in range(0, size, step):
            found = self._weights.outside("lm_head.weight", slice(start, start + step))
            assert found is not None
            part = nn.functional.linear(state, found.to(self._dtype))
            parts.append(part.float() if exact else part)
        logits = torch.cat(parts, -1) if len(parts) > 1 else parts[0]
        cap = getattr(self._network.config, "final_logit_softcapping", None)
        return logits if cap is None else torch.tanh(logits / cap) * cap


def _lend(module: nn.Module, make: Callable[[str], torch.Tensor | None]) -> None:
    """Load a module's tensors only while it runs, including biases that its class lacks, and compute in their dtype throughout."""
    before, forward = dict(module._parameters), module.forward

    def fill(*_: object) -> None:
        for name in before:
            found = make(name)
            module._parameters[name] = None if found is None else nn.Parameter(found, requires_grad=False)

    def run(*args: Any, **kwargs: Any) -> Any:
        with _Unnarrowed():
            return forward(*args, **kwargs)

    module.forward = run
    module.register_forward_pre_hook(fill)
    module.register_forward_hook(lambda *_: module._parameters.update(before))


class Loaded:
    """The tensors of a network loaded by transformers: in memory, or on disk through accelerate's hooks."""

    def __init__(self, network: "PreTrainedModel") -> None:
        self._network, self._row = network, architecture_of(network.config)
        self.homes: Sequence[int] = range(len(blocks_of(network)))

    def outside(self, name: str, rows: _Rows = _ALL) -> torch.Tensor | None:
        """Return a parameter outside the blocks, or rows of it."""
        found = self._tensor(name)
        return None if found is None else found[rows]

    def inside(self, place: int, name: str) -> torch.Tensor | None:
        """Return a block's parameter by its name in the block."""
        return self._tensor(f"{self._row.blocks}.{place}.{name}")

    def _tensor(self, name: str) -> torch.Tensor | None:
        path, _, kind = name.rpartition(".")
        module = self._network.get_submodule(path)
        tensor = module._parameters.get(kind)
        return module._hf_hook.weights_map[kind] if tensor is not None and tensor.is_meta else tensor
