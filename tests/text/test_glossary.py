import re

import pytest
from babel.messages.pofile import read_po

from engine.catalogues import LOCALE
from ui.text.glossary import GLOSSARY, Term

with (LOCALE / "ko" / "LC_MESSAGES" / "layerscope.po").open("rb") as file:
    SENTENCES = {(str(entry.id), str(entry.string)) for entry in read_po(file, locale="ko") if entry.id and entry.id != "한국어"}
SAYS_ANOTHER_THING = {"Layer Collapse": "LaCo"}  # a name, not two terms


def bare(sentence: str) -> str:
    """A sentence without what is filled in, code, keys and names, in small letters."""
    for name, short in SAYS_ANOTHER_THING.items():
        sentence = sentence.replace(name, short)
    return re.sub(r"\{\w*[^{}]*\}|`[^`]*`|\"[^\"]*\"", "…", sentence).lower()


def says(term: Term, english: str) -> bool:
    return re.search(rf"(?<![\w-])({'|'.join(map(re.escape, term.english))})(?![\w-])", bare(english)) is not None


def broken(term: Term, english: str, korean: str) -> list[str]:
    """What a sentence does against a term."""
    old = [pattern for pattern in term.instead_of if re.search(pattern, korean)]
    missing = says(term, english) and not any(word in korean for word in term.korean)
    return old + [f"no {' or '.join(term.korean)}"] * missing


def test_each_term_stands_once() -> None:
    forms = [form for term in GLOSSARY for form in term.english]
    assert len(set(forms)) == len(forms) > 60
    first = [term.korean[0] for term in GLOSSARY]
    assert len(set(first)) == len(first)
    assert all(form == form.lower() for form in forms)


def test_no_term_is_what_another_is_said_instead_of() -> None:
    words = [word for term in GLOSSARY for word in term.korean]
    assert [(word, old) for term in GLOSSARY for old in term.instead_of for word in words if re.search(old, word)] == []


@pytest.mark.parametrize("term", GLOSSARY, ids=lambda term: term.english[0])
def test_every_sentence_uses_the_term(term: Term) -> None:
    assert {(english, korean): wrong for english, korean in SENTENCES if (wrong := broken(term, english, korean))} == {}


@pytest.mark.parametrize(
    ("english", "korean", "wrong"),
    [
        ("{layers} layers are left", "층이 {layers}개 남습니다", ["(?<![계단심])층", "no 레이어"]),
        ("{layers} are left", "{layers}개 남습니다", []),
        ("a folder", "심층, 계층, 단층", []),
        ("player, multi-layered", "선수", []),
        ("The LAYERS", "레이어들", []),
        ("Layer Collapse", "LaCo", []),
    ],
)
def test_what_is_held_against_a_sentence(english: str, korean: str, wrong: list[str]) -> None:
    assert broken(GLOSSARY[0], english, korean) == wrong


@pytest.mark.parametrize("word", ["직접 쓰기", "간접은", "인접을"])
def test_words_that_only_look_like_folding_are_free(word: str) -> None:
    (fold,) = (term for term in GLOSSARY if "fold" in term.english)
    assert broken(fold, "", word) == []
    assert broken(fold, "", f"{word} 접기") != []
