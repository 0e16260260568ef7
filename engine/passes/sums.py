"""What is summed up of the inputs of a projection over tokens and texts: running sums, never the inputs themselves."""

import torch

from engine.errors import SettingsError
from engine.models.devices import exact
from engine.models.texts import Pack

AGGREGATIONS = ("mean", "l2", "variance")


class Sums:
    """Running sums over the inputs [tokens, width] of a projection, in float64: of x, of x squared, of x x^T where `gram` is asked
    for (each pack's in that dtype), and of what each text's |x| comes to by its mean, its root of squares and its variance
    (Minitron's aggregations)."""

    def __init__(self, width: int, gram: torch.dtype | None = None) -> None:
        self.tokens = self.texts = 0
        self.total, self.squares = (torch.zeros(width, dtype=torch.float64) for _ in range(2))
        self.gram = torch.zeros(width, width, dtype=torch.float64) if gram else None
        self._gram_dtype = gram
        self._by_text = {name: torch.zeros(2, width, dtype=torch.float64) for name in AGGREGATIONS}  # sum and sum of squares

    def add(self, x: torch.Tensor, pack: Pack) -> None:
        """Add what a projection read over a pack."""
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
        if self.gram is not None:
            self.gram += gram_of(x.to(self._gram_dtype) if self._gram_dtype != torch.float64 else exact(x))

    def aggregated(self, batch: str, sequence: str) -> torch.Tensor:
        """Return [width]: each text's |x| over its tokens by `sequence`, then over the texts by `batch` (2407.14679, section 2.2)."""
        for name in (batch, sequence):
            if name not in AGGREGATIONS:
                raise SettingsError(f"unknown aggregation '{name}'; choose one of {', '.join(AGGREGATIONS)}")
        total, squares = self._by_text[sequence]
        if batch == "l2":
            return squares.sqrt()
        mean = total / self.texts
        return mean if batch == "mean" else (squares / self.texts - mean.square()).clamp_min(0)

    @property
    def norm(self) -> torch.Tensor:
        """[width]: the root of the mean over texts of the sum over tokens of x squared, as Wanda's code has ||X||."""
        return (self.squares / self.texts).sqrt()

    @property
    def variance(self) -> torch.Tensor:
        """[width]: the variance of x over tokens."""
        return (self.squares / self.tokens - (self.total / self.tokens).square()).clamp_min(0)


def gram_of(x: torch.Tensor) -> torch.Tensor:
    """Return x^T x of [tokens, width] in float64. On the CPU numpy knows that it is symmetric, which spares half of the work."""
    if x.device.type != "cpu":
        return exact(x.mT @ x).cpu()
    values = x.numpy()
    return torch.from_numpy(values.T @ values).double()
