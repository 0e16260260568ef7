"""Merge an adapter into its model, once. Run as `python -m engine.models.merge`: its memory is freed when the process exits.

The adapter is first compared with an empty network, so that every tensor of the file has its place and every place has its tensor. Each
weight that it changes is then computed in float64 and rounded once.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import SourceError, UnsupportedModelError, reason_of
from engine.jobs import Job, Progress, answer_request
from engine.messages import Message
from engine.models.checks.adapters import WEIGHTS, adapter_values, lora_config
from engine.models.files.made_once import made_once
from engine.untrusted import ForeignError, require_regular, text_in

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_KINDS = ("float32", "bfloat16", "float16")
_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")


def merge(request: dict[str, Any]) -> Job[dict[str, Any]]:
    """Merge the adapter in the folder request["adapter"] into the model in request["base"], and save it as request["target"].

    Raises:
        SourceError: peft is not installed, or the adapter does not fit the model.
        UnsupportedModelError: such an adapter cannot be merged.
    """
    return (yield from made_once(Path(request["target"]), partial(_merge, Path(request["adapter"]), Path(request["base"]))))


def _merge(adapter: Path, base: Path, partial: Path) -> Job[None]:
    from engine.models.checks.accounting import empty_network
    from engine.models.inspection import read_config
    from engine.models.loading import read_network

    values, tensors = adapter_values(adapter), _tensors(adapter)
    _require_fit(adapter, _wrapped(adapter, empty_network(read_config(base)), values, tensors), tensors)
    tokenizer = _tokenizer(adapter, base)
    yield Progress(Message("Reading the adapter's base model"), 0.1)
    network = read_network(base, str(read_config(base).dtype).removeprefix("torch."))
    yield Progress(Message("Merging the adapter"), 0.5)
    wrapped = _wrapped(adapter, network, values, tensors)
    _fill(adapter, wrapped, tensors)
    for module in [module for module in wrapped.modules() if hasattr(module, "lora_A")]:
        yield Progress(Message("Merging the adapter"), 0.6)
        _add(module)
    merged = wrapped.unload()
    _require_finite(merged)
    yield Progress(Message("Writing safetensors"), 0.8)
    merged.save_pretrained(partial)
    tokenizer.save_pretrained(partial)


def _tensors(adapter: Path) -> dict[str, Any]:
    """Return the tensors of an adapter's file: finite floats."""
    from safetensors.torch import load_file

    file = adapter / WEIGHTS
    try:
        require_regular(file)
        tensors = load_file(file)
    except ForeignError as error:
        raise SourceError("{path} cannot be read: {error}", path=file, error=error) from error
    except Exception as error:  # an adapter may contain anything
        raise SourceError("the adapter in {adapter} cannot be read: {reason}", adapter=adapter, reason=reason_of(error)) from error
    for name, tensor in tensors.items():
        kind = str(tensor.dtype).removeprefix("torch.")
        if kind not in _KINDS:
            raise UnsupportedModelError(
                "{name} in {file_name} has dtype {kind}, which is not supported", name=name, file_name=file, kind=kind
            )
        if not tensor.isfinite().all():
            raise SourceError("{path}: {name} contains numbers that are not finite", path=file, name=name)
    return tensors


def _tokenizer(adapter: Path, base: Path) -> Any:
    """Return the adapter's tokenizer, or its model's; a chat template alone replaces the one of its model."""
    from engine.models.loading import read_tokenizer

    if any((adapter / name).exists() for name in _TOKENIZERS):
        return read_tokenizer(adapter)
    tokenizer = read_tokenizer(base)
    if (template := adapter / "chat_template.jinja").exists():
        tokenizer.chat_template = text_in(template)
    return tokenizer


