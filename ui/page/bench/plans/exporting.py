"""The Export tab: exports the plan shown on Fold."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.errors import ExportError
from engine.export.checkpoint.export import ExportReport, export, parse_size
from engine.export.gguf import export_gguf, require_copies
from engine.export.settings import ExportSettings
from engine.jobs import Job
from ui.page import charts
from ui.page.bench.workbench import Workbench


def start_export(bench: Workbench, choice: str, threshold: float, asked: ExportSettings, name: str, **more: Any) -> None:
    """Export the chosen plan into a new folder of the export directory; `more` is stored with the plan's known figures.

    Raises:
        ExportError, PlanError: the name or the plan cannot be used.
    """
    model = bench.open_meter().model
    plan, known = bench.chosen(choice, threshold)
    target, size = free_target(bench, name), parse_size(asked.shard_size)
    _submit(bench, lambda: export(model.source, model.folder, plan, target, asked.dtype, size, replace(known, **more)))


def start_gguf(bench: Workbench, choice: str, threshold: float, name: str) -> None:
    """Export the chosen plan as a GGUF file in the export directory. The open model must come from a GGUF file.

    Raises:
        ExportError, PlanError: the name or the plan cannot be used.
    """
    model = bench.open_meter().model
    plan, _ = bench.chosen(choice, threshold)
    require_copies(plan)
    target = free_target(bench, f"{name.removesuffix('.gguf')}.gguf")
    _submit(bench, lambda: export_gguf(model.source, plan, target))


def free_target(bench: Workbench, name: str) -> Path:
    """Return the path of a new folder or file in the export directory.

    Raises:
        ExportError: the name is invalid, or the path exists.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise ExportError("'{name}' is not a valid name; use letters, digits, dots, dashes and underscores", name=name)
    target = bench.export_folder / name
    if target.exists():
        raise ExportError("{target} exists already; choose another name, nothing is ever overwritten", target=target)
    return target


def _submit(bench: Workbench, make: Callable[[], Job[ExportReport]]) -> None:
    bench.page.put("report", "value", "{}")
    bench.submit("export", make, lambda report: bench.page.put("report", "value", charts.report_data(report)), urgent=True)
