"""The texts of the page by name. The modules of this package have them in English, by tab; catalogues translate them."""

from collections.abc import Callable

from engine.catalogues import catalogue
from ui.text import charts
from ui.text.views import compare, fold, importance, making, masks, page, present, recovery, search, shapes, shearing, width

LANGUAGES = {"en": ("/", "English"), "ko": ("/ko", "한국어")}  # the path of each page, and the name of its language

TABS = (page, making, importance, fold, width, masks, search, shapes, compare, recovery, shearing, charts, present)
TEXT: dict[str, str] = {name: english for tab in TABS for name, english in tab.TEXT.items()}


def words(language: str) -> Callable[[str], str]:
    """Return the function from a text's name to the text in a language. A translation whose context is the name comes first.

    Raises:
        ValueError: the page has no such language.
    """
    if language not in LANGUAGES:
        raise ValueError(f"there is no page in '{language}'")
    found = catalogue(language)

    def say(name: str) -> str:
        english = TEXT[name]
        own = found.pgettext(name, english)
        return own if own != english else found.gettext(english)

    return say


def text_or(say: Callable[[str], str], name: str, otherwise: str) -> str:
    """Return the text of this name, or `otherwise` if a method has no text here yet."""
    return say(name) if name in TEXT else otherwise


def all_words(language: str) -> dict[str, str]:
    """Return every text of a language by name, for the scripts in the page."""
    say = words(language)
    return {name: say(name) for name in TEXT}
