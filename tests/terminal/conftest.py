"""A tiny model, its texts, and valid and invalid plans."""

import json
import sys
from pathlib import Path

import pytest

from tests.families import TEXTS, save_tiny
from tests.terminal.given import DEPTH, LINES, plan_of
from ui.terminal import cli


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny-llama", "llama")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("texts") / "texts.txt"
    file.write_text("\n".join(TEXTS), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def on_tiny(tiny_folder: Path, texts: Path) -> tuple[object, ...]:
    return "--model", tiny_folder, "--calibration", texts


@pytest.fixture(scope="module")
def plan_file(on_tiny: tuple[object, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A proposal that the command wrote; every similarity is above its T."""
    file = tmp_path_factory.mktemp("plans") / "plan.json"
    asked = ("propose", *on_tiny, "-C", 3, "-I", 3, "-T", -1, "--lowest", 0, "--out", file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["layerscope", *map(str, asked)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
    assert stopped.value.code == 0
    return file


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts and plans: good ones and such that are none."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "texts.txt").write_text("\n".join(LINES), encoding="utf-8")
    (folder / "few.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    (folder / "empty.txt").write_text("\n \n", encoding="utf-8")
    (folder / "short.txt").write_text("x\ny\n", encoding="utf-8")
    (folder / "utf16.txt").write_text("\n".join(LINES), encoding="utf-16")
    (folder / "whole.json").write_text(json.dumps(plan_of(DEPTH, *range(DEPTH))), encoding="utf-8")
    (folder / "plan.json").write_text(json.dumps(plan_of(DEPTH, 0, 1, 4)), encoding="utf-8")
    (folder / "deep.json").write_text(json.dumps(plan_of(8, 0, 1, 4)), encoding="utf-8")
    (folder / "broken.json").write_text(
        json.dumps({"source_depth": 2, "blocks": [{"home": 0, "mix": [[0, 1e38], [1, 1e38]]}]}).replace(": 2,", ": 6,"), encoding="utf-8"
    )
    return folder


@pytest.fixture(scope="module")
def on_practice(tiny_folder: Path, files: Path) -> tuple[object, ...]:
    return "--model", tiny_folder, "--text", files / "texts.txt"
