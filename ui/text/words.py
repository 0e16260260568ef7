"""The texts of the page by name. The modules of this package have them in English, by tab; catalogues translate them."""

from engine.catalogues import catalogue
from ui.text import charts
from ui.text.views import compare, fold, importance, making, masks, page, present, recovery, search, shapes, shearing, width

LANGUAGES = {"en": ("/", "English"), "ko": ("/ko", "한국어")}  # the path of each page, and the name of its language

TABS = (page, making, importance, fold, width, masks, search, shapes, compare, recovery, shearing, charts, present)
TEXT: dict[str, str] = {name: english for tab in TABS for name, english in tab.TEXT.items()}


UNNAMED: set[str] = set()  # labels and help of declared settings and methods that the page has shown without a text of their own


class Words:
    """The function from a text's name to the text in a language. A translation whose context is the name comes first."""

    def __init__(self, language: str) -> None:
        if language not in LANGUAGES:
            raise ValueError(f"there is no page in '{language}'")
        self._found = catalogue(language)

    def __call__(self, name: str) -> str:
        english = TEXT[name]
        own = self._found.pgettext(name, english)
        return own if own != english else self._found.gettext(english)

    def declared(self, name: str, english: str) -> str:
        """Return the text of this name, or, where there is none, the translation of the declaration's own words."""
        if name in TEXT:
            return self(name)
        UNNAMED.add(english)
        return self._found.gettext(english)


def words(language: str) -> Words:
    """Return the texts of a language.

    Raises:
        ValueError: the page has no such language.
    """
    return Words(language)


def all_words(language: str) -> dict[str, str]:
    """Return every text of a language by name, for the scripts in the page."""
    say = words(language)
    return {name: say(name) for name in TEXT}
