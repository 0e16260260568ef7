"""The families that can be folded: one literal row each, roles instead of class checks. Adding a row adds a family."""

from dataclasses import dataclass, replace
from typing import Any

from engine.errors import UnsupportedModelError


@dataclass(frozen=True, slots=True)
class Architecture:
    """Where a family keeps what the depth methods need.

    `blocks` and `norm` are module paths of the block list and of the final norm, `depth_key` the config's name for the
    number of layers, `projections` the modules in a block that a mix replaces. `depth_scaled` are config switches that
    make a layer's arithmetic depend on its index: a model with one of them on cannot change depth. `writes` is the
    projection whose output is added to the residual stream last, None where a norm stands between; `transposed` says that
    projections are stored [in, out].
    """

    blocks: str
    norm: str
    projections: tuple[str, ...]
    writes: str | None = None
    depth_key: str = "num_hidden_layers"
    depth_scaled: tuple[str, ...] = ()
    transposed: bool = False


_SPLIT_ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
_LLAMA = Architecture(
    blocks="model.layers",
    norm="model.norm",
    projections=(*_SPLIT_ATTENTION, "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
    writes="mlp.down_proj",
)

ARCHITECTURES: dict[str, Architecture] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma3_text": replace(_LLAMA, writes=None),
    "phi3": Architecture(
        blocks="model.layers",
        norm="model.norm",
        projections=("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj"),
        writes="mlp.down_proj",
    ),
    "gpt2": Architecture(
        blocks="transformer.h",
        norm="transformer.ln_f",
        projections=("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"),
        writes="mlp.c_proj",
        depth_key="n_layer",
        depth_scaled=("scale_attn_by_inverse_layer_idx",),
        transposed=True,
    ),
}

# Top-level config lists that say nothing about layers, whatever their length.
_NOT_PER_LAYER = frozenset({"architectures", "bos_token_id", "eos_token_id", "pad_token_id", "suppress_tokens", "begin_suppress_tokens"})


def architecture_of(config: Any) -> Architecture:
    """Return the row of a transformers config's family.

    Raises:
        UnsupportedModelError: the family has no row, or a setting of this model forbids a change of depth.
    """
    row = row_of(config.model_type)
    for key in row.depth_scaled:
        if getattr(config, key, False):
            raise UnsupportedModelError(
                f"this {config.model_type} model sets {key}, which ties a layer's arithmetic to its index; its depth cannot change"
            )
    if getattr(config, "quantization_config", None):
        raise UnsupportedModelError(
            "the weights are quantised, so layers cannot be mixed; open the unquantised model, or a GGUF file, which is dequantised"
        )
    return row


def row_of(model_type: str) -> Architecture:
    """Return the row of a family by its name.

    Raises:
        UnsupportedModelError: it has none.
    """
    if model_type not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise UnsupportedModelError(f"models of type '{model_type}' are not supported; supported are {known}")
    return ARCHITECTURES[model_type]


def depth_of(config: Any) -> int:
    """Return the number of layers a config names."""
    return int(getattr(config, architecture_of(config).depth_key))


def layer_types_of(config: Any) -> tuple[str, ...] | None:
    """Return each layer's type where a family has several, such as sliding and full attention."""
    types = getattr(config, "layer_types", None)
    return tuple(types) if types else None


def resized_config(config: Any, homes: tuple[int, ...]) -> Any:
    """Return a config of depth len(homes) in which place i is what layer homes[i] was in the source.

    Every top-level list of the source's depth is sliced (layer_types and its kin); the original is left alone.
    """
    row, depth = architecture_of(config), depth_of(config)
    values = config.to_dict()
    for key, value in values.items():
        if isinstance(value, list) and len(value) == depth and key not in _NOT_PER_LAYER:
            values[key] = [value[home] for home in homes]
    values[row.depth_key] = len(homes)
    return type(config).from_dict(values)


def blocks_of(network: Any) -> Any:
    """Return the network's list of blocks (a torch ModuleList)."""
    return network.get_submodule(architecture_of(network.config).blocks)


def final_norm_of(network: Any) -> Any:
    """Return the module that normalises the last residual state before the head."""
    return network.get_submodule(architecture_of(network.config).norm)
