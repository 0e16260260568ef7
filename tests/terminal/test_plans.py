"""The terminal's verbs that judge, make, search and repair plans."""

import json
import math
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from engine.methods.baselines import BASELINES
from engine.plans import surgery
from engine.search.search import Search
from tests.answers import Answer, assert_refused, read_json
from tests.families import TEXTS, save_tiny
from ui.terminal import cli

DEPTH = 6  # of the tiny models
LINES = tuple(f"{text} {number} {TEXTS[number % 3][::-1]}" for number in range(14) for text in TEXTS)


def plan_of(depth: int, *homes: int) -> dict[str, Any]:
    return {"source_depth": depth, "blocks": [{"home": home, "mix": [[home, 1.0]]} for home in homes]}


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny-llama", "llama")


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
def on_tiny(tiny_folder: Path, files: Path) -> tuple[object, ...]:
    return "--model", tiny_folder, "--text", files / "texts.txt"


def homes(plan: dict[str, Any]) -> list[int]:
    return [block["home"] for block in plan["blocks"]]


# --- evaluate ---


def test_evaluate_writes_what_a_plan_costs(on_tiny: tuple[object, ...], files: Path, inside: Callable[..., Answer], tmp_path: Path) -> None:
    out = tmp_path / "new" / "judged.json"
    answer = inside("evaluate", "--plan", files / "plan.json", *on_tiny, "--context", 64, "--stride", 16, "--tokens", 700, "--out", out)
    assert (answer.code, answer.out) == (0, ""), answer.err
    found = read_json(out.read_text(encoding="utf-8"))
    assert set(found) == {"perplexity", "kl", "top1_agreement", "cosine", "protocol", "texts"}
    assert set(found["perplexity"]) == {"source", "plan", "ratio", "interval"}
    assert found["perplexity"]["ratio"] == pytest.approx(found["perplexity"]["plan"] / found["perplexity"]["source"])
    low, high = found["perplexity"]["interval"]
    assert low < found["perplexity"]["ratio"] < high
    assert found["kl"] > 0
    assert 0 <= found["top1_agreement"] < 1
    assert -1 <= found["cosine"] < 1
    protocol = found["protocol"]
    assert (protocol["context"], protocol["stride"], protocol["tokens"], protocol["bos"]) == (64, 16, 700, False)
    assert protocol["texts"] == str(files / "texts.txt")
    assert sum(text["tokens"] for text in found["texts"]) == 700
    assert sum(text["kl"] for text in found["texts"]) / 700 == pytest.approx(found["kl"])


def test_evaluate_says_that_nothing_was_changed(on_tiny: tuple[object, ...], files: Path, inside: Callable[..., Answer]) -> None:
    found = inside("evaluate", "--plan", files / "whole.json", *on_tiny, "--tokens", 500).json
    assert (found["perplexity"]["ratio"], found["perplexity"]["interval"], found["top1_agreement"]) == (1.0, [1.0, 1.0], 1.0)
    assert found["kl"] == pytest.approx(0, abs=1e-6)


def test_evaluate_writes_null_for_what_is_no_number(on_tiny: tuple[object, ...], files: Path, inside: Callable[..., Answer]) -> None:
    found = inside("evaluate", "--plan", files / "broken.json", *on_tiny, "--tokens", 300).json
    assert found["perplexity"]["source"] > 1
    assert found["perplexity"]["plan"] is found["perplexity"]["ratio"] is found["kl"] is None
    assert found["perplexity"]["interval"] == [None, None]


def test_evaluate_reads_what_the_other_verbs_write(on_tiny: tuple[object, ...], inside: Callable[..., Answer], tmp_path: Path) -> None:
    """A plan worse than another by the search's own objective, on its own text, is worse by the judge's."""
    figures = []
    for keep in (5, 2):
        inside("baseline", "--method", "sleb", "--keep", keep, *on_tiny, "--out", tmp_path / f"{keep}.json")
        figures.append(inside("evaluate", "--plan", tmp_path / f"{keep}.json", *on_tiny, "--tokens", 1024).json["kl"])
    assert figures[0] < figures[1]


# --- baseline ---


