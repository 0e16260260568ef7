"""Classify every key of a GGUF file's metadata: mapped, harmless for a stated reason, or refused for a stated reason.

This is the only list of keys. A key of an architecture or a tokenizer that no table contains is refused, because it might change what the
model computes. Where llama.cpp ignores a key that the converter wrote (a window, yarn's bounds), the model's own code decides what it
means.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

from gguf import MODEL_ARCH_NAMES

from engine.messages import Message
from engine.models.gguf.file import GgufFile

_ROTARY = ("llama", "qwen2", "qwen3", "gemma3", "phi3")
_ALL = (*_ROTARY, "gpt2")

MAPPED: dict[str, tuple[str, ...]] = {  # key pattern and the architectures that have it
    "general.architecture": _ALL,
    "general.alignment": _ALL,
    "{arch}.block_count": _ALL,
    "{arch}.context_length": _ALL,
    "{arch}.embedding_length": _ALL,
    "{arch}.feed_forward_length": _ALL,
    "{arch}.vocab_size": _ALL,
    "{arch}.attention.head_count": _ALL,
    "{arch}.attention.head_count_kv": _ALL,
    "{arch}.attention.key_length": _ALL,
    "{arch}.attention.value_length": _ALL,
    "{arch}.attention.layer_norm_epsilon": ("gpt2",),
    "{arch}.attention.layer_norm_rms_epsilon": _ROTARY,
    "{arch}.attention.sliding_window": ("llama", "gemma3", "phi3"),
    "{arch}.attention.sliding_window_pattern": ("gemma3",),
    "{arch}.final_logit_softcapping": ("gemma3",),
    "{arch}.rope.dimension_count": _ROTARY,
    "{arch}.rope.freq_base": _ROTARY,
    "{arch}.rope.freq_base_swa": ("gemma3",),
    "{arch}.rope.scale_linear": _ROTARY,
    "{arch}.rope.scaling.type": _ROTARY,
    "{arch}.rope.scaling.factor": _ROTARY,
    "{arch}.rope.scaling.attn_factor": _ROTARY,
    "{arch}.rope.scaling.original_context_length": _ROTARY,
    "{arch}.rope.scaling.yarn_attn_factor": _ROTARY,
    "{arch}.rope.scaling.yarn_beta_*": _ROTARY,
    "tokenizer.ggml.model": _ALL,
    "tokenizer.ggml.pre": _ALL,
    "tokenizer.ggml.tokens": _ALL,
    "tokenizer.ggml.token_type": _ALL,
    "tokenizer.ggml.scores": _ALL,
    "tokenizer.ggml.merges": _ALL,
    "tokenizer.ggml.bos_token_id": _ALL,
    "tokenizer.ggml.eos_token_id": _ALL,
    "tokenizer.ggml.unknown_token_id": _ALL,
    "tokenizer.ggml.padding_token_id": _ALL,
    "tokenizer.ggml.add_bos_token": _ALL,
    "tokenizer.ggml.add_eos_token": _ALL,
    "tokenizer.ggml.add_space_prefix": _ALL,
    "tokenizer.chat_template": _ALL,
}

_NAMES_A_TOKEN = "names a token for generation; the tokens of a text do not depend on it"
HARMLESS: dict[str, str] = {
    "general.sampling.*": "settings of sampling; the logits do not depend on them",
    "general.*": "describes the file: names, authors, licence, sources, quantiser",
    "split.no": "the number of this part of a split model; split.count states whether the model is split",
    "split.tensors.count": "the number of tensors in all parts of a split model; see split.no",
    "{arch}.rope.scaling.finetuned": "states that the model was trained further with this scaling; has no effect",
    "{arch}.tensor_data_layout": "describes the layout of the weights before conversion; it is not used",
    "{arch}.pooling_type": "how to pool the states into an embedding, which is not computed here",
    "tokenizer.ggml.token_type_count": "the number of segment types of BERT, which is refused",
    "tokenizer.ggml.eot_token_id": _NAMES_A_TOKEN,
    "tokenizer.ggml.eom_token_id": _NAMES_A_TOKEN,
    "tokenizer.ggml.seperator_token_id": _NAMES_A_TOKEN,
    "tokenizer.ggml.mask_token_id": _NAMES_A_TOKEN,
    "tokenizer.ggml.fim_*_token_id": _NAMES_A_TOKEN,
    "tokenizer.ggml.prefix_token_id": _NAMES_A_TOKEN,
    "tokenizer.ggml.suffix_token_id": _NAMES_A_TOKEN,
    "tokenizer.ggml.middle_token_id": _NAMES_A_TOKEN,
    "tokenizer.ggml.remove_extra_whitespaces": "read only for unigram tokenizers, which are refused",
    "tokenizer.ggml.precompiled_charsmap": "read only for unigram tokenizers, which are refused",
    "tokenizer.huggingface.json": "a copy of another tokenizer's file; only the list of tokens is used",
    "tokenizer.chat_template.*": "an additional template that is not used",
    "tokenizer.chat_templates": "the names of additional templates that are not used",
}

_SCALES = Message("it scales a value that the stock class does not scale")
_EXPERTS = Message("it belongs to a mixture of experts, which is not supported")
_CAPS = Message("it caps scores that the stock class does not cap")
_ATTENTION = Message("it changes the attention in a way that the stock class does not")
_OTHER_KIND = Message("it belongs to another kind of model")
_NO_MODEL = Message("the file does not contain a language model")
_STRANGER = Message("its effect is unknown")
_WINDOW = Message("programs interpret the sliding window of this architecture differently")
_NONE: tuple[Any, ...] = (0, False)  # values of a switch that is off

REFUSED: dict[str, tuple[str, tuple[Any, ...]]] = {  # key pattern, reason, and the values at which it has no effect
    "general.type": (_NO_MODEL, ("model",)),
    "general.quantization_version": (Message("only version 2 of the quantisation is supported"), (2,)),
    "adapter.*": (_NO_MODEL, ()),
    "imatrix.*": (_NO_MODEL, ()),
    "clip.*": (_NO_MODEL, ()),
    "split.*": (_NO_MODEL, ()),
    "split.count": (Message("the file is one part of a split model"), (0, 1)),
    "diffusion.*": (_OTHER_KIND, ()),
    "xielu.*": (_OTHER_KIND, ()),
    "{arch}.logit_scale": (_SCALES, (0, 1)),
    "{arch}.embedding_scale": (_SCALES, (0, 1)),
    "{arch}.residual_scale": (_SCALES, (0, 1)),
    "{arch}.attention.output_scale": (_SCALES, (0, 1)),
    "{arch}.attention.temperature_*": (_SCALES, (0,)),
    "{arch}.attention.scale": (_SCALES, (0,)),  # 1 / sqrt(head size) also passes, see `require_accounted`
    "{arch}.attn_logit_softcapping": (_CAPS, (0,)),
    "{arch}.router_logit_softcapping": (_EXPERTS, (0,)),
    "{arch}.final_logit_softcapping": (_CAPS, (0,)),
    "{arch}.attention.max_alibi_bias": (_ATTENTION, (0,)),
    "{arch}.attention.clamp_kqv": (_ATTENTION, (0,)),
    "{arch}.attention.causal": (_ATTENTION, (True,)),
    "{arch}.attention.sliding_window": (_WINDOW, (0,)),
    "{arch}.attention.sliding_window_pattern": (_WINDOW, ()),
    "{arch}.attention.layer_norm_*": (Message("it belongs to another kind of norm"), ()),
    "{arch}.attention.*": (_ATTENTION, _NONE),
    "{arch}.use_parallel_residual": (Message("attention and feed-forward would run in parallel"), (False,)),
    "{arch}.rope.scaling.yarn_ext_factor": (Message("it changes how yarn mixes scaled and unscaled positions"), (1, -1)),
    "{arch}.rope.scaling.yarn_log_multiplier": (Message("it changes yarn's factor a second time"), (0,)),
    "{arch}.rope.dimension_sections": (Message("its positions have several axes"), ()),
    "{arch}.rope.*": (Message("it changes the rotary positions in a way that the stock class does not"), ()),
    "{arch}.expert*": (_EXPERTS, _NONE),
    "{arch}.moe*": (_EXPERTS, _NONE),
    "{arch}.nextn_predict_layers": (Message("it has layers that predict further tokens, which are not supported"), (0,)),
    "{arch}.leading_dense_block_count": (_EXPERTS, _NONE),
    "tokenizer.rwkv.*": (_OTHER_KIND, ()),
    "tokenizer.ggml.add_sep_token": (Message("it adds a separator token to every text, which is not supported"), (False,)),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class KeyAccount:
    """The classification of a key. `reason` explains harmless and refused keys; a refused key passes if its value is in `harmless_at`."""

    kind: Literal["mapped", "harmless", "refused"]
    reason: str = ""
    harmless_at: tuple[Any, ...] = ()


def account_of(key: str, architecture: str) -> KeyAccount:
    """Return the classification of a key in a file of an architecture; the most specific pattern wins."""

    def finding(table: Any) -> str:
        names = (name for name in table if fnmatchcase(key, name.replace("{arch}", architecture)))
        return max(names, key=lambda name: len(name.replace("*", "")), default="")

    mapped, refused, harmless = finding(MAPPED), finding(REFUSED), finding(HARMLESS)
    if mapped and architecture in MAPPED[mapped]:
        return KeyAccount("mapped")
    if len(refused) > len(harmless):
        return KeyAccount("refused", *REFUSED[refused])
    if harmless:
        return KeyAccount("harmless", HARMLESS[harmless])
    first = key.partition(".")[0]
    if first in (*MODEL_ARCH_NAMES.values(), "tokenizer"):
        return KeyAccount("refused", _STRANGER)
    return KeyAccount("harmless", "a note by the creator of the file; llama.cpp has no key of that name")


def require_accounted(gguf: GgufFile) -> None:
    """Raise an error if a file has an unmapped key that changes what its model computes.

    Raises:
        UnsupportedModelError: the message gives the key, its value and the reason.
    """
    for key in gguf.reader.fields:
        found = account_of(key, gguf.architecture)
        if key.startswith("GGUF.") or found.kind != "refused":
            continue
        value = gguf.value(key)
        several = value if isinstance(value, list) else [value]
        if not (several and all(one in found.harmless_at for one in several)) and not _is_usual(gguf, key, value):
            raise gguf.unread(key, value, found.reason)


def _is_usual(gguf: GgufFile, key: str, value: Any) -> bool:
    """Return whether a key states the default: the usual attention scale, or a window as long as the context."""
    if key == gguf.key("{arch}.attention.scale"):
        head = head_size(gguf)
        return bool(head) and isinstance(value, float) and abs(value * head**0.5 - 1) < 1e-5
    context = gguf.whole("{arch}.context_length")
    return key == gguf.key("{arch}.attention.sliding_window") and isinstance(value, int) and bool(context) and value >= (context or 0)


def head_size(gguf: GgufFile) -> int:
    """Return the head size of a file's model, 0 where the file does not give it."""
    wide, heads = gguf.whole("{arch}.embedding_length") or 0, gguf.whole("{arch}.attention.head_count") or 0
    return gguf.whole("{arch}.attention.key_length") or (wide // heads if heads else 0)
