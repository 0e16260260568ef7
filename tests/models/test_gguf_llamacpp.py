"""A converted model computes what llama.cpp computes on the same file; its code is independent of ours and transformers'."""

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFValueType, TokenType

from engine.models.gguf.convert import load_gguf
from engine.models.gguf.file import read_header
from engine.models.gguf.tokenizer import CUTS, gguf_tokenizer
from tests.families import tiny_network
from tests.ggufs import array, write_gguf
from tests.llamacpp import apart, running
from tests.models.test_gguf_logits import CASES, PAIRS, sharp

NOT_THERE = {  # cases that llama.cpp runs in another way, or not at all
    "mistral with a window": "it leaves a llama's window out",
    "phi3 with a window": "it has switched phi3's windows off",
    "llama, yarn with its own bounds and factor": "it passes over them but for a few other families",
    "qwen2 of wide heads": "it wants heads that divide the channels",
    "qwen3 with biases, yarn": "it knows no biases of a qwen3",
}
NEAR = {"gemma3": 5e-4, "gpt2": 5e-4}  # whose GELU is a table of float16 there
IDS = torch.randint(2, 250, (1, 1500), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("case", [case for case in CASES if case not in NOT_THERE])
def test_the_next_token_is_as_likely_as_llama_cpp_says(case: str, tmp_path: Path) -> None:
    family, settings, keys, tensors = CASES[case]
    arch = {"gemma3_text": "gemma3", "mistral": "llama"}.get(family, family)
    file = write_gguf(tmp_path / "tiny.gguf", sharp(family, **settings), {f"{arch}.{key}": value for key, value in keys.items()}, tensors)
    network, _, _ = load_gguf(file)
    lengths = ((200, 256), (1500, 2048)) if "rope_parameters" in settings else ((200, 256),)  # longrope goes by the context there
    for length, context in lengths:
        with running(file, context) as server:
            difference, seen = apart(server, network, IDS[:, :length], 300)
        assert seen == 300
        assert difference <= NEAR.get(arch, 2e-5)


def test_two_scalings_at_once_are_as_llama_cpp_has_them(tmp_path: Path) -> None:
    keys = {"type": "yarn", "factor": 4.0, "original_context_length": 1024, "attn_factor": 1.5}
    settings = {f"llama.rope.scaling.{key}": value for key, value in keys.items()}
    file = write_gguf(tmp_path / "tiny.gguf", sharp("llama"), settings, {"rope_freqs.weight": PAIRS})
    network, _, _ = load_gguf(file)
    with running(file, 2048) as server:
        assert apart(server, network, IDS, 300) == (pytest.approx(0, abs=2e-5), 300)


# --- tokens ---

TEXTS = (
    "Price: $12345.67!! don't Don'T  \n\n  x12  a\tb  été 漢字123 ... ((a)) <=> 1 22 333 4444 55555 I'll   we're\r\n end  ",
    " leading", "a", "x = {1:2, 3:[4]}\n\treturn  y", "'S 'RE it'Ll", "Hello<|user|>the", "a<|mark|> the",
)  # fmt: skip


def tokens_by_llama_cpp(server: Any, text: str) -> list[int]:
    body = json.dumps({"content": text, "add_special": True}).encode()
    request = urllib.request.Request(f"{server.listening_address}/tokenize", body, {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request))["tokens"]


def require_same_tokens(file: Path) -> None:
    tokenizer = gguf_tokenizer(read_header(file))
    with running(file, 256) as server:
        for text in TEXTS:
            assert tokenizer(text)["input_ids"] == tokens_by_llama_cpp(server, text), text


def words_of_bytes() -> dict[str, Any]:
    """Return the keys of a vocabulary whose merges go over every place at which texts are cut, so that each cut shows."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trained = trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<s>", "</s>", "<|mark|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([TEXTS[0][start : start + 4] for start in range(len(TEXTS[0]))] * 3, trained)
    spec = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(spec["vocab"], key=spec["vocab"].get)
    kinds = [TokenType.CONTROL] * 3 + [TokenType.NORMAL] * (len(tokens) - 3)
    return {
        "tokenizer.ggml.tokens": array(tokens, GGUFValueType.STRING),
        "tokenizer.ggml.token_type": array(kinds, GGUFValueType.INT32),
        "tokenizer.ggml.merges": array([" ".join(merge) for merge in spec["merges"]], GGUFValueType.STRING),
    }


@pytest.mark.parametrize("pre", [*dict.fromkeys(CUTS.values()), "llama-bpe", "tekken", "qwen2", "gpt-4o", None])
def test_a_text_is_cut_as_llama_cpp_cuts_it(pre: Any, tmp_path: Path) -> None:
    keys = words_of_bytes()
    if isinstance(pre, tuple):  # one name of each way to cut
        pre = next(name for name, cuts in CUTS.items() if cuts == pre)
    network = tiny_network("llama", vocab_size=len(keys["tokenizer.ggml.tokens"][0]), num_hidden_layers=1)
    require_same_tokens(write_gguf(tmp_path / "tiny.gguf", network, {**keys, "tokenizer.ggml.pre": pre}))


@pytest.mark.parametrize("family", ["llama", "phi3", "gemma3_text"])
@pytest.mark.parametrize("space", [None, True, False])
def test_pieces_of_a_sentence_are_those_of_llama_cpp(family: str, space: bool | None, tmp_path: Path) -> None:
    pieces = [*dict.fromkeys("▁abcdefghijklmnopqrstuvwxyzHIPS'.0123456789"), "▁▁", "▁t", "he", "▁the", "er", "ll", "12", "▁a", "on"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces, "<|user|>", "<|mark|>"]
    kinds = [2, 3, 3] + [6] * 256 + [1] * len(pieces) + [4, 3]
    keys = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": array(tokens, GGUFValueType.STRING),
        "tokenizer.ggml.token_type": array(kinds, GGUFValueType.INT32),
        "tokenizer.ggml.scores": array([-float(place) for place in range(len(tokens))], GGUFValueType.FLOAT32),
        "tokenizer.ggml.merges": None,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_space_prefix": space,
        "tokenizer.ggml.add_eos_token": True,
    }
    changes = {"layer_types": ["sliding_attention"]} if family == "gemma3_text" else {}
    network = tiny_network(family, vocab_size=len(tokens), num_hidden_layers=1, **changes)
    require_same_tokens(write_gguf(tmp_path / "tiny.gguf", network, keys))