@pytest.mark.parametrize("method", BASELINES)
def test_baseline_writes_a_plan(method: str, on_tiny: tuple[object, ...], inside: Callable[..., Answer]) -> None:
    found = inside("baseline", "--method", method, "--keep", 4, *on_tiny, "--tokens", 300).json
    assert set(found) == {"source_depth", "blocks", "method", "settings", "model"}
    assert (found["source_depth"], found["method"], found["settings"]["keep"]) == (DEPTH, method, 4)
    assert len(found["blocks"]) == 4
    assert all(block["mix"] == [[block["home"], 1.0]] for block in found["blocks"])
    if method == "tail":
        assert homes(found) == [0, 1, 2, 3]


def test_random_is_the_seeds(on_tiny: tuple[object, ...], inside: Callable[..., Answer]) -> None:
    plans = [homes(inside("baseline", "--method", "random", "--keep", 3, "--seed", seed, *on_tiny).json) for seed in (1, 1, 2, 3, 4)]
    assert plans[0] == plans[1]
    assert len(set(map(tuple, plans))) > 1


# --- search ---


def test_search_writes_the_best_plan_and_how_it_came(on_tiny: tuple[object, ...], inside: Callable[..., Answer], tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    answer = inside("search", "--keep", 4, "--seconds", 20, *on_tiny, "--tokens", 300, "--out", out)
    assert (answer.code, answer.out) == (0, ""), answer.err
    found = read_json(out.read_text(encoding="utf-8"))
    assert set(found) == {"score", "depth", "plan", "history"}
    assert found["depth"] == len(found["plan"]["blocks"]) == 4
    assert found["plan"]["method"] == "search"
    assert found["plan"]["settings"] == {"keep": 4, "objective": "kl"}
    assert [set(entry) for entry in found["history"]] == [{"score", "seconds", "forwards", "stage"}] * len(found["history"])
    scores = [entry["score"] for entry in found["history"]]
    assert scores == sorted(set(scores), reverse=True)
    assert scores[-1] == found["score"]
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["found.json"]  # nothing was repaired
    everything = inside("search", "--keep", 4, "--exhaustive", *on_tiny, "--tokens", 300).json
    assert everything["score"] <= min(scores)
    assert everything["history"][-1]["stage"] == "exhaustive"
    others = everything["others"]
    assert set(others) == {"search", *BASELINES}
    assert all(one["score"] >= everything["score"] and one["times"] == one["score"] / everything["score"] for one in others.values())
    assert others["search"]["times"] == 1  # of whole layers, on so small a model, it finds the optimum
    repaired = inside("search", "--keep", 4, "--exhaustive", "--objective", "perplexity", "--repair", *on_tiny, "--tokens", 1000).json
    optimum = next(entry["score"] for entry in reversed(repaired["history"]) if entry["stage"] == "exhaustive")
    for one in repaired["others"].values():
        assert one["times"] == pytest.approx(math.exp(one["score"] - optimum))  # of perplexities, not of their logarithms


def test_search_takes_parameters_and_gigabytes_for_a_target(
    on_tiny: tuple[object, ...], tiny_folder: Path, inside: Callable[..., Answer]
) -> None:
    network = AutoModelForCausalLM.from_pretrained(tiny_folder, local_files_only=True)
    block = sum(parameter.numel() for parameter in network.model.layers[0].parameters())
    four = sum(parameter.numel() for parameter in network.parameters()) - 2 * block
    options = ("--seconds", 20, *on_tiny, "--tokens", 200)
    assert inside("search", "--parameters", four, *options).json["depth"] == 4
    assert inside("search", "--parameters", four - 1, *options).json["depth"] == 3
    cache = 2 * 2 * 8 * 100 * 3 * 4  # keys and values, heads, width, tokens, sequences, bytes
    whole = (4 * four + 4 * cache) / 1e9
    assert inside("search", "--gigabytes", whole + 1e-9, "--context", 100, "--batch", 3, *options).json["depth"] == 4
    assert inside("search", "--gigabytes", whole - 1e-9, "--context", 100, "--batch", 3, *options).json["depth"] == 3


@pytest.mark.parametrize("objective", ["perplexity", "cosine"])
def test_search_makes_small_what_it_is_told(objective: str, on_tiny: tuple[object, ...], inside: Callable[..., Answer]) -> None:
    found = inside("search", "--keep", 5, "--objective", objective, "--seconds", 20, *on_tiny, "--tokens", 200).json
    assert found["plan"]["settings"]["objective"] == objective
    assert (1 if objective == "perplexity" else 0) < found["score"] < (20 if objective == "perplexity" else 2)


def test_search_repairs_the_best_few(on_tiny: tuple[object, ...], inside: Callable[..., Answer], tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    assert inside("search", "--keep", 3, "--repair", "--seconds", 20, *on_tiny, "--out", out).code == 0
    found = read_json(out.read_text(encoding="utf-8"))
    assert found["history"][-1]["stage"] == "repair"
    assert found["plan"]["settings"]["repair"] == "ridge"
    marks = {block["repair"] for block in found["plan"]["blocks"] if "repair" in block}
    assert marks == {entry["fingerprint"] for entry in found["plan"]["repairs"]}
    assert marks
    assert set(load_file(tmp_path / "found.repairs.safetensors")) == marks
    assert found["score"] == found["plan"]["repairs"][-1]["after"]
    assert all(entry["after"] < entry["before"] for entry in found["plan"]["repairs"])


# --- repair ---


@pytest.fixture(scope="module")
def repaired(tiny_folder: Path, files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan that the command repaired, its maps beside it; the cache it was made with is thrown away."""
    folder = tmp_path_factory.mktemp("repaired")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAYERSCOPE_CACHE", str(folder / "cache"))
        arguments = ("repair", "--plan", files / "plan.json", "--model", tiny_folder, "--text", files / "texts.txt")
        patch.setattr(sys, "argv", ["layerscope", *map(str, (*arguments, "--out", folder / "plan.json"))])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert stopped.value.code == 0
    assert sorted(os.listdir(folder)) == ["cache", "plan.json", "plan.repairs.safetensors"]
    shutil.rmtree(folder / "cache")
    return folder


@pytest.fixture
def another_machine(fresh_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing that was repaired is known, on disk or in memory."""
    monkeypatch.setattr(surgery, "_fresh", type(surgery._fresh)())
    return fresh_cache


def test_repair_writes_the_plan_and_its_maps(repaired: Path) -> None:
    plan = read_json((repaired / "plan.json").read_text(encoding="utf-8"))
    assert homes(plan) == [0, 1, 4]
    assert plan["settings"]["repair"] == "ridge"
    assert plan["repairs"]
    for entry in plan["repairs"]:
        assert set(entry) == {"place", "kind", "strength", "before", "after", "fingerprint"}
        assert entry["place"] in (1, 2)
        assert entry["after"] < entry["before"]
        assert plan["blocks"][entry["place"]]["repair"] == entry["fingerprint"]
    maps = load_file(repaired / "plan.repairs.safetensors")
    assert {mark: tuple(tensor.shape) for mark, tensor in maps.items()} == {entry["fingerprint"]: (32, 32) for entry in plan["repairs"]}


def test_a_scalar_repair_is_one_factor_a_seam(on_tiny: tuple[object, ...], files: Path, inside: Callable[..., Answer]) -> None:
    plan = inside("repair", "--plan", files / "plan.json", "--kind", "scalar", *on_tiny).json
    assert plan["repairs"]
    assert {entry["kind"] for entry in plan["repairs"]} == {"scalar"}


def test_repair_leaves_a_whole_plan_whole(on_tiny: tuple[object, ...], files: Path, inside: Callable[..., Answer], tmp_path: Path) -> None:
    assert inside("repair", "--plan", files / "whole.json", *on_tiny, "--out", tmp_path / "same.json").code == 0
    plan = read_json((tmp_path / "same.json").read_text(encoding="utf-8"))
    assert plan["blocks"] == plan_of(DEPTH, *range(DEPTH))["blocks"]
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["same.json"]


@pytest.mark.usefixtures("another_machine")
def test_a_repaired_plan_is_judged_on_another_machine(
    repaired: Path, on_tiny: tuple[object, ...], files: Path, inside: Callable[..., Answer]
) -> None:
    better, bare = (
        inside("evaluate", "--plan", plan, *on_tiny, "--tokens", 2000).json for plan in (repaired / "plan.json", files / "plan.json")
    )
    assert 0 < better["kl"] < bare["kl"]


def test_a_repaired_plan_is_exported_on_another_machine(
    repaired: Path, tiny_folder: Path, another_machine: Path, inside: Callable[..., Answer], tmp_path: Path
) -> None:
    report = inside("export", "--plan", repaired / "plan.json", "--model", tiny_folder, "--out", tmp_path / "out").json
    assert report["passed"] is True, report["checks"]
    kept = read_json((tmp_path / "out" / "layerscope.json").read_text(encoding="utf-8"))
    plan = read_json((repaired / "plan.json").read_text(encoding="utf-8"))
    assert {"model": plan["model"], **kept["plan"]} == plan
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "out", local_files_only=True)
    source = AutoModelForCausalLM.from_pretrained(tiny_folder, local_files_only=True)
    assert len(found.model.layers) == 3
    maps = load_file(repaired / "plan.repairs.safetensors")
    for layer, block in zip(found.model.layers, plan["blocks"], strict=True):
        weight = source.model.layers[block["home"]].mlp.down_proj.weight
        expected = (maps[block["repair"]] if "repair" in block else torch.eye(32)) @ weight
        torch.testing.assert_close(layer.mlp.down_proj.weight, expected)
        torch.testing.assert_close(layer.mlp.up_proj.weight, source.model.layers[block["home"]].mlp.up_proj.weight)


def test_a_repaired_plan_without_its_maps_is_refused(
    repaired: Path, on_tiny: tuple[object, ...], another_machine: Path, inside: Callable[..., Answer], tmp_path: Path
) -> None:
    shutil.copyfile(repaired / "plan.json", tmp_path / "alone.json")
    assert_refused(inside("evaluate", "--plan", tmp_path / "alone.json", *on_tiny), "not on this machine")
    assert_refused(inside("export", "--plan", tmp_path / "alone.json", "--out", tmp_path / "out", *on_tiny[:2]), "not on this machine")
    assert not (tmp_path / "out").exists()
    plan = inside("repair", "--plan", tmp_path / "alone.json", *on_tiny).json  # which is the way out
    assert plan["repairs"]


@pytest.mark.usefixtures("another_machine")
def test_tampered_maps_are_refused(repaired: Path, on_tiny: tuple[object, ...], inside: Callable[..., Answer], tmp_path: Path) -> None:
    shutil.copyfile(repaired / "plan.json", tmp_path / "plan.json")
    maps = load_file(repaired / "plan.repairs.safetensors")
    save_file({mark: tensor + 1e-3 for mark, tensor in maps.items()}, tmp_path / "plan.repairs.safetensors")
    assert_refused(inside("evaluate", "--plan", tmp_path / "plan.json", *on_tiny), "plan.repairs.safetensors", "not the one")
    (tmp_path / "plan.repairs.safetensors").write_bytes(b"no maps")
    assert_refused(inside("evaluate", "--plan", tmp_path / "plan.json", *on_tiny), "plan.repairs.safetensors", "cannot be read")


def test_a_plan_repaired_on_a_model_of_another_width_is_refused(
    repaired: Path, files: Path, inside: Callable[..., Answer], tmp_path: Path
) -> None:
    wide = save_tiny(tmp_path / "wide", "llama", hidden_size=64)
    assert_refused(inside("evaluate", "--plan", repaired / "plan.json", "--model", wide, "--text", files / "texts.txt"))


def test_a_place_for_maps_that_cannot_be_written_is_refused(
    on_tiny: tuple[object, ...], files: Path, inside: Callable[..., Answer], tmp_path: Path
) -> None:
    (tmp_path / "plan.repairs.safetensors").mkdir()
    answer = inside("repair", "--plan", files / "plan.json", *on_tiny, "--out", tmp_path / "plan.json")
    assert_refused(answer, "cannot be written")


# --- what is refused ---


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("search", "--keep", 7), "7 layers cannot be kept of 6; the nearest that can is 6"),
        (("search", "--keep", 0), "0 layers cannot be kept of 6; the nearest that can is 1"),
        (("search", "--keep", -1), "nearest that can is 1"),
        (("search", "--keep", "four"), "--keep"),
        (("search",), "one target"),
        (("search", "--keep", 3, "--parameters", 10_000), "one target"),
        (("search", "--parameters", 10_000, "--gigabytes", 1), "one target"),
        (("search", "--parameters", 1), "one layer alone comes to"),
        (("search", "--parameters", "nan"), "one layer alone comes to"),
        (("search", "--gigabytes", -1), "one layer alone comes to"),
        (("search", "--gigabytes", 1e-5, "--context", 100), "one layer alone comes to"),
        (("search", "--keep", 3, "--seconds", 0), "0.0 seconds"),
        (("search", "--keep", 3, "--seconds", -5), "-5.0 seconds"),
        (("search", "--keep", 3, "--seconds", "nan"), "nan seconds"),
        (("search", "--keep", 3, "--objective", "beauty"), "'beauty'"),
        (("search", "--keep", 3, "--tokens", 0), ""),
        (("baseline", "--method", "bi", "--keep", 7), "nearest that can is 6"),
        (("baseline", "--method", "bi", "--keep", 0), "nearest that can is 1"),
        (("baseline", "--method", "magic", "--keep", 3), "'magic'"),
        (("baseline", "--method", "bi", "--keep", 3, "--objective", "beauty"), "'beauty'"),
        (("baseline", "--method", "bi"), "--keep"),
        (("baseline", "--keep", 3), "--method"),
        (("repair", "--plan", "plan.json", "--kind", "magic"), "'magic'"),
        (("repair", "--plan", "missing.json"), "does not exist"),
        (("repair", "--plan", "texts.txt"), "no JSON"),
        (("repair", "--plan", "plan.json", "--tokens", 100), "more practice text"),
        (("repair",), "--plan"),
        (("evaluate", "--plan", "missing.json"), "does not exist"),
        (("evaluate", "--plan", "plan.json", "--context", 1), "context 1"),
        (("evaluate", "--plan", "plan.json", "--stride", 0), "stride 0"),
        (("evaluate", "--plan", "plan.json", "--context", 16, "--stride", 17), "stride 17"),
        (("evaluate", "--plan", "plan.json", "--tokens", 0), ""),
        (("evaluate",), "--plan"),
    ],
    ids=lambda value: " ".join(map(str, value))[:60] if isinstance(value, tuple) else "",
)
def test_mistakes_end_with_one_line(
    arguments: tuple[object, ...], expected: str, on_tiny: tuple[object, ...], files: Path, inside: Callable[..., Answer]
) -> None:
    placed = [files / value if isinstance(value, str) and value.endswith((".json", ".txt")) else value for value in arguments]
    assert_refused(inside(*placed, *on_tiny), expected)


