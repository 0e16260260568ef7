"""The training objective of a student: a weighted sum of losses on rows of text, against a live or a stored teacher."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from engine.errors import SettingsError
from engine.models.families import blocks_of
from engine.passes.forward import state_of
from engine.recover.repair.seams import seams
from engine.training.losses import Distribution, Lesson, Text, apart, head_of, next_tokens, taught
from engine.training.precision import casting
from engine.types import Plan

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LOSSES = {
    "kl": "forward KL from the source over the whole vocabulary",
    "ce": "cross entropy of the text",
    "cosine": "1 - cosine of the states between the blocks and the source's",
    "mse": "squared distance of those states, relative to the source's",
    "local": "squared distance of what a block at a seam makes of the source's state, as LLM-Streamline fits it",
}
_DEEP = 2 / 3  # below this share of the depth, states are compared too (Minitron, 2407.14679)


@dataclass(frozen=True, slots=True)
class Terms:
    """A sum of losses: pairs of a name and its weight, in the order of LOSSES."""

    weights: tuple[tuple[str, float], ...]

    def __str__(self) -> str:
        return "+".join(name if weight == 1 else f"{weight:g}*{name}" for name, weight in self.weights)

    def of(self, name: str) -> float:
        """Return the weight of a loss, 0 if it is not included."""
        return dict(self.weights).get(name, 0.0)

    @property
    def states(self) -> bool:
        """Whether states between the blocks are compared."""
        return any(self.of(name) for name in ("cosine", "mse", "local"))

    @property
    def teacher(self) -> bool:
        """Whether a teacher is needed."""
        return bool(self.of("kl")) or self.states


def terms_of(text: str) -> Terms:
    """Parse a sum of losses such as kl, ce, kl+cosine or 0.5*kl+0.5*ce.

    Raises:
        SettingsError: the text is not a valid sum.
    """
    found: dict[str, float] = {}
    for part in text.replace(" ", "").split("+"):
        match = re.fullmatch(r"(?:(\d{0,4}\.?\d{1,6})\*)?([a-z]+)", part)
        if not match or match[2] not in LOSSES or match[2] in found:
            raise SettingsError(
                "'{text}' is not a loss; write one of {choices}, or a sum such as 0.5*kl+0.5*ce", text=text, choices=", ".join(LOSSES)
            )
        found[match[2]] = float(match[1] or 1)
    if not any(found.values()):
        raise SettingsError("'{text}' gives every loss a weight of 0; at least one weight must be positive", text=text)
    return Terms(tuple((name, found[name]) for name in LOSSES if found.get(name)))


def default_terms(plan: Plan) -> Terms:
    """Return a plan's default losses: the source's distribution, plus its states if more than a third of the depth is gone and the plan has
    more than one block."""
    return terms_of("kl" if plan.depth == 1 or plan.depth >= _DEEP * plan.source_depth else "kl+cosine")


def require_teachable(terms: Terms, plan: Plan, recompute: bool, stored: bool) -> None:
    """Raise SettingsError if the losses do not fit the plan, the stored teacher or recomputation."""
    trim = plan.blocks[0].trim
    if stored and terms.states:
        raise SettingsError("'{terms}' compares hidden states, which are too large to store; choose kl, or the teacher live", terms=terms)
    if terms.states and plan.depth == 1 and not terms.of("local"):
        raise SettingsError("'{terms}' compares hidden states between blocks, but this plan has only one block; choose kl", terms=terms)
    if not terms.of("local"):
        return
    if len(terms.weights) > 1:
        raise SettingsError(
            "'{terms}' combines local with other losses; local runs each block on the source's states and must be used alone", terms=terms
        )
    if trim is not None and trim.channels is not None:
        raise SettingsError("local cannot fit blocks that are narrower than the source's states; choose another loss")
    if not local_ends(plan):
        raise SettingsError("local needs a seam below the last block, and this plan has none; choose another loss")
    if recompute:
        raise SettingsError("local cannot recompute activations in the backward pass; omit recompute")


def require_shareable(processes: int, rows: int, terms: Terms, plan: Plan, correction: float) -> None:
    """Raise SettingsError if several processes cannot train together."""
    trim = plan.blocks[0].trim
    if rows % processes:
        raise SettingsError(
            "{rows} rows cannot be divided among {processes} processes; choose a multiple of {processes} (--rows)",
            rows=rows,
            processes=processes,
        )
    if processes > 1 and correction:
        raise SettingsError("teacher correction runs only in one process; omit --correct-teacher, or start without torchrun")
    if processes > 1 and terms.states and trim is not None and trim.channels is not None:
        raise SettingsError(
            "hidden states of a plan with fewer channels can be compared only in one process; choose kl, or start without torchrun"
        )


def local_ends(plan: Plan) -> dict[int, int]:
    """Return the blocks that can be fitted separately, each before a seam, with the source's point whose state they should produce. At the
    last point the source's states are after the final norm, so it is excluded."""
    return {place: end for place, end in seams(plan) if end < plan.source_depth}


Heard = tuple[Lesson, tuple[torch.Tensor, ...]]  # a lesson, and the states that enter each layer if requested