def _wrapped(adapter: Path, network: "PreTrainedModel", values: Mapping[str, Any], tensors: Mapping[str, Any]) -> Any:
    """Return a network with places for an adapter, in float32.

    Where the head shares the embedding's weights and the adapter changes one of them, they are separated first: peft adds a change to one
    of the two alone.
    """
    try:
        from peft import get_peft_model
    except ImportError as error:
        raise SourceError("merging an adapter needs peft, which is not installed; run: pip install 'layerscope[train]'") from error
    config = lora_config(values, max((size for tensor in tensors.values() for size in tensor.shape), default=0))
    if network.config.tie_word_embeddings and _touches_ends(network, tensors):
        _untie(network)
    try:
        with network.get_input_embeddings().weight.device:
            wrapped = get_peft_model(network, config, autocast_adapter_dtype=False)
    except Exception as error:  # an adapter may contain anything
        raise SourceError("the adapter in {adapter} cannot be read: {reason}", adapter=adapter, reason=reason_of(error)) from error
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
    return wrapped


def _touches_ends(network: "PreTrainedModel", tensors: Mapping[str, Any]) -> bool:
    """Return whether a tensor belongs to the embedding or to the head."""
    ends = [network.get_input_embeddings(), network.get_output_embeddings()]
    names = [f".{name}." for name, module in network.named_modules() if any(module is end for end in ends)]
    return any(end in f".{name}" for end in names for name in tensors)


def _untie(network: "PreTrainedModel") -> None:
    import torch

    head = network.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    network.config.tie_word_embeddings = False
    network.all_tied_weights_keys = {}


def _require_fit(adapter: Path, wrapped: Any, tensors: Mapping[str, Any]) -> None:
    """Raise SourceError unless the file contains exactly the tensors of a wrapped network, of the same shapes; copies of the embedding and
    the head may be there too."""
    needed, all_known = _state(wrapped), _state(wrapped, ends=True)
    unfit = [name for name in needed if name not in tensors]
    unfit += [name for name, tensor in tensors.items() if name not in all_known or all_known[name].shape != tensor.shape]
    if unfit:
        raise SourceError(
            "the adapter in {adapter} does not fit its base model: {count} tensors differ, such as {unfit}",
            adapter=adapter,
            count=len(unfit),
            unfit=unfit[0],
        )


def _fill(adapter: Path, wrapped: Any, tensors: Mapping[str, Any]) -> None:
    """Write the file's tensors into a wrapped network, and check that each arrived."""
    import torch
    from peft import set_peft_model_state_dict

    needed, all_known = _state(wrapped), _state(wrapped, ends=True)
    for name in tensors.keys() - needed.keys():
        if not torch.equal(all_known[name], tensors[name].to(all_known[name].dtype)):
            raise SourceError(
                "the adapter in {adapter} has its own {name}, which differs from the base model's", adapter=adapter, name=name
            )
    set_peft_model_state_dict(wrapped, {name: tensors[name] for name in needed})
    unfit = [name for name, held in _state(wrapped).items() if not torch.equal(held, tensors[name].to(held.dtype))]
    if unfit:  # the installed peft differs from the one this code was written for
        raise SourceError("the adapter in {adapter} cannot be read: {reason}", adapter=adapter, reason=unfit[0])


def _state(wrapped: Any, ends: bool = False) -> dict[str, Any]:
    """Return an adapter's tensors by their names in a file, on request with copies of the embedding and the head."""
    from peft import get_peft_model_state_dict

    return get_peft_model_state_dict(wrapped, save_embedding_layers=ends)


def _add(module: Any) -> None:
    """Add an adapter to the weight of one module in float64; round once."""
    base = module.get_base_layer()
    kind = base.weight.dtype
    module.double()
    module.merge()
    base.to(kind)


def _require_finite(network: "PreTrainedModel") -> None:
    for name, parameter in network.named_parameters():
        if not parameter.isfinite().all():
            raise SourceError("merging the adapter takes {name} out of the range of its dtype", name=name)


if __name__ == "__main__":
    answer_request(merge)
