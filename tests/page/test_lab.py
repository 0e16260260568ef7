"""Importance, Width and Weights: their updates to the page, and the plans they make."""

import json
from pathlib import Path
from typing import Any

import pytest
from pandas import Series

from engine.errors import LayerscopeError
from engine.judge import cost
from engine.methods.analysis.importance import scores_of
from engine.methods.masks.distributions import SHARES
from engine.methods.masks.pruning import MASKS
from engine.methods.masks.settings import PruneSettings
from engine.methods.width.settings import TrimSettings
from tests.families import save_tiny
from tests.page.benches import opened, shown
from tests.waiting import wait_for_jobs
from ui.page.bench.desk import Desk
from ui.page.bench.lab import looking, pruning, trimming
from ui.page.bench.plans import curves


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
    assert (found["texts"], {400 <= read < 900 for read in found["tokens"]["heads"].values()}) == ("practice-english", {True})
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
            assert (len(shares), shares[0]) == (SHARES, 0.0)
            assert shares == sorted(shares)
            assert 0 < shares[10] < 0.5  # the lower half holds less than half


def looked_at(desk: Desk) -> dict[str, Any]:
    return shown(desk, "importance", "opened")


def test_a_head_is_looked_at_and_its_cost_measured(desk: Desk) -> None:
    desk.looking.look("heads", 3, 2, 400)
    done(desk)
    head = looked_at(desk)["units"]["heads"]
    assert (head["layer"], head["unit"]) == (3, 2)
    assert head["role"] in ("induction", "previous", "first", "diffuse", "mixed")
    assert len(head["tokens"]) == len(head["edges"]) == len(head["sink"]) > 10
    assert 0.5 < head["cost"]["ratio"] < 2
    with pytest.raises(LayerscopeError, match="layer 3 has no head 9"):
        desk.looking.look("heads", 3, 9, 400)


