"""The languages a report comes in: every sentence stands in English where it is said, and is looked up in a file of words."""

import json
from functools import cache

from engine.errors import SettingsError
from engine.models.texts import assets_folder
from engine.plans.description import Say, in_english


def languages() -> tuple[str, ...]:
    """Return what a report can be written in: English, and every language that has a file of words."""
    return ("en", *sorted(file.stem for file in (assets_folder() / "report").glob("*.json")))


def require_language(language: str) -> None:
    """Raise SettingsError unless a report can be written in this language."""
    if language not in languages():
        raise SettingsError(f"unknown language '{language}'; choose one of {', '.join(languages())}")


@cache
def speaker(language: str) -> Say:
    """Return the function from an English sentence, and what its braces are told of, to that sentence in a language.

    Raises:
        SettingsError: there is no such language.
    """
    require_language(language)
    if language == "en":
        return in_english
    rows = json.loads((assets_folder() / "report" / f"{language}.json").read_text(encoding="utf-8"))
    return lambda sentence, **values: in_english(rows.get(sentence, sentence), **values)
