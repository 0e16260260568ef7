import json
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from engine.errors import SourceError
from engine.jobs import drain
from engine.models.files.tensors import places_in
from engine.models.gguf.convert import convert
from engine.types import Model
from tests.families import tiny_network
from tests.ggufs import write_gguf


@pytest.mark.parametrize("content", [b"GGUF\3\0\0\0", b"GGUF" + b"\xff" * 200, b"hello"])
def test_a_broken_file_is_refused_by_its_name_and_leaves_nothing_behind(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(content)
    with pytest.raises(SourceError, match=r"broken\.gguf is truncated, corrupted or not a language model"):
        drain(convert({"gguf": str(tmp_path / "broken.gguf"), "target": str(tmp_path / "converted" / "name")}))
    assert [path.name for path in (tmp_path / "converted").iterdir()] == [".lock"]


def test_weights_that_a_file_does_not_hold_are_not_made_up(tmp_path: Path) -> None:
    """transformers would fill in random ones."""
    source = write_gguf(tmp_path / "part.gguf", tiny_network("llama"), {}, {"blk.3.ffn_gate.weight": None})
    with pytest.raises(SourceError, match=r"part\.gguf lacks tensors that this model needs: 1, such as blk\.3\.ffn_gate\.weight"):
        drain(convert({"gguf": str(source), "target": str(tmp_path / "converted" / "name")}))
    assert [path.name for path in (tmp_path / "converted").iterdir()] == [".lock"]


def test_a_file_that_another_process_is_converting_is_waited_for_and_not_converted_again(tmp_path: Path) -> None:
    target = tmp_path / "converted" / "name"
    target.parent.mkdir()
    with ThreadPoolExecutor() as pool:
        with FileLock(target.parent / ".lock"):
            waiting = pool.submit(lambda: drain(convert({"gguf": str(tmp_path / "missing.gguf"), "target": str(target)})))
            assert not wait([waiting], timeout=0.3).done
            target.mkdir()
        assert waiting.result(20) == {"folder": str(target)}


def test_what_is_converted_is_an_ordinary_float32_checkpoint(demo: Model) -> None:
    config = json.loads((demo.folder / "config.json").read_text())
    assert "quantization_config" not in config
    assert config["num_hidden_layers"] == 30
    places = places_in(demo.folder)
    assert {place.dtype for place in places.values()} == {torch.float32}
    assert places["model.embed_tokens.weight"].shape == (49152, 576)
    assert "lm_head.weight" not in places
    assert {"tokenizer.json", "tokenizer_config.json"} <= {path.name for path in demo.folder.iterdir()}
    assert demo.tokenizer.decode(demo.tokenizer("Hello, world.")["input_ids"]) == "Hello, world."
