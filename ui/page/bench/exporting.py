"""Exporting the plan that Fold shows: what the Export tab asks for."""

import re
from typing import Any

from engine.errors import ExportError
from engine.export.checkpoint import export, parse_size
from engine.types import ExportReport
from ui.page import charts
from ui.page.bench.workbench import Workbench


def start_export(bench: Workbench, choice: str, threshold: float, dtype: str, shard: str, name: str, **more: Any) -> None:
    """Export the chosen plan into a new folder of the export directory; `more` is kept with what is known of it.

    Raises:
        ExportError, PlanError: the name or the plan cannot be used.
    """
    model = bench.open_meter().model
    plan, known = bench.chosen(choice, threshold)
    known |= more
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise ExportError(f"'{name}' cannot be a folder's name here; use letters, digits, dots and dashes")
    target, size = bench.export_folder / name, parse_size(shard)
    if target.exists():
        raise ExportError(f"{target} exists already; choose another name, nothing is ever overwritten")
    bench.page.put("report", "value", "{}")

    def done(report: ExportReport) -> None:
        bench.page.put("report", "value", charts.report_data(report))

    bench.submit("export", lambda: export(model.source, model.folder, plan, target, dtype, size, known), done, urgent=True)
