import json
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from engine.errors import ExportError
from engine.models.files.tensors import Output, TensorPlace, places_in, read_tensor, write_shards

SPECIAL = torch.tensor([[0.0, -0.0, float("inf"), -float("inf"), float("nan"), 1e-45], [1.1, -2.7, 3.4e38, 65504.0, 1 / 3, 1e-8]])


def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "a.weight": torch.randn(7, 5),
        "b.half": torch.randn(3, 4).bfloat16(),
        "c.float16": torch.randn(6).half(),
        "d.special": SPECIAL.clone(),
        "e.counts": torch.arange(5),
        "f.mask": torch.tensor([True, False]),
        "g.bytes": torch.arange(3, dtype=torch.uint8),
        "h.scalar": torch.tensor(0.5),
        "i.empty": torch.zeros(0, 4),
    }


def write(folder: Path, found: dict[str, torch.Tensor], dtype: torch.dtype | None = None, shard_bytes: int = 10**9) -> list[int]:
    """Write tensors, the floating ones in `dtype`, and return what was told on the way."""
    folder.mkdir(exist_ok=True)
    outputs = {
        name: Output(dtype if dtype and tensor.is_floating_point() else tensor.dtype, tuple(tensor.shape), partial(found.get, name))
        for name, tensor in found.items()
    }
    return list(write_shards(folder, outputs, shard_bytes))


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.numpy(force=True).tobytes() == b.numpy(force=True).tobytes()


def as_bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor


def test_what_is_written_is_read_back_bit_for_bit(tmp_path: Path) -> None:
    written = write(tmp_path, tensors())
    found = load_file(tmp_path / "model.safetensors")
    assert found.keys() == tensors().keys()
    assert all(same_bits(as_bits(found[name]), as_bits(tensor)) for name, tensor in tensors().items())
    assert written == sorted(written)
    assert written[-1] == sum(tensor.nbytes for tensor in tensors().values())
    assert not (tmp_path / "model.safetensors.index.json").exists()


def test_the_file_is_what_the_library_would_expect(tmp_path: Path) -> None:
    write(tmp_path, tensors())
    data = (tmp_path / "model.safetensors").read_bytes()
    size = int.from_bytes(data[:8], "little")
    assert size % 8 == 0  # so that the tensors lie aligned
    assert len(data) == 8 + size + sum(tensor.nbytes for tensor in tensors().values())
    with safe_open(tmp_path / "model.safetensors", framework="pt") as opened:
        assert opened.metadata() == {"format": "pt"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_cast_is_torchs_and_leaves_whole_numbers_alone(dtype: torch.dtype, tmp_path: Path) -> None:
    write(tmp_path, tensors(), dtype)
    found = load_file(tmp_path / "model.safetensors")
    for name, tensor in tensors().items():
        expected = tensor.to(dtype) if tensor.is_floating_point() else tensor
        assert same_bits(as_bits(found[name]), as_bits(expected)), name


def test_a_tensor_larger_than_a_chunk_and_one_that_is_not_contiguous(tmp_path: Path) -> None:
    large = {"large": torch.arange(2_500_000, dtype=torch.float32).reshape(2500, 1000), "turned": torch.randn(40, 30).T}
    write(tmp_path, large)
    found = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(found[name], tensor) for name, tensor in large.items())


def test_shards_and_their_index(tmp_path: Path) -> None:
    ten = {f"layer.{number}": torch.randn(100) for number in range(10)}  # 400 bytes each
    ten["huge"] = torch.randn(1000)
    write(tmp_path, ten, shard_bytes=1000)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert files == [f"model-{number:05}-of-00006.safetensors" for number in range(1, 7)]
    assert index["metadata"]["total_size"] == 8000
    assert set(index["weight_map"].values()) == set(files)
    found = {name: load_file(tmp_path / file)[name] for name, file in index["weight_map"].items()}
    assert found.keys() == ten.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in ten.items())
    for file in files:
        held = load_file(tmp_path / file)
        assert set(held) == {"huge"} or sum(tensor.nbytes for tensor in held.values()) <= 1000


def test_tensors_are_made_one_at_a_time(tmp_path: Path) -> None:
    made: list[str] = []

    def make(name: str) -> torch.Tensor:
        made.append(name)
        return torch.zeros(4)

    outputs = {name: Output(torch.float32, (4,), partial(make, name)) for name in "abc"}
    for count, written in enumerate(write_shards(tmp_path, outputs, 10**9), start=1):
        assert (len(made), written) == (count, 16 * count)


def test_a_tensor_of_another_shape_than_was_told_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"x has shape \(2, 2\); expected \(4,\)"):
        list(write_shards(tmp_path, {"x": Output(torch.float32, (4,), lambda: torch.ones(2, 2))}, 10**9))


def test_places_say_what_a_checkpoint_holds(tmp_path: Path) -> None:
    save_file({"x": torch.randn(2, 3).bfloat16(), "y": torch.arange(4)}, tmp_path / "model.safetensors")
    places = places_in(tmp_path)
    file = tmp_path / "model.safetensors"
    assert places == {"x": TensorPlace(file, torch.bfloat16, (2, 3)), "y": TensorPlace(file, torch.int64, (4,))}
    assert torch.equal(read_tensor("y", places["y"]), torch.arange(4))


def test_places_are_found_across_shards(tmp_path: Path) -> None:
    write(tmp_path, {"x": torch.ones(100), "y": torch.zeros(100)}, shard_bytes=500)
    places = places_in(tmp_path)
    assert places["x"].file != places["y"].file
    assert torch.equal(read_tensor("x", places["x"]), torch.ones(100))


def test_bytes_of_an_output() -> None:
    assert Output(torch.bfloat16, (3, 4), torch.Tensor).bytes == 24
    assert Output(torch.int64, (), torch.Tensor).bytes == 8
