"""Learned masks that select the parts of a model to keep, and the Lagrangian that drives them to an exact number (Sheared LLaMA,
2310.06694, section 2.1, after Louizos et al., 1712.01312). The constants are those of the published code.

A part's mask is z in [0, 1], drawn anew for every pass from its parameter a by

    u ~ U(0, 1),   s = sigmoid((log u - log(1 - u) + a) / beta),   z = min(1, max(0, s (1.1 + 0.1) - 0.1))

so that both ends have positive probability: P(z > 0) = sigmoid(a - beta log(0.1 / 1.1)). With s the expected share of removed parts, t its
target, and two multipliers that ascend while all other parameters descend, each kind of part adds

    lambda_1 (s - t) + lambda_2 (s - t)^2,   the mean over its rows
"""

import math
from collections.abc import Mapping

import torch

BETA = 2 / 3
LOW, HIGH = -0.1, 1.1
EDGE = 1e-6  # the distance of u and P(z > 0) from 0 and 1
START, SPREAD = 5.0, 0.01  # mean and deviation of the initial parameters
BOUNDS = (math.log(0.01), math.log(100))  # limits of the parameters, applied in every pass
SOFT = 0.8  # slope of the mask without drawing, from the published code
SURE = (0.01, 0.99)  # a mask between these is undecided
Values = Mapping[str, torch.Tensor]  # masks by kind: [rows, units]


def stretched(a: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Return masks from their parameters and draws from U(0, 1)."""
    s = torch.sigmoid((u.log() - torch.log1p(-u) + a) / BETA)
    return (s * (HIGH - LOW) + LOW).clamp(0, 1)


def drawn(a: torch.Tensor) -> torch.Tensor:
    """Return masks drawn with torch's generator."""
    return stretched(a, torch.empty_like(a).uniform_(EDGE, 1 - EDGE))


def chance(a: torch.Tensor) -> torch.Tensor:
    """Return the probability that a mask is not 0."""
    return torch.sigmoid(a - BETA * math.log(-LOW / HIGH)).clamp(EDGE, 1 - EDGE)


def soft(a: torch.Tensor) -> torch.Tensor:
    """Return the value of a kept mask without drawing."""
    return torch.sigmoid(a / BETA * SOFT)


def topmost(a: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """Return masks [rows, units] without drawing: soft values for the `kept` [rows] highest parameters of each row (the first of equal
    ones), and 0 for the others."""
    ranks = a.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return soft(a) * (ranks < kept[:, None])
