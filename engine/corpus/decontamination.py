"""Remove training text that overlaps with the evaluation texts: a model trained on the test cannot be evaluated with it.

Two texts overlap if they share 13 consecutive words (as in the cleaning of GPT-3's data, 2005.14165, appendix C).
"""

import re
from functools import cache

from engine.models.texts import BUNDLED, bundled

WORDS = 13


def grams(text: str) -> set[str]:
    """Return all runs of 13 words of a text, in lower case and without punctuation; empty if it has fewer words."""
    words = re.findall(r"\w+", text.lower())
    return {" ".join(words[start : start + WORDS]) for start in range(len(words) - WORDS + 1)}


def judged_on(text: str) -> bool:
    """Return whether a text shares 13 consecutive words with the bundled evaluation texts of either language."""
    return not grams(text).isdisjoint(_evaluation())


@cache
def _evaluation() -> frozenset[str]:
    return frozenset(gram for language in BUNDLED for text in bundled(language, "evaluation").texts for gram in grams(text))
