"""Practice texts as packs of tokens: what is measured on them chooses, and never judges."""

from dataclasses import replace

from engine.errors import TextError
from engine.judge.cost import SLICE_TEXTS
from engine.judge.evaluation import windows
from engine.models.texts import BUNDLED, Pack, bundled, calibration_of
from engine.types import Model, TextSet


def practice_packs(model: Model, texts: TextSet, tokens: int) -> tuple[Pack, ...]:
    """Return at most so many tokens of texts (the first of each window beside them), in sequences of at most 512.

    Raises:
        TextError: the texts are shorter than one sequence, or than the tokens asked for where those are fewer.
        SettingsError: no token was asked for.
    """
    fingerprint, texts = texts.fingerprint, kept_apart(texts)
    protocol, packs, _ = windows(model.tokenizer, model.config, texts, limit=tokens)
    least = min(protocol.context - 1, tokens)
    if protocol.tokens < least:
        raise TextError(f"{texts.name} has {protocol.tokens} tokens, which is less than one sequence of {least}; bring more text")
    return tuple(replace(pack, name=texts.name, fingerprint=fingerprint) for pack in packs)


def kept_apart(texts: TextSet) -> TextSet:
    """Return texts without those of the bundled practice texts whose openings quick costs are measured on: what was fitted to them
    would look far better there than it is."""
    if texts.fingerprint in {bundled(language, "practice").fingerprint for language in BUNDLED}:
        return calibration_of(texts.texts[SLICE_TEXTS:], texts.name)
    return texts
