import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from engine.errors import MemoryLimitError, SourceError, UnsupportedModelError
from engine.jobs import drain
from engine.models import inspection
from engine.models.files.weights import weight_files
from engine.models.inspection import describe_config, inspect_folder, name_of, read_config, require_memory
from engine.models.library import DEMO_BASE_MODEL
from engine.models.loading import open_model
from engine.models.sources import converted_folder, download, parse_source
from engine.types import Model, ModelSource
from tests.families import FAMILIES, tiny_network


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """A sound tiny model in several files and an index."""
    tiny_network("llama").save_pretrained(tmp_path / "sharded", max_shard_size="50KB")
    return tmp_path / "sharded"


# --- The grammar ---


def test_demo_is_the_bundled_gguf_file() -> None:
    source = parse_source(" demo ")
    assert source.kind == "demo"
    assert Path(source.location).suffix == ".gguf"
    assert str(source) == "demo"


@pytest.mark.parametrize(
    ("text", "location", "revision"),
    [("hub:org/name", "org/name", None), ("hub:a-b/c.d_e@v1.0", "a-b/c.d_e", "v1.0"), ("hub:org/name@refs/pr/1", "org/name", "refs/pr/1")],
)
def test_hub_ids(text: str, location: str, revision: str | None) -> None:
    source = parse_source(text, "bfloat16", "cpu")
    assert source == ModelSource("hub", location, revision, "bfloat16", "cpu")
    assert str(source) == f"hub:{location}"


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "MODEL.GGUF").touch()
    assert parse_source(str(tmp_path)) == ModelSource("folder", str(tmp_path))
    assert parse_source(str(tmp_path / "MODEL.GGUF"), "float16") == ModelSource("gguf", str(tmp_path / "MODEL.GGUF"), dtype="float16")
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    assert parse_source(f"~/{tmp_path.name}").location == str(tmp_path)


@pytest.mark.parametrize("text", ["", "  ", "no/such/folder", "demo2", "\0", "x" * 5000, "~nobody_here/x"])
@pytest.mark.parametrize("prefix", ["", "hub:"])
def test_what_names_nothing_is_refused(text: str, prefix: str) -> None:
    with pytest.raises(SourceError):
        parse_source(prefix + text)


@pytest.mark.parametrize("text", ["hub:org/name@", "hub:org/name/more", "hub:org name/x", "hub:org/name@a b"])
def test_what_is_nearly_a_hub_id_is_refused(text: str) -> None:
    with pytest.raises(SourceError, match="hub:org/name"):
        parse_source(text)


def test_another_file_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "model.bin").touch()
    with pytest.raises(SourceError, match=r"model\.bin is neither"):
        parse_source(str(tmp_path / "model.bin"))


@pytest.mark.parametrize("dtype", ["int8", "float64", "", "torch.float32"])
def test_unknown_dtypes_are_refused(dtype: str) -> None:
    with pytest.raises(SourceError, match="bfloat16"):
        parse_source("demo", dtype)


@pytest.mark.parametrize("device", ["", "gpu", "cpu2"])
def test_a_device_this_machine_lacks_is_refused(device: str) -> None:
    with pytest.raises(SourceError, match="choose one of cpu"):
        parse_source("demo", device=device)


# --- What a model says of itself ---


def test_the_demos_numbers(demo: Model) -> None:
    assert (demo.spec.model_type, demo.spec.name) == ("llama", DEMO_BASE_MODEL.split("/")[1])
    assert (demo.spec.depth, demo.spec.hidden_size) == (30, 576)
    assert demo.spec.parameters == 134_515_008  # the head is tied to the embedding and counted once
    assert demo.spec.parameters == sum(parameter.numel() for parameter in demo.network.parameters())
    assert len(set(demo.spec.block_parameters)) == 1
    assert len(demo.spec.block_parameters) == 30
    assert demo.spec.dtype == "float32"
    assert demo.spec.bytes == 4 * 134_515_008


@pytest.mark.parametrize("family", FAMILIES)
def test_a_spec_counts_what_the_network_holds(family: str, tiny: Callable[..., Model]) -> None:
    model = tiny(family)
    assert model.spec.parameters == sum(parameter.numel() for parameter in model.network.parameters())
    named = list(model.network.named_parameters())
    expected = [sum(parameter.numel() for name, parameter in named if f".{layer}." in name) for layer in range(6)]
    assert model.spec.block_parameters == tuple(expected)


