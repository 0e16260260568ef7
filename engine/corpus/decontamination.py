"""Text to train on that is also text to judge on is left out: a model that has read the test is not judged by it.

Two texts share text where they share 13 words in a row (as GPT-3's data was cleaned, 2005.14165, appendix C).
"""

import re
from functools import cache

from engine.models.texts import BUNDLED, bundled

WORDS = 13


def grams(text: str) -> set[str]:
    """Return all runs of 13 words of a text, in small letters and without punctuation; none where it has fewer words."""
    words = re.findall(r"\w+", text.lower())
    return {" ".join(words[start : start + WORDS]) for start in range(len(words) - WORDS + 1)}


def judged_on(text: str) -> bool:
    """True where a text shares 13 words in a row with the bundled evaluation texts of either language."""
    return not grams(text).isdisjoint(_evaluation())


@cache
def _evaluation() -> frozenset[str]:
    return frozenset(gram for language in BUNDLED for text in bundled(language, "evaluation").texts for gram in grams(text))
