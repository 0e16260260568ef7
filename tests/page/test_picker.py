"""The side bar's offers: this machine's models in groups, devices with their memory, and a device that has disappeared."""

import json
from pathlib import Path

import pytest

from engine.export.settings import ExportSettings
from engine.messages import Message
from engine.models.devices import device_names
from engine.models.library import Listed
from tests.families import save_tiny
from tests.page.pages import KEY, SETTINGS, Page
from tests.waiting import wait_for_jobs
from ui.page.bench.plans.exporting import start_export
from ui.page.picker import device_at_hand, device_choices, models_data
from ui.text.messages import translator
from ui.text.words import words

GONE = "mps" if "mps" not in device_names() else "cuda:99"


def offered(page: Page) -> list[dict[str, object]]:
    listed, _ = page.on.models(KEY)
    return json.loads(listed["value"])["models"]


@pytest.mark.usefixtures("in_this_process")
def test_what_was_opened_or_exported_meanwhile_is_offered_the_next_time(tmp_path: Path, fresh_cache: Path) -> None:
    folder, exports = save_tiny(tmp_path / "tiny", "llama"), tmp_path / "exports"
    page = Page(folder, exports)
    assert [row["group"] for row in offered(page) if row["group"] != "hub"] == ["demo"]
    page.enter(query="?C=2&I=1&L=0")
    wait_for_jobs()
    assert [row["source"] for row in offered(page) if row["group"] == "recent"] == [str(folder)]
    start_export(page.sessions.of(KEY), "map", 1.0, ExportSettings(), "smaller")
    wait_for_jobs()
    assert [row["source"] for row in offered(page) if row["group"] == "export"] == [str(exports / "smaller")]
    # one that another tab has open already comes first again
    page.on.open(KEY, str(exports / "smaller"), "auto", "cpu", "english", "", *SETTINGS)
    wait_for_jobs()
    page.on.open(KEY, str(folder), "auto", "cpu", "english", "", *SETTINGS)
    wait_for_jobs()
    assert [row["source"] for row in offered(page) if row["group"] == "recent"] == [str(folder), str(exports / "smaller")]


def test_reasons_are_told_in_the_language_of_the_page() -> None:
    reason = Message("models of type '{model_type}' are not supported; supported types: {known}", model_type="bert", known="llama")
    listed = (Listed("hub:a/b", "a/b", "hub", "bert", False, reason, 3), Listed("/m", "m", "recent", "llama", True, "", 1, 2.0))
    for language, told in (("en", reason), ("ko", "‘bert’ 계열은 지원하지 않습니다. 지원하는 계열: llama")):
        first, second = json.loads(models_data(listed, translator(language)))["models"]
        assert (first["reason"], first["supported"], first["group"], second["group"]) == (told, False, "hub", "recent")


@pytest.mark.parametrize("language", ["en", "ko"])
def test_every_device_is_a_choice_that_tells_its_free_memory(language: str) -> None:
    choices = device_choices(words(language))
    assert [value for _, value in choices] == list(device_names())
    assert all(label.startswith(value) and "GB" in label for label, value in choices)


def test_a_link_to_a_device_that_is_gone_says_so_and_opens_nothing(tmp_path: Path) -> None:
    page = Page(save_tiny(tmp_path / "tiny", "llama"), tmp_path)
    entered = page.enter(query=f"?device={GONE}")
    assert entered["status"]["problem"] == f"there is no device '{GONE}' on this machine; choose one of {', '.join(device_names())}"
    assert entered["device"] == "cpu"  # the control stands at one that can be opened on
    wait_for_jobs()
    assert page.sessions.of(KEY).model is None
    assert device_at_hand(GONE) == "cpu"


def test_the_device_that_was_chosen_is_opened_on(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "tiny", "llama")
    page = Page(folder, tmp_path)
    page.enter(query="?device=cpu")
    wait_for_jobs()
    bench = page.sessions.of(KEY)
    assert bench.model is not None
    assert bench.model.source.device == "cpu"
    assert GONE in str(page.problem(page.on.open(KEY, str(folder), "auto", GONE, "english", "", *SETTINGS)))
    assert bench.model.source.device == "cpu"
