"""A plan and its tensors, in one file or in two, load on a machine that has none of the tensors; invalid files are refused."""

import json
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.errors import PlanError
from engine.plans import tensor_store
from engine.plans.bundle import TENSORS, read_saved, write_bundle
from engine.plans.files import read_json
from engine.plans.tensor_store import keep_tensor, name_tensor, pack_tensors, require_tensors, tensor_of

VALUE = {"source_depth": 2, "blocks": [{"home": 0, "mix": [[0, 1.0]]}], "method": "by hand"}


@pytest.fixture
def mark(fresh_cache: Path) -> str:
    return keep_tensor(name_tensor(torch.arange(6.0).reshape(2, 3)))


def elsewhere(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on this is a machine that has seen nothing."""
    monkeypatch.setenv("LAYERSCOPE_CACHE", str(tmp_path / name))
    monkeypatch.setattr(tensor_store, "_fresh", OrderedDict())


def test_a_bundle_is_two_ordinary_files(mark: str, tmp_path: Path) -> None:
    write_bundle(VALUE, [mark], tmp_path / "plan.zip")
    assert [path.name for path in tmp_path.glob("*.zip")] == ["plan.zip"]
    with zipfile.ZipFile(tmp_path / "plan.zip") as whole:
        assert whole.namelist() == ["plan.json", "plan.tensors.safetensors"]
        whole.extractall(tmp_path)
    assert json.loads((tmp_path / "plan.json").read_text()) == VALUE
    assert torch.equal(load_file(tmp_path / "plan.tensors.safetensors")[mark], torch.arange(6.0).reshape(2, 3))
    assert read_json(tmp_path / "plan.zip") == VALUE  # for every verb that takes a plan file


@pytest.mark.parametrize("together", [True, False])
def test_a_plan_brings_its_tensors(together: bool, mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bundle(VALUE, [mark], tmp_path / "plan.zip")
    (tmp_path / "plan.json").write_text(json.dumps(VALUE), encoding="utf-8")
    pack_tensors([mark], tmp_path / f"plan{TENSORS}")
    elsewhere("another", tmp_path, monkeypatch)
    with pytest.raises(PlanError, match=r"not on this machine; copy the plan's \.tensors\.safetensors"):
        require_tensors([mark])
    files = ["plan.zip"] if together else [f"plan{TENSORS}", "plan.json"]
    assert read_saved([tmp_path / name for name in files]) == VALUE
    assert torch.equal(tensor_of(mark), torch.arange(6.0).reshape(2, 3))


def test_a_zip_whose_tensors_are_damaged_is_refused(mark: str, tmp_path: Path) -> None:
    write_bundle(VALUE, [mark], tmp_path / "plan.zip")
    content = bytearray((tmp_path / "plan.zip").read_bytes())
    content[content.index(torch.arange(6.0).numpy().tobytes())] ^= 1
    (tmp_path / "plan.zip").write_bytes(content)
    with pytest.raises(PlanError, match=r"plan.zip is not a readable zip file: Bad CRC-32"):
        read_saved([tmp_path / "plan.zip"])


def test_what_is_no_plan_with_its_tensors_is_refused(mark: str, tmp_path: Path) -> None:
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text(json.dumps(VALUE), encoding="utf-8")
    save_file({mark: torch.zeros(2, 3)}, tmp_path / "false.safetensors")
    for name, members in (("empty.zip", ()), ("two.zip", ("a.json", "b.json"))):
        with zipfile.ZipFile(tmp_path / name, "w") as whole:
            for member in members:
                whole.write(tmp_path / member, member)
    with zipfile.ZipFile(tmp_path / "false.zip", "w") as whole:
        whole.write(tmp_path / "a.json", "a.json")
        whole.write(tmp_path / "false.safetensors", "../../false.safetensors")
    for names, words in (
        (("a.json", "b.json"), "2 plans were chosen"),
        (("false.safetensors",), "0 plans were chosen"),
        (("empty.zip",), "holds 0 plans"),
        (("two.zip",), "holds 2 plans"),
        (("a.json", "false.safetensors"), "another fingerprint than its plan names"),
        (("false.zip",), "another fingerprint than its plan names"),
        (("missing.json",), "does not exist"),
    ):
        with pytest.raises(PlanError, match=words):
            read_saved([tmp_path / name for name in names])