def test_a_spec_needs_no_weight_to_be_read(folder: Path) -> None:
    header = {name: {**entry} for name, entry in _header(folder / "model.safetensors").items()}
    size = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:  # all of its tensors, and no byte of them
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + size)
    assert inspect_folder(folder, parse_source(str(folder)))[1].depth == 6


def _header(file: Path) -> dict[str, Any]:
    content = file.read_bytes()
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])


@pytest.mark.parametrize(("dtype", "size"), [("auto", 4), ("float32", 4), ("bfloat16", 2), ("float16", 2)])
def test_a_spec_counts_bytes_in_the_dtype_asked_for(dtype: str, size: int, folder: Path) -> None:
    spec = inspect_folder(folder, parse_source(str(folder), dtype))[1]
    assert spec.bytes == size * spec.parameters
    assert spec.name == "model"


def test_what_does_not_fit_is_refused_with_the_numbers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "free_bytes", lambda device: 2_000_000_000)
    config = read_config(folder)
    config.hidden_size, config.head_dim, config.intermediate_size, config.num_hidden_layers = 2048, 512, 8192, 16
    too_large = describe_config(config, parse_source(str(folder), "float32"))
    with pytest.raises(MemoryLimitError, match=r"4\.6 GB in float32 \(1\.01 billion parameters\), but only 2\.0 GB are free.*bfloat16"):
        require_memory(too_large)
    with pytest.raises(MemoryLimitError, match=r"2\.3 GB in bfloat16.*free some memory$"):
        require_memory(describe_config(config, parse_source(str(folder), "bfloat16")))
    require_memory(inspect_folder(folder, parse_source(str(folder)))[1])


# --- Broken folders ---


def test_an_empty_folder_holds_no_model(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"config\.json is missing"):
        inspect_folder(tmp_path, parse_source(str(tmp_path)))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"model_type": "no_such_type"}', '{"model_type": 3}', "null", "\ufffd"])
def test_a_broken_config_is_refused(text: str, folder: Path) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(SourceError):
        inspect_folder(folder, parse_source(str(folder)))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", "large"),
        ("num_hidden_layers", 0),
        ("num_attention_heads", 0),
        ("vocab_size", -1),
        ("hidden_act", "no_such_activation"),
        ("dtype", "int8"),
    ],
)
def test_a_config_that_describes_no_network_is_refused(key: str, value: object, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, key: value}))
    with pytest.raises(SourceError):
        inspect_folder(folder, parse_source(str(folder)))


@pytest.mark.parametrize(
    ("key", "value", "read"),
    [
        ("output_hidden_states", "x", False),
        ("output_hidden_states", [1], False),
        ("output_router_logits", True, False),
        ("output_attentions", True, False),
        ("return_dict", False, True),
        ("return_dict", 0, True),
        ("is_encoder_decoder", True, False),
        ("tie_last_hidden_states", False, None),
        ("chunk_size_feed_forward", 1, 0),
        ("attn_implementation", "flash_attention_2", None),
    ],
)
def test_how_a_run_goes_is_not_for_a_config_to_say(key: str, value: object, read: object, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, key: value}))
    assert getattr(read_config(folder), f"_{key}" if key.startswith("attn") else key) is read
    assert torch.isfinite(drain(open_model(parse_source(str(folder)))).network(torch.ones(1, 4, dtype=torch.long)).logits).all()