class Teacher(Protocol):
    """The teacher that a student is compared with."""

    def hear(self, ids: torch.Tensor, positions: torch.Tensor, numbers: torch.Tensor | None, states: bool) -> Heard:
        """Return the lesson on rows of text [rows, tokens] with these corpus numbers, flattened, and the states that enter each layer if
        `states`."""


class LiveTeacher:
    """The source itself, in memory next to the student."""

    def __init__(self, network: "PreTrainedModel", autocast: str) -> None:
        self.network, self._autocast = network.eval(), autocast

    def hear(self, ids: torch.Tensor, positions: torch.Tensor, _numbers: torch.Tensor | None, states: bool) -> Heard:
        """Run the source over the rows."""
        found = self._run(ids, positions, states)
        return self._lesson(found), tuple(found.hidden_states or ())

    def distribution(self, ids: torch.Tensor, positions: torch.Tensor) -> Distribution:
        """Return the source's distribution on rows of text [rows, tokens], flattened."""
        return self._lesson(self._run(ids, positions, False))

    @torch.no_grad()
    def _run(self, ids: torch.Tensor, positions: torch.Tensor, states: bool) -> Any:
        return self.network.base_model(input_ids=ids, position_ids=positions, use_cache=False, output_hidden_states=states)

    def _lesson(self, found: Any) -> Distribution:
        head = head_of(self.network)
        head = head.cast(getattr(torch, self._autocast)) if self._autocast else head
        return Distribution(found.last_hidden_state.flatten(0, 1), head)


class DistillationLoss(nn.Module):
    """A student with its losses as one module, which returns the loss of some rows as a share of a step of `count` tokens. `chart` [kept,
    all] maps the student's channels to the source's `width` if some were cut; it is trained too and then discarded."""

    def __init__(self, student: Any, teacher: Teacher | None, terms: Terms, plan: Plan, width: int, count: int, autocast: str = "") -> None:
        super().__init__()
        assert teacher is not None or not terms.teacher
        self.student, self.plan, self.terms = student, plan, terms
        self.autocast, self._teacher, self._count = autocast, teacher, count
        self.chart = _chart(plan, width, student.device) if terms.states else None

    def forward(self, ids: torch.Tensor, positions: torch.Tensor, numbers: torch.Tensor | None = None) -> torch.Tensor:
        """Return the loss of rows of token ids [rows, tokens] with these corpus numbers; see `Terms`."""
        with casting(ids.device.type, self.autocast):
            lesson, points = (None, ()) if self._teacher is None else self._teacher.hear(ids, positions, numbers, self.terms.states)
            if self.terms.of("local"):
                return self._local(ids, positions, points)
            states = bool(self.terms.of("cosine") or self.terms.of("mse"))
            found = self.student.base_model(input_ids=ids, position_ids=positions, use_cache=False, output_hidden_states=states)
            named = [(self.terms.of("kl"), lesson), (self.terms.of("ce"), Text(next_tokens(ids, positions).flatten()))]
            lessons = [(weight, one) for weight, one in named if weight and one is not None]
            losses = [taught(found.last_hidden_state.flatten(0, 1), head_of(self.student), lessons, self._count)] if lessons else []
            losses += [self._between(found.hidden_states, points)] if states else []
            return torch.stack(losses).sum()

    def _share(self, ids: torch.Tensor) -> float:
        return ids.numel() / self._count

    def _between(self, own: tuple[torch.Tensor, ...], points: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Return the distance between the states that enter each block except the first and those that enter its home in the source."""
        total = torch.zeros((), device=own[0].device)
        for kind in ("cosine", "mse"):
            if weight := self.terms.of(kind):
                pairs = [(own[place], points[home]) for place, home in enumerate(self.plan.kept)][1:]
                found = [apart(one if self.chart is None else one @ self.chart, there, kind) for one, there in pairs]
                total = total + weight * torch.stack(found).mean()
        return total * self._share(own[0][..., 0])

    def _local(self, ids: torch.Tensor, positions: torch.Tensor, points: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Run each block at a seam on the state that enters its home in the source, and compare its output with the source's state after
        the seam."""
        ends, found = local_ends(self.plan), list[torch.Tensor]()
        layers = blocks_of(self.student)
        hooks = [layers[place].register_forward_pre_hook(_entering(points[self.plan.kept[place]]), with_kwargs=True) for place in ends]
        hooks += [
            layers[place].register_forward_hook(lambda _m, _a, out, end=end: found.append(apart(state_of(out), points[end], "mse")))
            for place, end in ends.items()
        ]
        try:
            self.student.base_model(input_ids=ids, position_ids=positions, use_cache=False)
        finally:
            for hook in hooks:
                hook.remove()
        return torch.stack(found).mean() * self._share(ids)


def _entering(state: torch.Tensor) -> Callable[..., Any]:
    def instead(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return ((state, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": state})

    return instead


def _chart(plan: Plan, width: int, device: torch.device) -> nn.Parameter | None:
    """Return the initial map of a plan's channels, the identity on the kept ones; None if no channel was cut."""
    trim = plan.blocks[0].trim
    if trim is None or trim.channels is None:
        return None
    return nn.Parameter(torch.eye(width, device=device)[list(trim.channels)])
