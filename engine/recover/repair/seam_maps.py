"""Repair without training: compensate a seam's loss by a map that is folded into the projection before it.

A seam is a block after which source layers are missing or were folded under another layer's norms. The state there is r + u, with u the
output of the block's last projection and r the residual stream it is added to; the source's state is x. There are two closed forms:

`scalar`  one factor s: u becomes s u, with s = <u, x - r> / <u, u> (magnitude compensation, after 2507.18212)
`ridge`   a matrix M: u becomes M u, with M the ridge solution of M u = x - r that shrinks towards the identity
          (after ReplaceMe, 2505.02819, with a regularised solve in place of its plain inverse)

Both fold into the projection's weight and bias, so the checkpoint stays an ordinary one. Everything is fitted in float64 on one part of the
practice texts. The other part chooses the ridge penalty and rejects a repair that does not lower the KL divergence: a seam after a layer
with massive activations may be better without one.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from engine.errors import PlanError, SettingsError
from engine.jobs import Job, Progress
from engine.judge.objectives import Found, Objective
from engine.judge.practice import practice_packs
from engine.messages import Message
from engine.methods.runtime_estimate import REFIT
from engine.methods.width.refit import refit
from engine.models.devices import exact
from engine.models.families import architecture_of, blocks_of
from engine.passes.forward import Capture, run_block, work_of_pass
from engine.plans.tensor_store import keep_tensor, name_tensor
from engine.recover.repair.runtime_estimate import effort, judging
from engine.recover.repair.seams import held_out, seams
from engine.settings import Registry, control
from engine.types import Block, Model, Plan, Repair

REPAIRS: Registry[Callable[..., Any]] = Registry("repair")  # each gives the candidate maps of a seam, except for those in WHOLE
WHOLE = ("refit",)  # jobs that turn a plan into the repaired one
STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0)
_NAMES = ("repair", "texts", "practice", "practice_tokens")  # settings that a repair adds to a plan


@dataclass(frozen=True, slots=True)
class RepairSettings:
    """Settings of a repair."""

    tokens: int = field(
        default=12_000, metadata=control("maximum practice tokens; two thirds are for fitting, the rest selects the repair", 1, None, 500)
    )


def repair(objective: Objective, plan: Plan, kind: str = "ridge") -> Job[Plan]:
    """Return the plan with its seams repaired from the bottom up, each only if it helps; earlier repairs are dropped.

    Missing first layers have no block before them and are not repaired.

    Raises:
        SettingsError: the kind is unknown, or there are too few practice texts to hold some out.
        PlanError: the family has no projection before a seam that a map could be folded into.
    """
    require_repair(objective, kind)
    require_repairable(objective.model, plan, kind)
    bare = replace(plan, blocks=tuple(replace(block, repair="", refits=()) for block in plan.blocks), repairs=())
    if kind in WHOLE:
        return _told((yield from REPAIRS[kind].run(objective, bare)), kind, objective)
    work, done = effort(objective.model, bare, choices(kind), objective.tokens), 0.0
    for index in objective.every:
        yield Progress(Message("Running the model on the practice texts"), done / work.total)
        objective.record(index)
        done += work.source * objective.share((index,))
    held = held_out(len(objective.packs))
    fitted = tuple(index for index in objective.every if index not in held)
    found, best = bare, objective.score(bare, held)
    done += work.bare
    repairs: list[Repair] = []
    for (place, point), fitting, trying in zip(seams(bare), work.fits, work.judged, strict=True):
        yield Progress(Message("Repairing the seam after block {place}", place=place), done / work.total)
        before = best
        options = REPAIRS[kind].run(*_pairs(objective, found, place, point, fitted))
        done += fitting
        for strength, tensor in options:
            mark = name_tensor(tensor)
            blocks = list(found.blocks)
            blocks[place] = replace(blocks[place], repair=mark)
            candidate = replace(bare, blocks=tuple(blocks))
            yield Progress(Message("Evaluating the seam after block {place}", place=place), min(1.0, done / work.total))
            after = objective.score(candidate, held)
            done += trying
            if after < best or (math.isnan(best) and not math.isnan(after)):
                best, chosen = after, (candidate, Repair(place, kind, strength, before, after, mark))
        if best < before or (math.isnan(before) and not math.isnan(best)):
            found = chosen[0]
            keep_tensor(chosen[1].fingerprint)
            repairs.append(chosen[1])
    return _told(replace(found, repairs=tuple(repairs)), kind, objective)


def _told(plan: Plan, kind: str, objective: Objective) -> Plan:
    own = tuple(item for item in plan.settings if item[0] not in _NAMES)
    return replace(plan, settings=(*own, ("repair", kind), *objective.recorded))


def require_repairable(model: Model, plan: Plan, kind: str) -> None:
    """Raise PlanError if a plan has parts that must come after a repair of this kind, or its family does not support the kind."""
    _require_place(model, kind)
    if plan.masks is not None:
        raise PlanError("a repair would overwrite the zeros of the masks; repair the plan before you prune its weights")
    if plan.width is not None and kind not in WHOLE:
        raise PlanError("a seam's map needs the full width; repair the plan before you trim it, or use the repair refit")


def require_repair(objective: Objective, kind: str = "ridge") -> None:
    """Raise the errors of `repair` before anything is run."""
    REPAIRS.require(kind)
    _require_place(objective.model, kind)
    if len(objective.packs) < 2:
        raise SettingsError("there is too little practice text for a repair, which fits on one part and holds out another; provide more")


def _require_place(model: Model, kind: str) -> None:
    if architecture_of(model.config).writes is None and kind not in WHOLE:
        raise PlanError(
            "{model_type} normalises after its last projection, so a repair cannot be folded into that projection",
            model_type=model.config.model_type,
        )


def objective_for_repair(objective: Objective, tokens: int = RepairSettings().tokens) -> Objective:
    """Return a KL objective on more of the same texts, for repairs of plans found with another one."""
    if objective.name == "kl" and objective.protocol.tokens >= tokens:
        return objective
    return Objective(objective.model, objective.texts, "kl", tokens)


def repair_best(objective: Objective, plans: Sequence[Plan], kind: str = "ridge") -> Job[Found]:
    """Repair a few plans and return the one with the lowest KL divergence on held-out practice text."""
    watch, best = objective.watch(), list[tuple[float, int, Plan]]()
    for number, plan in enumerate(plans):
        found = yield from repair(objective, plan, kind)
        score = objective.score(found, held_out(len(objective.packs)))
        best.append((math.inf if math.isnan(score) else score, number, found))
    score, _, plan = min(best)
    return Found(plan, score, watch(), objective.forwards, "repair")


def choices(kind: str) -> int:
    """Return the number of candidate maps per seam for a kind of repair; 0 if it is not a map."""
    if kind in WHOLE:
        return 0
    return len(REPAIRS[kind].run(torch.ones(2, 1, dtype=torch.float64), torch.ones(2, 1, dtype=torch.float64)))


def seconds_for(model: Model, plan: Plan, kind: str, tokens: int, judged: int = 0) -> float:
    """Return the estimated seconds of a repair at the pace of the model's last passes, including evaluation before and after on `judged`
    tokens; NaN for a model that has not run yet."""
    return model.pace * (work_of(model, plan, kind, tokens) + judging(model, plan, judged))


def work_of(model: Model, plan: Plan, kind: str, tokens: int) -> float:
    """Return the work of a repair on `tokens` practice tokens, in parameters times tokens."""
    if choices(kind):
        return effort(model, plan, choices(kind), tokens).total
    return REFIT * work_of_pass(model, tokens)


def _pairs(objective: Objective, plan: Plan, place: int, point: int, packs: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return u and x - r, float64 [tokens, hidden], of the block at a place over some packs."""
    written, wanted = [], []
    before = objective.run(plan, place, packs)
    for index, entering in zip(packs, before, strict=True):
        record = objective.record(index)
        with objective.model.lock:
            state, u = _written(objective, plan.blocks[place], entering, record)
        u = exact(u[0])
        written.append(u)
        wanted.append(exact(record.states[point][0]) - (exact(state[0]) - u))
    return torch.cat(written), torch.cat(wanted)


