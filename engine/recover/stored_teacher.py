"""The teacher where it does not fit beside the student: its likeliest tokens, written down once row by row, and read from a file.

A record is a row: log-probabilities (float16) and ids of the `top` likeliest tokens at each place, and how much chance lies on none of
them. Records lie in the order in which the run first reads its rows, so that a short run needs few. How many are whole is the file's
size, so that a run that was killed goes on where it was.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from engine.corpus.rows import Batch, Rows
from engine.errors import TrainingError
from engine.jobs import Job, Progress
from engine.recover.distillation import Heard, Present
from engine.training.losses import ROWS, Likeliest
from engine.training.precision import casting
from engine.training.recipe import Recipe
from engine.untrusted import ForeignError, require_regular


class Stored:
    """A teacher that was written down, on the rows that a run reads."""

    def __init__(self, file: Path, rows: Rows, recipe: Recipe, top: int, vocabulary: int) -> None:
        self._file, self._rows, self._recipe, self._top = file, rows, recipe, min(top, vocabulary)
        self._vocabulary = vocabulary
        shape, ids = (rows.length, self._top), "<u2" if vocabulary <= 1 << 16 else "<u4"
        self._kind = np.dtype([("logs", "<f2", shape), ("ids", ids, shape), ("missing", "<f4")])
        self._numbers = rows.reading(recipe.steps * recipe.accumulate * recipe.rows, recipe.seed)
        self._needed = len(self._numbers)
        self._places = np.full(len(rows), -1)
        self._places[self._numbers] = range(self._needed)

    @property
    def done(self) -> int:
        """Rows that are written down whole."""
        return self._file.stat().st_size // self._kind.itemsize if self._file.exists() else 0

    @property
    def whole(self) -> bool:
        """True where all rows are that the run reads."""
        return self.done >= self._needed

    def fill(self, source: Present, device: str) -> Job[None]:
        """Write down what the source says of the rows that are missing.

        Raises:
            TrainingError: the disk has no room for it.
        """
        left = (self._needed - self.done) * self._kind.itemsize
        if left > (free := shutil.disk_usage(self._file.parent).free):
            raise TrainingError(
                f"the likeliest tokens take {left / 1e9:.3g} GB in {self._file.parent}, where {free / 1e9:.3g} GB are free; "
                "store fewer of them (--top), or free some space"
            )
        try:
            if self._file.exists():
                require_regular(self._file)
            with self._file.open("ab") as file:
                file.truncate(self.done * self._kind.itemsize)
                while not self.whole:
                    done = self.done
                    batch = self._rows.some(self._numbers[done : done + self._recipe.rows])
                    file.write(self._told(source, batch, device).tobytes())
                    file.flush()
                    yield Progress(f"Writing down what the source says: row {self.done} of {self._needed}", self.done / self._needed)
        except ForeignError as error:
            raise TrainingError(f"{self._file} cannot be read: {error}") from error
        except OSError as error:
            raise TrainingError(f"{self._file} cannot be written: {error.strerror}; what was there before is kept") from error

    @torch.no_grad()
    def _told(self, source: Present, batch: Batch, device: str) -> np.ndarray:
        with casting(device, self._recipe.autocast):
            lesson = source.distribution(batch.ids.to(device), batch.positions.to(device))
        found = [lesson.logs(slice(start, start + ROWS)).topk(self._top) for start in range(0, batch.ids.numel(), ROWS)]
        logs, ids = (torch.cat(side).view(*batch.ids.shape, self._top).cpu() for side in zip(*found, strict=True))
        records = np.empty(len(batch.ids), self._kind)
        records["logs"], records["ids"] = logs.numpy(), ids.numpy()
        records["missing"] = (1 - logs.exp().sum(-1)).clamp_min(0).mean(-1).numpy()
        return records

    def hear(self, ids: torch.Tensor, _positions: torch.Tensor, numbers: torch.Tensor | None, _states: bool) -> Heard:
        """Return what was written down of rows of these numbers in the corpus."""
        assert numbers is not None
        found = self._read()[self._places[numbers.cpu().numpy()]]
        logs, likeliest = torch.from_numpy(found["logs"]), torch.from_numpy(found["ids"].astype(np.int64))
        if likeliest.max() >= self._vocabulary:
            raise TrainingError(f"{self._file} is broken; remove it, and the source says the same again")
        return Likeliest(logs.flatten(0, 1).to(ids.device), likeliest.flatten(0, 1).to(ids.device)), ()

    def missing(self, numbers: Sequence[int] | None = None) -> float:
        """Return the chance, on the mean over tokens, that lies on none of the tokens that were kept; of all rows, or of some."""
        there = self._read()["missing"]
        return float(there.mean() if numbers is None else there[self._places[list(numbers)]].mean())

    def _read(self) -> np.ndarray:
        return np.memmap(self._file, self._kind, "r", shape=(self.done,))
