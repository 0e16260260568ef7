"""Configs that claim more than their tensors can hold are refused before anything is built."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFWriter
from safetensors.torch import load_file, save_file

from engine.errors import SourceError, UnsupportedModelError
from engine.models.inspection import inspect_folder, inspect_gguf
from engine.models.sources import parse_source
from tests.families import FAMILIES, save_tiny


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_lies_within_its_own_bounds(family: str, tmp_path: Path) -> None:
    assert inspect_folder(save_tiny(tmp_path / "model", family), parse_source(str(tmp_path / "model")))[1].depth == 6


@pytest.mark.parametrize(
    ("family", "changes", "words"),
    [
        ("llama", {"num_hidden_layers": 30_000_000}, "num_hidden_layers = 30000000"),
        ("llama", {"num_hidden_layers": 0}, "num_hidden_layers = 0"),
        ("gpt2", {"n_layer": 100_000}, "n_layer = 100000"),
        ("gpt2", {"n_positions": 1_000_000}, "n_positions = 1000000"),
        ("llama", {"vocab_size": 10**9}, "vocab_size = 1000000000"),
        ("llama", {"head_dim": 10**6}, "head_dim = 1000000"),
        ("llama", {"max_position_embeddings": -1}, "max_position_embeddings = -1"),
        ("llama", {"num_labels": 10**9}, "num_labels = 1000000000"),
        ("llama", {"layer_types": ["full_attention"] * 200_000}, "it has 4 MB, and at most 1 MB are read"),
    ],
)
def test_what_no_tensor_bears_out_is_refused_at_once(family: str, changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model", family)
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    began = time.monotonic()
    with pytest.raises(SourceError, match=words):
        inspect_folder(folder, parse_source(str(folder)))
    assert time.monotonic() - began < 20  # seconds; building would take minutes, or all memory


def test_a_number_format_that_is_not_read_is_told(tmp_path: Path) -> None:
    from engine.models.files.tensors import places_in

    folder = save_tiny(tmp_path / "model", "llama")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"].to(torch.float8_e4m3fn)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnsupportedModelError, match=r"model\.norm\.weight in model\.safetensors has dtype F8_E4M3"):
        places_in(folder)


@pytest.mark.parametrize("blocks", [2**30, 0])
def test_a_gguf_file_of_more_blocks_than_tensors_is_refused(blocks: int, tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "a.gguf", "llama")
    writer.add_block_count(blocks)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(SourceError, match=f"declares {blocks} blocks; it must declare between 1 and 0"):
        inspect_gguf(tmp_path / "a.gguf", parse_source(str(tmp_path / "a.gguf")))
