import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from engine.errors import PlanError
from engine.export.checkpoint.export import export
from engine.jobs import drain
from engine.models.families import architecture_of, blocks_of
from engine.passes.forward import capture, logits_of, normed, resume, run_block
from engine.plans import tensor_store
from engine.plans.description import describe
from engine.plans.files import plan_from_json, plan_to_json
from engine.plans.surgery import Mixer, repaired
from engine.plans.tensor_store import keep_tensor, name_tensor, pack_tensors, tensor_file, tensor_of, unpack_tensors
from engine.types import Model, Plan, Repair
from tests.exporting import write
from tests.repairing import DROPPED, FOLDABLE, TEXTS, mended, objective_of


def marked(plan: Plan, place: int, tensor: torch.Tensor) -> Plan:
    """A plan with a map of ours at one block."""
    mark = name_tensor(tensor)
    blocks = list(plan.blocks)
    blocks[place] = replace(blocks[place], repair=mark)
    return replace(plan, blocks=tuple(blocks), repairs=(Repair(place, "ridge", 1.0, 0.5, 0.25, mark),))


# --- What a map does to a block ---


@pytest.mark.parametrize("family", ["gpt2", "qwen2", "phi3"])
@pytest.mark.parametrize("shape", ["matrix", "factor"])
def test_a_map_turns_what_the_last_projection_writes(family: str, shape: str, tiny: Callable[..., Model]) -> None:
    model = tiny(family)
    objective = objective_of(model, texts=TEXTS[:4])
    (record,) = objective.records
    generator = torch.Generator().manual_seed(3)
    tensor = torch.randn(32, 32, generator=generator) if shape == "matrix" else torch.tensor([-1.7])
    row = architecture_of(model.config)
    for place in (0, 1):
        wrote: list[torch.Tensor] = []
        module = blocks_of(model.network)[DROPPED.blocks[place].home].get_submodule(row.writes or "")
        hook = module.register_forward_hook(lambda _m, _a, output, wrote=wrote: wrote.append(output))
        before = run_block(model, objective.mixer, DROPPED.blocks[place], record.states[place], record)
        hook.remove()
        after = run_block(model, objective.mixer, marked(DROPPED, place, tensor).blocks[place], record.states[place], record)
        by_hand = wrote[0] @ tensor.T if shape == "matrix" else wrote[0] * tensor
        torch.testing.assert_close(after, before - wrote[0] + by_hand, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(after, before, atol=1e-2)


def test_a_map_reaches_the_bias_too() -> None:
    matrix = torch.tensor([[1.0, 2.0], [0.0, 1.0]])
    mark = name_tensor(matrix)
    bias, weight = torch.tensor([3.0, 4.0]), torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 5.0]])
    assert repaired([(1.0, bias)], torch.float32, mark, False).tolist() == [11.0, 4.0]
    assert repaired([(1.0, bias)], torch.float32, mark, True).tolist() == [11.0, 4.0]
    assert repaired([(1.0, weight)], torch.float32, mark, False).tolist() == [[1.0, 2.0, 12.0], [0.0, 1.0, 5.0]]
    assert repaired([(1.0, weight.T)], torch.float32, mark, True).T.tolist() == [[1.0, 2.0, 12.0], [0.0, 1.0, 5.0]]
    assert repaired([(0.5, bias), (0.5, bias + 2)], torch.float32, mark, False).tolist() == [14.0, 5.0]
    assert repaired([(1.0, bias)], torch.bfloat16, name_tensor(torch.tensor([2.0])), False).tolist() == [6.0, 8.0]


# --- Exported ---


