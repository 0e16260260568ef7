"""Terminal commands that do what each tab of the page does.

A line is a template. {opened}, {model}, {calibration} and {practice} stand for the open model (`facts_of`), and T for the slider's value;
the page fills them in, because they change without a request to the server. A line that begins with # describes a needed file.
"""

import json
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

from engine.export.report.commands import model_option, texts_named
from engine.export.settings import ExportSettings
from engine.judge.cost import practice_texts
from engine.judge.settings import CacheSettings, TaskSettings
from engine.methods.depth.baselines import BASELINES
from engine.methods.masks.pruning import MASKS
from engine.methods.masks.settings import PruneSettings
from engine.methods.width.settings import TrimSettings
from engine.recover.repair.seam_maps import REPAIRS
from engine.recover.run.settings import RecoverySettings, ShearSettings
from engine.search.settings import SearchSettings, ShapesSettings
from engine.settings import Registry, about, changed, controls, options, record_from_controls, split
from engine.types import ModelSource, TextSet
from ui.text.words import words

_CALIBRATION = "--calibration {calibration}"
SHEARED_TO = ("layers", "heads", "neurons", "channels")  # the axes of a shearing's target


# How many values of Recover belong to shearing.
_SHEARING = len(SHEARED_TO) + len(controls(ShearSettings))


def facts_of(source: ModelSource, calibration: TextSet) -> dict[str, Any]:
    """Return what fills the templates for a model on its texts, quoted for a shell; `own` if the texts are in no file."""
    texts, notes = texts_named({"name": "calibration" if calibration.name == "own texts" else calibration.name}, "calibration")
    model, practice = model_option(source), practice_texts(calibration.name).name
    return {
        "model": model,
        "opened": f"{model} --dtype {source.dtype} --device {source.device}",
        "calibration": texts,
        "practice": practice.removeprefix("practice-"),
        "own": bool(notes),
    }


def lines_of(tab: str, language: str, *values: Any) -> list[str]:
    """Return the lines of a tab for the values of its controls, in the order of its function below; none if a required value is empty."""
    lines: list[str] = _TABS[tab](words(language), *values)
    return lines


def options_of(settings: Any, *always: str, without: Iterable[str] = ()) -> str:
    """Return a settings record as options: those that differ from the default, and those named in `always`."""
    said, names = "", options(type(settings))
    differing = changed(settings)
    for name in (name for name in names if (name in differing or name in always) and name not in without):
        said += _option(about(type(settings), name)["flag"], getattr(settings, name))
    return said


def _option(flag: str, value: Any) -> str:
    if isinstance(value, bool):
        return f" {flag}" if value else f" --no-{flag.removeprefix('--')}"
    if isinstance(value, tuple):
        value = ",".join(value)
    return f" {flag} {shlex.quote(f'{value:.12g}' if isinstance(value, float) else str(value))}"


def _explore(say: Any) -> list[str]:
    return [f"layerscope profile {{opened}} {_CALIBRATION} --out profile.json"]


def _importance(say: Any, axis: str, score: str, tokens: float) -> list[str]:
    return [f"layerscope importance {{opened}} --axis {axis} --score {score} --text {{practice}} --tokens {int(tokens)} --out {axis}.json"]


def _widths(say: Any, tokens: float, *values: Any) -> list[str]:
    asked = options_of(record_from_controls(TrimSettings, values), "score")
    return [
        say("terminal_plan"),
        f"layerscope trim --plan plan.json {{opened}}{asked} --text {{practice}} --tokens {int(tokens)} --out narrow.json",
    ]


def _masks(say: Any, tokens: float, *values: Any) -> list[str]:
    asked, settings = split(PruneSettings, values)
    given = options_of(asked, "method", without=("sparsity",) if asked.pattern else ()) + _given(MASKS, asked.method, settings)
    return [
        say("terminal_plan"),
        f"layerscope prune --plan plan.json {{opened}}{given} --text {{practice}} --tokens {int(tokens)} --out sparse.json",
    ]


def _recover(say: Any, texts: Sequence[str], files: str, budget: str, amount: float | None, *values: Any) -> list[str]:
    settings, rest = split(RecoverySettings, values)
    (name, *repair), sheared = rest[:-_SHEARING], rest[-_SHEARING:]
    learned = "".join(f" --text {shlex.quote(text)}" for text in [*texts, *filter(None, map(str.strip, files.splitlines()))])
    repaired = _given(REPAIRS, "ridge", repair)
    lines = [
        say("terminal_plan"),
        f"layerscope repair --plan plan.json {{opened}} --kind ridge --text {{practice}}{repaired} --out repaired.json",
    ]
    if amount:
        asked = f"{learned} --{budget} {amount:.12g}{options_of(settings, 'train')} --out {shlex.quote(name.strip() or 'recovered')}"
        lines.append(f"layerscope recover --plan plan.json {{opened}}{asked}")
    target = {name: int(value) for name, value in zip(SHEARED_TO, sheared, strict=False) if value}
    if target:
        given = options_of(record_from_controls(ShearSettings, sheared[len(SHEARED_TO) :]))
        lines.append(f"layerscope shear {{opened}} --target {shlex.quote(json.dumps(target))}{learned}{given} --out sheared.json")
    return lines


