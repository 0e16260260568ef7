"""The translations of what users read: one gettext catalogue per language, in assets/locale/LANGUAGE/LC_MESSAGES/layerscope.po."""

import gettext
from functools import cache
from io import BytesIO
from pathlib import Path

LOCALE = Path(__file__).resolve().parents[1] / "assets" / "locale"
SOURCE_LANGUAGE = "en"  # the language of the messages in the code


def languages() -> tuple[str, ...]:
    """Return the languages that messages can be shown in, English first."""
    return (SOURCE_LANGUAGE, *sorted(file.parts[-3] for file in LOCALE.glob("*/LC_MESSAGES/layerscope.po")))


@cache
def catalogue(language: str) -> gettext.NullTranslations:
    """Return the catalogue of a language; for English, one that returns messages unchanged.

    Raises:
        FileNotFoundError: there is no catalogue of this language.
    """
    if language == SOURCE_LANGUAGE:
        return gettext.NullTranslations()
    from babel.messages.mofile import write_mo
    from babel.messages.pofile import read_po

    compiled = BytesIO()
    with (LOCALE / language / "LC_MESSAGES" / "layerscope.po").open("rb") as file:
        write_mo(compiled, read_po(file))
    compiled.seek(0)
    return gettext.GNUTranslations(compiled)
