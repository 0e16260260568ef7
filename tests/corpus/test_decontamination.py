import pytest

from engine.corpus.decontamination import grams, judged_on
from engine.models.texts import bundled


def test_a_gram_is_13_words_in_a_row_in_small_letters_without_punctuation() -> None:
    text = "The Cat, sat; on — the mat. And it's 12 o'clock: so we go!"
    assert grams(text) == {
        "the cat sat on the mat and it s 12 o clock so",
        "cat sat on the mat and it s 12 o clock so we",
        "sat on the mat and it s 12 o clock so we go",
    }
    assert grams("too short to be found anywhere") == set()


@pytest.mark.parametrize("language", ["english", "korean"])
def test_only_what_shares_13_words_with_the_evaluation_texts_is_judged_on(language: str) -> None:
    words = bundled(language, "evaluation").texts[5].split()
    assert judged_on("Before. " + " ".join(words[4:30]))
    assert not judged_on("Before. " + " ".join(words[4:10]) + " and after that something else entirely, as one does, on and on")
    assert not any(map(judged_on, bundled(language, "practice").texts))
