"""Shearing on the page: a run that ends as a plan, which is shown and exported."""

import pytest

from engine.errors import SettingsError, TextError, TrainingError
from engine.export.settings import ExportSettings
from engine.recover.run.settings import ShearSettings
from tests.page.benches import shown
from tests.page.test_recovering import looked_at, runs
from tests.waiting import wait_for_jobs
from ui.page.bench.desk import Desk
from ui.page.bench.plans.exporting import start_export

pytestmark = pytest.mark.usefixtures("in_this_process")


def test_a_model_is_sheared_and_its_plan_is_shown(bench: Desk) -> None:
    settings = ShearSettings(tokens=12 * 64, rows=2, length=32, loss="kl", every=4)
    for target, texts, error in (
        ({}, ["practice"], SettingsError),
        ({"layers": 9}, ["practice"], SettingsError),
        ({"layers": 5}, [], TextError),
    ):
        with pytest.raises(error):
            bench.recovering.shear(texts, target, settings)
    assert runs(bench) == []
    for _ in range(2):
        bench.recovering.shear(["practice"], {"layers": 5, "neurons": 24}, settings)
    wait_for_jobs()
    first, second = sorted(runs(bench), key=lambda run: str(run["name"]))
    assert second["name"] == f"{first['name']}-2"
    bench.recovering.act("show", first["name"])
    told = looked_at(bench)
    assert (told["state"], told["error"], told["tokens"], told["asked"]["target"]) == ("done", "", 768, {"layers": 5, "neurons": 24})
    assert set(told["masks"]) == {"layers", "neurons"}
    for found in told["masks"].values():
        assert found["wanted"][0] == 1
        assert {len(column) for column in found.values()} == {12}
        assert all(0 <= share <= 1 for share in found["undecided"])
    assert [at for at, _, _ in told["domains"][""]] == [256, 512, 768]
    bench.recovering.act("plan", first["name"])
    wait_for_jobs()
    assert bench.file is not None
    assert (bench.file.depth, bench.file.width and bench.file.width.method) == (5, "sheared")
    with pytest.raises(TrainingError, match="already finished; show its plan"):
        bench.recovering.act("resume", first["name"])
    bench.recovering.act("delete", second["name"])
    assert [run["name"] for run in runs(bench)] == [first["name"]]
    start_export(bench, "file", 0.9, ExportSettings(), "narrow")
    wait_for_jobs()
    assert shown(bench, "report", "value")["passed"] is True
