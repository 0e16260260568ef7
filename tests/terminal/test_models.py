"""The command `models`: JSON of what can be opened, each with the source to type."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.answers import Answer, assert_refused, read_json
from tests.families import save_tiny


def test_what_it_lists_is_what_another_verb_opens(tmp_path: Path, inside: Callable[..., Answer], fresh_cache: Path) -> None:
    made = save_tiny(tmp_path / "exports" / "made", "llama")
    (made / "layerscope.json").write_text("{}", encoding="utf-8")
    answer = inside("models", "--exports", tmp_path / "exports", "--out", tmp_path / "models.json")
    assert (answer.code, answer.out, answer.err) == (0, "", "")
    listed = read_json((tmp_path / "models.json").read_text(encoding="utf-8"))
    (export,) = [entry for entry in listed if entry["kind"] == "export"]
    assert export["source"] == str(made)
    assert export["opened"] is None
    assert inside("profile", "--model", export["source"], "--out", tmp_path / "profile.json").code == 0
    (after,) = [entry for entry in inside("models", "--exports", tmp_path / "exports").json if entry["source"] == str(made)]
    assert after["opened"] > 0
    assert {**after, "opened": None} == export


@pytest.mark.parametrize("exports", ["nowhere", "file", "file/below"])
def test_an_export_folder_that_is_none_holds_nothing(exports: str, tmp_path: Path, inside: Callable[..., Answer]) -> None:
    (tmp_path / "file").write_text("")
    assert "export" not in [entry["kind"] for entry in inside("models", "--exports", tmp_path / exports).json]


def test_what_it_does_not_know_is_refused(inside: Callable[..., Answer], tmp_path: Path) -> None:
    assert_refused(inside("models", "stray"), "stray")
    assert_refused(inside("models", "--out", tmp_path), str(tmp_path))
