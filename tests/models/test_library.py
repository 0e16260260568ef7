"""The models offered: a Hugging Face cache laid out by hand, exports, and recent models. Listing runs in its own process, because
huggingface_hub reads HF_HOME at import."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.errors import SourceError, UnsupportedModelError
from engine.jobs import drain
from engine.models.inspection import read_config
from engine.models.library import demo_file, remember, typed
from engine.models.loading import open_model
from engine.models.sources import parse_source
from engine.types import ModelSource
from tests.families import save_tiny

LLAMA = {"model_type": "llama"}
List = Callable[..., list[dict[str, Any]]]


class Hub:
    """A cache as huggingface_hub lays it out: blobs by content, a snapshot of links a commit, refs that name commits."""

    def __init__(self, home: Path) -> None:
        self.folder = home / "hub"
        self.folder.mkdir(parents=True)

    def add(self, repo: str, files: dict[str, Any], commit: str = "a" * 40, ref: str | None = "main", kind: str = "models") -> Path:
        place = self.folder / f"{kind}--{repo.replace('/', '--')}"
        snapshot = place / "snapshots" / commit
        (place / "blobs").mkdir(parents=True, exist_ok=True)
        snapshot.mkdir(parents=True)
        for name, content in files.items():
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            blob = place / "blobs" / hashlib.sha256(data).hexdigest()
            blob.write_bytes(data)
            (snapshot / name).symlink_to(os.path.relpath(blob, snapshot))
        if ref:
            (place / "refs" / ref).parent.mkdir(parents=True, exist_ok=True)
            (place / "refs" / ref).write_text(commit)
        return snapshot


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    return Hub(tmp_path / "home")


@pytest.fixture
def listed(tmp_path: Path, fresh_cache: Path) -> List:
    """What the command lists with an HF_HOME and an export folder of its own, without a network to reach for."""

    def run(*options: object) -> list[dict[str, Any]]:
        environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": "http://127.0.0.1:9"}
        environment.pop("HF_HUB_OFFLINE")  # it must not need to be told
        command = [sys.executable, "-m", "ui", "models", "--exports", tmp_path / "exports", *options]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, check=True)
        return json.loads(done.stdout or "[]")

    return run


def test_a_machine_with_nothing_offers_the_demo(listed: List) -> None:
    (demo,) = listed()
    assert demo == {
        "source": "demo",
        "name": "SmolLM2-135M-Instruct",
        "kind": "demo",
        "model_type": "llama",
        "supported": True,
        "reason": "",
        "bytes": demo_file().stat().st_size,
        "opened": None,
    }


def test_the_hub_cache_is_listed_by_what_one_types(hub: Hub, listed: List) -> None:
    hub.add("org/small", {"config.json": LLAMA, "model.safetensors": b"x" * 10, "b.safetensors": b"y" * 20})
    hub.add("org/small", {"config.json": LLAMA, "model.safetensors": b"z" * 5}, "b" * 40, "v1.0")
    hub.add("org/small", {"config.json": LLAMA, "model.safetensors": b"z" * 5}, "c" * 40, None)
    old = hub.add("gpt2", {"config.json": {"model_type": "gpt2"}, "model.safetensors": b"x"})
    hub.add("org/words", {"tokenizer.json": {}})
    hub.add("org/rows", {"config.json": LLAMA}, kind="datasets")
    found = {entry["source"]: entry for entry in listed() if entry["kind"] == "hub"}
    assert list(found) == [str(old), "hub:org/small", "hub:org/small@v1.0", f"hub:org/small@{'c' * 40}"]
    assert [entry["bytes"] for entry in found.values()] == [1, 30, 5, 5]
    assert [entry["name"] for entry in found.values()][:3] == ["gpt2", "org/small", "org/small@v1.0"]
    assert all(entry["supported"] for entry in found.values())
    for source in found:
        assert typed(parse_source(source)) == source


def test_what_cannot_be_opened_is_listed_with_the_words_that_opening_it_would_say(hub: Hub, listed: List) -> None:
    weights = {"model.safetensors": b"x"}
    bert = hub.add("org/bert", {"config.json": {"model_type": "bert"}, **weights})
    hub.add("org/quantised", {"config.json": {**LLAMA, "quantization_config": {"bits": 4}}, **weights})
    hub.add("org/scaled", {"config.json": {"model_type": "gpt2", "scale_attn_by_inverse_layer_idx": True}, **weights})
    pickled = hub.add("org/pickled", {"config.json": LLAMA, "pytorch_model.bin": b"x"})
    coded = hub.add("org/coded", {"config.json": {**LLAMA, "auto_map": {"AutoConfig": "x.Y"}}, **weights})
    hub.add("org/broken", {"config.json": b"{", **weights})
    hub.add("org/list", {"config.json": [1], **weights})
    hub.add("org/deep", {"config.json": b"[" * 100_000, **weights})
    hub.add("org/huge", {"config.json": b" " * (1 << 20) + json.dumps(LLAMA).encode(), **weights})
    found = {entry["name"]: entry for entry in listed() if entry["kind"] == "hub"}
    assert not any(entry["supported"] for entry in found.values())
    with pytest.raises(UnsupportedModelError) as refused:
        read_config(bert)
    assert (found["org/bert"]["model_type"], found["org/bert"]["reason"]) == ("bert", str(refused.value))
    with pytest.raises(SourceError) as refused:
        read_config(coded)
    assert found["org/coded"]["reason"] == str(refused.value)
    assert "quantised" in found["org/quantised"]["reason"]
    assert "scale_attn_by_inverse_layer_idx" in found["org/scaled"]["reason"]
    assert found["org/pickled"]["reason"].startswith(
        f"{pickled} does not contain a model: it has no .safetensors file; pytorch_model.bin is a pickle"
    )
    for name in ("broken", "list", "deep", "huge"):
        assert "cannot be read" in found[f"org/{name}"]["reason"]


def test_a_broken_cache_hides_nothing_else(hub: Hub, listed: List) -> None:
    hub.add("org/sound", {"config.json": LLAMA, "model.safetensors": b"x"})
    torn = hub.add("org/torn", {"config.json": LLAMA, "model.safetensors": b"y"})
    (torn / "model.safetensors").resolve().unlink()
    (hub.folder / "stray").write_text("no repository")
    assert [entry["name"] for entry in listed() if entry["kind"] == "hub"] == ["org/sound"]


def test_a_cache_that_is_a_file_is_no_cache(tmp_path: Path, listed: List) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "hub").write_text("")
    assert [entry["kind"] for entry in listed()] == ["demo"]


def test_exports_are_the_folders_with_a_record_and_gguf_files(tmp_path: Path, listed: List) -> None:
    exports = tmp_path / "exports"
    made = save_tiny(exports / "made", "qwen3")
    (made / "layerscope.json").write_text("{}")
    save_tiny(exports / "foreign", "llama")
    unfinished = save_tiny(exports / ".made-x1", "llama")
    (unfinished / "layerscope.json").write_text("{}")
    (exports / "smaller.gguf").write_bytes(demo_file().read_bytes()[:4096])
    (exports / "other.gguf").write_bytes(b"GGUF")
    found = {entry["source"]: entry for entry in listed() if entry["kind"] == "export"}
    assert {source: entry["model_type"] for source, entry in found.items()} == {
        str(made): "qwen3",
        str(exports / "smaller.gguf"): "llama",
        str(exports / "other.gguf"): "",
    }
    assert found[str(made)]["bytes"] == (made / "model.safetensors").stat().st_size


def test_what_was_opened_comes_after_the_demo_the_latest_first_and_once(tmp_path: Path, hub: Hub, listed: List) -> None:
    folders = [save_tiny(tmp_path / name, "llama") for name in ("first", "second", "gone")]
    made = save_tiny(tmp_path / "exports" / "made", "llama")
    (made / "layerscope.json").write_text("{}")
    for folder in (*folders, made, folders[0]):
        drain(open_model(parse_source(str(folder))))
    hub.add("org/small", {"config.json": LLAMA, "model.safetensors": b"x"})
    remember(ModelSource("hub", "org/small"), "org/small", "llama")
    remember(ModelSource("hub", "org/removed"), "org/removed", "llama")
    folders[2].rename(tmp_path / "elsewhere")
    found = listed()
    assert [(entry["kind"], entry["name"]) for entry in found] == [
        ("demo", "SmolLM2-135M-Instruct"),
        ("hub", "org/small"),
        ("recent", "first"),
        ("export", "made"),
        ("recent", "second"),
    ]
    times = [entry["opened"] for entry in found[1:]]
    assert times == sorted(times, reverse=True)


def test_the_last_ten_are_remembered_and_what_is_unreadable_is_forgotten(tmp_path: Path, fresh_cache: Path, listed: List) -> None:
    for number in range(12):
        folder = save_tiny(tmp_path / f"m{number}", "llama") if number in (0, 11) else tmp_path / f"m{number}"
        folder.mkdir(exist_ok=True)
        remember(ModelSource("folder", str(folder)), folder.name, "llama")
    found = [entry for entry in listed() if entry["kind"] == "recent"]
    assert [entry["name"] for entry in found] == [f"m{number}" for number in range(11, 1, -1)]
    assert [entry["supported"] for entry in found] == [True, *[False] * 9]
    assert "config.json is missing" in found[1]["reason"]
    for content in ("no JSON", "{}", '[1, {"source": 3}]'):
        (fresh_cache / "library" / "opened.json").write_text(content)
        assert [entry["kind"] for entry in listed()] == ["demo"]


def test_a_model_that_could_not_be_opened_is_not_remembered(tmp_path: Path, listed: List) -> None:
    folder = save_tiny(tmp_path / "broken", "llama")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(Exception, match="tokenizer"):
        drain(open_model(parse_source(str(folder))))
    assert [entry["kind"] for entry in listed()] == ["demo"]


def test_a_revision_is_a_part_of_what_one_types() -> None:
    for text in ("demo", "hub:org/name", "hub:org/name@refs/pr/1"):
        assert typed(parse_source(text)) == text
