"""Terminal commands that do what each tab of the page does.

A line is a template. {opened}, {model}, {calibration} and {practice} stand for the open model (`facts_of`), and T for the slider's value;
the page fills them in, because they change without a request to the server. A line that begins with # names files to bring.
"""

import json
import shlex
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from engine.export.report.commands import model_option, texts_named
from engine.judge.cost import practice_texts
from engine.methods.depth.baselines import BASELINES
from engine.methods.masks.pruning import MASKS
from engine.recover.repair.seam_maps import REPAIRS
from engine.recover.run.settings import RecoverySettings, ShearSettings
from engine.settings import Registry
from engine.types import ModelSource, TextSet
from ui.text.words import words

_TOLD = "--calibration {calibration}"
_ELSEWHERE = ("train", "loss", "minutes", "tokens", "until", "measure", "references")  # before them on the page, or in the terminal alone
SHEARED_TO = ("layers", "heads", "neurons", "channels")  # of a shearing
SHEARED = tuple(entry.name for entry in fields(ShearSettings) if entry.name not in ("loss", "references"))  # as they stand on the page
# Of a recovery's settings: what stands folded away on the page, in this order.
MORE = tuple(entry.name for entry in fields(RecoverySettings) if entry.name not in _ELSEWHERE)


def facts_of(source: ModelSource, calibration: TextSet) -> dict[str, Any]:
    """Return what fills the templates for a model on its texts, quoted for a shell; `own` where the texts are in no file."""
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
    """Return the lines of a tab for the values of its controls, in the order of the function below; none where one is empty."""
    lines: list[str] = _TABS[tab](words(language), *values)
    return lines


def _explore(say: Any) -> list[str]:
    return [f"layerscope profile {{opened}} {_TOLD} --out profile.json"]


def _importance(say: Any, axis: str, score: str, tokens: float) -> list[str]:
    return [f"layerscope importance {{opened}} --axis {axis} --score {score} --text {{practice}} --tokens {int(tokens)} --out {axis}.json"]


def _widths(
    say: Any, heads: float, neurons: float, channels: float, score: str, compensation: str, plain: bool, redistribute: bool, tokens: float
) -> list[str]:
    kept = f"--heads {int(heads)} --neurons {int(neurons)} --channels {int(channels)} --score {score}"
    ticked = (
        {"refit": "", "bias": " --bias", "nothing": " --no-refit"}[compensation] + " --plain" * plain + " --redistribute" * redistribute
    )
    return [
        say("terminal_plan"),
        f"layerscope trim --plan plan.json {{opened}} {kept}{ticked} --text {{practice}} --tokens {int(tokens)} --out narrow.json",
    ]


def _masks(say: Any, method: str, sparsity: float, pattern: str, group: str, tokens: float, *settings: Any) -> list[str]:
    how = f"--pattern {pattern}" if pattern else f"--sparsity {sparsity:g}"
    how += f" --group {group}" if group else ""
    how += _given(MASKS, method, settings)
    return [
        say("terminal_plan"),
        f"layerscope prune --plan plan.json {{opened}} --method {method} {how} --text {{practice}} --tokens {int(tokens)} --out sparse.json",
    ]


def _recover(
    say: Any,
    texts: Sequence[str],
    files: str,
    budget: str,
    amount: float | None,
    train: str,
    until: float | None,
    loss: str | None,
    *rest: Any,
) -> list[str]:
    rest, sheared = rest[: -len((*SHEARED_TO, *SHEARED)) - 1], rest[-len((*SHEARED_TO, *SHEARED)) - 1 :]
    more, (name, *repair) = rest[: len(MORE)], rest[len(MORE) :]
    learned = "".join(f" --text {shlex.quote(text)}" for text in [*texts, *filter(None, map(str.strip, files.splitlines()))])
    lines = [
        say("terminal_plan"),
        f"layerscope repair --plan plan.json {{opened}} --kind ridge --text {{practice}}{_given(REPAIRS, 'ridge', repair)} --out repaired.json",
    ]
    if amount:
        facts = _unusual({"until": until or None, "loss": (loss or "").strip(), **dict(zip(MORE, more, strict=True))}, RecoverySettings)
        asked = f"{learned} --train {train} --{budget} {amount:.12g}{facts} --out {shlex.quote(name.strip() or 'recovered')}"
        lines.append(f"layerscope recover --plan plan.json {{opened}}{asked}")
    target = {name: int(value) for name, value in zip(SHEARED_TO, sheared, strict=False) if value}
    if target:
        given = _unusual(dict(zip(("loss", *SHEARED), sheared[len(SHEARED_TO) :], strict=True)), ShearSettings)
        lines.append(f"layerscope shear {{opened}} --target {shlex.quote(json.dumps(target))}{learned}{given} --out sheared.json")
    return lines


