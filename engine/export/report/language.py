"""The languages of a report: each sentence stands in English where it is used and is looked up in a catalogue."""

from engine.catalogues import catalogue, languages
from engine.errors import SettingsError
from engine.plans.description import Say


def require_language(language: str) -> None:
    """Raise SettingsError unless a report can be written in this language."""
    if language not in languages():
        raise SettingsError("unknown language '{language}'; choose one of {choices}", language=language, choices=", ".join(languages()))


def speaker(language: str) -> Say:
    """Return the function from an English sentence and its values to that sentence in a language.

    Raises:
        SettingsError: there is no such language.
    """
    require_language(language)
    gettext = catalogue(language).gettext

    def say(sentence: str, **values: object) -> str:
        return gettext(sentence).format(**values) if values else gettext(sentence)

    return say