@pytest.mark.parametrize("family", FOLDABLE)
@pytest.mark.parametrize("kind", ["ridge", "scalar"])
def test_an_exported_repair_reloads_as_it_ran(family: str, kind: str, tiny: Callable[..., Model], tmp_path: Path) -> None:
    model = tiny(family)
    plan = mended(model, kind)
    if not plan.repairs:
        plan = marked(DROPPED, 1, torch.eye(32) * 0.5 + 0.1 if kind == "ridge" else torch.tensor([0.7]))
    network, info = AutoModelForCausalLM.from_pretrained(
        write(model, plan, tmp_path / "out"), local_files_only=True, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    mixer = Mixer(model.network)
    for pack in objective_of(model, texts=TEXTS[:4]).packs:
        record = capture(model, pack)
        expected = logits_of(model, normed(model, resume(model, mixer, record, plan.blocks, plan.prefix)))
        bare = logits_of(model, normed(model, resume(model, mixer, record, DROPPED.blocks, DROPPED.prefix)))
        with torch.no_grad():
            found = network(input_ids=pack.ids, position_ids=pack.positions, use_cache=False).logits
        assert torch.equal(found, expected)
        assert not torch.allclose(found, bare, atol=1e-6)
    assert plan_from_json(json.loads((tmp_path / "out" / "layerscope.json").read_text())) == plan


def test_only_the_last_projection_of_a_repaired_block_changes(tiny: Callable[..., Model], tmp_path: Path) -> None:
    model = tiny("gpt2")
    matrix = torch.randn(32, 32, generator=torch.Generator().manual_seed(1))
    plain = load_file(write(model, DROPPED, tmp_path / "plain") / "model.safetensors")
    found = load_file(write(model, marked(DROPPED, 1, matrix), tmp_path / "found") / "model.safetensors")
    changed = {name for name, tensor in plain.items() if not torch.equal(found[name], tensor)}
    assert changed == {"transformer.h.1.mlp.c_proj.weight", "transformer.h.1.mlp.c_proj.bias"}
    weight, bias = (f"transformer.h.1.mlp.c_proj.{kind}" for kind in ("weight", "bias"))
    torch.testing.assert_close(found[weight], plain[weight] @ matrix.T)
    torch.testing.assert_close(found[bias], matrix @ plain[bias])


def test_a_repair_is_rounded_once(tiny: Callable[..., Model], tmp_path: Path) -> None:
    whole_ = load_file(write(tiny("llama"), mended(tiny("llama")), tmp_path / "whole") / "model.safetensors")
    half = load_file(write(tiny("llama"), mended(tiny("llama")), tmp_path / "half", dtype="bfloat16") / "model.safetensors")
    # float64 to float32 to bfloat16 rounds twice at most: one unit in the last place apart, almost everywhere equal
    pairs = [(half[name].float(), tensor.bfloat16().float()) for name, tensor in whole_.items()]
    assert all(torch.allclose(a, b, rtol=2**-7, atol=0) for a, b in pairs)
    assert sum(int((a != b).sum()) for a, b in pairs) < 5


@pytest.mark.parametrize("broken", [False, True])
def test_a_map_that_is_missing_is_told_before_anything_is_written(broken: bool, tiny: Callable[..., Model], tmp_path: Path) -> None:
    model, mark = tiny("llama"), ("b" if broken else "a") * 64
    if broken:
        tensor_file(mark).parent.mkdir(parents=True, exist_ok=True)
        tensor_file(mark).write_bytes(b"no safetensors")
    plan = replace(DROPPED, blocks=(*DROPPED.blocks[:2], replace(DROPPED.blocks[2], repair=mark)))
    with pytest.raises(PlanError, match=f"{mark[:12]} of this plan is not on this machine"):
        next(export(model.source, model.folder, plan, tmp_path / "out"))  # at the first step, before any planning
    assert not list(tmp_path.iterdir())
    with pytest.raises(PlanError, match="not on this machine"):
        objective_of(model).score(plan)


@pytest.mark.parametrize("shape", [(16, 16), (32, 16), (3,)])
def test_a_map_of_another_width_is_refused_in_words(shape: tuple[int, ...], tiny: Callable[..., Model], tmp_path: Path) -> None:
    """A plan that was repaired on a wider or narrower model of the same depth."""
    model = tiny("llama")
    plan = marked(DROPPED, 1, torch.ones(shape))
    with pytest.raises(PlanError):
        drain(export(model.source, model.folder, plan, tmp_path / "out"))
    assert not list(tmp_path.iterdir())


# --- JSON and the maps' files ---


@pytest.mark.parametrize("kind", ["ridge", "scalar"])
def test_a_repaired_plan_goes_through_json(kind: str, tiny: Callable[..., Model]) -> None:
    plan = mended(tiny("llama"), kind)
    assert plan.repairs
    value = json.loads(json.dumps(plan_to_json(plan), allow_nan=False))
    assert plan_from_json(value) == plan
    assert value["repairs"][0].keys() == {"place", "kind", "strength", "before", "after", "fingerprint"}
    assert [block.get("repair", "") for block in value["blocks"]] == [block.repair for block in plan.blocks]
    assert any(f"({kind})" in sentence for sentence in describe(plan))


def test_figures_that_are_none_come_back_as_nan() -> None:
    value = plan_to_json(marked(DROPPED, 1, torch.tensor([2.0])))
    value["repairs"][0]["before"] = None
    assert math.isnan(plan_from_json(value).repairs[0].before)


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value["blocks"][1].update(repair="A" * 64),
        lambda value: value["blocks"][1].update(repair="../../etc/passwd"),
        lambda value: value["blocks"][1].update(repair="a" * 63),
        lambda value: value["blocks"][1].update(repair="a" * 64 + "\n"),
        lambda value: value["blocks"][1].update(repair=5),
        lambda value: value["blocks"][1].update(repair=None),
        lambda value: value.update(repairs=5),
        lambda value: value.update(repairs=[{}]),
        lambda value: value["repairs"][0].update(place="1"),
        lambda value: value["repairs"][0].update(after="much"),
        lambda value: value["repairs"][0].update(fingerprint="short"),
    ],
)
def test_repairs_that_are_none_are_refused(change: Callable[[Any], object]) -> None:
    value = plan_to_json(marked(DROPPED, 1, torch.tensor([2.0])))
    change(value)
    with pytest.raises(PlanError, match="not a plan"):
        plan_from_json(value)


