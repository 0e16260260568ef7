"""Imports point one way: `engine` never imports `ui` or its libraries, and an engine package imports only packages above it in ROOMS."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
GROUND = (
    "types",
    "messages",
    "catalogues",
    "errors",
    "untrusted",
    "atomic",
    "jobs",
    "cache",
    "measurements",
    "records",
    "settings",
    "model_lock",
)
ROOMS = ("models", "plans", "passes", "judge", "corpus", "training", "methods", "search", "recover", "export")
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for package in ("engine", "ui")
    for path in sorted((ROOT / package).rglob("*.py"))
    if path.name != "__init__.py"
}
ENGINE = [name for name in MODULES if name.startswith("engine.")]


def imports(path: Path) -> Iterator[str]:
    """Yield the modules a file imports anywhere, in functions and under TYPE_CHECKING too; `from a import b` gives a.b where it is one."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively, which this test does not follow"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else str(node.module)


def room(module: str) -> int:
    """Return the place of a module's room in the order of imports; the ground comes first."""
    parts = module.split(".")
    return 0 if len(parts) == 2 and parts[1] in GROUND else 1 + ROOMS.index(parts[1])


IMPORTS = {module: tuple(imports(path)) for module, path in MODULES.items()}


def roots(module: str) -> set[str]:
    """Return the packages that a module imports."""
    return {name.split(".")[0] for name in IMPORTS[module]}


def test_an_engine_module_imports_from_its_room_and_those_above() -> None:
    assert len(ENGINE) > 100  # the search itself works
    wrong = [(module, name) for module in ENGINE for name in IMPORTS[module] if name.startswith("engine.") and room(name) > room(module)]
    assert wrong == []


def test_the_engine_knows_neither_the_page_nor_its_libraries() -> None:
    strangers = {"ui", "tests", "gradio", "plotly", "pandas", "typer"}
    assert {module: found for module in ENGINE if (found := roots(module) & strangers)} == {}


@pytest.mark.parametrize("module", ["engine.types", "engine.messages"])
def test_records_and_messages_import_nothing_from_the_project(module: str) -> None:
    assert not roots(module) & {"engine", "ui", "assets", "tests"}


@pytest.mark.parametrize("module", ["engine.types", "engine.errors", "engine.jobs", "engine.cache", "engine.model_lock"])
def test_what_only_handles_records_does_without_torch(module: str) -> None:
    assert not roots(module) & {"torch", "transformers"}


def test_nothing_reads_a_pickle() -> None:
    readers = {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"}
    words = ("torch.load(", "read_pickle(", "allow_pickle", "jit.load(", "weights_only")
    texts = {module: path.read_text(encoding="utf-8") for module, path in MODULES.items()}
    found = {module: [*(roots(module) & readers), *(word for word in words if word in text)] for module, text in texts.items()}
    assert {module: read for module, read in found.items() if read} == {}


def test_there_is_no_import_cycle() -> None:
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail, module))
        if module not in done:
            for name in set(IMPORTS[module]) & MODULES.keys():
                visit(name, (*trail, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


def test_packages_files_and_functions_stay_readable() -> None:
    """Packages have at most 12 modules, files at most 300 lines, functions at most 60."""
    packages: dict[str, int] = {}
    wrong: list[str] = []
    for module, path in MODULES.items():
        text = path.read_text(encoding="utf-8")
        package = module.rpartition(".")[0]
        packages[package] = packages.get(package, 0) + 1
        if (lines := text.count("\n")) > 300:
            wrong.append(f"{module}: {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and (lines := node.end_lineno - node.lineno + 1) > 60:  # type: ignore[operator]
                wrong.append(f"{module}.{node.name}: {lines} lines")
    assert wrong + [f"{package}: {number} modules" for package, number in packages.items() if number > 12] == []


def test_no_two_classes_share_a_name() -> None:
    names = [
        node.name
        for path in MODULES.values()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    ]
    assert sorted(name for name in set(names) if names.count(name) > 1) == []