def test_a_family_that_cannot_be_folded_is_refused(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(UnsupportedModelError, match="'bert'"):
        read_config(folder)


class Evil:
    """What leaves a trace when somebody unpickles it."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("alone", [True, False])
def test_a_pickle_beside_a_model_or_in_its_place_is_never_run(alone: bool, folder: Path, tmp_path: Path) -> None:
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "scheduler.pt", "tokenizer.pkl", "model.ckpt"):
        (folder / name).write_bytes(pickle.dumps(Evil(tmp_path / "trace")))
    if alone:
        (folder / "model.safetensors").unlink()
        with pytest.raises(SourceError, match=r"is a pickle"):
            drain(open_model(parse_source(str(folder))))
    else:
        drain(open_model(parse_source(str(folder))))
    assert not (tmp_path / "trace").exists()
    pickle.loads((folder / "optimizer.pt").read_bytes())
    assert (tmp_path / "trace").exists()


def test_pickles_are_not_opened(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(SourceError, match=r"pytorch_model\.bin is a pickle"):
        weight_files(folder)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(SourceError, match=r"has no \.safetensors file$"):
        weight_files(folder)


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, -1])
def test_truncated_safetensors_are_refused(keep: float, folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: int(keep * len(data)) if 0 < keep < 1 else int(keep)])
    with pytest.raises(SourceError, match="truncated or corrupted"):
        weight_files(folder)


def test_a_corrupted_header_is_refused(folder: Path) -> None:
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[8:12] = b"\xff\xff\xff\xff"
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(SourceError, match=r"model\.safetensors is truncated or corrupted"):
        weight_files(folder)


def test_the_files_of_an_index_are_found_and_a_missing_one_is_named(sharded: Path) -> None:
    files = weight_files(sharded)
    assert len(files) > 2
    assert files == sorted(sharded.glob("model-*.safetensors"))
    files[1].unlink()
    with pytest.raises(SourceError, match=f"{files[1].name} is listed in the index but missing"):
        weight_files(sharded)


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", '{"weight_map": []}', '{"weight_map": {"a": 5}}', '{"weight_map": {"a": ["b"]}}'])
def test_a_broken_index_is_refused(text: str, sharded: Path) -> None:
    (sharded / "model.safetensors.index.json").write_text(text)
    with pytest.raises(SourceError, match="index"):
        weight_files(sharded)


def test_without_an_index_the_whole_file_is_the_model(folder: Path) -> None:
    shutil.copyfile(folder / "model.safetensors", folder / "adapter.safetensors")
    assert weight_files(folder) == [folder / "model.safetensors"]
    (folder / "model.safetensors").rename(folder / "z.safetensors")
    with pytest.raises(SourceError, match=r"has 2 \.safetensors files, such as adapter\.safetensors, but neither"):
        weight_files(folder)


# --- GGUF files and the Hub ---


def test_a_converted_file_is_kept_by_its_content(tmp_path: Path, fresh_cache: Path) -> None:
    names = []
    for name, content in (("a.gguf", b"GGUF1"), ("b.gguf", b"GGUF1"), ("c.gguf", b"GGUF2")):
        (tmp_path / name).write_bytes(content)
        names.append(converted_folder(tmp_path / name))
    assert names[0] == names[1] != names[2]
    assert all(name.parent == fresh_cache / "converted" for name in names)


@pytest.mark.parametrize(("content", "words"), [(None, "does not exist"), (b"", "not a GGUF file"), (b"PK\3\4", "not a GGUF file")])
def test_what_is_no_gguf_file_is_refused(content: bytes | None, words: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(SourceError, match=rf"x\.gguf.*{words}"):
        converted_folder(tmp_path / "x.gguf")


def test_a_hub_model_that_is_not_here_is_refused_offline() -> None:
    with pytest.raises(SourceError, match=r"hub:nobody/nothing is not on this machine and HF_HUB_OFFLINE is set"):
        download(parse_source("hub:nobody/nothing"))


def test_a_hub_id_that_cannot_be_one_is_refused() -> None:
    with pytest.raises(SourceError, match="cannot be downloaded"):
        download(parse_source("hub:-org/name.."))


def test_a_sound_checkpoint_has_every_tensor_it_was_saved_with(folder: Path) -> None:
    (file,) = weight_files(folder)
    assert load_file(file).keys() == dict(tiny_network("llama").named_parameters()).keys()


@pytest.mark.parametrize(
    ("folder", "card", "config", "name"),
    [
        ("qwen", "---\nlicense: mit\n---\n# Qwen2 0.5B Instruct\n", {}, "Qwen2 0.5B Instruct"),
        ("qwen", "", {"_name_or_path": "Qwen/Qwen2-0.5B"}, "Qwen2-0.5B"),
        ("checkpoint-500", "---\nmodel_name: My run\n---\n", {}, "My run"),
        ("0123456789abcdef0123456789abcdef01234567", "# Tower\n", {}, "Tower"),
        ("model", "# model\n", {"_name_or_path": "/somewhere/output"}, "model"),  # none of them says anything
        ("Qwen2-0.5B", "# Something else\n", {}, "Qwen2-0.5B"),
        ("qwen2-1.5b", "# Something else\n", {}, "qwen2-1.5b"),
        ("my-fine-tune", "# Something else\n", {}, "my-fine-tune"),
    ],
)
def test_a_folder_whose_name_says_nothing_is_called_by_its_card_or_config(
    folder: str, card: str, config: dict[str, str], name: str, tmp_path: Path
) -> None:
    place = tmp_path / folder
    place.mkdir()
    if card:
        (place / "README.md").write_text(card, encoding="utf-8")
    (place / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert name_of(ModelSource("folder", str(place)), "qwen2") == name
