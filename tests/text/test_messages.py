"""Messages are English by themselves and are translated where they are shown; every one stands in every catalogue."""

import json
import re
import shutil
from pathlib import Path
from string import Formatter

import pytest
from babel.messages.pofile import read_po

from engine import catalogues
from engine.catalogues import LOCALE, catalogue, languages
from engine.errors import PlanError, SettingsError, SourceError
from engine.export.report.language import require_language, speaker
from engine.messages import Message, decode_message, encode_message, encode_messages, message_of, translate
from engine.methods.depth.baselines import BASELINES
from engine.untrusted import ForeignError
from ui.text import extraction, words
from ui.text.extraction import messages, untranslated, write
from ui.text.messages import METHODS, method_title, translated_labels, translator

OTHERS = [language for language in languages() if language != "en"]


def entries(language: str) -> list[tuple[str, str]]:
    """Return the English and the translation of each message of a catalogue."""
    with (LOCALE / language / "LC_MESSAGES" / "layerscope.po").open("rb") as file:
        return [(str(entry.id), str(entry.string)) for entry in read_po(file, locale=language) if entry.id]


def fields(text: str) -> list[str]:
    return sorted(str(field) for _, field, *_ in Formatter().parse(text) if field is not None)


# --- a message ---


def test_a_message_is_its_own_english_and_keeps_its_parts() -> None:
    message = Message("{left} of {depth:.1f} layers", left=3, depth=6)
    assert message == "3 of 6.0 layers"
    assert (message.template, message.values) == ("{left} of {depth:.1f} layers", {"left": 3, "depth": 6})
    assert Message('write {"home"}') == 'write {"home"}'


def test_an_error_takes_a_template_or_a_message() -> None:
    error = PlanError("layer {layer} is missing", layer=3)
    assert str(error) == message_of(error) == "layer 3 is missing"
    assert PlanError(error.message).message.values == {"layer": 3}
    assert message_of(ValueError("plain")) == "plain"


def test_values_are_translated_with_their_message() -> None:
    found = {"{file}: {error}": "[{file}] {error}", "no {thing}": "kein {thing}", "rule": "Regel"}
    inner = ForeignError("no {thing}", thing=Message("rule"))
    outer = SourceError("{file}: {error}", file="a.json", error=inner)
    assert str(outer) == "a.json: no rule"
    assert translate(outer.message, lambda text: found.get(text, text)) == "[a.json] kein Regel"


def test_a_message_goes_through_json_with_all_its_parts() -> None:
    message = Message("{label}: {step}", label=Message("Plan {number}", number=2), step=Path("x"))
    again = decode_message(json.loads(json.dumps(encode_message(message))))
    assert isinstance(again, Message)
    assert again == "Plan 2: x"
    assert isinstance(again.values["label"], Message)
    assert decode_message("plain") == "plain"
    assert encode_messages({"rows": [message, 3]})["rows"][1] == 3


# --- the catalogues ---


def test_the_messages_of_the_code_are_found() -> None:
    found = {message for message, _ in messages()}
    assert len(found) > 1300
    assert {"no model is open yet", "Pruning {method}"} & found
    assert "the configuration says {depth_key} = {depth}, but the weights contain {layers} layers" in found


@pytest.mark.parametrize("language", OTHERS)
def test_every_message_is_translated(language: str) -> None:
    assert untranslated(language) == []


@pytest.mark.parametrize("language", OTHERS)
def test_a_catalogue_holds_no_message_that_the_code_has_no_longer(language: str) -> None:
    assert {english for english, _ in entries(language)} - {message for message, _ in messages()} == set()


@pytest.mark.parametrize("language", OTHERS)
def test_a_translation_has_the_fields_of_its_message(language: str) -> None:
    assert [english for english, other in entries(language) if set(fields(english)) != set(fields(other))] == []


def test_korean_is_korean() -> None:
    """Only names, units and signs are the same in both."""
    same = {english for english, korean in entries("ko") if english == korean}
    assert {re.sub(r"\{[^}]*\}", "", english).strip() for english in same} <= {
        "Layerscope",
        "per-token",
        "LaCo",
        "Sheared LLaMA",
        "SVG",
        "GB",
        ":",
        "English",
    }
    without = {english for english, korean in entries("ko") if english not in same and not re.search("[가-힣]", korean)}
    assert {english for english in without if re.search("[a-z]{3}", re.sub(r"\{[^}]*\}", "", english))} == set()


