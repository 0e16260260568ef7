"""The documentation does not rot: links lead somewhere, paths exist, generated parts are current, recipes and examples run."""

import inspect
import re
import sys
import types
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gradio as gr
import pytest
from playwright.sync_api import sync_playwright

from engine import catalogues
from engine.export.checkpoint.export import ExportReport
from engine.methods.depth.baselines import BASELINES
from engine.methods.width.scores import SCORES
from engine.settings import Registry
from tests.answers import Answer
from tests.browser.chromium import install
from tests.browser.conftest import ARGUMENTS
from tests.docs import REGISTRIES, ROOT, pages, renewed
from tests.families import TEXTS, save_tiny
from ui.page.components.chart import view
from ui.text import extraction, words

README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "docs" / "CONTRIBUTING.md").read_text(encoding="utf-8")
RECIPES = dict(re.findall(r"```\w+ recipe=(\w+)\n(.*?)```", CONTRIBUTING, re.S))
LINKED = [*pages(), ROOT / ".github" / "SECURITY.md"]
OWN = re.compile(r"`((?:engine|ui|tests|assets|docs|\.github)/[\w./-]+)`")
TO_MAKE = {
    "engine/methods/depth/alternate.py",
    "engine/methods/width/reach.py",
    "assets/js/hello.js",
    "assets/locale/de/LC_MESSAGES/layerscope.po",
}