def _unusual(asked: dict[str, Any], record: type) -> str:
    """What differs from the usual of some settings, as options."""
    usual = {entry.name: entry.default for entry in fields(record)}
    said = ""
    for name, value in asked.items():
        option = name.replace("_", "-")
        if value not in (None, "", usual[name]) and (value or usual[name] is not None):  # 0 where None is usual stands for none
            said += f" --{option}" if value is True else f" --{option} {shlex.quote(str(value))}"
    return said


def _fold(say: Any, plan: str, C: int, I: int, L: int, H: int, rule: str, similarity: str) -> list[str]:
    method = _laco(C, I, L, H, rule, similarity)
    made = f"layerscope propose {{opened}} {_TOLD} {method} -T {{T}} --out plan.json"
    return [
        made if plan == "map" else say("terminal_saved"),
        f"layerscope map {{opened}} {_TOLD} {method} --t-min 0.5 --out map.json",
    ]


def _search(
    say: Any,
    millions: float | None,
    measured: float,
    refit: bool,
    speed: bool,
    lab_tokens: float,
    kind: str,
    amount: float | None,
    context: float | None,
    objective: str,
    seconds: float | None,
    survivors: Sequence[str],
    repaired: bool,
    every: bool,
    method: str,
    *settings: Any,
) -> list[str]:
    if amount is None or seconds is None:
        return []
    left_out = " --no-refit" * (not refit) + " --no-speed" * (not speed)
    reads = f"--measured {int(measured)}{left_out} --text {{practice}} --tokens {int(lab_tokens)}"
    shapes = [f"layerscope shapes {{opened}} --params {millions:g}M {reads} --out shapes.json"] if millions else []
    target = {
        "layers": f"--keep {int(amount)}",
        "parameters": f"--parameters {amount * 1e6:.12g}",
        "memory": f"--gigabytes {amount / 1e3:.12g} --context {int(context or 0)}",
    }[kind]
    goal = f"--objective {objective} --text {{practice}}"
    ticked = " --repair" * repaired + " --exhaustive" * every
    found = f"layerscope search {{opened}} {target} {goal} --seconds {seconds:g} --survivors {shlex.quote(','.join(survivors))}{ticked}"
    baseline = f"layerscope baseline --method {method} --keep {int(amount)} {{opened}} {goal}{_given(BASELINES, method, settings)} --out {method}.json"
    return [f"{found} --out found.json", *([baseline] if kind == "layers" else []), *shapes]


def _compare(
    say: Any,
    texts: str,
    tokens: float,
    also: Sequence[str],
    tasks: str,
    limit: int | None,
    context: int | None,
    batch: int | None,
    ablation: str,
    *settings: Any,
) -> list[str]:
    own = texts == "own"
    on = f"--text {'evaluation.txt' if own else texts} --tokens {int(tokens)}"
    plan, cache = "--plan plan.json {opened}", f"--context {int(context or 4096)} --batch {int(batch or 1)}"
    items = f" --limit {int(limit)}" if limit is not None else ""
    lines = [say("terminal_plan"), *([say("terminal_texts")] if own else []), f"layerscope evaluate {plan} {on} --out judged.json"]
    if {"samples", "speed"} & set(also):
        left_out = " --no-writing" * ("samples" not in also) + " --no-speed" * ("speed" not in also)
        lines.append(f"layerscope measure {plan} {cache}{left_out} --out gains.json")
    if "tasks" in also:
        lines.append(f"layerscope tasks {plan} --tasks {shlex.quote(tasks)}{items} --out tasks.json")
    lines.append(f"layerscope report {plan} {_TOLD} {on} {cache} --out report.html")
    return [*lines, f"layerscope ablate {ablation} {{opened}} {_TOLD} {_laco(*settings)} -T {{T}} {on} --out ablation.json"]


def _export(say: Any, name: str, dtype: str, shard: str) -> list[str]:
    folder = shlex.quote(name.strip() or "smaller")
    return [
        say("terminal_plan"),
        f"layerscope export --plan plan.json {{model}} --dtype {dtype} --shard-size {shlex.quote(shard)} --out {folder}",
    ]


def _given(registry: Registry, method: str, settings: Sequence[Any]) -> str:
    """A method's own of its kind's settings, as options."""
    said = ""
    for name, value in registry.given(method, settings).items():
        option = name.replace("_", "-")
        said += (f" --{option}" if value else f" --no-{option}") if isinstance(value, bool) else f" --{option} {shlex.quote(str(value))}"
    return said


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
