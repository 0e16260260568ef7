"""Terminal commands for width and weights: importance, prune, trim and shapes."""

import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.errors import LayerscopeError
from engine.methods.masks.settings import PRUNE, PruneSettings
from engine.methods.width.settings import TRIM, TrimSettings
from engine.plans.files import signed
from engine.search.settings import SHAPES, ShapesSettings
from ui.terminal.derived_options import command
from ui.terminal.options import (
    JsonOutput,
    Practice,
    PracticeTokens,
    Source,
    TableOutput,
    open_checked,
    open_for,
    read_plan_file,
    shown,
    write_tensors,
)

app = typer.Typer(add_completion=False)
Begun = Annotated[Path | None, typer.Option("--plan", metavar="FILE.json", help="a plan to start from; default: the whole model")]


@command(app)
def importance(
    axis: Annotated[str, typer.Option(help="heads, neurons, channels or weights")],
    source: Source,
    output: JsonOutput,
    plan: Begun = None,
    score: Annotated[str | None, typer.Option(help="the score: see trim --score and prune --method")] = None,
    text: Practice = "english",
    tokens: PracticeTokens = 12_000,
) -> None:
    """Score the heads, neurons or channels of every layer, or the weights of every projection (the mean of each)."""
    from engine.methods.analysis.importance import importance as run
    from engine.methods.analysis.importance import require_importance

    score = require_importance(axis, score)
    opened, begun, packs = _open(source.parsed(), plan, text, tokens)
    found = shown(run(opened, begun, packs, axis, score))
    facts = asdict(found)
    output.write({"axis": axis, "score": score, **{key: value for key, value in facts.items() if value or key != "projections"}})


@command(app, PRUNE, method="engine.methods.masks.pruning:MASKS")
def prune(
    source: Source,
    asked: PruneSettings,
    output: JsonOutput,
    plan: Begun = None,
    text: Practice = "english",
    tokens: PracticeTokens = 12_000,
    **settings: Any,
) -> None:
    from engine.methods.masks.pruning import MASKS, wanted_by
    from engine.methods.masks.pruning import prune as run

    want = wanted_by(asked)
    reads = bool(MASKS[asked.method].settings.needs)  # type: ignore[attr-defined]
    opened, begun, packs = _open(source.parsed(), plan, text, tokens if reads else None)
    output.write_plan(shown(run(opened, begun, packs, asked.method, want, settings)), opened)


@command(app, TRIM, score="engine.methods.width.widths:SCORES")
def trim(
    source: Source,
    asked: TrimSettings,
    output: JsonOutput,
    plan: Begun = None,
    params: Annotated[
        str | None, typer.Option(metavar="100M", help="or: prune neurons until at most this many parameters are left")
    ] = None,
    refit: Annotated[bool, typer.Option(hidden=True)] = True,  # the names that --compensation had before
    bias: Annotated[bool, typer.Option("--bias", hidden=True)] = False,
    text: Practice = "english",
    tokens: PracticeTokens = 12_000,
    **settings: Any,
) -> None:
    from engine.methods.width.widths import kept_for_parameters, require_width
    from engine.methods.width.widths import trim as run

    kept = replace(asked, compensation="bias" if bias else asked.compensation if refit else "nothing").checked()
    budget = None if params is None else parse_count(params)
    opened, begun, packs = _open(source.parsed(), plan, text, tokens)
    if budget is not None:
        kept = kept_for_parameters(opened, begun, kept, budget)
    require_width(opened, begun, kept)
    output.write_plan(shown(run(opened, begun, packs, kept, settings)), opened)


@command(app, SHAPES)
def shapes(
    params: Annotated[str, typer.Option(metavar="100M", help="the target number of parameters, within 5 %: 100M, 1.1B, 105000000")],
    source: Source,
    asked: ShapesSettings,
    output: TableOutput,
    text: Practice = "english",
    tokens: PracticeTokens = 3000,
) -> None:
    from engine.judge.cost import cost_judge, cost_of
    from engine.judge.objectives import Objective
    from engine.models.texts import texts_for
    from engine.plans.tensor_store import for_now
    from engine.search.candidates import keep_fronts, shapes_to_json, timed
    from engine.search.shapes import search_shapes, searched

    budget = parse_count(params)
    opened, _, packs = _open(source.parsed(), None, text, tokens)
    judge = cost_judge(opened)

    def measure(plan: Any) -> Any:
        return cost_of((yield from judge.judge(plan)))

    goal = Objective(opened, texts_for(text, "practice"), "kl", tokens)
    layers = searched(goal, asked.seconds) if asked.seconds else None
    with for_now():
        found = shown(search_shapes(opened, packs, budget, measure, measured=asked.measured, refitted=asked.refit, layers=layers))
        found = shown(timed(opened, found)) if asked.speed else found
        keep_fronts(found)
        facts = signed(shapes_to_json(found), opened)
        output.write_table(facts, "shapes", [one for one in facts["shapes"] if one["cost"]])
        if output.form == "json":
            write_tensors(found[0].plan, output.out)


def parse_count(text: str) -> float:
    """Return the number that "100M", "1.1B" or "105000000" means.

    Raises:
        LayerscopeError: it is no positive number.
    """
    found = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,9})?)\s*([KMB]?)\s*", text.upper())
    if not found or not float(found[1]):
        raise LayerscopeError(f"'{text}' is not a number of parameters; write one such as 100M or 1.1B")
    return float(found[1]) * {"": 1, "K": 1e3, "M": 1e6, "B": 1e9}[found[2]]


def _open(source: Any, file: Path | None, text: str, tokens: int | None) -> tuple[Any, Any, Any]:
    """Open the model, the starting plan (without a file, the untouched model), and `tokens` tokens of practice text (none for None)."""
    from engine.judge.practice import practice_packs
    from engine.models.texts import texts_for
    from engine.plans.rules import untouched

    texts = texts_for(text, "practice")
    if file is None:
        opened = open_checked(source, lambda _: None)
        begun = untouched(opened.spec.depth)
    else:
        begun = read_plan_file(file)
        opened = open_for(begun, file, source)
    return opened, begun, () if tokens is None else practice_packs(opened, texts, tokens)