@pytest.mark.parametrize("verb", ["evaluate", "repair", "tasks", "measure", "report"])
def test_a_plan_of_another_depth_is_refused_before_a_weight_is_read(
    verb: str, tiny_folder: Path, files: Path, inside: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.models.loading.read_network", lambda *_: pytest.fail("weights were read"))
    answer = inside(verb, "--plan", files / "deep.json", "--model", tiny_folder, "--out", tmp_path / "out")
    assert_refused(answer, "a model of 8 layers", "has 6")


VERBS = {
    "evaluate": ("--plan", "plan.json"),
    "baseline": ("--method", "bi", "--keep", 3),
    "search": ("--keep", 3),
    "repair": ("--plan", "plan.json"),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("text", "expected"),
    [("empty.txt", "holds no text"), ("utf16.txt", "is not UTF-8"), ("short.txt", "too short"), ("missing.txt", "does not exist")],
)
def test_texts_that_are_none_are_refused(
    verb: str, text: str, expected: str, tiny_folder: Path, files: Path, inside: Callable[..., Answer]
) -> None:
    options = [files / value if value == "plan.json" else value for value in VERBS[verb]]
    assert_refused(inside(verb, *options, "--model", tiny_folder, "--text", files / text), text, expected)


def test_a_family_that_cannot_be_repaired_is_refused(files: Path, inside: Callable[..., Answer], tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "gemma", "gemma3_text")
    options = ("--model", folder, "--text", files / "texts.txt")
    assert_refused(inside("repair", "--plan", files / "plan.json", *options), "gemma3_text")


@pytest.mark.parametrize(("family", "text"), [("gemma3_text", "texts.txt"), ("llama", "few.txt")])
def test_a_search_whose_plan_could_not_be_repaired_is_refused_before_it_begins(
    family: str, text: str, files: Path, inside: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, began, run = save_tiny(tmp_path / family, family), [], Search.run
    monkeypatch.setattr(Search, "run", lambda self: began.append(1) or run(self))
    answer = inside("search", "--keep", 3, "--repair", "--seconds", 20, "--model", folder, "--text", files / text)
    assert_refused(answer)
    assert not began


def test_measure_says_what_a_plan_gains_and_how_it_writes(
    on_tiny: tuple[object, ...], tiny_folder: Path, inside: Callable[..., Answer], tmp_path: Path
) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(plan_of(6, 0, 1, 2, 5)), encoding="utf-8")
    model = ("--plan", plan, "--model", tiny_folder)
    found = inside("measure", *model, "--context", 100, "--batch", 3).json
    assert set(found) == {"samples", "speed", "memory"}
    assert (found["memory"]["context"], found["memory"]["batch"]) == (100, 3)
    assert found["memory"]["source_cache"] == 2 * 2 * 8 * 6 * 100 * 3 * 4  # keys and values, heads, width, layers, tokens, sequences, bytes
    assert found["memory"]["plan_cache"] == found["memory"]["source_cache"] * 4 / 6
    assert 0 < found["speed"]["plan_peak"] < found["speed"]["source_peak"]
    assert {sample["decoding"] for sample in found["samples"]} == {"greedy", "sampled"}
    bare = inside("measure", *model, "--no-writing", "--no-speed").json
    assert (bare["samples"], bare["speed"]) == (None, None)
    assert_refused(inside("measure", *model, "--context", 0), "at least 1")


def test_a_report_holds_the_tasks_asked_for(files: Path, tiny_folder: Path, inside: Callable[..., Answer], tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    model = ("--plan", files / "plan.json", "--model", tiny_folder, "--text", files / "texts.txt", "--tokens", 60)
    inside("report", *model, "--no-writing", "--no-speed", "--tasks", "bundled", "--limit", 5, "--out", out)
    text = out.read_text(encoding="utf-8")
    assert all(name in text for name in ("layerscope_cloze", "layerscope_choice"))


@pytest.mark.parametrize("options", [("--context", -100), ("--batch", -1, "--context", 100)])
def test_a_cache_of_less_than_nothing_is_refused(
    options: tuple[object, ...], on_tiny: tuple[object, ...], inside: Callable[..., Answer]
) -> None:
    assert_refused(inside("search", "--gigabytes", 0.0001, *options, "--seconds", 5, "--tokens", 100, *on_tiny), "")


@pytest.mark.parametrize("verb", VERBS)
def test_help_names_every_option(verb: str, inside: Callable[..., Answer]) -> None:
    expected = {
        "evaluate": "--plan --model --text --context --stride --tokens --dtype --device --trust-remote-code --out --format",
        "baseline": "--method --keep --model --text --tokens --objective --seed --dtype --device --trust-remote-code --out",
        "search": "--keep --parameters --gigabytes --context --batch --objective --seconds --repair --exhaustive --survivors "
        "--text --tokens --out",
        "repair": "--plan --kind --model --text --tokens --dtype --device --trust-remote-code --out",
    }[verb]
    answer = inside(verb, "--help")
    assert answer.code == 0
    assert set(expected.split()) <= set(answer.out.replace(",", " ").split())


@pytest.mark.parametrize("value", [math.inf, "1e400"])
def test_an_endless_budget_is_a_budget(value: object, on_tiny: tuple[object, ...], inside: Callable[..., Answer]) -> None:
    assert inside("search", "--keep", 5, "--seconds", value, "--tokens", 100, *on_tiny).json["depth"] == 5