def test_a_neuron_is_looked_at_and_the_next_of_its_layer_walks_no_more(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.looking.look("neurons", 2, 40, 400)
    done(desk)
    neuron = looked_at(desk)["units"]["neurons"]
    assert (neuron["layer"], neuron["unit"], neuron["read"] >= 400) == (2, 40, True)
    sizes = [abs(one["value"]) for one in neuron["excited"]]
    assert (len(sizes), sizes) == (8, sorted(sizes, reverse=True))
    assert all(one["token"] and one["before"] for one in neuron["excited"])
    assert 0.5 < neuron["cost"]["ratio"] < 2
    monkeypatch.setattr(looking, "exciting", lambda *_: pytest.fail("another walk over the same layer"))
    desk.looking.look("neurons", 2, 41, 400)
    done(desk)
    other = looked_at(desk)["units"]["neurons"]
    assert (other["unit"], other["excited"] != neuron["excited"]) == (41, True)
    with pytest.raises(LayerscopeError, match="layer 2 has no neuron 48"):
        desk.looking.look("neurons", 2, 48, 400)


def test_scores_are_held_against_the_losses_of_a_layer(desk: Desk) -> None:
    desk.scoring.measure("heads", "weighted", 400)
    desk.looking.look("heads", 1, 3, 400)
    done(desk)
    assert looked_at(desk)["agreement"]["heads"] == []  # one head is no ranking
    desk.looking.losses("heads", 1)
    done(desk)
    told = looked_at(desk)
    losses = [loss for layer, _, loss in told["losses"]["heads"] if layer == 1]
    assert len(losses) == 4
    assert losses[3] == pytest.approx(told["units"]["heads"]["cost"]["kl"], rel=1e-3)
    (found,) = told["agreement"]["heads"]
    assert (found["first"], found["second"], found["units"]) == ("weighted", "loss", 4)
    scores = shown(desk, "importance")["measured"]["heads"]["weighted"][1]
    assert found["layers"] == pytest.approx([Series(scores).rank().corr(Series(losses).rank())])
    desk.scoring.measure("heads", "minitron", 400)
    done(desk)
    assert [one["first"] for one in looked_at(desk)["agreement"]["heads"]] == ["weighted", "minitron"]
    desk.looking.losses("neurons", 5)
    done(desk)
    assert [unit for _, unit, _ in looked_at(desk)["losses"]["neurons"]] == list(range(0, 48, 3))
    with pytest.raises(LayerscopeError, match="layer 6 has no head 0"):
        desk.looking.losses("heads", 6)


def test_channels_bring_what_the_streams_directions_hold(desk: Desk) -> None:
    desk.scoring.measure("channels", "weighted", 400)
    done(desk)
    found = shown(desk, "importance")["directions"]
    for rows in found.values():
        assert [len(row) for row in rows] == [32] * 6
        assert [sum(row) for row in rows] == pytest.approx([1] * 6, rel=1e-3)
    assert all(row == sorted(row, reverse=True) for row in found["principal"])


def test_a_score_on_more_tokens_is_measured_anew(desk: Desk) -> None:
    desk.scoring.measure("heads", "minitron", 400)
    done(desk)
    first = shown(desk, "importance")
    desk.scoring.measure("heads", "minitron", 900)
    done(desk)
    again = shown(desk, "importance")
    assert again["tokens"]["heads"]["minitron"] >= 900 > first["tokens"]["heads"]["minitron"]
    assert again["measured"] != first["measured"]


def test_how_long_a_measurement_takes_is_told_before_it_is_begun(desk: Desk) -> None:
    model = desk.open_meter().model
    model.paces.clear()  # as after an opening of which everything was remembered
    assert desk.scoring.times("heads", "taylor", 900) == {}
    done(desk)
    told = shown(desk, "importance-times", "value")
    assert told == json.loads(json.dumps(desk.scoring.times("heads", "taylor", 900)))
    assert 900 <= told["tokens"] < 1000
    passes = {name: seconds / (model.pace * told["tokens"] * sum(model.spec.block_parameters)) for name, seconds in told["seconds"].items()}
    assert 3 < passes["one"] < 6  # a backward pass is about twice a forward one
    assert 4 < passes["all"] < 8  # minitron, weighted, flap: a pass each; obs with its Gram
    desk.scoring.measure("heads", None, 900)
    done(desk)
    assert desk.scoring.times("heads", "taylor", 900)["seconds"] == {"one": told["seconds"]["one"], "all": 0}
    assert desk.scoring.times("heads", "weighted", 1500)["seconds"]["one"] > 0
    bare = desk.scoring.times("channels", "weighted", 900)["seconds"]["one"]
    assert bare > desk.scoring.times("neurons", "weighted", 900)["seconds"]["one"]  # the stream's directions come with them
    trims = {beside: desk.trimming.times("weighted", beside, 900)["seconds"]["trim"] for beside in ("nothing", "bias", "refit")}
    assert 0 < trims["nothing"] < trims["bias"] < trims["refit"]
    masks = {method: desk.pruning.times(method, 900) for method in ("magnitude", "wanda", "sparsegpt")}
    assert masks["magnitude"] == {"tokens": 0, "seconds": {"prune": 0}}
    assert 0 < masks["wanda"]["seconds"]["prune"] < masks["sparsegpt"]["seconds"]["prune"]


def test_a_trimmed_plan_is_the_plan_shown_and_a_pruned_one_goes_on_from_it(desk: Desk) -> None:
    desk.trimming.trim("map", 1.0, TrimSettings(heads=2, neurons=36, compensation="nothing"), 400)
    done(desk)
    plan = made(desk)
    assert (plan["width"]["heads"], plan["width"]["neurons"], plan["width"]["channels"]) == (2, 36, 32)
    assert plan["parameters"] < desk.model.spec.parameters  # type: ignore[union-attr]
    assert plan["name"] in shown(desk, "costs", "value")["of"]

    desk.pruning.prune("found", 1.0, PruneSettings("wanda", 0.5), 400)
    done(desk)
    masked = made(desk)
    assert (masked["width"], masked["masks"]) == (plan["width"], {"sparsity": 0.5, "pattern": "", "method": "wanda"})
    assert set(masked["parts"]) == {"width", "masks"}
    assert masked["name"] != plan["name"]
    assert desk.label_of("found", desk.chosen("found", 1.0)[0]) == "LaCo, trimmed (weighted), pruned (wanda)"

    desk.trimming.trim("found", 1.0, TrimSettings(heads=2, score="flap", compensation="bias", redistribute=True), 400)
    done(desk)
    assert made(desk)["width"]["done"] == ["bias", "redistributed"]
    assert ("prune again" in desk.notice, desk.notice_of) == (True, made(desk)["name"])  # of the zeros; it goes with this plan

    desk.trimming.trim("found", 1.0, TrimSettings(neurons=24), 700)
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
    return [(one["axis"], one["count"], one["score"], one["beside"]) for one in shown(desk, "widthcosts")]


def test_widths_are_measured_nearest_the_sliders_first_and_score_against_score(
    desk: Desk, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trimming, "SHARES", (0.75, 0.5))
    monkeypatch.setattr(curves, "TOKENS", 700)
    assert shown(desk, "widthcosts") == []
    desk.trimming.curves(TrimSettings(neurons=28))
    done(desk)
    points = named(desk)
    assert [(axis, count) for axis, count, score, _ in points if score == "minitron"] == [
        ("neurons", 28), ("neurons", 24), ("neurons", 36), ("channels", 24), ("heads", 2), ("channels", 16),
    ]  # fmt: skip
    assert {(score, done) for axis, _, score, done in points if axis == "channels"} == {("weighted", "refit"), ("minitron", "nothing")}
    assert {score for axis, _, score, _ in points if axis == "neurons"} == {"weighted", "flap", "minitron", "maw"}
    assert all(one["low"] <= one["ratio"] <= one["high"] for one in shown(desk, "widthcosts"))
    assert not list(fresh_cache.glob("tensors/*"))

    known = {one["count"]: one["ratio"] for one in shown(desk, "widthcosts") if (one["axis"], one["score"]) == ("neurons", "maw")}
    desk.trimming.trim("map", 1.0, TrimSettings(neurons=24, score="maw", compensation="nothing"), 700)
    done(desk)
    assert shown(desk, "costs", "value")["of"][made(desk)["name"]]["ratio"] == pytest.approx(known[24], rel=1e-4)


def test_a_cancelled_cost_map_keeps_its_points_and_goes_on_later(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trimming, "ARMS", (("minitron", "nothing"),))
    monkeypatch.setattr(trimming, "trim", counted := Counted(trimming.trim, lambda: desk.runner.cancel() if counted.times == 3 else None))
    desk.trimming.curves(TrimSettings())
    done(desk)
    first = named(desk)
    assert len(first) == 2
    begun = opened(Desk(desk.export_folder), desk.model.folder)  # type: ignore[union-attr]
    begun.trimming.curves(TrimSettings())
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
        lambda: desk.trimming.trim("map", 1.0, TrimSettings(heads=3), 400),
        lambda: desk.trimming.trim("map", 1.0, TrimSettings(heads=2, score="maw"), 400),
        lambda: desk.trimming.trim("found", 1.0, TrimSettings(heads=2), 400),
        lambda: desk.pruning.prune("map", 1.0, PruneSettings("wanda", 0.5, "2:2"), 400),
        lambda: desk.pruning.prune("map", 1.0, PruneSettings("loud", 0.5), 400),
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
