"""A tiny random model per family, with a real tokenizer, saved where a test asks for it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

Choice = TypeVar("Choice")
TEXTS = ("The cat sat on the mat.", "A short text.", "Rivers run to the sea, and rain.")  # all longer than the sliding windows
VOCABULARY = 300
_COMMON: dict[str, Any] = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {**_SIZES, "tie_word_embeddings": True},
    "mistral": {**_SIZES, "head_dim": 8, "sliding_window": 6},
    "qwen2": {**_SIZES, "use_sliding_window": True, "sliding_window": 6, "max_window_layers": 3},
    "qwen3": {**_SIZES, "head_dim": 16},
    "gemma3_text": {
        **_SIZES,
        "head_dim": 16,
        "sliding_window": 6,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2,
    },
    "phi3": {**_SIZES, "sliding_window": None},
    "gpt2": {"n_embd": 32, "n_layer": 6, "n_head": 4, "n_positions": 128},
}


def crossed(families: Sequence[str], choices: Sequence[Choice]) -> list[tuple[str, Choice]]:
    """Return pairs to test: the first family and the last, whose tensors are laid out least alike, with each choice; others with one."""
    ends = [(family, choice) for family in (families[0], families[-1]) for choice in choices]
    return ends + [(family, choices[place % len(choices)]) for place, family in enumerate(families[1:-1])]


def tiny_network(family: str, seed: int = 0, **changes: Any) -> Any:
    """Return a tiny random network of a family; its weights are large enough for layers to matter."""
    torch.manual_seed(seed)
    network = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **{**_COMMON, **FAMILIES[family], **changes}))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)  # norms and biases that differ from layer to layer
            elif "embed" not in name and "wte" not in name:
                parameter.copy_(torch.randn_like(parameter) * 0.15)
    return network.eval()


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of single bytes: every text has tokens, none is unknown."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<s>": 0, "</s>": 1, **{letter: index + 2 for index, letter in enumerate(alphabet)}}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>")


def save_tiny(folder: Path, family: str, seed: int = 0, **changes: Any) -> Path:
    """Save a tiny model and its tokenizer into a folder, and return the folder."""
    tiny_network(family, seed, **changes).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder
