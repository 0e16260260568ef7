"""How a method declares its settings: a frozen record whose fields know what a control needs. Imports no torch."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any


def control(help: str, low: float | None = None, high: float | None = None, step: float | None = None) -> Mapping[str, Any]:
    """Return the metadata of a settings field: what it does, and the bounds and step of a slider for it."""
    return {"help": help, "low": low, "high": high, "step": step}


def about(record: type, name: str) -> Mapping[str, Any]:
    """Return help, low, high and step of a settings record's field."""
    return next(entry.metadata for entry in fields(record) if entry.name == name)
