import json
import time
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.errors import LayerscopeError, MemoryLimitError, SettingsError, SourceError
from engine.jobs import drain
from engine.judge.generation import generate_beside
from engine.models import inspection, loading
from engine.models.inspection import inspect_gguf, read_config
from engine.models.loading import fingerprint_of, generation_config_in, open_model, resolve
from engine.models.sources import parse_source
from engine.plans.rules import fold_spans
from engine.types import Model, ModelSpec
from tests.families import FAMILIES, save_tiny, tiny_network


def refused(folder: Path) -> LayerscopeError:
    with pytest.raises(LayerscopeError) as caught:
        drain(open_model(parse_source(str(folder))))
    return caught.value


@pytest.mark.parametrize("family", FAMILIES)
def test_an_open_model_holds_exactly_what_was_saved(family: str, tiny: Callable[..., Model]) -> None:
    model, saved = tiny(family), dict(tiny_network(family).named_parameters())
    assert {name: parameter.dtype for name, parameter in model.network.named_parameters()} == dict.fromkeys(saved, torch.float32)
    assert all(torch.equal(parameter, saved[name]) for name, parameter in model.network.named_parameters())
    assert not model.network.training
    assert not any(parameter.requires_grad for parameter in model.network.parameters())
    assert model.tokenizer("ab")["input_ids"]


def test_a_model_opens_in_the_dtype_asked_for(folder: Path) -> None:
    model = drain(open_model(parse_source(str(folder), "bfloat16")))
    assert {parameter.dtype for parameter in model.network.parameters()} == {torch.bfloat16}
    assert model.spec.dtype == "bfloat16"


def test_a_model_stored_in_half_opens_in_half(tmp_path: Path) -> None:
    tiny_network("llama").bfloat16().save_pretrained(save_tiny(tmp_path, "llama"))
    assert drain(open_model(parse_source(str(tmp_path)))).network.dtype == torch.bfloat16


def test_the_check_sees_the_spec_before_weights_are_read_and_may_refuse(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "read_network", None)
    seen: list[ModelSpec] = []

    def check(spec: ModelSpec) -> None:
        seen.append(spec)
        raise SettingsError("C is 9")

    with pytest.raises(SettingsError, match="C is 9"):
        drain(open_model(parse_source(str(folder)), check))
    assert seen[0].depth == 6


def test_a_model_that_does_not_fit_is_refused_before_weights_are_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "read_network", None)
    monkeypatch.setattr(inspection, "free_bytes", lambda device: 1000)
    assert isinstance(refused(folder), MemoryLimitError)


# --- Broken folders ---


def test_a_missing_tensor_is_named(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.3.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    error = refused(folder)
    assert isinstance(error, SourceError)
    assert "missing or of the wrong shape: 1," in str(error)
    assert "model.layers.3.mlp.up_proj.weight" in str(error)


def test_a_tensor_of_another_shape_is_refused(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.3.mlp.up_proj.weight"] = torch.zeros(2, 2)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert isinstance(refused(folder), SourceError)


def test_a_tokenizer_that_breaks_at_what_it_does_not_know_is_refused(folder: Path) -> None:
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "tokenizer_class": "BertTokenizer"}), encoding="utf-8")
    with pytest.raises(SourceError, match=r"the tokenizer in .* cannot be read: WordPiece error: Missing \[UNK\]"):
        drain(open_model(parse_source(str(folder))))


@pytest.mark.parametrize("way", ["flex_attention", "flash_attention_2", "somebody/kernels", "eager"])
def test_how_attention_is_computed_is_not_for_a_config_to_say(way: str, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "_attn_implementation": way}), encoding="utf-8")
    assert drain(open_model(parse_source(str(folder)))).network.config._attn_implementation == "sdpa"


