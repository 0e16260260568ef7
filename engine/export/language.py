"""Translate reports: sentences are written in English in the code and looked up in one JSON file per language."""

import json
from functools import cache

from engine.errors import SettingsError
from engine.models.texts import assets_folder
from engine.plans.description import Say, in_english


def languages() -> tuple[str, ...]:
    """Return the languages of reports: English, and every language with a translation file."""
    return ("en", *sorted(file.stem for file in (assets_folder() / "report").glob("*.json")))


def require_language(language: str) -> None:
    """Raise SettingsError unless reports exist in this language."""
    if language not in languages():
        raise SettingsError("unknown language '{language}'; choose one of {choices}", language=language, choices=", ".join(languages()))


@cache
def speaker(language: str) -> Say:
    """Return the function that translates an English sentence into a language and fills its placeholders.

    Raises:
        SettingsError: there is no such language.
    """
    require_language(language)
    if language == "en":
        return in_english
    rows = json.loads((assets_folder() / "report" / f"{language}.json").read_text(encoding="utf-8"))
    return lambda sentence, **values: in_english(rows.get(sentence, sentence), **values)