def prose(page: Path) -> str:
    """Return a page without its code."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)


def anchors(page: Path) -> set[str]:
    """Return what a link to a page may name behind #, as GitHub makes it of headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# --- links, paths, sizes ---


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if not target.startswith(("https://", "mailto:")):
            file, _, anchor = target.partition("#")
            found = (page.parent / file).resolve() if file else page
            assert found.exists(), f"{page.name}: {target}"
            assert not anchor or anchor in anchors(found), f"{page.name}: {target}"


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_path_that_is_named_exists(page: Path) -> None:
    named = set(OWN.findall(prose(page))) - (TO_MAKE if page.name == "CONTRIBUTING.md" else set())
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_every_page_is_reached_from_the_readme() -> None:
    reached, ahead = set(), [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        reached.add(page)
        linked = [(page.parent / target).resolve() for target in re.findall(r"\]\(([^)#\s]+\.md)", prose(page)) if "//" not in target]
        ahead += [found for found in linked if found not in reached]
    assert set(pages()) <= reached


def test_the_readme_has_at_most_1000_words() -> None:
    assert len(README.split()) <= 1000


def test_pictures_are_shown_and_small() -> None:
    pictures = sorted((ROOT / "docs" / "pictures").iterdir())
    shown = "".join(page.read_text(encoding="utf-8") for page in pages())
    assert len(pictures) >= 4
    for picture in pictures:
        assert picture.suffix in (".png", ".webp")
        assert picture.stat().st_size <= 150_000, picture.name
        assert f"pictures/{picture.name})" in shown, picture.name


# --- generated parts ---


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_generated_parts_are_current(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert renewed(text) == text, "run make docs"


def test_the_parts_are_where_they_belong() -> None:
    parts = {(page.name, part) for page in pages() for part in re.findall(r"<!-- generated: (.+?) -->", page.read_text("utf-8"))}
    assert parts == {("README.md", "methods by kind"), ("methods.md", "methods"), ("cli.md", "help")}


def test_the_tables_list_every_registry() -> None:
    """A registry that an engine module makes is one of those that the tables are made of."""
    made = set()
    for module in [module for name, module in sys.modules.items() if name.startswith("engine.")]:
        made |= {id(value) for value in vars(module).values() if isinstance(value, Registry)}
    assert made == {id(registry) for registry in REGISTRIES.values()}


def test_a_reference_is_an_arxiv_id_that_its_file_or_a_page_explains() -> None:
    methods = [method for registry in REGISTRIES.values() for method in registry.values() if method.reference]
    assert len(methods) > 15
    for method in methods:
        assert re.fullmatch(r"\d{4}\.\d{4,5}", method.reference), method.name
        assert method.reference in Path(inspect.getfile(method.run)).read_text(encoding="utf-8")


# --- the tree ---


def test_the_tree_names_every_package_and_nothing_that_is_not_there() -> None:
    architecture = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    tree = re.search(r"```\n(engine/ .*?)```", architecture, re.S)
    assert tree
    folders: list[str] = []
    named: set[str] = set()
    for line in tree[1].splitlines():
        indent, name = re.match(r"( *)(\S+)", line).groups()  # type: ignore[union-attr]
        folders[len(indent) // 2 :] = [name.rstrip("/")]
        named.add("/".join(folders))
    assert [name for name in named if not (ROOT / name).exists()] == []
    packages = {str(path.parent.relative_to(ROOT)) for top in ("engine", "ui") for path in (ROOT / top).rglob("__init__.py")}
    assert packages <= named


# --- Python in the README ---


@pytest.mark.usefixtures("in_this_process")
def test_the_ten_lines_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len([line for line in code.splitlines() if line and not line.startswith(("from", "import"))]) <= 10
    model = save_tiny(tmp_path / "tiny", "llama", num_hidden_layers=12)
    monkeypatch.chdir(tmp_path)
    for written, on_tiny in (('"demo"', repr(str(model))), ("t_min=0.7", "t_min=-1.0"), ("lowest=20", "lowest=8")):
        assert code.count(written) == 1
        code = code.replace(written, on_tiny)
    known: dict[str, object] = {}
    exec(code, known)
    report = known["report"]
    assert isinstance(report, ExportReport)
    assert report.passed
    assert known["plan"].depth < 12  # type: ignore[attr-defined]
    assert (tmp_path / "smaller" / "config.json").exists()


# --- recipes of CONTRIBUTING ---


@pytest.fixture
def asked(tmp_path: Path) -> tuple[object, ...]:
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    return "--model", save_tiny(tmp_path / "tiny", "llama"), "--text", tmp_path / "texts.txt"


def follow(recipe: str, package: str, name: str, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Import a recipe's file as if it stood in a package of engine/methods, until the test is over."""
    monkeypatch.setattr(registry, "_methods", dict(registry._known()))
    module = types.ModuleType(f"engine.methods.{package}.{name}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(RECIPES[recipe], vars(module))
    assert f"`engine/methods/{package}/{name}.py`" in CONTRIBUTING
    assert name in registry


def test_every_recipe_is_tested() -> None:
    assert set(RECIPES) == {"method", "score", "view"}
    assert [f"## Add a {what}" in CONTRIBUTING for what in ("method", "score", "view", "language")] == [True] * 4


def test_the_recipe_of_a_method(monkeypatch: pytest.MonkeyPatch, inside: Callable[..., Answer], asked: tuple[object, ...]) -> None:
    follow("method", "depth", "alternate", BASELINES, monkeypatch)
    assert "layers at even distances" in " ".join(inside("baseline", "--help").out.split())
    plan = inside("baseline", "--method", "alternate", "--keep", 3, *asked).json
    assert [block["home"] for block in plan["blocks"]] == [0, 3, 5]


def test_the_recipe_of_a_score(monkeypatch: pytest.MonkeyPatch, inside: Callable[..., Answer], asked: tuple[object, ...]) -> None:
    follow("score", "width", "reach", SCORES, monkeypatch)
    found = inside("importance", "--axis", "neurons", "--score", "reach", "--tokens", 60, *asked).json
    assert "reach" in str(found)


def test_the_recipe_of_a_view() -> None:
    with gr.Blocks():
        assert view("hello", "en", 60).elem_id == "ls-hello"
    draw = "(recipe) => { window.layerscope = {views: {}}; (0, eval)(recipe); const box = document.body;"

    def drawn_by_chromium() -> str:
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=install(), args=ARGUMENTS)
            return chromium.new_page().evaluate(
                f"{draw} layerscope.views.hello(box, {{data: {{depth: 6}}}}); return box.innerText }}", RECIPES["view"]
            )

    with ThreadPoolExecutor() as pool:  # a thread of its own: this one may run another test's browser
        drawn = pool.submit(drawn_by_chromium).result()
    assert drawn == "6 layers"
    scripts = "".join(script.read_text(encoding="utf-8") for script in (ROOT / "assets" / "js").glob("*.js"))
    assert re.search(r"\bviews\.\w+ = \(box, \{data", scripts), "views are registered in another way now"


def test_the_recipe_of_a_language(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for module in (catalogues, extraction):
        monkeypatch.setattr(module, "LOCALE", tmp_path)
    catalogue = tmp_path / "de" / "LC_MESSAGES" / "layerscope.po"
    catalogue.parent.mkdir(parents=True)
    catalogue.touch()
    extraction.main()
    english = words.words("en")("explore")
    filled = catalogue.read_text(encoding="utf-8")
    assert filled.count(f'msgid "{english}"\nmsgstr ""') == 1
    catalogue.write_text(filled.replace(f'msgid "{english}"\nmsgstr ""', f'msgid "{english}"\nmsgstr "Ansehen"'), encoding="utf-8")
    assert '`"de": ("/de", "Deutsch")`' in CONTRIBUTING
    monkeypatch.setitem(words.LANGUAGES, "de", ("/de", "Deutsch"))
    assert words.words("de")("explore") == "Ansehen"
    assert "de" in catalogues.languages()
