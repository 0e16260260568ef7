"""A student's losses: the teacher's whole distribution, its most likely tokens, the text itself, or the teacher's states.

A vocabulary is wide, so the logits of all tokens are never in memory at once. For ROWS tokens at a time their gradient is computed in
closed form (for a softmax, the difference of two distributions) and propagated to the states; the result is only as large as those.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.nn.functional import cosine_similarity

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ROWS = 128  # tokens whose logits are in memory at once


@dataclass(frozen=True, eq=False, slots=True)
class Head:
    """The output head: a weight [vocabulary, hidden], and the logit cap of families that have one."""

    weight: torch.Tensor
    cap: float | None = None

    def cast(self, dtype: torch.dtype) -> "Head":
        """Return the head with its weight in a dtype, detached."""
        return Head(self.weight.detach().to(dtype), self.cap)

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Return the logits [tokens, vocabulary] of final states [tokens, hidden], float32."""
        found = (states.to(self.weight.dtype) @ self.weight.mT).float()
        return found if self.cap is None else self.cap * torch.tanh(found / self.cap)


def head_of(network: "PreTrainedModel") -> Head:
    """Return the head of a causal language model."""
    return Head(network.get_output_embeddings().weight, getattr(network.config, "final_logit_softcapping", None))


class Lesson(Protocol):
    """A target that tokens are trained towards."""

    def slope(self, rows: slice, logs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the loss summed over some tokens, given the student's log-probabilities [tokens, vocabulary], and its gradient with
        respect to their logits."""


@dataclass(frozen=True, eq=False, slots=True)
class Distribution:
    """Forward KL from the teacher over the whole vocabulary at temperature 1 (Minitron, 2407.14679), nats; from the teacher's final states
    [tokens, hidden] and its head."""

    states: torch.Tensor
    head: Head

    def logs(self, rows: slice) -> torch.Tensor:
        """Return the log-probabilities [tokens, vocabulary] of some tokens."""
        return self.head.logits(self.states[rows]).log_softmax(-1)

    def slope(self, rows: slice, logs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return sum p_t (log p_t - log p_s), and p_s - p_t."""
        teacher = self.logs(rows)
        chances = teacher.exp()
        return (chances * teacher.sub_(logs)).sum(), logs.exp().sub_(chances)


@dataclass(frozen=True, eq=False, slots=True)
class Likeliest:
    """Forward KL on a few tokens' stored log-probabilities [tokens, k] and ids. The terms of all other tokens are omitted; their total
    probability is reported."""

    logs: torch.Tensor
    ids: torch.Tensor

    def slope(self, rows: slice, logs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the sum over the k of p_t (log p_t - log p_s), and (sum p_t) p_s - p_t."""
        ids, teacher = self.ids[rows], self.logs[rows].float()
        chances = teacher.exp()
        loss = (chances * (teacher - logs.gather(1, ids))).sum()
        return loss, (logs.exp() * chances.sum(1, keepdim=True)).scatter_add_(1, ids, -chances)


@dataclass(frozen=True, eq=False, slots=True)
class Text:
    """Cross entropy of the next token, nats; `targets` [tokens] are -1 where there is no next token."""

    targets: torch.Tensor

    def slope(self, rows: slice, logs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return -log p_s of the target, and p_s minus one at the target."""
        targets = self.targets[rows]
        there = (targets >= 0)[:, None]
        chosen = targets.clamp_min(0)[:, None]
        return -(logs.gather(1, chosen) * there).sum(), (logs.exp() * there).scatter_add_(1, chosen, -there.to(logs.dtype))


def next_tokens(ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Return the next token of each token of rows [rows, tokens] in its own document; -1 at the end of a document and of a row."""
    following, starts = ids.roll(-1, 1), positions.roll(-1, 1) == 0
    starts[:, -1] = True
    return following.masked_fill(starts, -1)


def taught(states: torch.Tensor, head: Head, lessons: Sequence[tuple[float, Lesson]], count: int) -> torch.Tensor:
    """Return the weighted sum of lessons on final states [tokens, hidden], divided by `count` tokens. It is differentiable with respect to
    the states, and to the head's weight if that requires a gradient."""
    loss: torch.Tensor = _Taught.apply(states, head.weight, head.cap, tuple(lessons), count)
    return loss


class _Taught(torch.autograd.Function):
    """Computes the gradient in the forward pass, while a few tokens' logits are in memory, and saves it instead of them."""

    @staticmethod
    def forward(
        ctx: Any, states: torch.Tensor, weight: torch.Tensor, cap: float | None, lessons: tuple[tuple[float, Lesson], ...], count: int
    ) -> torch.Tensor:
        kind = states.device.type
        fast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else states.dtype
        with torch.autocast(kind, enabled=False):
            head = Head(weight, cap).cast(fast)
            by_states = torch.empty_like(states)
            by_weight = torch.zeros_like(weight, dtype=torch.float32) if weight.requires_grad else None
            total = torch.zeros((), dtype=torch.float64, device="cpu")
            for start in range(0, len(states), ROWS):
                rows = slice(start, start + ROWS)
                logits = head.logits(states[rows])
                logs = logits.log_softmax(-1)
                slope = torch.zeros((), device=logits.device)
                for share, lesson in lessons:
                    loss, by = lesson.slope(rows, logs)
                    total += share * loss.double().cpu()
                    slope = by.mul_(share / count) if slope.dim() == 0 else slope.add_(by, alpha=share / count)
                if cap is not None:
                    slope = slope * (1 - (logits / cap).square())
                slope = slope.to(fast)
                by_states[rows] = (slope @ head.weight).to(states.dtype)
                if by_weight is not None:
                    by_weight += (slope.mT @ states[rows].to(fast)).float()
        ctx.save_for_backward(by_states, by_weight)
        return (total / count).to(states.device, torch.float32)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        by_states, by_weight = ctx.saved_tensors
        (scale,) = gradients
        return by_states * scale, None if by_weight is None else by_weight * scale, None, None, None


def apart(student: torch.Tensor, teacher: torch.Tensor, kind: str = "cosine") -> torch.Tensor:
    """Return the distance of states [..., hidden] to the teacher's: 1 - cosine, or the squared distance relative to the teacher's squared
    norm, as the mean over tokens (Minitron, 2407.14679, table 9)."""
    student, teacher = student.float(), teacher.float()
    if kind == "cosine":
        return (1 - cosine_similarity(student, teacher, dim=-1)).mean()
    return ((student - teacher).square().sum(-1) / teacher.square().sum(-1).clamp_min(1e-12)).mean()
