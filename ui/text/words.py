"""Every text of the page in English and Korean; the texts are in this folder, one module per tab."""

from collections.abc import Callable

from ui.text import charts, compare, fold, importance, making, masks, page, present, recovery, search, shapes, shearing, width

LANGUAGES = {"en": ("/", "English"), "ko": ("/ko", "한국어")}

TABS = (page, making, importance, fold, width, masks, search, shapes, compare, recovery, shearing, charts, present)
_TEXT: dict[str, tuple[str, str]] = {name: told for tab in TABS for name, told in tab.TEXT.items()}


def words(language: str) -> Callable[[str], str]:
    """Return the function from a text's name to the text in "en" or "ko"."""
    column = list(LANGUAGES).index(language)
    return lambda name: _TEXT[name][column]


def told(say: Callable[[str], str], name: str, otherwise: str) -> str:
    """Return the text of this name, or what stands for it where a method has no words of ours yet."""
    return say(name) if name in _TEXT else otherwise


def all_words(language: str) -> dict[str, str]:
    """Return every text of a language, for the scripts in the page."""
    of = words(language)
    return {name: of(name) for name in _TEXT}
