"""Checks of a foreign file before it is used."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.untrusted import DEEPEST, ForeignError, json_in, json_of, object_in, real_path, require_regular, text_in


def test_a_sound_file_is_read_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text('\ufeff{"a": [1, 2.5, null, "안녕"]}', encoding="utf-8")
    assert object_in(file) == {"a": [1, 2.5, None, "안녕"]}


def _pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (Path.mkdir, "it is a folder"),
        (_pipe, "it is a pipe or a device"),
        (lambda path: path.symlink_to("/dev/zero"), "it is a pipe or a device"),
        (lambda path: path.write_bytes(b"\xff"), r"it is not UTF-8 \(byte 0\)"),
        (lambda path: path.write_text("x" * 11), "it has 0 MB, and at most 0 MB are read"),
    ],
)
def test_what_is_no_text_is_refused_before_it_is_read(make: Any, words: str, tmp_path: Path) -> None:
    make(tmp_path / "a")
    with pytest.raises(ForeignError, match=f"^{words}$"):
        text_in(tmp_path / "a", most=10)


def test_a_path_leads_somewhere_even_if_its_links_or_its_home_do_not(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "link").symlink_to("folder")
    assert real_path(tmp_path / "circle" / "file").name == "file"
    assert real_path(tmp_path / "link" / ".." / "file") == real_path(tmp_path) / "file"
    assert real_path("~") == real_path(Path.home())
    assert real_path("~nobody-of-this-name/models").name == "models"


def test_a_link_in_a_circle_and_a_missing_file_are_told_as_open_does(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    for name in ("circle", "missing"):
        with pytest.raises(OSError):
            require_regular(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "it is not valid JSON"),
        ("[NaN]", "NaN is not a finite number"),
        ("[-Infinity]", "-Infinity is not a finite number"),
        ('["\\ud800"]', "an incomplete character"),
        ('{"\\udfff": 1}', "an incomplete character"),
        ("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), f"more than {DEEPEST} nested lists"),
        ("[" * 100_000, "it is not valid JSON|nested lists"),
        ("1" * 5000, "a number of 5000 digits"),
        (str(-(10**400)), "a number of 402 digits"),
        ("[1e400]", "1e400, which is out of"),
        ("-1e9999", "-1e9999, which is out of"),
    ],
)
def test_json_that_would_surprise_who_reads_on_is_refused(text: str, words: str) -> None:
    with pytest.raises(ForeignError, match=words):
        json_of(text)


def test_numbers_that_are_written_in_full_are_read() -> None:
    assert json_of("[1000000000000000019884624838656, -0.5, 1e308, 1e-400]") == [int(1e30), -0.5, 1e308, 0.0]


def test_an_object_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[1]")
    assert json_in(tmp_path / "a.json") == [1]
    with pytest.raises(ForeignError, match="it is not a JSON object"):
        object_in(tmp_path / "a.json")


@given(st.recursive(st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12))  # fmt: skip
def test_whatever_is_read_can_be_written_again(value: Any) -> None:
    found = json_of(json.dumps(value))
    assert json.dumps(found, ensure_ascii=False).encode() == json.dumps(value, ensure_ascii=False).encode()