def test_maps_go_to_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = [torch.randn(5, 5, generator=torch.Generator().manual_seed(8)), torch.tensor([1.25])]
    marks = [name_tensor(tensor) for tensor in tensors]
    assert len(set(marks)) == 2
    assert [name_tensor(tensor) for tensor in tensors] == marks
    for mark in marks:
        keep_tensor(mark)
    pack_tensors(marks, tmp_path / "plan.repairs.safetensors")
    elsewhere(monkeypatch, tmp_path)
    with pytest.raises(PlanError, match="not on this machine"):
        tensor_of(marks[0])
    unpack_tensors(tmp_path / "plan.repairs.safetensors")
    monkeypatch.setattr(tensor_store, "_fresh", type(tensor_store._fresh)())  # and another session there
    assert [torch.equal(tensor_of(mark), tensor) for mark, tensor in zip(marks, tensors, strict=True)] == [True, True]
    assert {path.name for path in (tmp_path / "elsewhere" / "tensors").iterdir()} == {f"{mark}.safetensors" for mark in marks}


def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Another machine: nothing is kept on its disk, and nothing in memory."""
    monkeypatch.setenv("LAYERSCOPE_CACHE", str(tmp_path / "elsewhere"))
    monkeypatch.setattr(tensor_store, "_fresh", type(tensor_store._fresh)())


def test_a_map_is_what_its_numbers_and_shape_are() -> None:
    row = torch.arange(4.0)
    assert len({name_tensor(row), name_tensor(row.reshape(2, 2)), name_tensor(row + 1e-6)}) == 3
    assert name_tensor(row.double()) == name_tensor(row)
    assert name_tensor(row.reshape(2, 2).T.contiguous().T) == name_tensor(row.reshape(2, 2))


@pytest.mark.parametrize("broken", [os.mkfifo, Path.touch, lambda path: save_file({"tensor": torch.zeros(2)}, path)])
@pytest.mark.usefixtures("fresh_cache")
def test_what_is_not_the_tensor_is_told_and_gives_way_to_it(broken: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = torch.full((2,), 0.5)
    path = tensor_store.tensor_file(mark := tensor_store.name_tensor(tensor))
    path.parent.mkdir(parents=True)
    broken(path)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(tensor_store, "_fresh", type(tensor_store._fresh)())
        with pytest.raises(PlanError, match="not on this machine"):
            tensor_store.tensor_of(mark)
    tensor_store.keep_tensor(mark)
    monkeypatch.setattr(tensor_store, "_fresh", type(tensor_store._fresh)())
    assert torch.equal(tensor_store.tensor_of(mark), tensor)


def test_few_maps_that_were_not_kept_stay_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere(monkeypatch, tmp_path)
    marks = [name_tensor(torch.tensor([float(number)])) for number in range(100)]
    assert len(tensor_store._fresh) <= 20
    assert tensor_of(marks[-1]).item() == 99
    with pytest.raises(PlanError):
        tensor_of(marks[0])
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_that_is_not_there_holds_no_maps(tmp_path: Path) -> None:
    unpack_tensors(tmp_path / "plan.repairs.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_tampered_file_of_maps_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "plan.repairs.safetensors"
    mark = name_tensor(torch.tensor([1.5]))
    elsewhere(monkeypatch, tmp_path)
    save_file({mark: torch.tensor([1.5001])}, file)
    with pytest.raises(PlanError, match="another fingerprint than its plan names"):
        unpack_tensors(file)
    save_file({"../../evil": torch.tensor([1.5])}, file)
    with pytest.raises(PlanError, match="another fingerprint than its plan names"):
        unpack_tensors(file)
    for content in (b"", b"no safetensors at all", file.read_bytes()[:-3]):
        file.write_bytes(content)
        with pytest.raises(PlanError, match="cannot be read"):
            unpack_tensors(file)
    assert not (tmp_path / "elsewhere").exists()
