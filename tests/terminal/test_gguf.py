"""`layerscope export --format gguf`, as a person types it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from gguf import GGUFReader

from engine.methods.depth.baselines import plan_of_kept
from engine.plans.files import plan_to_json
from engine.plans.rules import fold_spans
from engine.types import Plan
from tests.answers import Answer, assert_refused
from tests.families import save_tiny
from tests.ggufs import save_gguf

DROPPED = plan_of_kept(6, {0, 1, 4, 5}, "by hand")


@pytest.fixture(scope="module")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", "llama")


def plan_file(folder: Path, plan: Plan = DROPPED) -> Path:
    (folder / "plan.json").write_text(json.dumps(plan_to_json(plan)))
    return folder / "plan.json"


@pytest.mark.usefixtures("in_this_process")
def test_a_gguf_file_becomes_a_smaller_one_that_opens(tiny_gguf: Path, inside: Callable[..., Answer], tmp_path: Path) -> None:
    plan = plan_file(tmp_path, fold_spans(6, [(2, 4)], "reference"))
    (tmp_path / "generation_config.json").write_text("[]")  # what else lies in the folder must not disturb the checks
    target = tmp_path / "smaller.gguf"
    report = inside("export", "--model", tiny_gguf, "--plan", plan, "--format", "gguf", "--out", target).json
    assert report["passed"] is True, report
    assert {entry["name"] for entry in report["checks"]} == {"loads", "keys", "depth", "logits", "tokenizer", "bytes", "generation"}
    assert (report["path"], report["files"]) == (str(target), [["smaller.gguf", target.stat().st_size]])
    assert GGUFReader(target).fields["llama.block_count"].contents() == 4
    (tmp_path / "generation_config.json").unlink()
    again = inside("export", "--model", target, "--plan", plan_file(tmp_path), "--format", "gguf", "--out", tmp_path / "again.gguf")
    assert_refused(again, "6 layers", "has 4")


@pytest.mark.parametrize(
    ("plan", "options", "expected"),
    [
        (fold_spans(6, [(2, 4)], "mean"), (), ("block 2", "float weights", "safetensors")),
        (DROPPED, ("--dtype", "bfloat16"), ("--dtype",)),
        (DROPPED, ("--evaluation", "judged.json"), ("--evaluation",)),
        (DROPPED, ("--format", "ggml"), ("ggml", "safetensors, gguf")),
        (DROPPED, ("--out", "smaller"), (".gguf",)),
    ],
)
def test_what_a_gguf_file_cannot_be_is_told_in_a_line(
    plan: Plan, options: tuple[str, ...], expected: tuple[str, ...], tiny_gguf: Path, inside: Callable[..., Answer], tmp_path: Path
) -> None:
    target = tmp_path / "out.gguf"
    command = ["export", "--model", tiny_gguf, "--plan", plan_file(tmp_path, plan), "--format", "gguf", "--out", target, *options]
    assert_refused(inside(*command), *expected)
    assert not target.exists()


def test_a_repaired_plan_is_refused_with_the_way_out(tiny_gguf: Path, inside: Callable[..., Answer], tmp_path: Path) -> None:
    value = plan_to_json(DROPPED)
    value["blocks"][1]["repair"] = "0" * 64
    (tmp_path / "plan.json").write_text(json.dumps(value))
    command = ["export", "--model", tiny_gguf, "--plan", tmp_path / "plan.json", "--format", "gguf", "--out", tmp_path / "out.gguf"]
    assert_refused(inside(*command), "block 1", "its repair", "safetensors")


def test_a_source_that_is_no_gguf_file_is_refused(inside: Callable[..., Answer], tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model", "llama")
    command = ["export", "--model", folder, "--plan", plan_file(tmp_path), "--format", "gguf", "--out", tmp_path / "out.gguf"]
    assert_refused(inside(*command), "needs a GGUF source", "safetensors")


@pytest.mark.parametrize("verb", [("export", "--format", "gguf"), ("profile",)])
@pytest.mark.parametrize("name", ["rwkv7", "no-such", "bloom"])
def test_an_unknown_architecture_is_told_in_a_line(name: str, verb: tuple[str, ...], inside: Callable[..., Answer], tmp_path: Path) -> None:
    source = save_gguf(tmp_path / "other.gguf", "llama", name)
    more = ("--plan", plan_file(tmp_path), "--out", tmp_path / "out.gguf") if len(verb) > 1 else ()
    assert_refused(inside(*verb, "--model", source, *more), name)
    assert not (tmp_path / "out.gguf").exists()
