"""Exporting from the terminal, and the plan files that it takes and refuses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.answers import Answer, assert_refused
from tests.terminal.given import DEPTH, outside, short


@pytest.fixture(scope="module")
def exported(plan_file: Path, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    """A proposal exported by the installed command: the folder, the proposal, the report."""
    folder = tmp_path_factory.mktemp("exports") / "folded"
    report = outside("export", "--plan", plan_file, "--out", folder, "--model", tiny_folder).json
    return folder, json.loads(plan_file.read_text(encoding="utf-8")), report


def test_an_exported_proposal_loads_and_holds_the_plans_tensors(exported: tuple[Path, Any, Any], tiny_folder: Path) -> None:
    folder, proposal, report = exported
    assert report["passed"] is True
    assert report["path"] == str(folder)
    assert all(check["passed"] for check in report["checks"])
    assert dict(report["files"])["model.safetensors"] == (folder / "model.safetensors").stat().st_size
    network, info = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert network.config.num_hidden_layers == proposal["depth"] == 2
    source = AutoModelForCausalLM.from_pretrained(tiny_folder, local_files_only=True).state_dict()
    blocks = [(0, 2), (3, 5)]  # home and donor
    for name, tensor in network.state_dict().items():
        if name.startswith("model.layers."):
            index, rest = name.removeprefix("model.layers.").split(".", 1)
            home, donor = blocks[int(index)]
            name = f"model.layers.{home if 'norm' in rest else donor}.{rest}"
        assert torch.equal(tensor, source[name])
    assert AutoTokenizer.from_pretrained(folder, local_files_only=True)("The cat")["input_ids"]


def test_an_export_keeps_how_the_plan_came_about(exported: tuple[Path, Any, Any]) -> None:
    folder, proposal, _ = exported
    kept = json.loads((folder / "layerscope.json").read_text(encoding="utf-8"))
    made_for = proposal["plan"]["model"]
    assert {**kept["plan"], "model": made_for} == proposal["plan"]
    assert (kept["settings"], kept["trials"]) == (proposal["settings"], proposal["trials"])
    assert {key: kept["source"][key] for key in ("name", "fingerprint")} == made_for


def test_export_overwrites_nothing(
    exported: tuple[Path, Any, Any], plan_file: Path, tiny_folder: Path, inside: Callable[..., Answer]
) -> None:
    folder = exported[0]
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    answer = inside("export", "--plan", plan_file, "--out", folder, "--model", tiny_folder)
    assert_refused(answer, str(folder), "exists already")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert sorted(path.name for path in folder.parent.iterdir()) == ["folded"]  # no leftovers


@pytest.mark.usefixtures("in_this_process")
def test_one_step_of_a_map_is_a_plan_file(on_tiny: tuple[object, ...], inside: Callable[..., Answer], tmp_path: Path) -> None:
    steps = inside("map", *on_tiny, "-C", 2, "--t-min", -1).json["steps"]
    assert steps[-1]["depth"] < DEPTH
    (tmp_path / "step.json").write_text(json.dumps(steps[-1]), encoding="utf-8")
    answer = inside("export", "--plan", tmp_path / "step.json", "--out", tmp_path / "out", *on_tiny[:2], "--dtype", "bfloat16")
    assert answer.json["passed"] is True
    network = AutoModelForCausalLM.from_pretrained(tmp_path / "out", local_files_only=True)
    assert network.config.num_hidden_layers == steps[-1]["depth"]
    assert network.dtype == torch.bfloat16


def plan_of(depth: int, *blocks: tuple[int, Any]) -> dict[str, Any]:
    return {"source_depth": depth, "blocks": [{"home": home, "mix": mix} for home, mix in blocks]}


GOOD = plan_of(DEPTH, (0, [[0, 1.0]]), (1, [[5, 1.0]]))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "does not exist"),
        ("", "not a readable JSON"),
        ("{'source_depth': 6}", "not a readable JSON"),
        (b"\xff\xfe", "not a readable JSON"),
        ("[" * 100_000, "not a readable JSON"),
        ([], "not a plan"),
        ("6", "not a plan"),
        ({}, "not a plan"),
        ({"plan": {"blocks": []}}, "not a plan"),
        ({"settings": {}, "steps": [{"plan": GOOD}]}, "T map"),
        (plan_of(5, (0, [[0, 1.0]])), "5 layers"),
        (plan_of(DEPTH), "blocks"),
        (plan_of(DEPTH, (6, [[6, 1.0]])), "layer 6"),
        (plan_of(DEPTH, (0, [[-1, 1.0]])), "layer -1"),
        (plan_of(DEPTH, (1, [[1, 1.0]]), (0, [[0, 1.0]])), "increase"),
        (plan_of(DEPTH, (0, [])), "mix"),
        (plan_of(DEPTH, (0, [[0, "1"], [0, 1.0]])), "mix"),
        (plan_of(DEPTH, (0, [[0, None]])), "not a plan"),
        (plan_of(DEPTH, (0.5, [[0, 1.0]])), "not a plan"),
        (plan_of(DEPTH, (0, [[0, 10**400]])), ""),
        (json.dumps(plan_of(DEPTH, (0, [[0, 1.0]]))).replace("1.0", "NaN"), "finite"),
        ({"plan": GOOD, "trials": 5}, ""),
        ({"plan": GOOD, "trials": [{"accepted": True, "similarity": "high"}]}, ""),
    ],
    ids=short,
)
def test_a_plan_that_is_none_is_refused(
    content: Any, expected: str, tiny_folder: Path, inside: Callable[..., Answer], tmp_path: Path
) -> None:
    if content is not None:
        data = content if isinstance(content, bytes) else (content if isinstance(content, str) else json.dumps(content)).encode()
        (tmp_path / "plan.json").write_bytes(data)
    answer = inside("export", "--plan", tmp_path / "plan.json", "--out", tmp_path / "out", "--model", tiny_folder)
    assert_refused(answer, expected)
    assert not [path for path in tmp_path.iterdir() if path.name != "plan.json"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [(("--shard-size", "huge"), "huge"), (("--shard-size", "1KB"), "1KB"), (("--dtype", "nonsense"), "nonsense")],
)
def test_an_export_that_makes_no_sense_is_refused(
    options: tuple[str, ...], expected: str, tiny_folder: Path, inside: Callable[..., Answer], tmp_path: Path
) -> None:
    (tmp_path / "plan.json").write_text(json.dumps(GOOD), encoding="utf-8")
    answer = inside("export", "--plan", tmp_path / "plan.json", "--out", tmp_path / "out", "--model", tiny_folder, *options)
    assert_refused(answer, expected)
    assert not (tmp_path / "out").exists()


def test_an_export_below_a_file_is_refused(tiny_folder: Path, inside: Callable[..., Answer], tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(json.dumps(GOOD), encoding="utf-8")
    answer = inside("export", "--plan", tmp_path / "plan.json", "--out", tmp_path / "plan.json" / "out", "--model", tiny_folder)
    assert_refused(answer, "plan.json")


@pytest.mark.usefixtures("in_this_process")
def test_speed_that_was_measured_goes_into_the_card(tiny_folder: Path, files: Path, inside: Callable[..., Answer], tmp_path: Path) -> None:
    plan, gains = ("--model", tiny_folder, "--plan", files / "plan.json"), tmp_path / "gains.json"
    assert inside("measure", *plan, "--no-writing", "--out", gains).code == 0
    assert inside("export", *plan, "--measured", gains, "--out", tmp_path / "smaller").code == 0
    speed = json.loads(gains.read_text(encoding="utf-8"))["speed"]
    card = (tmp_path / "smaller" / "README.md").read_text(encoding="utf-8")
    assert f"decoding {speed['decode_ratio']:.2f} ({speed['decode_range'][0]:.2f} to {speed['decode_range'][1]:.2f} over 5 rounds)" in card
    wrong = inside("export", *plan, "--measured", files / "plan.json", "--out", tmp_path / "another")
    assert_refused(wrong, "this is not what measure writes: speed: Field required")


@pytest.fixture(scope="module")
def written() -> dict[str, str]:
    """What each verb wrote, once for all tests."""
    return {}


@pytest.mark.parametrize(
    ("verb", "where", "value"),
    [
        ("evaluate", ("kl",), "x"),
        ("evaluate", ("top1_agreement",), None),
        ("evaluate", ("perplexity", "ratio"), "x"),
        ("evaluate", ("protocol", "tokens"), None),
        ("evaluate", ("texts", 0, "kl"), []),
        ("measure", ("speed", "decode_range"), [1.0]),
        ("measure", ("speed", "decode_range", 1), None),
        ("measure", ("memory", "plan_weights"), 2**63),
        ("measure", ("memory", "other"), 1),
        ("propose", ("trials", 0, "similarity"), []),
        ("propose", ("trials",), {}),
    ],
)
def test_what_a_verb_wrote_is_refused_where_a_figure_is_none(
    verb: str,
    where: tuple[str | int, ...],
    value: object,
    written: dict[str, str],
    tiny_folder: Path,
    files: Path,
    inside: Callable[..., Answer],
    tmp_path: Path,
) -> None:
    told, on, of = tmp_path / "told.json", ("--model", tiny_folder), ("--plan", files / "plan.json")
    asked, option = {
        "propose": ((), "--plan"),
        "evaluate": ((*of, "--tokens", 60), "--evaluation"),
        "measure": ((*of, "--no-writing"), "--measured"),
    }[verb]
    if verb not in written:
        written[verb] = json.dumps(inside(verb, *on, *asked).json)
    holder = answer = json.loads(written[verb])
    for key in where[:-1]:
        holder = holder[key]
    holder[where[-1]] = value
    told.write_text(json.dumps(answer), encoding="utf-8")
    refused = inside("export", *on, *of, option, told, "--out", tmp_path / "out")
    assert_refused(refused, f"this is not what {verb} writes: ")
