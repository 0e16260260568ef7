"""Practice texts as packs of tokens: methods fit to them and search selects on them; evaluation never uses them."""

from dataclasses import replace

from engine.errors import TextError
from engine.judge.cost import SLICE_TEXTS
from engine.judge.evaluation import windows
from engine.models.texts import BUNDLED, Pack, bundled, calibration_of
from engine.types import Model, TextSet


def practice_packs(model: Model, texts: TextSet, tokens: int) -> tuple[Pack, ...]:
    """Return packs of texts with at most `tokens` scored tokens (the unscored first token of each window is extra), in sequences of at most
    512.

    Raises:
        TextError: the texts are shorter than one sequence, or than `tokens` where that is less.
        SettingsError: `tokens` is below 1.
    """
    fingerprint, texts = texts.fingerprint, kept_apart(texts)
    protocol, packs, _ = windows(model.tokenizer, model.config, texts, limit=tokens)
    least = min(protocol.context - 1, tokens)
    if protocol.tokens < least:
        raise TextError(
            "{texts_name} has {tokens} tokens, fewer than one sequence of {least}; provide more text",
            texts_name=texts.name,
            tokens=protocol.tokens,
            least=least,
        )
    return tuple(replace(pack, name=texts.name, fingerprint=fingerprint) for pack in packs)


def kept_apart(texts: TextSet) -> TextSet:
    """Return texts without the bundled practice texts used for quick costs: a plan fitted to those would look far better there than it
    is."""
    if texts.fingerprint in {bundled(language, "practice").fingerprint for language in BUNDLED}:
        return calibration_of(texts.texts[SLICE_TEXTS:], texts.name)
    return texts
