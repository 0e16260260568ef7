"""Devices as torch and the machine report them. The CPU is always there; a GPU's data are torch's."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine.errors import SourceError
from engine.jobs import drain
from engine.models.devices import device_names, devices, exact, free_bytes, require_device, require_dtype
from engine.models.loading import open_model
from engine.models.sources import parse_source
from tests.families import save_tiny


def test_the_processor_is_first_and_its_memory_is_the_machines() -> None:
    first = devices()[0]
    assert (first.name, first.title) == ("cpu", "")
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert first.total <= pages * 1.01  # less where a container is given less
    assert 0 < first.free <= first.total
    assert abs(free_bytes("cpu") - first.free) < 4e9


def test_the_names_are_those_that_torch_opens() -> None:
    assert device_names()[0] == "cpu"
    assert [device.name for device in devices()] == list(device_names())
    for name in device_names():
        require_device(name)
        assert torch.zeros(1, device=name).device == torch.device(name)
    assert len(set(device_names())) == len(device_names()) == 1 + torch.cuda.device_count() + torch.backends.mps.is_available()


@pytest.mark.parametrize("name", ["cuda:99", "mps:1", "", "CPU", "meta", "nonsense", "cpu:0"])
def test_a_device_that_is_not_here_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError) as refused:
        parse_source(str(tmp_path), device=name)
    assert str(refused.value) == f"there is no device '{name}' on this machine; choose one of {', '.join(device_names())}"


def test_a_card_that_went_away_after_it_was_chosen_is_told_of_in_one_line(tmp_path: Path) -> None:
    gone = f"cuda:{torch.cuda.device_count()}"
    source = replace(parse_source(str(save_tiny(tmp_path / "model", "llama"))), device=gone)
    with pytest.raises(SourceError, match=f"^{gone} does not answer .*choose another device$") as refused:
        drain(open_model(source))
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("name", [name for name in ("cuda:99", "mps") if name not in device_names()])
def test_numbers_that_a_device_cannot_hold_are_refused_in_torchs_words(name: str) -> None:
    with pytest.raises(SourceError, match=f"^{name} does not support float32 .*choose another number format or device$") as refused:
        require_dtype(name, "float32")
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_the_processor_holds_every_dtype(dtype: str) -> None:
    require_dtype("cpu", dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_exact_is_what_torch_calls_double(dtype: torch.dtype) -> None:
    values = torch.randn(3, 4).to(dtype)
    assert exact(values).dtype == torch.float64
    assert exact(values).device == values.device
    assert torch.equal(exact(values), values.double())
    assert torch.equal(exact(values).to(dtype), values)