def _fold(say: Any, plan: str, C: int, I: int, L: int, H: int, rule: str, similarity: str) -> list[str]:
    method = _laco(C, I, L, H, rule, similarity)
    made = f"layerscope propose {{opened}} {_CALIBRATION} {method} -T {{T}} --out plan.json"
    return [
        made if plan == "map" else say("terminal_saved"),
        f"layerscope map {{opened}} {_CALIBRATION} {method} --t-min 0.5 --out map.json",
    ]


def _search(say: Any, millions: float | None, lab_tokens: float, *values: Any) -> list[str]:
    looked_for, (kind, amount, context, *rest) = split(ShapesSettings, values)
    asked, (method, *settings) = split(SearchSettings, rest)
    if amount is None or None in rest[: len(controls(SearchSettings))]:
        return []
    reads = f"{options_of(looked_for, 'measured')} --text {{practice}} --tokens {int(lab_tokens)}"
    shapes = [f"layerscope shapes {{opened}} --params {millions:g}M{reads} --out shapes.json"] if millions else []
    target = {
        "layers": f"--keep {int(amount)}",
        "parameters": f"--parameters {amount * 1e6:.12g}",
        "memory": f"--gigabytes {amount / 1e3:.12g} --context {int(context or 0)}",
    }[kind]
    given = options_of(asked, "objective", "seconds", "survivors")
    made = f"--keep {int(amount)} {{opened}} --objective {asked.objective} --text {{practice}}{_given(BASELINES, method, settings)}"
    baseline = f"layerscope baseline --method {method} {made} --out {method}.json"
    found = f"layerscope search {{opened}} {target}{given} --text {{practice}} --out found.json"
    return [found, *([baseline] if kind == "layers" else []), *shapes]


def _compare(say: Any, texts: str, tokens: float, also: Sequence[str], *values: Any) -> list[str]:
    tasks, rest = split(TaskSettings, values)
    cache, (ablation, *settings) = split(CacheSettings, rest)
    own = texts == "own"
    on = f"--text {'evaluation.txt' if own else texts} --tokens {int(tokens)}"
    plan, counted = "--plan plan.json {opened}", options_of(cache, "context", "batch")
    lines = [say("terminal_plan"), *([say("terminal_texts")] if own else []), f"layerscope evaluate {plan} {on} --out judged.json"]
    if {"samples", "speed"} & set(also):
        left_out = " --no-writing" * ("samples" not in also) + " --no-speed" * ("speed" not in also)
        lines.append(f"layerscope measure {plan}{counted}{left_out} --out gains.json")
    if "tasks" in also:
        lines.append(f"layerscope tasks {plan}{options_of(tasks, 'names')} --out tasks.json")
    lines.append(f"layerscope report {plan} {_CALIBRATION} {on}{counted} --out report.html")
    return [*lines, f"layerscope ablate {ablation} {{opened}} {_CALIBRATION} {_laco(*settings)} -T {{T}} {on} --out ablation.json"]


def _export(say: Any, name: str, *values: Any) -> list[str]:
    asked, folder = record_from_controls(ExportSettings, values), shlex.quote(name.strip() or "smaller")
    given = options_of(asked) if asked.form == "gguf" else options_of(asked, "dtype", "shard_size")
    return [say("terminal_plan"), f"layerscope export --plan plan.json {{model}}{given} --out {folder}"]


def _given(registry: Registry, method: str, settings: Sequence[Any]) -> str:
    """Return a method's own settings as options."""
    record = registry.require(method).settings
    return "".join(_option(about(record, name)["flag"], value) for name, value in registry.given(method, settings).items())


def _laco(C: int, I: int, L: int, H: int, rule: str, similarity: str) -> str:
    return f"-C {int(C)} -I {int(I)} --lowest {int(L)} --highest {int(H)} --rule {rule} --similarity {similarity}"


_TABS: dict[str, Any] = {
    "explore": _explore,
    "importance": _importance,
    "fold": _fold,
    "widths": _widths,
    "masks": _masks,
    "search": _search,
    "compare": _compare,
    "recover": _recover,
    "export": _export,
}