# --- what is shown ---


def test_what_the_engine_says_is_shown_in_korean() -> None:
    korean = translator("ko")
    unreached = Message(
        "hub:{location} is not on this machine and {how}; open a local folder, or connect to the internet",
        location="a/b",
        how=Message("the Hub cannot be reached"),
    )
    assert korean(unreached) == "hub:a/b: 이 컴퓨터에 없고, 허브에 연결할 수 없습니다. 로컬 폴더를 열거나 인터넷에 연결하세요."
    assert korean(Message("no model is open yet")) == "아직 열린 모델이 없습니다."
    assert korean("Segmentation fault") == "Segmentation fault"
    assert translator("en")(unreached) == str(unreached)


def test_steps_within_steps_are_translated() -> None:
    step = Message("Plan {number} of {count} ({depth} layers)", number=1, count=5, depth=28)
    assert (
        translator("ko")(Message("{label}: {step}", label=step, step=Message("Evaluating the plan")))
        == "플랜 1 / 5 (레이어 28개): 플랜 평가 중"
    )


def test_rows_of_a_table_are_named_in_the_language_of_the_page() -> None:
    rows = [Message("rule {rule}", rule="mean"), "at once", Message("{label}, repaired ({kind})", label="LaCo mean, C 4", kind="ridge")]
    table = {"rows": [{"label": row, "depth": 5, "plan": {"method": "at once"}} for row in rows], "telling": [{"measure": "cosine"}]}
    korean = json.loads(translated_labels(json.dumps(encode_messages(table)), "ko"))
    assert [row["label"] for row in korean["rows"]] == ["규칙 mean", "일괄 병합", "LaCo mean, C 4, 복구 (ridge)"]
    assert korean["telling"] == [{"measure": "코사인"}]
    assert [(row["depth"], row["plan"]) for row in korean["rows"]] == [(5, {"method": "at once"})] * len(rows)
    assert [row["label"] for row in json.loads(translated_labels(json.dumps(encode_messages(table)), "en"))["rows"]] == [
        str(row) for row in rows
    ]
    assert translated_labels("", "ko") == ""  # nothing has been run yet


def test_a_method_has_a_title_in_both_languages() -> None:
    assert [name for name in BASELINES if method_title(name) == name] == ["random"]
    assert (method_title("bi"), translator("ko")(method_title("bi"))) == ("block influence", "블록 영향도(BI)")
    assert method_title("something new") == "something new"
    assert set(METHODS) >= {"laco", "search", "hand-made"}


def test_a_report_speaks_the_languages_that_have_a_catalogue() -> None:
    assert languages() == ("en", "ko")
    with pytest.raises(SettingsError, match="unknown language 'fr'; choose one of en, ko"):
        require_language("fr")
    assert speaker("en")("Both models predict the same next token at {share} of positions.", share="60 %").endswith("at 60 % of positions.")
    assert speaker("ko")("Layer {span} dropped.", span="3") == "3번 레이어를 제거합니다."
    assert speaker("ko")("never heard of {braces}") == "never heard of {braces}"


# --- a third language ---


def test_a_third_language_is_one_catalogue_and_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pseudo-locale: every message in brackets."""
    shutil.copytree(LOCALE, tmp_path / "locale")
    for module in (catalogues, extraction):
        monkeypatch.setattr(module, "LOCALE", tmp_path / "locale")
    pseudo = extraction.updated("de")
    for entry in pseudo:
        if entry.id:
            entry.string = f"[{entry.id}]"
    write(pseudo, tmp_path / "locale" / "de" / "LC_MESSAGES" / "layerscope.po")
    monkeypatch.setitem(words.LANGUAGES, "de", ("/de", "Deutsch"))
    catalogue.cache_clear()
    try:
        assert languages() == ("en", "de", "ko")
        assert untranslated("de") == []
        assert words.all_words("de") == {name: f"[{english}]" for name, english in words.TEXT.items()}
        assert translator("de")(PlanError("no tensor {mark} is kept here", mark=3).message).count("[") <= 1
        assert translator("de")(Message("no model is open yet")) == "[no model is open yet]"
        assert speaker("de")("Layer {span} dropped.", span="3") == "[Layer 3 dropped.]"
    finally:
        catalogue.cache_clear()