@torch.no_grad()
def _written(objective: Objective, block: Block, state: torch.Tensor, record: Capture) -> tuple[torch.Tensor, torch.Tensor]:
    """Run a block; return its output and the output of its last projection."""
    caught: list[torch.Tensor] = []
    module = blocks_of(objective.model.network)[block.home].get_submodule(architecture_of(objective.model.config).writes or "")
    hook = module.register_forward_hook(lambda _module, _args, output: caught.append(output))
    try:
        output = run_block(objective.model, objective.mixer, block, state, record)
    finally:
        hook.remove()
    return output, caught[0]


@REPAIRS.register("ridge", "fits a ridge map at each seam", RepairSettings, reference="2505.02819")
def ridges(written: torch.Tensor, wanted: torch.Tensor) -> list[tuple[float, torch.Tensor]]:
    """Return the candidate maps with their penalties."""
    return [(strength, ridge_fit(written, wanted, strength).float()) for strength in STRENGTHS]


@REPAIRS.register("refit", "refits the layers above each seam", RepairSettings, reference="2412.18110")
def refitted(objective: Objective, plan: Plan) -> Job[Plan]:
    """Return the plan with refitted consumers, on the objective's texts without those used for quick costs."""
    packs = practice_packs(objective.model, objective.texts, objective.protocol.tokens)
    return (yield from refit(objective.model, plan, packs))


@REPAIRS.register("scalar", "fits one factor at each seam", RepairSettings, reference="2507.18212")
def scalar(written: torch.Tensor, wanted: torch.Tensor) -> list[tuple[float, torch.Tensor]]:
    """Return the single factor, as its strength and as a map."""
    factor = scalar_fit(written, wanted)
    return [(factor, torch.tensor([factor], dtype=torch.float32))]


def scalar_fit(written: torch.Tensor, wanted: torch.Tensor) -> float:
    """Return the s that minimises |s u - (x - r)| over all tokens, each weighted by the inverse of its size, so that massive activations do
    not dominate."""
    weight = 1.0 / wanted.square().sum(-1).clamp_min(1e-30)
    return float((weight * (written * wanted).sum(-1)).sum() / (weight * written.square().sum(-1)).sum())


def ridge_fit(written: torch.Tensor, wanted: torch.Tensor, strength: float) -> torch.Tensor:
    """Return the M [hidden, hidden] that minimises sum w |M u - y|^2 + penalty |M - 1|^2, w the inverse square of each token's |y|; the
    penalty is `strength` times the mean eigenvalue of sum w u u^T. It is solved, never inverted; the identity if u is zero, NaN if u is not
    finite."""
    weight = 1.0 / wanted.square().sum(-1, keepdim=True).clamp_min(1e-30)
    gram = written.mT @ (weight * written)
    penalty = strength * gram.diagonal().mean().clamp_min(1e-30)
    gram.diagonal().add_(penalty)
    change, _ = torch.linalg.solve_ex(gram, written.mT @ (weight * (wanted - written)))
    return torch.eye(written.shape[1], dtype=written.dtype, device=written.device) + change.mT
