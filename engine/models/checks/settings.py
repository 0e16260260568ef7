"""Account for every setting of a config: it is read, has no effect, is noted, or is refused.

The stock class gets only the settings that it has a field for. transformers would keep the others as attributes, and its masks, caches and
loaders read some of those.
"""

import json
from collections.abc import Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from transformers import GenerationConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from engine.errors import SourceError
from engine.messages import Message
from engine.models.checks.kinds import fields_of, is_number
from engine.models.families import row_of

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_SHOWN = 8  # settings in one message
_ROTARY = (
    "rope_parameters", "rope_scaling", "rope_theta", "rope_local_base_freq", "partial_rotary_factor", "original_max_position_embeddings",
)  # fmt: skip
# Read by transformers without a field: the dtype's older name, and settings that engine/models/families.py refuses.
_READ = {"dtype", "torch_dtype", "model_type", "per_layer_config", "quantization_config", "tie_last_hidden_states"}
_CHOOSE = ("transformers_weights", "configuration_files")  # transformers reads other files than the standard ones for these
# The only values that the stock classes compute, whatever the config says.
_ONLY: dict[str, tuple[Any, ...]] = {
    "is_causal": (True,),
    "use_bidirectional_attention": (False,),
    "attn_logit_softcapping": (),
    "attention_chunk_size": (),
}
# Settings of a file, of a run, or of a training; none changes what the model computes from a text.
_NOT_ARITHMETIC = {
    # the file and the tools that wrote it
    "_commit_hash", "_name_or_path", "auto_map", "model_type", "name", "name_or_path", "tokenizer_class", "transformers.js_config",
    "unsloth_fixed", "unsloth_version",
    # other heads and tasks
    "_num_labels", "finetuning_task", "num_labels", "task_specific_params", "tie_encoder_decoder",
    # the implementation
    "_attn_implementation", "_attn_implementation_autoset", "attn_implementation", "bf16", "cache_implementation", "fp16",
    "gradient_checkpointing", "is_decoder", "is_llama_config", "max_sequence_length", "output_attentions", "output_past",
    "output_router_logits", "output_scores", "pretraining_tp", "tie_last_hidden_states", "torchscript", "use_bfloat16", "use_return_dict",
    "xla_device",
    # special tokens and generation; engine/models/loading.py reads the relevant ones
    "decoder_start_token_id", "prefix", "return_dict_in_generate", "sep_token_id", "forced_bos_token_id", "forced_eos_token_id",
    # gemma3: written from layer_types
    "_sliding_window_pattern",
    *GenerationConfig._get_default_generation_params(),
}  # fmt: skip
# The values that families without a setting use anyway.
_OFF = (
    "add_cross_attention", "alibi", "attention_bias", "lm_head_bias", "mlp_bias", "parallel_attn", "qk_layernorm", "rope_interleaved",
    "rope_traditional", "scale_embedding", "scale_embeddings", "use_alibi", "use_mrope", "use_parallel_residual", "use_qk_norm",
    "use_sliding_window",
)  # fmt: skip
_ONE = (
    "embedding_multiplier",
    "full_attn_mod",
    "interpolate_factor",
    "logit_scale",
    "logits_scaling",
    "partial_rotary_factor",
    "residual_multiplier",
    "rotary_pct",
)
_ZERO = ("attn_pdrop", "classifier_dropout", "dropout", "embd_pdrop", "hidden_dropout", "num_nextn_predict_layers", "resid_pdrop")
_NEUTRAL = {
    **dict.fromkeys(_OFF, False),
    **dict.fromkeys(_ONE, 1),
    **dict.fromkeys(_ZERO, 0),
    **dict.fromkeys(("is_causal", "scale_attn_weights"), True),
}
_SAME = (  # names of one setting in several families
    {"hidden_act", "hidden_activation", "activation_function"},
    {"n_ctx", "n_positions", "max_position_embeddings"},
    {"rms_norm_eps", "layer_norm_epsilon", "layer_norm_eps", "norm_eps"},
    {"hidden_size", "n_embd"},
    {"num_hidden_layers", "n_layer"},
    {"num_attention_heads", "n_head"},
    {"intermediate_size", "n_inner"},
)


