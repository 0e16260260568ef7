"""Cache keys of measurements: every kind, with its definition's version, device and dtype."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine import cache
from engine.cache import Key
from engine.jobs import Job, Progress, drain
from engine.judge import cost, evaluation, similarity
from engine.judge.cost import Cost, cost_judge
from engine.judge.similarity import SimilarityMeter, cached_profile
from engine.methods.definitions import pruning_by, trim_by
from engine.methods.depth import acceptance
from engine.methods.depth.acceptance import METERS
from engine.methods.masks.pruning import MASKS
from engine.methods.width import minitron
from engine.methods.width.llm_pruner import TaylorSettings
from engine.methods.width.minitron import removal_perplexity
from engine.methods.width.scores import SCORES
from engine.models.texts import calibration_of
from engine.passes import profiling
from engine.passes.profiling import weight_distance
from engine.plans.rules import fold_spans, untouched
from engine.types import Model, Plan
from tests.families import TEXTS
from ui.page.bench.plans import curves
from ui.page.bench.plans.curves import Curves, Point

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCES = {path.relative_to(ROOT).as_posix(): path.read_text() for package in ("engine", "ui") for path in (ROOT / package).rglob("*.py")}
MEASURED = {"similarity", "profiles", "perplexity", "acceptance-kl", "acceptance-cka", "evaluation", "weights", "width-costs", "mask-costs"}
PARTS = {"cost", "trim", "pruning", "refit", "bias"}  # what the numbers of others come from
OTHERS = {"engine/cache.py", "engine/models/library.py", "ui/page/bench/board.py"}  # these keep what is not measured


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch, fresh_cache: Path) -> list[Key]:
    """The keys that are asked for."""
    asked: list[Key] = []
    own = Key.digest.fget  # type: ignore[attr-defined]
    monkeypatch.setattr(Key, "digest", property(lambda key: asked.append(key) or own(key)))
    return asked


def measure_a_point(model: Model, kind: str, made_by: cache.Definition) -> None:
    def made(_: Any) -> Job[Plan]:
        yield Progress("Making a plan")
        return untouched(model.spec.depth)

    def costing(_: Plan) -> Job[Cost]:
        yield Progress("Measuring it")
        return Cost(1.0, 1.0, 1.0, 0.0)

    bench = SimpleNamespace(open_meter=lambda: SimpleNamespace(model=model))
    judge = cost_judge(model, tokens=60)
    lab = SimpleNamespace(bench=bench, packs=lambda _: judge.packs, publish=lambda: None)
    lab.costing = SimpleNamespace(judge=lambda: judge, of_one=costing)
    drain(Curves(kind, lab)._measuring([Point("a", (), "a", made_by, made)]))  # type: ignore[arg-type]


def measure_everything(model: Model) -> None:
    meter, plan = SimilarityMeter(model, calibration_of(TEXTS)), fold_spans(6, [(2, 3)], "reference")
    meter.measure(plan.blocks, plan.prefix)
    drain(cached_profile(meter))
    drain(removal_perplexity(meter))
    drain(weight_distance(model))
    drain(cost_judge(model, tokens=60).judge(plan))
    for each in METERS.values():
        each(meter).measure(plan.blocks, plan.prefix)
    measure_a_point(model, "width-costs", trim_by("taylor", "refit"))
    measure_a_point(model, "mask-costs", pruning_by("wanda"))


def kind_of(key: Key) -> str:
    found = re.fullmatch(r"(\S+) \d+( \(.+\))?", key.definition)
    assert found
    return found[1]


def test_every_measurement_has_a_key_of_definition_device_and_dtype(tiny: Callable[..., Model], keys: list[Key]) -> None:
    model = tiny("llama")
    measure_everything(model)
    assert {kind_of(key) for key in keys} == MEASURED
    for key in keys:
        assert (key.model, key.device, key.dtype, key.schema) == (model.fingerprint, "cpu", model.spec.dtype, cache.SCHEMA)
    by_kind = {kind_of(key): key.definition for key in keys}
    assert by_kind["width-costs"] == "width-costs 1 (trim 1 (score taylor 2, refit 1), cost 1 (evaluation 1))"
    assert by_kind["mask-costs"] == "mask-costs 1 (pruning 1 (mask wanda 1), cost 1 (evaluation 1))"


@pytest.mark.parametrize("other", [{"device": "cuda:0"}, {"dtype": "bfloat16"}])
def test_another_device_or_dtype_is_another_key_of_every_kind(other: dict[str, str], tiny: Callable[..., Model], keys: list[Key]) -> None:
    measure_everything(tiny("llama"))
    assert all(replace(key, **other).digest != key.digest for key in list(keys))  # type: ignore[arg-type]


def bump(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    """Correct a formula."""
    found = getattr(owner, name)
    monkeypatch.setattr(owner, name, found + 1 if name == "version" else replace(found, version=found.version + 1))


@pytest.mark.parametrize(
    ("kind", "owner", "name"),
    [
        ("similarity", similarity, "SIMILARITY"),
        ("profiles", similarity, "PROFILE"),
        ("perplexity", minitron, "REMOVAL"),
        ("acceptance-kl", acceptance.KLMeter, "version"),
        ("acceptance-cka", acceptance.CKAMeter, "version"),
        ("evaluation", evaluation, "EVALUATION"),
        ("weights", profiling, "WEIGHT_DISTANCE"),
        ("width-costs", TaylorSettings, "version"),
        ("width-costs", curves, "COST"),
        ("mask-costs", curves, "COST"),
    ],
)
def test_another_version_is_another_key(
    kind: str, owner: Any, name: str, tiny: Callable[..., Model], keys: list[Key], monkeypatch: pytest.MonkeyPatch
) -> None:
    measure_everything(tiny("llama"))
    before = {(kind_of(key), key.digest) for key in list(keys)}
    bump(monkeypatch, owner, name)
    keys.clear()
    measure_everything(tiny("llama"))
    after = {(kind_of(key), key.digest) for key in list(keys)}
    assert kind in {other for other, _ in after - before}
    assert name == "COST" or {other for other, _ in after - before} == {kind}


def test_every_definition_is_known_here_and_nothing_measured_is_kept_without_one() -> None:
    named = {name for text in SOURCES.values() for name in re.findall(r'Definition\(f?"([^"]+)"', text)}
    assert named - {"score {score}", "mask {method}", "acceptance-{self.name}"} | {"width-costs", "mask-costs"} == (
        MEASURED - {"acceptance-kl", "acceptance-cka"} | PARTS
    )
    kept = {name for name, text in SOURCES.items() if re.search(r"\b(load_result|save_result)\(", text)}
    assert kept == OTHERS
    assert all(re.search(r"Measurements\((key_of|meter\.key_of|self\.key_of)\(", line) for line in lines_with("Measurements("))
    assert cost.COST.uses == (evaluation.EVALUATION,)


def lines_with(words: str) -> list[str]:
    files = {name: text for name, text in SOURCES.items() if name not in OTHERS}
    return [line for text in files.values() for line in text.splitlines() if words in line]


def test_every_score_and_mask_has_a_version() -> None:
    assert all(method.settings.version >= 1 for registry in (SCORES, MASKS) for method in registry.values())  # type: ignore[attr-defined]
    assert {trim_by(score, beside) for score in SCORES for beside in ("refit", "bias", "nothing")}
