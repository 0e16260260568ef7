"""The generated parts of the documentation: `python -m tests.docs` renews them, and tests/test_docs.py fails when one is out of date.

A part stands between `<!-- generated: NAME -->` and `<!-- end -->`.
"""

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer.main

from engine.judge.objectives import OBJECTIVES
from engine.methods.depth.baselines import BASELINES
from engine.methods.masks.pruning import MASKS
from engine.methods.width.scores import SCORES
from engine.plans.rules import RULES
from engine.recover.distill.student import TRAINS
from engine.recover.repair.seam_maps import REPAIRS
from engine.recover.run.tracking import TRACKERS
from engine.settings import Method, Registry
from ui.terminal.cli import app

ROOT = Path(__file__).resolve().parent.parent
WIDTH = 110  # of a line of help
REGISTRIES: dict[str, Registry[Any]] = {
    "rule": RULES,
    "baseline": BASELINES,
    "score of heads, neurons, channels": SCORES,
    "mask": MASKS,
    "objective of a search": OBJECTIVES,
    "repair": REPAIRS,
    "what recovery trains": TRAINS,
    "tracker": TRACKERS,
}
_PART = re.compile(r"(<!-- generated: (.+?) -->\n).*?(<!-- end -->)", re.S)


def paper(reference: str) -> str:
    """Return an arXiv id as a link; nothing where a method has no paper."""
    return f"[{reference}](https://arxiv.org/abs/{reference})" if reference else ""


def table(columns: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def file_of(method: Method[Any]) -> str:
    """Return the file that a method stands in, below the repository's root."""
    return str(Path(inspect.getfile(method.run)).relative_to(ROOT))


def methods() -> str:
    """Return every registered method with its help, paper and file."""
    return table(
        ["kind", "name", "what it does", "paper", "file"],
        [
            [kind, f"`{method.name}`", method.help, paper(method.reference), f"`{file_of(method)}`"]
            for kind, registry in REGISTRIES.items()
            for method in registry.values()
        ],
    )


def methods_by_kind() -> str:
    """Return the names and papers of each kind of method."""
    rows = []
    for kind, registry in REGISTRIES.items():
        papers = sorted({method.reference for method in registry.values()} - {""})
        rows.append([kind, ", ".join(f"`{name}`" for name in registry), ", ".join(map(paper, papers))])
    return table(["kind", "methods", "papers"], rows)


def commands() -> Iterator[tuple[str, str]]:
    """Yield each command of the terminal and its help."""
    group: Any = typer.main.get_command(app)
    whole = group.make_context("layerscope", [], resilient_parsing=True, terminal_width=WIDTH)
    for name, command in group.commands.items():
        with command.make_context(name, [], parent=whole, resilient_parsing=True, terminal_width=WIDTH) as context:
            yield name, command.get_help(context)


def help_of_commands() -> str:
    """Return the help of every command as Markdown."""
    return "\n\n".join(f"### {name}\n\n```text\n{text.strip()}\n```" for name, text in commands())


PARTS: dict[str, Callable[[], str]] = {"methods": methods, "methods by kind": methods_by_kind, "help": help_of_commands}


def pages() -> list[Path]:
    """Return every page of the documentation."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def renewed(text: str) -> str:
    """Return a page with its generated parts made anew."""
    return _PART.sub(lambda found: f"{found[1]}{PARTS[found[2]]()}\n{found[3]}", text)


def main() -> None:
    """Renew the generated parts of every page."""
    for page in pages():
        before = page.read_text(encoding="utf-8")
        if (after := renewed(before)) != before:
            page.write_text(after, encoding="utf-8")
            print(f"renewed {page.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
