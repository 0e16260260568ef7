"""Find every message in the code and bring the catalogues up to date: python -m ui.text.extraction.

Messages are the first argument of `Message`, of errors, and of `say` in the engine; the texts of the page; and the arguments of `_`
in report templates. The catalogues are assets/locale/LANGUAGE/LC_MESSAGES/layerscope.po.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract
from babel.messages.pofile import read_po, write_po

import engine.errors
from engine.catalogues import LOCALE, SOURCE_LANGUAGE, languages
from engine.errors import LayerscopeError
from ui.text.terms import TERMS
from ui.text.words import TABS, UNNAMED

ROOT = Path(__file__).resolve().parents[2]
OFF_PAGE = (ROOT / "ui" / "terminal", ROOT / "ui" / "page" / "app.py")  # their messages are shown in English only
_ERRORS = [name for name, kind in vars(engine.errors).items() if isinstance(kind, type) and issubclass(kind, LayerscopeError)]
_KEYWORDS = dict.fromkeys(["Message", "ForeignError", *_ERRORS])


def messages() -> Iterator[tuple[str, str]]:
    """Yield every English message with its file, in the order of files."""
    for package in ("engine", "ui"):
        for file in sorted((ROOT / package).rglob("*.py")):
            if not any(map(file.is_relative_to, OFF_PAGE)):
                yield from _found(file, "python", {**_KEYWORDS, **({"say": None} if package == "engine" else {})})
    for file in sorted((ROOT / "assets" / "report").glob("*.j2")):
        yield from _found(file, "jinja2", {"_": None})
    for tab in TABS:
        yield from ((english, _name(Path(str(tab.__file__)))) for english in tab.TEXT.values())
    yield from ((term, "ui/text/terms.py") for term in TERMS)
    yield from ((english, "declarations") for english in declared())


@cache
def declared() -> tuple[str, ...]:
    """Return the labels and help of settings and methods that the page shows in the declarations' own words."""
    import gradio as gr

    from ui.page.app import lay_out

    UNNAMED.clear()
    with gr.Blocks():
        lay_out("en", Path("exports"))
    return tuple(sorted(UNNAMED))


def _found(file: Path, method: str, keywords: dict[str, None]) -> Iterator[tuple[str, str]]:
    with file.open("rb") as opened:
        for _, message, _, _ in extract(method, opened, keywords=keywords):
            if isinstance(message, str) and any(map(str.isalpha, message)):
                yield message, _name(file)


def _name(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def updated(language: str) -> Catalog:
    """Return a language's catalogue with exactly the messages of the code."""
    file = LOCALE / language / "LC_MESSAGES" / "layerscope.po"
    old = Catalog(language)
    if file.exists():
        with file.open("rb") as opened:
            old = read_po(opened, locale=language)
    new = Catalog(
        language, project="layerscope", version="0.1", charset="utf-8", header_comment="# Translations of Layerscope.", fuzzy=False
    )
    new.msgid_bugs_address, new.last_translator, new.language_team = "", old.last_translator, old.language_team
    new.creation_date = new.revision_date = old.creation_date
    for message, place in messages():
        known = old.get(message)
        new.add(message, known.string if known else "", locations=[(place, None)])  # type: ignore[list-item]  # no line: fewer changes
    for entry in old:
        if entry.id and entry.context and entry.id in new:
            new.add(entry.id, entry.string, context=entry.context)
    return new


def untranslated(language: str) -> list[str]:
    """Return the messages that a language's catalogue on disk does not translate."""
    with (LOCALE / language / "LC_MESSAGES" / "layerscope.po").open("rb") as opened:
        known = {entry.id for entry in read_po(opened, locale=language) if entry.string}
    return sorted({message for message, _ in messages()} - known)


def write(catalog: Catalog, file: Path) -> None:
    """Write a catalogue as a .po file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as opened:
        write_po(opened, catalog, width=140, omit_header=False)


def main() -> None:
    """Update every catalogue."""
    for language in languages():
        if language != SOURCE_LANGUAGE:
            write(updated(language), LOCALE / language / "LC_MESSAGES" / "layerscope.po")


if __name__ == "__main__":
    main()
