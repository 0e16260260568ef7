"""Exports that stop before the check in a fresh process, which takes seconds."""

import contextlib
from pathlib import Path
from typing import Any

from engine.export.checkpoint import export
from engine.types import Model, ModelSource, Plan


def export_unverified(source: ModelSource, folder: Path, plan: Plan, target: Path, **options: Any) -> Path:
    """Write a whole checkpoint, and return its folder when the checking would begin."""
    with contextlib.closing(export(source, folder, plan, target, **options)) as job:
        next(step for step in job if step.label.startswith("Checking"))
    return target


def write(model: Model, plan: Plan, target: Path, **options: Any) -> Path:
    """Write a whole checkpoint of an open model's plan, unverified."""
    return export_unverified(model.source, model.folder, plan, target, **options)
