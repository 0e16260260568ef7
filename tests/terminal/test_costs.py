"""Costs of plans in the terminal: a judged map, and a sweep over all settings."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.jobs import Progress
from engine.search.frontier import Mapping
from tests.answers import Answer, assert_refused
from tests.families import TEXTS, save_tiny
from tests.measured import counts
from tests.waiting import wait_until

COMMAND = Path(sys.executable).parent / "layerscope"


@pytest.fixture(scope="module")
def on_tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, ...]:
    folder = tmp_path_factory.mktemp("models")
    (folder / "texts.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    return "--model", save_tiny(folder / "tiny-llama", "llama"), "--calibration", folder / "texts.txt"


# --- map --judge ---


def test_a_judged_map_tells_what_each_step_costs(on_tiny: tuple[object, ...], inside: Callable[..., Answer]) -> None:
    settings = ("-C", 2, "-I", 1, "--lowest", 0, "--rule", "mean", "--t-min", -0.25)
    found, plain = inside("map", *on_tiny, *settings, "--judge").json, inside("map", *on_tiny, *settings).json
    assert {**found, "steps": [{key: step[key] for key in step if key != "cost"} for step in found["steps"]]} == plain
    costs = [step["cost"] for step in found["steps"]]
    assert costs[0] == {"ratio": 1.0, "low": 1.0, "high": 1.0, "kl": pytest.approx(0, abs=1e-6)}
    for cost in costs[1:]:
        assert set(cost) == {"ratio", "low", "high", "kl"}
        assert cost["low"] < cost["ratio"] < cost["high"]
        assert cost["kl"] > 0


# --- sweep ---

SWEPT = {"rule", "C", "I", "T", "depth", "cost", "plan"}


def test_sweep_writes_every_plan_cheapest_first_within_a_depth(
    on_tiny: tuple[object, ...], inside: Callable[..., Answer], tmp_path: Path
) -> None:
    file = tmp_path / "new" / "sweep.json"
    answer = inside("sweep", *on_tiny, "--lowest", 2, "--t-min", 0.2, "--out", file)
    assert (answer.code, answer.out) == (0, ""), answer.err
    found = json.loads(file.read_text(encoding="utf-8"))
    assert set(found) == {"plans"}
    plans = found["plans"]
    assert all(set(plan) == SWEPT and set(plan["cost"]) == {"ratio", "low", "high", "kl"} for plan in plans)
    order = [(-plan["depth"], plan["cost"]["ratio"]) for plan in plans]
    assert order == sorted(order)
    assert len({json.dumps(plan["plan"]["blocks"]) for plan in plans}) == len(plans) > 5
    for plan in (plans[0], plans[-1]):  # the setting gives the plan, and is a plan file
        chosen = [part for key in ("C", "I", "T") for part in (f"-{key}", plan[key])]
        again = inside("propose", *on_tiny, "--rule", plan["rule"], *chosen, "--lowest", 2).json
        assert again["plan"] == plan["plan"]
        assert again["depth"] == plan["depth"]
    (tmp_path / "one.json").write_text(json.dumps(plans[-1]), encoding="utf-8")
    assert inside("evaluate", "--plan", tmp_path / "one.json", "--tokens", 300, *on_tiny[:2]).code == 0
    assert_refused(inside("evaluate", "--plan", file, *on_tiny[:2]), "this file is a whole sweep", "one of its plans")


def test_sweep_stops_in_time(on_tiny: tuple[object, ...], inside: Callable[..., Answer], fresh_cache: Path) -> None:
    assert inside("sweep", *on_tiny, "--seconds", 1e-9).json == {"plans": []}


def test_sweep_refuses_what_makes_no_sense(on_tiny: tuple[object, ...], inside: Callable[..., Answer]) -> None:
    assert_refused(inside("sweep", *on_tiny, "--seconds", 0), "a sweep needs a positive time limit", "0")
    assert_refused(inside("sweep", *on_tiny, "--t-min", 2), "t_min is 2")
    assert_refused(inside("sweep", *on_tiny, "--lowest", 9), "L is 9", "5")


def test_a_sweep_that_is_interrupted_writes_what_it_has(tmp_path: Path) -> None:
    slow = save_tiny(tmp_path / "slow", "llama", num_hidden_layers=12, hidden_size=64, intermediate_size=128)
    child = subprocess.Popen(
        [COMMAND, "sweep", "--model", slow],
        env={**os.environ, "LAYERSCOPE_CACHE": str(tmp_path / "cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job would ignore it
    )
    try:
        # When a later cost is there, the first is among the sweep's plans.
        wait_until(lambda: counts(tmp_path / "cache").get("evaluation 1", 0) > 2)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
    finally:
        child.kill()
    assert child.returncode == 130
    assert "Traceback" not in err
    assert [set(plan) for plan in json.loads(out)["plans"]] == [SWEPT] * len(json.loads(out)["plans"])
    assert json.loads(out)["plans"][0]["cost"]["ratio"] == 1


@pytest.mark.parametrize(("stop", "code"), [(KeyboardInterrupt(), 130), (SystemExit(143), 143)])  # Ctrl-C and SIGTERM, see `stoppable`
def test_a_map_that_is_interrupted_tells_that_it_is_not_complete(
    stop: BaseException, code: int, inside: Callable[..., Answer], on_tiny: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("map", *on_tiny, "-C", 2, "-I", 1, "--t-min", 0.2)
    whole = inside(*asked).json
    assert whole["complete"] is True
    advance = Mapping._advance

    def interrupted(run: Mapping) -> Iterator[Progress]:
        if len(run.found.steps) == 2:
            raise stop
        yield from advance(run)

    monkeypatch.setattr(Mapping, "_advance", interrupted)
    done = inside(*asked)
    assert done.code == code
    assert json.loads(done.out) == {**whole, "complete": False, "steps": whole["steps"][:2]}