def readable(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a family's stock class reads, in the form it reads."""
    known = _known(values["model_type"])
    kept = {name: value for name, value in values.items() if name in known or name.startswith("output_")}
    if not kept.get("quantization_config"):
        kept.pop("quantization_config", None)
    return deepcopy(kept)  # transformers modifies the values it parses


def require_settings(values: Mapping[str, Any]) -> None:
    """Raise SourceError where a setting of a config (plain JSON) asks for what the family's stock class does not compute."""
    for name in _CHOOSE:
        if values.get(name):
            raise SourceError(
                "the configuration names other files ({name} = {value}), but only config.json and model.safetensors or "
                "the files of its index are read; remove {name}",
                name=name,
                value=json.dumps(values[name])[:60],
            )
    for name, allowed in _ONLY.items():
        if values.get(name) is not None and not any(_is(values[name], one) for one in allowed):
            raise SourceError(
                "the configuration says {name} = {value}, which the stock class of {model_type} does not compute; "
                "remove it only if the model was trained without it",
                name=name,
                value=json.dumps(values[name])[:60],
                model_type=values["model_type"],
            )
    _require_windows(values)
    _require_pattern(values)


def unread_settings(values: Mapping[str, Any], config: "PretrainedConfig") -> list[str]:
    """Return a note naming the settings that the stock class has no field for, unless they have no effect."""
    if type(config) is not CONFIG_MAPPING[config.model_type]:
        return []  # a class of the model's own
    unread = [f"{key} = {json.dumps(value)[:60]}" for key, value in values.items() if not _accounted(key, value, values, config)]
    if not unread:
        return []
    return [Message("settings that {name} ignores: {choices}", name=type(config).__name__, choices=", ".join(unread[:_SHOWN]))]


def _known(model_type: str) -> set[str]:
    fields = fields_of(model_type)
    rotary = _ROTARY if "rope_parameters" in fields else ()
    return {*fields, *CONFIG_MAPPING[model_type].attribute_map, *rotary, *row_of(model_type).read, *_READ}


def _accounted(key: str, value: Any, values: Mapping[str, Any], config: "PretrainedConfig") -> bool:
    if key == "is_encoder_decoder":
        return not value
    if key == "torch_dtype" and values.get("dtype") is not None:
        return bool(value == values["dtype"])
    if key in _known(config.model_type) | _NOT_ARITHMETIC or value is None or value in ("", [], {}):
        return True
    same = next((names for names in _SAME if key in names), set())
    if any(getattr(config, name, None) == value for name in same):
        return True
    if key in ("max_window_layers", "sliding_window_pattern", "sliding_window", "layer_types"):
        return getattr(config, "sliding_window", None) is None or key == "layer_types"  # `_require_windows` compares the last two
    return key in _NEUTRAL and _is(value, _NEUTRAL[key])


def _is(value: Any, other: Any) -> bool:
    """Return whether two JSON values are equal; true is not 1, and false is not 0."""
    return value == other and isinstance(value, bool) == isinstance(other, bool) and (not is_number(value) or is_number(other))


def _require_windows(values: Mapping[str, Any]) -> None:
    """Raise SourceError if the config describes other layers of sliding attention than the stock class has."""
    fields, window, types = fields_of(values["model_type"]), values.get("sliding_window"), values.get("layer_types") or []
    used = values.get("use_sliding_window")
    if "sliding_window" not in fields:
        wrong = (window is not None and used is not False) or "sliding_attention" in types
    elif "layer_types" not in fields:
        wrong = used is False or "full_attention" in types if window is not None else "sliding_attention" in types
    else:
        switched = used if "use_sliding_window" in fields else used is not False
        given = "sliding_window" not in values or window is not None
        full = len(types) if types and "sliding_attention" not in types else 0
        idle = used is True and values.get("max_window_layers", full) < full  # the config asks for windows that no layer has
        wrong = ("sliding_attention" in types and not (switched and given)) or (used is True and not given) or idle
    if wrong:
        raise SourceError(
            "the configuration says sliding_window = {window}, use_sliding_window = {used} and layer_types = {types}; "
            "these contradict each other in {model_type} models, so correct them",
            window=json.dumps(window)[:60],
            used=json.dumps(used)[:60],
            types=json.dumps(sorted(set(types))),
            model_type=values["model_type"],
        )


def _require_pattern(values: Mapping[str, Any]) -> None:
    """Raise SourceError if a number says other layers of full attention than `layer_types`."""
    pattern, types = values.get("sliding_window_pattern"), values.get("layer_types")
    if "sliding_window_pattern" not in row_of(values["model_type"]).read or pattern is None:
        return
    said = type(pattern) is int and pattern > 0
    if not said or any((one == "full_attention") != ((index + 1) % pattern == 0) for index, one in enumerate(types or [])):
        raise SourceError(
            "the configuration says sliding_window_pattern = {pattern}, which contradicts layer_types; remove the wrong one",
            pattern=json.dumps(pattern)[:60],
        )
