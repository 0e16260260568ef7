"""Read an adapter's settings. Only settings whose merged weights are proved right are accepted; all others are refused by name."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from engine.errors import SourceError, UnsupportedModelError, reason_of
from engine.messages import Message
from engine.models.library import CONFIG_BYTES
from engine.untrusted import ForeignError, object_in

MERGING = 2  # version of the merge; raising it makes cached merged models obsolete
WEIGHTS = "adapter_model.safetensors"
_SETTINGS = "adapter_config.json"
# Initialisations that leave the base weights as they are. All others (PiSSA, OLoRA, LoftQ, CorDA, LoRA-GA) subtract something from them.
_PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
_WITHOUT_EFFECT = {  # settings that change no merged weight, or that are checked on their own
    "auto_mapping", "base_model_name_or_path", "corda_config", "eva_config", "inference_mode", "init_lora_weights", "loftq_config",
    "lora_dropout", "lora_ga_config", "megatron_core", "parent_library", "peft_type", "peft_version", "qalora_group_size", "revision",
    "runtime_config", "task_type",
}  # fmt: skip
_NEUTRAL: tuple[Any, ...] = (None, False, {}, [])


def _is_whole(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _is_switch(value: Any) -> bool:
    return isinstance(value, bool)


def _are_names(value: Any) -> bool:
    return value is None or isinstance(value, str) or (isinstance(value, list) and all(isinstance(one, str) for one in value))


def _are_layers(value: Any) -> bool:
    return value is None or _is_whole(value) or (isinstance(value, list) and all(map(_is_whole, value)))


def _is_pattern(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and all(map(_is_number, value.values())))


_READ: dict[str, Callable[[Any], bool]] = {  # settings given to peft, and what each may be
    "r": _is_whole,
    "lora_alpha": _is_number,
    "target_modules": _are_names,
    "exclude_modules": _are_names,
    "modules_to_save": _are_names,
    "layers_to_transform": _are_layers,
    "layers_pattern": _are_names,
    "rank_pattern": _is_pattern,
    "alpha_pattern": _is_pattern,
    "fan_in_fan_out": _is_switch,
    "use_rslora": _is_switch,
    "use_dora": _is_switch,
    "bias": lambda value: value in ("none", "all", "lora_only"),
}


def adapter_values(adapter: Path) -> dict[str, Any]:
    """Return an adapter's configuration as it is written, after checking that such an adapter can be merged.

    Raises:
        SourceError: the configuration cannot be read.
        UnsupportedModelError: a setting cannot be merged; the message gives its name and value.
    """
    try:
        values = object_in(adapter / _SETTINGS, CONFIG_BYTES)
    except ForeignError as error:
        raise SourceError("{path} cannot be read: {error}", path=adapter / _SETTINGS, error=error) from error
    except OSError as error:
        raise SourceError("{path} cannot be read: {error}", path=adapter / _SETTINGS, error=reason_of(error)) from error
    if values.get("peft_type") != "LORA":
        raise UnsupportedModelError(
            "adapters of type {peft_type} cannot be merged here; if peft can merge this one, use merge_and_unload and save_pretrained",
            peft_type=str(values.get("peft_type"))[:80],
        )
    for name, value in values.items():
        if reason := _fault(name, value):
            raise UnsupportedModelError(
                "{adapter}: {name} = {value} cannot be merged here: {reason}",
                adapter=adapter,
                name=name[:80],
                value=str(value)[:80],
                reason=reason,
            )
    return values


def _fault(name: str, value: Any) -> str:
    """Return why a setting cannot be merged, or "" where it can."""
    if name in _READ:
        return "" if _READ[name](value) else Message("the value does not have the type that peft writes")
    if name == "init_lora_weights" and not any(value is one or (isinstance(value, str) and value == one) for one in _PLAIN_STARTS):
        return Message("this initialisation changes the base weights before training; save the adapter as plain LoRA with peft")
    if name == "task_type" and value not in (None, "CAUSAL_LM"):
        return Message("only causal language models are supported")
    if name in ("revision", "base_model_name_or_path") and not isinstance(value, str | None):
        return Message("the value does not have the type that peft writes")
    if name in _WITHOUT_EFFECT or value in _NEUTRAL:
        return ""
    return Message("this setting is not supported")


def lora_config(values: Mapping[str, Any], largest: int) -> Any:
    """Return peft's configuration of an adapter; `largest` is the largest size of its tensors, which no rank can exceed.

    The weights start in peft's plain way, because the file replaces them all.
    """
    from peft import LoraConfig

    for name, rank in [("r", values.get("r", 1)), *(values.get("rank_pattern") or {}).items()]:
        if not (_is_whole(rank) and 1 <= rank <= largest):
            raise SourceError(
                "the rank {rank} ({name}) is out of range: the adapter's tensors allow 1 to {largest}",
                rank=rank,
                name=name[:80],
                largest=largest,
            )
    return LoraConfig(**{name: values[name] for name in _READ if name in values}, task_type="CAUSAL_LM")