def test_a_folder_without_a_tokenizer_is_refused(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()
    assert "the tokenizer in" in str(refused(folder))


def test_a_truncated_file_is_refused(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    assert "truncated or corrupted" in str(refused(folder))


# --- A stranger's generation config ---

UNSOUND: list[object] = [
    {"num_beams": 100_000}, {"num_beams": -1}, {"num_beams": "4"}, {"num_beams": 1.5}, {"num_beams": True}, {"num_return_sequences": 10**9},
    {"do_sample": True, "temperature": -0.5}, {"do_sample": True, "top_p": float("nan")}, {"do_sample": "yes"}, {"max_new_tokens": 0},
    {"eos_token_id": "1"}, {"eos_token_id": -1}, {"eos_token_id": 10**12}, {"eos_token_id": [1, None]}, {"eos_token_id": [[1]]},
    {"pad_token_id": [1]}, {"suppress_tokens": 300}, {"early_stopping": []}, {"cache_implementation": "theirs"}, {"streamer": 1},
    {"temperature": 0.5}, {"watermarking_config": {"theirs": 1}}, {"validate": 1}, [], "text", 5,
]  # fmt: skip
SOUND: list[object] = [
    {}, {"num_beams": 4}, {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "top_k": 20, "repetition_penalty": 1.1},
    {"eos_token_id": [1, 5]}, {"max_length": 4096, "theirs": "anything", "pad_token_id": None},
]  # fmt: skip


def write_generation_config(folder: Path, content: object) -> Path:
    (folder / "generation_config.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("content", UNSOUND, ids=str)
def test_an_unsound_generation_config_is_told_and_its_tokens_are_the_configs(content: object, folder: Path) -> None:
    tokens, fault = generation_config_in(write_generation_config(folder, content), read_config(folder))
    assert fault
    assert (tokens.bos_token_id, tokens.eos_token_id, tokens.pad_token_id) == (0, 1, 1)


@pytest.mark.parametrize("text", ["", "{", "\ufffd", "[" * 100_000])
def test_a_generation_config_that_is_no_json_is_told(text: str, folder: Path) -> None:
    (folder / "generation_config.json").write_text(text)
    assert generation_config_in(folder, read_config(folder))[1] == "it is not a JSON object"


@pytest.mark.parametrize("content", SOUND, ids=str)
def test_a_sound_generation_config_is_sound(content: dict[str, object], folder: Path) -> None:
    tokens, fault = generation_config_in(write_generation_config(folder, content), read_config(folder))
    assert fault == ""
    assert tokens.eos_token_id == content.get("eos_token_id", 1)


def test_a_folder_without_a_generation_config_is_sound(folder: Path) -> None:
    (folder / "generation_config.json").unlink()
    tokens, fault = generation_config_in(folder, read_config(folder))
    assert (tokens.eos_token_id, fault) == (1, "")


@pytest.mark.parametrize("name", ["generation_config.json", "config.json"])  # where the first is missing, transformers reads the second
def test_no_decoding_setting_of_a_stranger_comes_with_a_model(name: str, folder: Path) -> None:
    content = json.loads((folder / name).read_text())
    (folder / "generation_config.json").unlink()
    (folder / name).write_text(json.dumps({**content, "num_beams": 100_000, "no_repeat_ngram_size": 1, "eos_token_id": 1}))
    own = drain(open_model(parse_source(str(folder)))).network.generation_config
    assert (own.num_beams, own.no_repeat_ngram_size, own.eos_token_id) == (None, None, 1)


@pytest.mark.parametrize("content", [{"eos_token_id": []}, {"eos_token_id": "1"}, {"pad_token_id": 10**6}, {"early_stopping": []}], ids=str)
def test_a_model_with_an_unsound_generation_config_opens_and_writes(content: object, folder: Path) -> None:
    model = drain(open_model(parse_source(str(write_generation_config(folder, content)))))
    for sample in drain(generate_beside(model, fold_spans(6, [(1, 3)], "mean"), ["A river", "A"], new_tokens=4)):
        assert sample.plan.tokens <= 4


# --- GGUF ---


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_truncated_gguf_file_is_refused_and_leaves_nothing_behind(size: int, tmp_path: Path, fresh_cache: Path) -> None:
    with Path(parse_source("demo").location).open("rb") as file:
        (tmp_path / "cut.gguf").write_bytes(file.read(size))
    assert isinstance(refused(tmp_path / "cut.gguf"), SourceError)
    assert {path.name for path in (fresh_cache / "converted").glob("*")} <= {".lock"}


def test_the_refusal_of_a_truncated_gguf_file_names_it(tmp_path: Path) -> None:
    (tmp_path / "cut.gguf").write_bytes(b"GGUF\3\0\0\0")
    assert "cut.gguf" in str(refused(tmp_path / "cut.gguf"))


def test_a_file_that_only_ends_in_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("hello")
    assert "text.gguf is not a GGUF file" in str(refused(tmp_path / "text.gguf"))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_memory_for_a_conversion_is_counted_in_the_float32_it_is_made_in(
    dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = gguf.GGUFWriter(tmp_path / "tiny.gguf", "llama")
    for add in (writer.add_embedding_length, writer.add_feed_forward_length, writer.add_vocab_size, writer.add_context_length):
        add(64)
    for add in (writer.add_block_count, writer.add_head_count, writer.add_head_count_kv):
        add(4)
    for block in range(4):  # a header that names what it describes
        writer.add_tensor(f"blk.{block}.attn_norm.weight", np.ones(64, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    spec = inspect_gguf(tmp_path / "tiny.gguf", parse_source(str(tmp_path / "tiny.gguf")))
    monkeypatch.setattr(inspection, "free_bytes", lambda device: 3 * spec.parameters)
    monkeypatch.setattr(loading, "in_fresh_process", None)
    with pytest.raises(MemoryLimitError, match="converting this GGUF file"):
        drain(resolve(parse_source(str(tmp_path / "tiny.gguf"), dtype)))


def test_a_conversion_is_made_once(demo: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "in_fresh_process", None)
    folder, spec = drain(resolve(parse_source("demo")))
    assert (folder, spec.parameters) == (demo.folder, demo.spec.parameters)


# --- Fingerprints ---


def test_a_fingerprint_follows_config_and_weights_not_place_and_time(tmp_path: Path) -> None:
    first = fingerprint_of(save_tiny(tmp_path / "a", "llama"))
    time.sleep(0.01)
    assert fingerprint_of(save_tiny(tmp_path / "b", "llama")) == first
    assert fingerprint_of(save_tiny(tmp_path / "c", "llama", seed=1)) != first
    assert fingerprint_of(save_tiny(tmp_path / "d", "llama", rms_norm_eps=1e-5)) != first
