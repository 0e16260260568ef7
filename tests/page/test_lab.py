"""Importance, Width and Weights: what the lab tells the page, and the plans it makes."""

from pathlib import Path
from typing import Any

import pytest

from engine.errors import LayerscopeError
from engine.judge import cost
from engine.methods.importance import scores_of
from engine.methods.masks import MASKS
from engine.methods.widths import Kept
from tests.families import save_tiny
from tests.page.benches import opened, shown
from tests.waiting import wait_for_jobs
from ui.page.bench import curves, pruning, trimming
from ui.page.bench.desk import Desk


@pytest.fixture
def desk(empty: Desk, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A desk that has opened the tiny model, whose costs are measured on few tokens."""
    monkeypatch.setattr(cost.cost_judge, "__defaults__", ("english", 400))
    monkeypatch.setattr(curves, "TOKENS", 300)
    monkeypatch.setattr(pruning, "SPARSITIES", (0.5,))
    return opened(empty, folder)


def done(desk: Desk) -> None:
    wait_for_jobs()
    assert desk.runner.problem is None


def made(desk: Desk) -> dict[str, Any]:
    return shown(desk, "fold", "found")


def test_a_model_brings_its_shape_and_its_sliders(desk: Desk) -> None:
    facts = shown(desk, "widths")
    assert facts["shape"] == {"depth": 6, "heads": 4, "groups": 2, "head_dim": 8, "neurons": 48, "channels": 32}
    assert (facts["divides"], facts["fixed"], facts["parameters"]) == (True, {}, desk.model.spec.parameters)  # type: ignore[union-attr]
    sliders = {axis: desk.page.since(0)[1][f"width_{axis}"] for axis in ("heads", "neurons", "channels")}
    assert {axis: (one["minimum"], one["maximum"], one["step"]) for axis, one in sliders.items()} == {
        "heads": (2, 4, 2),
        "neurons": (1, 48, 1),
        "channels": (4, 32, 4),
    }
    assert shown(desk, "importance")["measured"] == {}


def test_all_scores_of_an_axis_are_measured_and_compared(desk: Desk) -> None:
    desk.scoring.measure("heads", None, 400)
    done(desk)
    found = shown(desk, "importance")
    assert set(found["measured"]["heads"]) == set(scores_of("heads")) - {"taylor"}
    assert all(len(layers) == 6 and all(len(row) == 4 for row in layers) for layers in found["measured"]["heads"].values())
    assert len(found["agreement"]["heads"]) == 6
    assert (found["texts"], found["tokens"] >= 400) == ("practice-english", True)
    desk.scoring.measure("heads", "taylor", 400)
    done(desk)
    assert len(shown(desk, "importance")["agreement"]["heads"]) == 10


def test_weights_tell_what_a_sparsity_would_take(desk: Desk) -> None:
    desk.scoring.measure("weights", "wanda", 400)
    done(desk)
    found = shown(desk, "masks")["lost"]["wanda"]
    assert len(found["projections"]) == 7
    for layer in found["lost"]:
        for shares in layer:
            assert (len(shares), shares[0]) == (pruning.SHARES, 0.0)
            assert shares == sorted(shares)
            assert 0 < shares[10] < 0.5  # the lower half holds less than half


def test_a_head_is_looked_at_and_its_cost_measured(desk: Desk) -> None:
    desk.scoring.look_at_head(3, 2)
    done(desk)
    head = shown(desk, "importance")["head"]
    assert (head["layer"], head["head"]) == (3, 2)
    assert head["role"] in ("induction", "previous", "first", "diffuse", "mixed")
    assert len(head["tokens"]) == len(head["edges"]) == len(head["sink"]) > 10
    assert 0.5 < head["cost"]["ratio"] < 2
    with pytest.raises(LayerscopeError, match="no head 9 of layer 3"):
        desk.scoring.look_at_head(3, 9)


def test_a_trimmed_plan_is_the_plan_shown_and_a_pruned_one_goes_on_from_it(desk: Desk) -> None:
    desk.trimming.trim("map", 1.0, Kept(heads=2, neurons=36), "weighted", False, False, 400)
    done(desk)
    plan = made(desk)
    assert (plan["width"]["heads"], plan["width"]["neurons"], plan["width"]["channels"]) == (2, 36, 32)
    assert plan["parameters"] < desk.model.spec.parameters  # type: ignore[union-attr]
    assert plan["name"] in shown(desk, "costs", "value")["of"]

    desk.pruning.prune("found", 1.0, "wanda", 0.5, "", "", 400)
    done(desk)
    masked = made(desk)
    assert (masked["width"], masked["masks"]) == (plan["width"], {"sparsity": 0.5, "method": "wanda"})
    assert set(masked["parts"]) == {"width", "masks"}
    assert masked["name"] != plan["name"]
    assert desk.label_of("found", desk.chosen("found", 1.0)[0]) == "laco, trimmed (weighted), pruned (wanda)"

    desk.trimming.trim("found", 1.0, Kept(heads=2), "flap", False, False, 400, biased=True, redistributed=True)
    done(desk)
    assert made(desk)["width"]["done"] == ["bias", "redistributed"]

    desk.trimming.trim("found", 1.0, Kept(neurons=24), "weighted", True, False, 700)
    done(desk)
    again = made(desk)
    assert (again["width"]["heads"], again["width"]["neurons"], "masks" in again) == (4, 24, False)  # the sliders say all of the width


def test_curves_hold_every_method_and_leave_no_tensor_behind(desk: Desk, fresh_cache: Path) -> None:
    desk.pruning.curves()
    done(desk)
    curves = shown(desk, "masks")["curves"]
    assert [one["method"] for one in curves] == list(pruning.CURVES)
    assert all(one["ratio"] > 0 for one in curves)
    assert not list((fresh_cache / "tensors").glob("*")) if (fresh_cache / "tensors").exists() else True
    assert set(pruning.CURVES) <= set(MASKS)


def named(desk: Desk) -> list[tuple[str, int, str, str]]:
    return [(one["axis"], one["count"], one["score"], one["done"]) for one in shown(desk, "widthcosts")]


def test_widths_are_measured_nearest_the_sliders_first_and_score_against_score(
    desk: Desk, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trimming, "SHARES", (0.75, 0.5))
    monkeypatch.setattr(curves, "TOKENS", 700)
    assert shown(desk, "widthcosts") == []
    desk.trimming.curves(Kept(neurons=28))
    done(desk)
    points = named(desk)
    assert [(axis, count) for axis, count, score, _ in points if score == "minitron"] == [
        ("neurons", 28), ("neurons", 24), ("neurons", 36), ("channels", 24), ("heads", 2), ("channels", 16),
    ]  # fmt: skip
    assert {(score, done) for axis, _, score, done in points if axis == "channels"} == {("weighted", "refit"), ("minitron", "")}
    assert {score for axis, _, score, _ in points if axis == "neurons"} == {"weighted", "flap", "minitron", "maw"}
    assert all(one["low"] <= one["ratio"] <= one["high"] for one in shown(desk, "widthcosts"))
    assert not list(fresh_cache.glob("tensors/*"))

    known = {one["count"]: one["ratio"] for one in shown(desk, "widthcosts") if (one["axis"], one["score"]) == ("neurons", "maw")}
    desk.trimming.trim("map", 1.0, Kept(neurons=24), "maw", False, False, 700)
    done(desk)
    assert shown(desk, "costs", "value")["of"][made(desk)["name"]]["ratio"] == pytest.approx(known[24], rel=1e-4)


def test_a_cancelled_cost_map_keeps_its_points_and_goes_on_later(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trimming, "ARMS", (("minitron", ""),))
    monkeypatch.setattr(trimming, "trim", counted := Counted(trimming.trim, lambda: desk.runner.cancel() if counted.times == 3 else None))
    desk.trimming.curves(Kept())
    done(desk)
    first = named(desk)
    assert len(first) == 2
    begun = opened(Desk(desk.export_folder), desk.model.folder)  # type: ignore[union-attr]
    begun.trimming.curves(Kept())
    done(begun)
    assert len(named(begun)) == 3 + 1 + 3  # neurons, heads, channels
    assert named(begun)[:2] == first
    assert counted.times == 3 + len(named(begun)) - 2  # what was measured is not measured again


class Counted:
    """A function that counts its calls, and does something before each."""

    def __init__(self, run: Any, before: Any) -> None:
        self.run, self.before, self.times = run, before, 0

    def __call__(self, *args: Any, **named: Any) -> Any:
        self.times += 1
        self.before()
        return self.run(*args, **named)


def test_what_makes_no_sense_is_refused_before_anything_runs(desk: Desk) -> None:
    for do in (
        lambda: desk.trimming.trim("map", 1.0, Kept(heads=3), "weighted", True, False, 400),
        lambda: desk.trimming.trim("map", 1.0, Kept(heads=2), "maw", True, False, 400),
        lambda: desk.trimming.trim("found", 1.0, Kept(heads=2), "weighted", True, False, 400),
        lambda: desk.pruning.prune("map", 1.0, "wanda", 0.5, "2:2", "", 400),
        lambda: desk.pruning.prune("map", 1.0, "loud", 0.5, "", "", 400),
        lambda: desk.scoring.measure("heads", "wanda", 400),
    ):
        with pytest.raises(LayerscopeError):
            do()
    assert desk.runner.state() is None


def test_another_model_leaves_nothing_of_the_one_before(desk: Desk, tmp_path: Path) -> None:
    desk.scoring.measure("heads", "minitron", 400)
    done(desk)
    opened(desk, save_tiny(tmp_path / "other", "gpt2"))
    assert shown(desk, "importance")["measured"] == {}
    assert set(shown(desk, "widths")["fixed"]) == {"heads", "channels"}
    assert desk.page.since(0)[1]["width_heads"]["interactive"] is False
