"""Shared parts of the terminal tests: the installed command, the texts, plans of whole layers."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.answers import Answer
from tests.families import TEXTS

COMMAND = Path(sys.executable).parent / "layerscope"
DEPTH = 6  # of the tiny models
LINES = tuple(f"{text} {number} {TEXTS[number % 3][::-1]}" for number in range(14) for text in TEXTS)
VERBS = {
    "evaluate": ("--plan", "plan.json"),
    "baseline": ("--method", "bi", "--keep", 3),
    "search": ("--keep", 3),
    "repair": ("--plan", "plan.json"),
}


def short(value: object) -> str:
    """A test's name from one of its parameters."""
    return " ".join(map(str, value))[:50] if isinstance(value, tuple) else str(value)[:50]


def outside(*arguments: object) -> Answer:
    """Run the installed command in a process of its own."""
    done = subprocess.run([COMMAND, *map(str, arguments)], capture_output=True, text=True, encoding="utf-8", timeout=600)
    return Answer(done.returncode, done.stdout, done.stderr)


def plan_of(depth: int, *homes: int) -> dict[str, Any]:
    return {"source_depth": depth, "blocks": [{"home": home, "mix": [[home, 1.0]]} for home in homes]}


def homes(plan: dict[str, Any]) -> list[int]:
    return [block["home"] for block in plan["blocks"]]
