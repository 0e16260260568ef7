import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from string import Formatter

import pytest

import engine.errors
import ui.text.messages
from engine.errors import LayerscopeError
from engine.methods.baselines import BASELINES
from ui.text.messages import in_korean, label_teller, labels_told, teller

ROOT = Path(ui.text.messages.__file__).resolve().parents[2]
OFF_PAGE = (ROOT / "ui" / "terminal", ROOT / "ui" / "page" / "app.py")  # what these say is never on the page
SOURCES = [file for part in ("engine", "ui") for file in sorted((ROOT / part).rglob("*.py")) if not any(map(file.is_relative_to, OFF_PAGE))]
TELLING = {"Progress", "_progress"} | {
    name for name, kind in vars(engine.errors).items() if isinstance(kind, type) and issubclass(kind, LayerscopeError)
}
KOREAN = ui.text.messages._KOREAN


def sentence(words: ast.expr) -> str:
    """What stands in the code, `{}` for each thing that is filled in."""
    parts = words.values if isinstance(words, ast.JoinedStr) else [words]
    doubled = isinstance(words, ast.JoinedStr)
    return "".join(
        (part.value.replace("{", "{{").replace("}", "}}") if doubled else part.value) if isinstance(part, ast.Constant) else "{}"
        for part in parts
    )


def told() -> Iterator[str]:
    """Every mistake and every step of a task that the page may tell of."""
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in TELLING:
                words = node.args[0]
                chosen = [words.body, words.orelse] if isinstance(words, ast.IfExp) else [words]
                yield from (sentence(one) for one in chosen if isinstance(one, ast.Constant | ast.JoinedStr) and sentence(one))


def written() -> set[str]:
    """Every string in the code, and every f-string as a sentence."""
    trees = [
        ast.parse(file.read_text(encoding="utf-8"))
        for file in SOURCES
        if file.name not in ("messages.py", "mistakes.py", "mistakes_gguf.py", "mistakes_learning.py", "steps.py")
    ]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    return {
        sentence(node)
        for node in nodes
        if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
    }


def fields(text: str) -> list[str]:
    return [field for _, field, *_ in Formatter().parse(text) if field is not None]


def test_every_mistake_and_every_step_has_a_row() -> None:
    found = set(told())
    assert len(found) > 120  # the search itself works
    assert found - set(KOREAN) == set()


def test_every_row_stands_in_the_code() -> None:
    assert set(KOREAN) - written() == set()


@pytest.mark.parametrize("english", KOREAN)
def test_a_row_tells_in_korean_all_that_the_sentence_tells(english: str) -> None:
    count, korean = len(fields(english)), fields(KOREAN[english])
    assert sorted(korean) in ([""] * count, [str(place) for place in range(count)])
    filled = english.format(*(f"<{place}>" for place in range(count)))
    told = in_korean(filled)
    assert told == KOREAN[english].format(*(f"<{place}>" for place in range(count)))  # its own row, not a more general one
    assert re.search("[가-힣]", told) or not re.search("[a-z]", english)


def test_what_is_told_within_a_sentence_is_korean_too() -> None:
    assert in_korean("hub:a/b is not on this machine and the Hub cannot be reached; open a local folder, or connect") == (
        "hub:a/b: 이 컴퓨터에 없고, 허브에 연결할 수 없습니다. 로컬 폴더를 열거나 인터넷에 연결하세요."
    )


def test_the_more_telling_row_wins() -> None:
    assert in_korean("the weights in /m cannot be read: no\nsecond line") == "/m의 가중치를 읽을 수 없습니다: no\nsecond line"


def test_a_sentence_of_somebody_elses_stays_as_it_is() -> None:
    assert in_korean("Segmentation fault") == "Segmentation fault"


def test_english_pages_tell_the_sentence_itself() -> None:
    assert teller("en")("no model is open yet") == "no model is open yet"
    assert teller("ko")("no model is open yet") == "아직 열린 모델이 없습니다."


def test_steps_within_steps_are_told() -> None:
    assert in_korean("Plan 1 of 5 (28 layers): Judging the plan") == "플랜 1 / 5 (레이어 28개): 플랜 평가 중"
    assert in_korean("Rule mean: Judging the plan") == "규칙 mean: 플랜 평가 중"
    assert in_korean("Beam at layer 7; best so far 0.4260") == "빔 탐색, 레이어 7. 현재 최고 점수 0.4260"
    assert in_korean("Writing with the plan, greedy") == "플랜 생성 중, 그리디"


def test_rows_of_a_table_are_named_in_the_language_of_the_page() -> None:
    rows = ["rule mean", "at once", "accepted by cosine", "C = 4", "english, first half", "LaCo mean, C 4, I 2, T 0.6500, repaired (ridge)"]
    table = {"rows": [{"label": row, "depth": 5, "plan": {"method": "at once"}} for row in rows], "telling": [{"measure": "cosine"}]}
    korean = json.loads(labels_told(json.dumps(table), teller("ko")))
    assert [row["label"] for row in korean["rows"]] == [
        "규칙 mean",
        "일괄 병합",
        "코사인 기준으로 채택",
        "C = 4",
        "영어, 앞 절반",
        "LaCo mean, C 4, I 2, T 0.6500, 복구 (ridge)",
    ]
    assert korean["telling"] == [{"measure": "코사인"}]
    assert [(row["depth"], row["plan"]) for row in korean["rows"]] == [(5, {"method": "at once"})] * len(rows)
    assert json.loads(labels_told(json.dumps(table), teller("en"))) == table
    assert labels_told("", teller("ko")) == ""  # nothing has been run yet


def test_a_method_is_named_in_words_in_both_languages() -> None:
    english, korean = label_teller("en"), label_teller("ko")
    assert [english(name) for name in BASELINES if english(name) in (name, "")] == ["random"]
    assert (english("bi"), korean("bi")) == ("block influence", "블록 영향도(BI)")
    assert (english("file (sleb)"), korean("file (sleb)")) == ("file (greedy (SLEB))", "파일 (그리디 (SLEB))")
    assert (english("bi, repaired (ridge)"), korean("bi, repaired (ridge)")) == (
        "block influence, repaired (ridge)",
        "블록 영향도(BI), 복구 (ridge)",
    )
    own = "LaCo mean, C 4, I 2, T 0.6500"
    assert english(own) == korean(own) == own
    assert english("by hand") == "by hand"
    assert (korean("by hand"), korean("at once"), korean("rule bi")) == ("수동", "일괄 병합", "규칙 bi")
