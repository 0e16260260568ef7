"""Terminal commands for width and weights: importance, prune, trim and shapes."""

import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.errors import LayerscopeError
from engine.plans.files import signed
from ui.terminal.derived_options import command
from ui.terminal.options import (
    Device,
    Dtype,
    Out,
    Practice,
    PracticeTokens,
    Source,
    TableFormat,
    Trust,
    open_checked,
    open_for,
    read_plan_file,
    shown,
    source_of,
    write,
    write_plan,
    write_table,
    write_tensors,
)

app = typer.Typer(add_completion=False)
Begun = Annotated[Path | None, typer.Option("--plan", metavar="FILE.json", help="a plan to go on from; the whole model when left out")]


@app.command()
def importance(
    axis: Annotated[str, typer.Option(help="heads, neurons, channels or weights")],
    model: Source = "demo",
    plan: Begun = None,
    score: Annotated[str | None, typer.Option(help="how they are scored: see trim --score, prune --method")] = None,
    text: Practice = "english",
    tokens: PracticeTokens = 12_000,
    dtype: Dtype = "auto",
    device: Device = "cpu",
    trust: Trust = False,
    out: Out = None,
) -> None:
    """Score the heads, neurons or channels of every layer, or the weights of every projection (the mean of each)."""
    from engine.methods.analysis.importance import importance as run
    from engine.methods.analysis.importance import require_importance

    score = require_importance(axis, score)
    opened, begun, packs = _open(source_of(model, dtype, device, trust), plan, text, tokens)
    found = shown(run(opened, begun, packs, axis, score))
    facts = asdict(found)
    write({"axis": axis, "score": score, **{key: value for key, value in facts.items() if value or key != "projections"}}, out)


@command(app, method="engine.methods.masks.pruning:MASKS")
def prune(
    model: Source = "demo",
    plan: Begun = None,
    method: str = "wanda",
    sparsity: Annotated[float | None, typer.Option(help="the share of the projections' weights to make zero")] = None,
    pattern: Annotated[str | None, typer.Option(help="or: so many of every few in a row, such as 2:4 or 4:8")] = None,
    group: Annotated[str | None, typer.Option(help="what competes: output, layer or global; left out, the method's own")] = None,
    text: Practice = "english",
    tokens: PracticeTokens = 12_000,
    dtype: Dtype = "auto",
    device: Device = "cpu",
    trust: Trust = False,
    out: Out = None,
    **settings: Any,
) -> None:
    """Write a plan whose projections have zeros, in place of the masks it had; its tensors lie beside it."""
    from engine.methods.masks.pruning import MASKS
    from engine.methods.masks.pruning import prune as run
    from engine.methods.masks.selection import wanted

    asked: Any = MASKS.require(method).settings
    want = wanted(sparsity, pattern, group or asked.group)
    reads = bool(asked.needs)
    opened, begun, packs = _open(source_of(model, dtype, device, trust), plan, text, tokens if reads else None)
    write_plan(shown(run(opened, begun, packs, method, want, settings)), opened, out)


@command(app, score="engine.methods.width.widths:SCORES")
def trim(
    model: Source = "demo",
    plan: Begun = None,
    heads: Annotated[int | None, typer.Option(help="how many query heads every layer keeps")] = None,
    neurons: Annotated[int | None, typer.Option(help="how many neurons of the MLP every layer keeps")] = None,
    channels: Annotated[int | None, typer.Option(help="how many channels the model keeps")] = None,
    params: Annotated[str | None, typer.Option(metavar="100M", help="or: neurons until as many parameters are left")] = None,
    score: str = "weighted",
    refit: Annotated[bool, typer.Option(help="solve what reads the cut parts again on those that are left")] = True,
    bias: Annotated[
        bool, typer.Option("--bias", help="give it a bias instead (FLAP), where the family has one; --params does not count it")
    ] = False,
    redistribute: Annotated[bool, typer.Option("--redistribute", help="add what pruned heads had to those that stay (Minitron)")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="leave norm gains as they are where channels are cut, as Minitron does")] = False,
    text: Practice = "english",
    tokens: PracticeTokens = 12_000,
    dtype: Dtype = "auto",
    device: Device = "cpu",
    trust: Trust = False,
    out: Out = None,
    **settings: Any,
) -> None:
    """Write a plan with less width, in place of the masks it had; weights that were solved again lie beside it."""
    from engine.methods.width.widths import Kept, kept_for, require_width
    from engine.methods.width.widths import trim as run

    compensation = "bias" if bias else "refit" if refit else "nothing"
    kept = Kept(heads, neurons, channels)
    budget = None if params is None else parse_count(params)
    opened, begun, packs = _open(source_of(model, dtype, device, trust), plan, text, tokens)
    if budget is not None:
        kept = kept_for(opened, begun, kept, budget)
    require_width(opened, begun, kept)
    write_plan(shown(run(opened, begun, packs, kept, score, settings, compensation, plain, redistribute)), opened, out)


@app.command()
def shapes(
    params: Annotated[str, typer.Option(metavar="100M", help="the parameters to come to, within 5 %: 100M, 1.1B, 105000000")],
    model: Source = "demo",
    measured: Annotated[int, typer.Option(min=1, help="how many of the most promising are measured")] = 10,
    refit: Annotated[bool, typer.Option(help="solve what reads the cut parts again in those that are measured")] = True,
    seconds: Annotated[float, typer.Option(min=0, help="how long each depth's layers are searched for; 0 takes the estimates' own")] = 30,
    speed: Annotated[bool, typer.Option(help="time those that are measured beside the source")] = True,
    text: Practice = "english",
    tokens: PracticeTokens = 3000,
    dtype: Dtype = "auto",
    device: Device = "cpu",
    trust: Trust = False,
    out: Out = None,
    form: TableFormat = "json",
) -> None:
    """Rank all legal shapes near a budget over depth, heads, neurons and channels, measure the best, and write them with a plan."""
    from engine.judge.cost import cost_judge, cost_of
    from engine.judge.objectives import Objective
    from engine.models.texts import texts_for
    from engine.plans.tensor_store import for_now
    from engine.search.candidates import keep_fronts, shapes_to_json, timed
    from engine.search.shapes import search_shapes, searched

    budget = parse_count(params)
    opened, _, packs = _open(source_of(model, dtype, device, trust), None, text, tokens)
    judge = cost_judge(opened)

    def measure(plan: Any) -> Any:
        return cost_of((yield from judge.judge(plan)))

    layers = searched(Objective(opened, texts_for(text, "practice"), "kl", tokens), seconds) if seconds else None
    with for_now():
        found = shown(search_shapes(opened, packs, budget, measure, measured=measured, refitted=refit, layers=layers))
        found = shown(timed(opened, found)) if speed else found
        keep_fronts(found)
        facts = signed(shapes_to_json(found), opened)
        write_table(facts, "shapes", [one for one in facts["shapes"] if one["cost"]], out, form)
        if form == "json":
            write_tensors(found[0].plan, out)


def parse_count(text: str) -> float:
    """Return the number that "100M", "1.1B" or "105000000" means.

    Raises:
        LayerscopeError: it is no positive number.
    """
    found = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,9})?)\s*([KMB]?)\s*", text.upper())
    if not found or not float(found[1]):
        raise LayerscopeError(f"'{text}' is no number of parameters; write one such as 100M or 1.1B")
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
