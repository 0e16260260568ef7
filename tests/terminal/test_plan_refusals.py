"""What the verbs for plans refuse, each with one line."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.answers import Answer, assert_refused
from tests.terminal.given import VERBS


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("search", "--keep", 7), "7 of 6 layers cannot be kept; the nearest possible number is 6"),
        (("search", "--keep", 0), "0 of 6 layers cannot be kept; the nearest possible number is 1"),
        (("search", "--keep", -1), "nearest possible number is 1"),
        (("search", "--keep", "four"), "--keep"),
        (("search",), "one target"),
        (("search", "--keep", 3, "--parameters", 10_000), "one target"),
        (("search", "--parameters", 10_000, "--gigabytes", 1), "one target"),
        (("search", "--parameters", 1), "a single layer already has"),
        (("search", "--parameters", "nan"), "a single layer already has"),
        (("search", "--gigabytes", -1), "a single layer already has"),
        (("search", "--gigabytes", 1e-5, "--context", 100), "a single layer already has"),
        (("search", "--keep", 3, "--seconds", 0), "0.0 seconds"),
        (("search", "--keep", 3, "--seconds", -5), "-5.0 seconds"),
        (("search", "--keep", 3, "--seconds", "nan"), "nan seconds"),
        (("search", "--keep", 3, "--objective", "beauty"), "'beauty'"),
        (("search", "--keep", 3, "--tokens", 0), ""),
        (("baseline", "--method", "bi", "--keep", 7), "nearest possible number is 6"),
        (("baseline", "--method", "bi", "--keep", 0), "nearest possible number is 1"),
        (("baseline", "--method", "magic", "--keep", 3), "'magic'"),
        (("baseline", "--method", "bi", "--keep", 3, "--objective", "beauty"), "'beauty'"),
        (("baseline", "--method", "bi"), "--keep"),
        (("baseline", "--keep", 3), "--method"),
        (("repair", "--plan", "plan.json", "--kind", "magic"), "'magic'"),
        (("repair", "--plan", "missing.json"), "does not exist"),
        (("repair", "--plan", "texts.txt"), "not a readable JSON"),
        (("repair", "--plan", "plan.json", "--tokens", 100), "too little practice text"),
        (("repair",), "--plan"),
        (("evaluate", "--plan", "missing.json"), "does not exist"),
        (("evaluate", "--plan", "plan.json", "--context", 1), "context 1"),
        (("evaluate", "--plan", "plan.json", "--stride", 0), "stride 0"),
        (("evaluate", "--plan", "plan.json", "--context", 16, "--stride", 17), "stride 17"),
        (("evaluate", "--plan", "plan.json", "--tokens", 0), ""),
        (("evaluate",), "--plan"),
    ],
    ids=lambda value: " ".join(map(str, value))[:60] if isinstance(value, tuple) else "",
)
def test_mistakes_end_with_one_line(
    arguments: tuple[object, ...], expected: str, on_practice: tuple[object, ...], files: Path, inside: Callable[..., Answer]
) -> None:
    placed = [files / value if isinstance(value, str) and value.endswith((".json", ".txt")) else value for value in arguments]
    assert_refused(inside(*placed, *on_practice), expected)


@pytest.mark.parametrize("verb", ["evaluate", "repair", "tasks", "measure", "report"])
def test_a_plan_of_another_depth_is_refused_before_a_weight_is_read(
    verb: str, tiny_folder: Path, files: Path, inside: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.models.loading.read_network", lambda *_: pytest.fail("weights were read"))
    answer = inside(verb, "--plan", files / "deep.json", "--model", tiny_folder, "--out", tmp_path / "out")
    assert_refused(answer, "a model of 8 layers", "has 6")


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("text", "expected"),
    [("empty.txt", "contains no text"), ("utf16.txt", "is not UTF-8"), ("short.txt", "too short"), ("missing.txt", "does not exist")],
)
def test_texts_that_are_none_are_refused(
    verb: str, text: str, expected: str, tiny_folder: Path, files: Path, inside: Callable[..., Answer]
) -> None:
    options = [files / value if value == "plan.json" else value for value in VERBS[verb]]
    assert_refused(inside(verb, *options, "--model", tiny_folder, "--text", files / text), text, expected)
