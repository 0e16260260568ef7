"""Shapes for a budget on Search, and the size and speed of plans with masks."""

from pathlib import Path
from typing import Any

import pytest

from engine.errors import PlanError, SettingsError
from engine.judge import cost
from engine.judge.similarity import blocks_key
from engine.methods.masks.settings import PruneSettings
from engine.plans import tensor_store as kept_module
from engine.records import to_json
from engine.search.settings import ShapesSettings
from tests.families import save_tiny
from tests.page.benches import held, opened, rows, shown
from tests.waiting import wait_for_jobs, wait_until
from ui.page.bench.desk import Desk
from ui.page.bench.plans import timing

BUDGET = 0.045  # million parameters of the tiny model's 0.0524


@pytest.fixture
def desk(empty: Desk, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A desk that has opened the tiny model, whose costs are measured on few tokens."""
    monkeypatch.setattr(cost.cost_judge, "__defaults__", ("english", 400))
    return opened(empty, folder)


def done(desk: Desk) -> None:
    wait_for_jobs()
    assert desk.runner.problem is None


def zeros(desk: Desk) -> dict[str, Any]:
    return shown(desk, "zeros", "value")["of"]


def test_measured_shapes_are_told_with_ranks_speed_and_the_plan_that_a_choice_shows(desk: Desk) -> None:
    assert shown(desk, "shapes") == {"rows": []}
    desk.shaping.search(BUDGET, ShapesSettings(measured=3, refit=False), 400)
    done(desk)
    found = shown(desk, "shapes")
    ratios = [row["cost"]["ratio"] for row in found["rows"]]
    assert (len(ratios), ratios) == (3, sorted(ratios))
    assert found["legal"] > 3
    assert 1 in [row["by_size"] for row in found["rows"]]
    assert 1 in [row["by_estimate"] for row in found["rows"]]
    assert all(row["speed"]["decode_range"][0] <= row["speed"]["decode_ratio"] <= row["speed"]["decode_range"][1] for row in found["rows"])
    assert [ranking["first"] for ranking in found["rankings"]] == [
        next(place for place, row in enumerate(found["rows"]) if row[by] == 1) for by in ("by_estimate", "by_size")
    ]
    assert found["front"][0] == found["fast_front"][0] == 0
    assert found["sheet"]["columns"][:4] == ["layers", "heads", "neurons", "channels"]

    chosen = found["rows"][1]
    desk.shaping.show(chosen["name"])
    plan = desk.chosen("found", 1.0)[0]
    assert (blocks_key(plan.blocks), plan.depth) == (chosen["name"], chosen["shape"]["depth"])
    assert desk.costing.of(plan) is not None  # known, so that nothing is measured again
    done(desk)
    assert shown(desk, "fold", "found")["parameters"] == chosen["parameters"]
    assert desk.label_of("found", plan).startswith("shapes")
    with pytest.raises(PlanError, match="not measured"):
        desk.shaping.show("another")


def test_of_measured_shapes_the_front_alone_keeps_its_tensors_and_another_is_made_again(desk: Desk, fresh_cache: Path) -> None:
    desk.shaping.search(BUDGET, ShapesSettings(measured=4, speed=False), 700)
    done(desk)
    found = shown(desk, "shapes")
    plans = [one.plan for one in desk.shaping._found[:4]]
    kept = {mark for place in found["front"] for mark in plans[place].tensors}  # type: ignore[union-attr]
    assert {file.stem for file in (fresh_cache / "tensors").glob("*")} == kept
    assert kept
    beaten = next(place for place in range(4) if place not in found["front"])
    kept_module._fresh.clear()  # as after whatever else was solved meanwhile
    desk.shaping.show(found["rows"][beaten]["name"])
    done(desk)
    assert desk.chosen("found", 1.0)[0] == plans[beaten]
    assert set(plans[beaten].tensors) <= {file.stem for file in (fresh_cache / "tensors").glob("*")}  # type: ignore[union-attr]


def test_what_search_is_to_come_down_to_follows_the_model_and_lasts_through_a_reload(desk: Desk, tmp_path: Path) -> None:
    told = desk.page.since(0)[1]
    assert told["shapes_budget"]["value"] == pytest.approx(0.8 * desk.open_meter().model.spec.parameters / 1e6, rel=0.01)
    assert (told["search_kind"]["value"], told["search_amount"]["value"]) == ("layers", 5)
    desk.page.settle("search_amount", "shapes_budget")  # a reload: the page brings what was typed
    assert not {"shapes_budget", "search_amount"} & set(desk.page.since(0)[1])
    opened(desk, save_tiny(tmp_path / "deeper", "llama", num_hidden_layers=9))
    assert desk.page.since(0)[1]["search_amount"]["value"] == 7


def test_what_was_measured_stays_after_a_cancel_and_goes_with_its_model(desk: Desk, tmp_path: Path) -> None:
    desk.shaping.search(BUDGET, ShapesSettings(measured=20, refit=False, speed=False), 400)
    wait_until(lambda: len(shown(desk, "shapes")["rows"]) > 0)
    desk.cancel()
    wait_for_jobs()
    assert 0 < len(shown(desk, "shapes")["rows"]) < 20
    assert all(row["speed"] is None for row in shown(desk, "shapes")["rows"])
    opened(desk, save_tiny(tmp_path / "other", "gpt2"))
    assert shown(desk, "shapes") == {"rows": []}


@pytest.mark.parametrize("budget", [None, 0, -1.0])
def test_a_search_for_shapes_needs_a_budget(budget: float | None, desk: Desk) -> None:
    with pytest.raises(SettingsError, match="enter a budget"):
        desk.shaping.search(budget, ShapesSettings(measured=3, refit=False, speed=False), 400)


def test_a_budget_that_no_shape_meets_is_told(desk: Desk) -> None:
    desk.shaping.search(1000.0, ShapesSettings(measured=3, refit=False, speed=False), 400)
    wait_for_jobs()
    assert "no smaller shape" in str(desk.runner.problem)


def test_a_plan_with_masks_is_timed_beside_its_source_as_soon_as_it_is_shown(desk: Desk) -> None:
    desk.pruning.prune("map", 1.0, PruneSettings("magnitude", 0.5), 400)
    done(desk)
    plan = desk.chosen("found", 1.0)[0]
    found = zeros(desk)[blocks_key(plan.blocks)]
    model = desk.open_meter().model
    assert found["memory"]["plan_weights"] == found["memory"]["source_weights"] == model.spec.bytes  # zeros take as much room
    low, high = found["speed"]["decode_range"]
    assert 0 < low <= found["speed"]["decode_ratio"] <= high
    assert {name: to_json(one) for name, one in desk.comparison.known_of(plan).items()} == desk.timing.of(plan) == found
    assert rows(desk) == []  # the board holds what somebody asked to judge

    desk.comparison.report("found", 1.0, held, 100)
    done(desk)
    (row,) = rows(desk)
    assert row["speed"]["decode_ratio"] == pytest.approx(found["speed"]["decode_ratio"])
    assert "zero weights save neither memory nor time" in shown(desk, "download")["text"]


def test_where_a_copy_finds_no_room_a_plan_is_timed_when_somebody_asks(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "free_bytes", lambda device: 1000)
    desk.pruning.prune("map", 1.0, PruneSettings("magnitude", 0.5), 400)
    done(desk)
    assert zeros(desk) == {}
    desk.timing.measure(desk.chosen("found", 1.0)[0])
    done(desk)
    assert len(zeros(desk)) == 1


def test_a_plan_without_masks_is_not_timed(desk: Desk) -> None:
    desk.set_spans([[1, 2]])
    done(desk)
    assert zeros(desk) == {}
