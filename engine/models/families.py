"""The supported families, one literal row each: roles instead of class checks. Adding a row adds a family."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from engine.errors import UnsupportedModelError
from engine.messages import Message

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

Axes = tuple[str, str]  # the axes a projection writes and reads: "query", "key", "neuron", "channel", joined by + where fused


@dataclass(frozen=True, slots=True)
class Architecture:
    """Where a family keeps the modules and settings that the methods need.

    `blocks`, `norm` and `embedding` are module paths of the block list, the final norm and the token embedding; `depth_key` is the config's
    name for the number of layers. `projections` are the modules in a block that a mix replaces, with the axes of their weights. `norms` are
    the block's norms over the channels; `closing` are those between an output projection and the residual stream. `depth_scaled` are config
    switches that make a layer's computation depend on its index: a model with one of them on cannot change depth. `writes` is the last
    projection whose output is added to the residual stream, None where a norm follows it; `transposed` means that projections are stored
    [in, out].

    `unit_gains` means that a norm multiplies by 1 + its weight, `scaled_embedding` that the embedding is multiplied by sqrt(hidden_size).
    `fixed` maps axes that cannot be cut to the reason; `biases` maps config switches that add biases to the projections they affect.
    `read` are settings that the stock class reads without a field for them; `masks` are a block's attention masks in old checkpoints.
    """

    blocks: str
    norm: str
    embedding: str
    projections: Mapping[str, Axes]
    norms: tuple[str, ...]
    closing: tuple[str, ...] = ()
    writes: str | None = None
    depth_key: str = "num_hidden_layers"
    depth_scaled: tuple[str, ...] = ()
    transposed: bool = False
    unit_gains: bool = False
    scaled_embedding: bool = False
    fixed: Mapping[str, str] = field(default_factory=dict)
    biases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    read: tuple[str, ...] = ("head_dim",)
    masks: tuple[str, ...] = ()

    def reader_of(self, axis: str) -> str:
        """Return the projection that reads an axis, for example the one that consumes the heads or the neurons."""
        return next(name for name, (_, reads) in self.projections.items() if reads == axis)

    @property
    def consumers(self) -> tuple[str, str]:
        """The projections that read the heads and the neurons, in execution order. Both write to the residual stream."""
        return self.reader_of("query"), self.reader_of("neuron")


_SPLIT_ATTENTION = {
    "self_attn.q_proj": ("query", "channel"),
    "self_attn.k_proj": ("key", "channel"),
    "self_attn.v_proj": ("key", "channel"),
    "self_attn.o_proj": ("channel", "query"),
}
_GATED_MLP = {"mlp.gate_proj": ("neuron", "channel"), "mlp.up_proj": ("neuron", "channel"), "mlp.down_proj": ("channel", "neuron")}
_LLAMA = Architecture(
    blocks="model.layers",
    norm="model.norm",
    embedding="model.embed_tokens",
    projections={**_SPLIT_ATTENTION, **_GATED_MLP},
    norms=("input_layernorm", "post_attention_layernorm"),
    writes="mlp.down_proj",
)
_ATTENTION_BIAS, _MLP_BIAS = {"attention_bias": tuple(_SPLIT_ATTENTION)}, {"mlp_bias": tuple(_GATED_MLP)}

ARCHITECTURES: dict[str, Architecture] = {
    "llama": replace(_LLAMA, biases={**_ATTENTION_BIAS, **_MLP_BIAS}),
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": replace(_LLAMA, biases=_ATTENTION_BIAS),
    "gemma3_text": replace(
        _LLAMA,
        norms=("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"),
        closing=("post_attention_layernorm", "post_feedforward_layernorm"),
        writes=None,
        unit_gains=True,
        scaled_embedding=True,
        biases=_ATTENTION_BIAS,
        read=("sliding_window_pattern",),
    ),
    "phi3": replace(
        _LLAMA,
        projections={
            "self_attn.qkv_proj": ("query+key+key", "channel"),
            "self_attn.o_proj": ("channel", "query"),
            "mlp.gate_up_proj": ("neuron+neuron", "channel"),
            "mlp.down_proj": ("channel", "neuron"),
        },
        read=("head_dim", "partial_rotary_factor"),
    ),
    "gpt2": Architecture(
        blocks="transformer.h",
        norm="transformer.ln_f",
        embedding="transformer.wte",
        projections={
            "attn.c_attn": ("query+key+key", "channel"),
            "attn.c_proj": ("channel", "query"),
            "mlp.c_fc": ("neuron", "channel"),
            "mlp.c_proj": ("channel", "neuron"),
        },
        norms=("ln_1", "ln_2"),
        writes="mlp.c_proj",
        depth_key="n_layer",
        depth_scaled=("scale_attn_by_inverse_layer_idx",),
        transposed=True,
        read=(),
        masks=("attn.bias", "attn.masked_bias"),
        fixed={
            "heads": Message("its head size is n_embd / n_head, so with fewer heads the stock class would build wider heads"),
            "channels": Message(
                "its LayerNorm takes the mean over all channels, so removing channels would change the result of every layer"
            ),
        },
    ),
}

# Top-level config lists that are never per layer, even if their length is the depth.
_NOT_PER_LAYER = frozenset({"architectures", "bos_token_id", "eos_token_id", "pad_token_id", "suppress_tokens", "begin_suppress_tokens"})


def architecture_of(config: "PretrainedConfig") -> Architecture:
    """Return the row of a transformers config's family.

    Raises:
        UnsupportedModelError: no row describes the family, or a setting of this model forbids changing its depth.
    """
    require_text_model(config.model_type, getattr(config, "text_config", None))
    row = row_of(config.model_type)
    for key in row.depth_scaled:
        if getattr(config, key, False):
            raise UnsupportedModelError(
                "this {model_type} model sets {key}, which makes a layer's computation depend on its index; its depth cannot change",
                model_type=config.model_type,
                key=key,
            )
    if getattr(config, "is_heterogeneous", False):
        raise UnsupportedModelError("this model sets per_layer_config, so its layers differ and cannot be mixed")
    if getattr(config, "quantization_config", None):
        raise UnsupportedModelError(
            "the weights are quantised, so layers cannot be mixed; open the unquantised model, or a GGUF file, which is dequantised"
        )
    return row


def require_text_model(model_type: str | None, text: Any) -> None:
    """Raise an error for a config without a model_type, or for a multimodal model around a text model (`text`, its text_config).

    Raises:
        UnsupportedModelError: the message says what to do.
    """
    if not model_type:
        raise UnsupportedModelError('the configuration has no model_type; add the one of its family, such as "model_type": "llama"')
    if model_type in ARCHITECTURES or text is None:
        return
    inner = text.get("model_type") if isinstance(text, Mapping) else getattr(text, "model_type", None)
    if inner in ARCHITECTURES:
        raise UnsupportedModelError(
            "this is a multimodal model of type '{model_type}' with a text model of type '{inner}', and only text "
            "models are supported; save its language model with save_pretrained and open that folder",
            model_type=model_type,
            inner=inner,
        )


def row_of(model_type: str) -> Architecture:
    """Return the row of a family by its name.

    Raises:
        UnsupportedModelError: no row describes the family.
    """
    if model_type not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise UnsupportedModelError(
            "models of type '{model_type}' are not supported; supported types: {known}", model_type=model_type, known=known
        )
    return ARCHITECTURES[model_type]


def depth_of(config: "PretrainedConfig") -> int:
    """Return a config's number of layers."""
    return int(getattr(config, architecture_of(config).depth_key))


def layer_types_of(config: "PretrainedConfig") -> tuple[str, ...] | None:
    """Return each layer's type (such as sliding or full attention), or None where the family has a single type."""
    types = getattr(config, "layer_types", None)
    return tuple(types) if types else None


def resized_config(config: "PretrainedConfig", homes: tuple[int, ...]) -> Any:
    """Return a config of depth len(homes) whose layer i has the per-layer settings of source layer homes[i].

    Every top-level list as long as the source's depth is sliced (such as layer_types); the original config is not changed.
    """
    row, depth = architecture_of(config), depth_of(config)
    values = config.to_dict()
    for key, value in values.items():
        if isinstance(value, list) and len(value) == depth and key not in _NOT_PER_LAYER:
            values[key] = [value[home] for home in homes]
    values[row.depth_key] = len(homes)
    return type(config).from_dict(values)


def blocks_of(network: "PreTrainedModel") -> Any:
    """Return the network's list of blocks (a torch ModuleList)."""
    return network.get_submodule(architecture_of(network.config).blocks)


def final_norm_of(network: "PreTrainedModel") -> Any:
    """Return the module that normalises the last residual state before the head."""
    return network.get_submodule(architecture_of(network.config).norm)
