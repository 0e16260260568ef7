"""Every sentence of a report has a Korean row that says the same of the same things, and no row is left over."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from string import Formatter

import pytest
from jinja2 import Environment

import engine.export.report
from engine.errors import SettingsError
from engine.export.figures import BEYOND, NOT_A_NUMBER
from engine.export.language import languages, require_language, speaker
from engine.export.pictures import KINDS
from engine.judge.cost import LEVELS
from engine.judge.generation import DECODINGS

ROOT = Path(engine.export.report.__file__).resolve().parents[2]
TEMPLATES = sorted((ROOT / "assets" / "report").glob("*.j2"))
SPEAKING = [
    ROOT / "engine" / place
    for place in ("export/findings.py", "export/lineage.py", "export/pictures.py", "export/report.py", "plans/words.py")
]
FACTS = {"calibration", "practice", "evaluation", "versions", "trials", "similarity", "name", "texts", "fingerprint"}  # what callers tell
KOREAN: dict[str, str] = json.loads((ROOT / "assets" / "report" / "ko.json").read_text(encoding="utf-8"))


def said() -> Iterator[str]:
    """Every English sentence that code or a template says, or that is handed on to be said."""
    reader = Environment(extensions=["jinja2.ext.i18n"])
    for file in TEMPLATES:
        for _, _, sentence in reader.extract_translations(file.read_text(encoding="utf-8")):
            yield from (
                [sentence[0]] if isinstance(sentence, tuple) else [sentence] if sentence else []
            )  # a tuple where it is told of something
    for file in SPEAKING:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "say" and isinstance(node.args[0], ast.Constant):
                yield node.args[0].value
    yield from (words for _, _, words in LEVELS)
    yield from (word for words in KINDS.values() for word in words)
    yield from (NOT_A_NUMBER, BEYOND, *DECODINGS, *FACTS)


def braces(sentence: str) -> list[str]:
    return sorted(str(field) for _, field, *_ in Formatter().parse(sentence) if field is not None)


def test_every_sentence_has_a_row_and_every_row_a_sentence() -> None:
    found = set(said())
    assert len(found) > 120  # the search itself works
    assert found - set(KOREAN) == set()
    assert set(KOREAN) - found == set()


@pytest.mark.parametrize("sentence", KOREAN)
def test_a_row_is_korean_and_tells_of_the_same(sentence: str) -> None:
    korean = KOREAN[sentence]
    assert re.search("[가-힣]", korean)
    assert braces(korean) == braces(sentence)
    assert not re.search(r"혼란도|층(?!위)|보정|계획|문턱|접기", korean), "not the field's word"


def test_languages_are_files_of_words() -> None:
    assert languages() == ("en", "ko")
    with pytest.raises(SettingsError, match="unknown language 'fr'; choose one of en, ko"):
        require_language("fr")
    assert speaker("en")("In {share} of places both name the same next token.", share="60 %").startswith("In 60 % of")
    assert speaker("ko")("Layer {span} dropped.", span="3") == "3번 레이어를 제거합니다."
    assert speaker("ko")("never heard of {braces}") == "never heard of {braces}"
