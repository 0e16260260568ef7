"""The terminal's verbs that judge, make, search and measure plans."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from engine.methods.depth.baselines import BASELINES
from tests.answers import Answer, assert_refused, read_json
from tests.terminal.given import DEPTH, VERBS, homes, plan_of

# --- evaluate ---


def test_evaluate_writes_what_a_plan_costs(
    on_practice: tuple[object, ...], files: Path, inside: Callable[..., Answer], tmp_path: Path
) -> None:
    out = tmp_path / "new" / "judged.json"
    answer = inside("evaluate", "--plan", files / "plan.json", *on_practice, "--context", 64, "--stride", 16, "--tokens", 700, "--out", out)
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


def test_evaluate_says_that_nothing_was_changed(on_practice: tuple[object, ...], files: Path, inside: Callable[..., Answer]) -> None:
    found = inside("evaluate", "--plan", files / "whole.json", *on_practice, "--tokens", 500).json
    assert (found["perplexity"]["ratio"], found["perplexity"]["interval"], found["top1_agreement"]) == (1.0, [1.0, 1.0], 1.0)
    assert found["kl"] == pytest.approx(0, abs=1e-6)


def test_evaluate_writes_null_for_what_is_no_number(on_practice: tuple[object, ...], files: Path, inside: Callable[..., Answer]) -> None:
    found = inside("evaluate", "--plan", files / "broken.json", *on_practice, "--tokens", 300).json
    assert found["perplexity"]["source"] > 1
    assert found["perplexity"]["plan"] is found["perplexity"]["ratio"] is found["kl"] is None
    assert found["perplexity"]["interval"] == [None, None]


def test_evaluate_reads_what_the_other_verbs_write(on_practice: tuple[object, ...], inside: Callable[..., Answer], tmp_path: Path) -> None:
    """A plan worse than another by the search's own objective, on its own text, is worse by the judge's."""
    figures = []
    for keep in (5, 2):
        inside("baseline", "--method", "sleb", "--keep", keep, *on_practice, "--out", tmp_path / f"{keep}.json")
        figures.append(inside("evaluate", "--plan", tmp_path / f"{keep}.json", *on_practice, "--tokens", 1024).json["kl"])
    assert figures[0] < figures[1]


# --- baseline ---


@pytest.mark.parametrize("method", BASELINES)
def test_baseline_writes_a_plan(method: str, on_practice: tuple[object, ...], inside: Callable[..., Answer]) -> None:
    found = inside("baseline", "--method", method, "--keep", 4, *on_practice, "--tokens", 300).json
    assert set(found) == {"source_depth", "blocks", "method", "settings", "model"}
    assert (found["source_depth"], found["method"], found["settings"]["keep"]) == (DEPTH, method, 4)
    assert len(found["blocks"]) == 4
    assert all(block["mix"] == [[block["home"], 1.0]] for block in found["blocks"])
    if method == "tail":
        assert homes(found) == [0, 1, 2, 3]


def test_random_is_the_seeds(on_practice: tuple[object, ...], inside: Callable[..., Answer]) -> None:
    plans = [homes(inside("baseline", "--method", "random", "--keep", 3, "--seed", seed, *on_practice).json) for seed in (1, 1, 2, 3, 4)]
    assert plans[0] == plans[1]
    assert len(set(map(tuple, plans))) > 1


# --- search ---


def test_search_writes_the_best_plan_and_how_it_came(
    on_practice: tuple[object, ...], inside: Callable[..., Answer], tmp_path: Path
) -> None:
    out = tmp_path / "found.json"
    answer = inside("search", "--keep", 4, "--seconds", 20, *on_practice, "--tokens", 300, "--out", out)
    assert (answer.code, answer.out) == (0, ""), answer.err
    found = read_json(out.read_text(encoding="utf-8"))
    assert set(found) == {"score", "depth", "plan", "history"}
    assert found["depth"] == len(found["plan"]["blocks"]) == 4
    assert found["plan"]["method"] == "search"
    settings = found["plan"]["settings"]
    assert {name: settings[name] for name in ("keep", "objective", "practice_tokens")} == {
        "keep": 4,
        "objective": "kl",
        "practice_tokens": 300,
    }
    assert settings["texts"].endswith("texts.txt")
    assert [set(entry) for entry in found["history"]] == [{"score", "seconds", "forwards", "stage"}] * len(found["history"])
    scores = [entry["score"] for entry in found["history"]]
    assert scores == sorted(set(scores), reverse=True)
    assert scores[-1] == found["score"]
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["found.json"]  # nothing was repaired
    everything = inside("search", "--keep", 4, "--exhaustive", *on_practice, "--tokens", 300).json
    assert everything["score"] <= min(scores)
    assert everything["history"][-1]["stage"] == "exhaustive"
    others = everything["others"]
    assert set(others) == {"search", *BASELINES}
    assert all(one["score"] >= everything["score"] and one["times"] == one["score"] / everything["score"] for one in others.values())
    assert others["search"]["times"] == 1  # of whole layers, on so small a model, it finds the optimum
    repaired = inside("search", "--keep", 4, "--exhaustive", "--objective", "perplexity", "--repair", *on_practice, "--tokens", 1000).json
    optimum = next(entry["score"] for entry in reversed(repaired["history"]) if entry["stage"] == "exhaustive")
    for one in repaired["others"].values():
        assert one["times"] == pytest.approx(math.exp(one["score"] - optimum))  # of perplexities, not of their logarithms


def test_search_takes_parameters_and_gigabytes_for_a_target(
    on_practice: tuple[object, ...], tiny_folder: Path, inside: Callable[..., Answer]
) -> None:
    network = AutoModelForCausalLM.from_pretrained(tiny_folder, local_files_only=True)
    block = sum(parameter.numel() for parameter in network.model.layers[0].parameters())
    four = sum(parameter.numel() for parameter in network.parameters()) - 2 * block
    options = ("--seconds", 20, *on_practice, "--tokens", 200)
    assert inside("search", "--parameters", four, *options).json["depth"] == 4
    assert inside("search", "--parameters", four - 1, *options).json["depth"] == 3
    cache = 2 * 2 * 8 * 100 * 3 * 4  # keys and values, heads, width, tokens, sequences, bytes
    whole = (4 * four + 4 * cache) / 1e9
    assert inside("search", "--gigabytes", whole + 1e-9, "--context", 100, "--batch", 3, *options).json["depth"] == 4
    assert inside("search", "--gigabytes", whole - 1e-9, "--context", 100, "--batch", 3, *options).json["depth"] == 3


@pytest.mark.parametrize("objective", ["perplexity", "cosine"])
def test_search_makes_small_what_it_is_told(objective: str, on_practice: tuple[object, ...], inside: Callable[..., Answer]) -> None:
    found = inside("search", "--keep", 5, "--objective", objective, "--seconds", 20, *on_practice, "--tokens", 200).json
    assert found["plan"]["settings"]["objective"] == objective
    assert (1 if objective == "perplexity" else 0) < found["score"] < (20 if objective == "perplexity" else 2)


def test_search_repairs_the_best_few(on_practice: tuple[object, ...], inside: Callable[..., Answer], tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    assert inside("search", "--keep", 3, "--repair", "--seconds", 20, *on_practice, "--out", out).code == 0
    found = read_json(out.read_text(encoding="utf-8"))
    assert found["history"][-1]["stage"] == "repair"
    assert found["plan"]["settings"]["repair"] == "ridge"
    marks = {block["repair"] for block in found["plan"]["blocks"] if "repair" in block}
    assert marks == {entry["fingerprint"] for entry in found["plan"]["repairs"]}
    assert marks
    assert set(load_file(tmp_path / "found.tensors.safetensors")) == marks
    assert found["score"] == found["plan"]["repairs"][-1]["after"]
    assert all(entry["after"] < entry["before"] for entry in found["plan"]["repairs"])


def test_measure_says_what_a_plan_gains_and_how_it_writes(
    on_practice: tuple[object, ...], tiny_folder: Path, inside: Callable[..., Answer], tmp_path: Path
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
    options: tuple[object, ...], on_practice: tuple[object, ...], inside: Callable[..., Answer]
) -> None:
    assert_refused(inside("search", "--gigabytes", 0.0001, *options, "--seconds", 5, "--tokens", 100, *on_practice), "")


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
def test_an_endless_budget_is_a_budget(value: object, on_practice: tuple[object, ...], inside: Callable[..., Answer]) -> None:
    assert inside("search", "--keep", 5, "--seconds", value, "--tokens", 100, *on_practice).json["depth"] == 5
