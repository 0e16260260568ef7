"""Running sums of a projection's inputs over tokens and texts; the inputs themselves are not stored."""

import torch

from engine.errors import SettingsError
from engine.models.devices import exact
from engine.models.texts import Pack

_PANELS = 4
_ADDED = 4096  # tokens
AGGREGATIONS = ("mean", "l2", "variance")


class Sums:
    """Running float64 sums over the inputs [tokens, width] of a projection: of x, of x squared, of x x^T if `gram` gives the dtype of the
    products, and of each text's mean, root of squares and variance of |x| (Minitron's aggregations)."""

    def __init__(self, width: int, gram: torch.dtype | None = None) -> None:
        self.tokens = self.texts = 0
        self.total, self.squares = (torch.zeros(width, dtype=torch.float64) for _ in range(2))
        self._gram = Gram(width, gram) if gram else None
        self._by_text = {name: torch.zeros(2, width, dtype=torch.float64) for name in AGGREGATIONS}  # sum and sum of squares

    def add(self, x: torch.Tensor, pack: Pack) -> None:
        """Add a projection's inputs over a pack."""
        x = x.float()
        self.tokens += len(x)
        self.total += exact(x.sum(0)).cpu()
        for _, start, stop in pack.spans:
            rows = x[start:stop]
            self.texts += 1
            size = rows.abs()
            squares = exact(rows.square().sum(0)).cpu()
            self.squares += squares
            mean = exact(size.mean(0)).cpu()
            found = {"mean": mean, "l2": squares.sqrt(), "variance": (squares / len(rows) - mean.square()).clamp_min(0)}
            for name, value in found.items():
                self._by_text[name] += torch.stack([value, value.square()])
        if self._gram is not None:
            self._gram.add(x)

    def aggregated(self, batch: str, sequence: str) -> torch.Tensor:
        """Return [width]: |x| aggregated over each text's tokens by `sequence`, then over texts by `batch` (2407.14679, section 2.2)."""
        for name in (batch, sequence):
            if name not in AGGREGATIONS:
                raise SettingsError("unknown aggregation '{name}'; choose one of {choices}", name=name, choices=", ".join(AGGREGATIONS))
        total, squares = self._by_text[sequence]
        if batch == "l2":
            return squares.sqrt()
        mean = total / self.texts
        return mean if batch == "mean" else (squares / self.texts - mean.square()).clamp_min(0)

    @property
    def gram(self) -> torch.Tensor | None:
        """[width, width]: the sum of x x^T, or None without `gram`."""
        return self._gram.total() if self._gram else None

    @property
    def norm(self) -> torch.Tensor:
        """[width]: the root of the mean over texts of the sum over tokens of x squared, as ||X|| in Wanda's code."""
        return (self.squares / self.texts).sqrt()

    @property
    def variance(self) -> torch.Tensor:
        """[width]: the variance of x over tokens."""
        return (self.squares / self.tokens - (self.total / self.tokens).square()).clamp_min(0)


class Gram:
    """A running sum of x x^T over tokens, [width, width] in float64; products are computed in `dtype`.

    The sum is symmetric, so only row panels from the diagonal on are multiplied: five eighths of the work.
    """

    def __init__(self, width: int, dtype: torch.dtype) -> None:
        self._total = torch.zeros(width, width, dtype=torch.float64)
        self._part, self._tokens, self._dtype = self._total, 0, dtype

    def add(self, x: torch.Tensor) -> None:
        """Add tokens: x [tokens, width]."""
        x = exact(x) if self._dtype == torch.float64 else x.to(self._dtype)
        if self._part is self._total and (x.dtype, x.device) != (self._total.dtype, self._total.device):
            self._part = torch.zeros_like(self._total, dtype=x.dtype, device=x.device)
        start = 0
        for rows in self._part.tensor_split(_PANELS):
            stop = start + len(rows)
            rows[:, start:].addmm_(x[:, start:stop].mT, x[:, start:])
            start = stop
        self._tokens += len(x)
        if self._tokens >= _ADDED:
            self._add_up()

    def total(self) -> torch.Tensor:
        """Return the full matrix of the sum so far."""
        self._add_up()
        return self._total.triu() + self._total.triu(1).mT

    def joined(self, other: "Gram") -> "Gram":
        """Return the sum over the tokens of both."""
        both = Gram(len(self._total), self._dtype)
        both._total += self.total() + other.total()
        return both

    def _add_up(self) -> None:
        """Add the partial sum in the lower precision to the float64 total, before it loses digits."""
        if self._part is not self._total:
            self._total += exact(self._part).cpu()
            self._part.zero_()
        self._tokens = 0
