"""A teacher that does not fit in memory next to the student: its most likely tokens are stored row by row in a file.

A record is one row: log-probabilities (float16) and ids of the `top` most likely tokens at each position, and the remaining probability.
Records are in the order in which the run first reads its rows, so a short run needs few. The file size gives the number of complete
records, so a killed run can be resumed.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from engine.corpus.rows import Batch, Rows
from engine.errors import TrainingError
from engine.jobs import Job, Progress
from engine.messages import Message
from engine.recover.distill.distillation import Heard, LiveTeacher
from engine.training.losses import ROWS, Likeliest
from engine.training.precision import casting
from engine.training.recipe import Recipe
from engine.untrusted import ForeignError, require_regular


class Stored:
    """A stored teacher for the rows that a run reads."""

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
        """The number of complete rows."""
        return self._file.stat().st_size // self._kind.itemsize if self._file.exists() else 0

    @property
    def whole(self) -> bool:
        """Whether all rows that the run reads are stored."""
        return self.done >= self._needed

    def fill(self, source: LiveTeacher, device: str) -> Job[None]:
        """Store the source's outputs for the missing rows.

        Raises:
            TrainingError: there is not enough disk space.
        """
        left = (self._needed - self.done) * self._kind.itemsize
        if left > (free := shutil.disk_usage(self._file.parent).free):
            raise TrainingError(
                "storing the likeliest tokens needs {left:.3g} GB in {parent}, but only {free:.3g} GB are free; store "
                "fewer (--top), or free some space",
                left=left / 1e9,
                parent=self._file.parent,
                free=free / 1e9,
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
                    yield Progress(
                        Message("Storing the source's outputs: row {done} of {needed}", done=self.done, needed=self._needed),
                        self.done / self._needed,
                    )
        except ForeignError as error:
            raise TrainingError("{path} cannot be read: {error}", path=self._file, error=error) from error
        except OSError as error:
            raise TrainingError(
                "{file} cannot be written: {reason}; the previous file is kept", file=self._file, reason=error.strerror
            ) from error

    @torch.no_grad()
    def _told(self, source: LiveTeacher, batch: Batch, device: str) -> np.ndarray:
        with casting(device, self._recipe.autocast):
            lesson = source.distribution(batch.ids.to(device), batch.positions.to(device))
        found = [lesson.logs(slice(start, start + ROWS)).topk(self._top) for start in range(0, batch.ids.numel(), ROWS)]
        logs, ids = (torch.cat(side).view(*batch.ids.shape, self._top).cpu() for side in zip(*found, strict=True))
        records = np.empty(len(batch.ids), self._kind)
        records["logs"], records["ids"] = logs.numpy(), ids.numpy()
        records["missing"] = (1 - logs.exp().sum(-1)).clamp_min(0).mean(-1).numpy()
        return records

    def hear(self, ids: torch.Tensor, _positions: torch.Tensor, numbers: torch.Tensor | None, _states: bool) -> Heard:
        """Return the stored outputs for rows with these corpus numbers."""
        assert numbers is not None
        found = self._read()[self._places[numbers.cpu().numpy()]]
        logs, likeliest = torch.from_numpy(found["logs"]), torch.from_numpy(found["ids"].astype(np.int64))
        if likeliest.max() >= self._vocabulary:
            raise TrainingError("{file} is corrupted; delete it, and the source's outputs are computed again", file=self._file)
        return Likeliest(logs.flatten(0, 1).to(ids.device), likeliest.flatten(0, 1).to(ids.device)), ()

    def missing(self, numbers: Sequence[int] | None = None) -> float:
        """Return the mean probability over tokens outside the stored ones, of all rows or of some."""
        there = self._read()["missing"]
        return float(there.mean() if numbers is None else there[self._places[list(numbers)]].mean())

    def _read(self) -> np.ndarray:
        return np.memmap(self._file, self._kind, "r", shape=(self.done,))
