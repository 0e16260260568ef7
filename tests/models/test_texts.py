from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.errors import TextError
from engine.models.texts import BUNDLED, MAX_TEXT_TOKENS, bundled, calibration_of, packs_of, read_texts
from engine.types import Model
from tests.families import TEXTS, tiny_tokenizer


def test_blank_texts_are_left_out_and_edges_trimmed() -> None:
    found = calibration_of((" a ", "", "\t\n", "b\n"), "mine")
    assert (found.name, found.texts) == ("mine", ("a", "b"))


def test_the_fingerprint_is_of_the_texts_and_their_order_not_of_the_name() -> None:
    assert calibration_of(("a", "b"), "x").fingerprint == calibration_of(("a", "b", ""), "y").fingerprint
    prints = {calibration_of(texts).fingerprint for texts in (("a", "b"), ("b", "a"), ("ab",), ("a",))}
    assert len(prints) == 4


def test_one_text_of_two_lines_is_not_two_texts() -> None:
    assert calibration_of(("a\nb",)).fingerprint != calibration_of(("a", "b")).fingerprint


@pytest.mark.parametrize("texts", [(), ("",), (" ", "\n")])
def test_without_a_text_there_is_no_calibration(texts: tuple[str, ...]) -> None:
    with pytest.raises(TextError, match="mine contains no text"):
        calibration_of(texts, "mine")


@pytest.mark.parametrize("language", BUNDLED)
def test_the_bundled_texts_are_several_and_different(language: str) -> None:
    found = bundled(language)
    assert found.name == language
    assert len(set(found.texts)) == len(found.texts) >= 5
    assert all(len(text) > 20 for text in found.texts)


def test_the_korean_texts_are_korean() -> None:
    assert all(any("가" <= letter <= "힣" for letter in text) for text in bundled("korean").texts)


# --- Files ---


def test_a_file_gives_a_text_a_line_whatever_its_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_bytes("\ufeff하나\r\n\r\ntwo\nthree".encode())
    assert read_texts(path).texts == ("하나", "two", "three")


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "does not exist"), (b"", "contains no text"), (b" \n\n", "contains no text"), ("é".encode("latin-1"), r"not UTF-8 \(byte 0\)")],
)
def test_a_file_that_cannot_be_used_is_refused_by_its_name(content: bytes | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TextError, match=f"texts.txt .*{words}"):
        read_texts(path)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(TextError, match="cannot be read"):
        read_texts(tmp_path)


# --- Packs ---

CONFIG = SimpleNamespace(max_position_embeddings=100_000, vocab_size=300)


def test_a_pack_lays_texts_end_to_end_with_positions_of_their_own(tiny: Callable[..., Model]) -> None:
    model = tiny("llama")
    (pack,) = packs_of(model.tokenizer, model.config, calibration_of(("abc", "x", "yz")))
    assert pack.spans == ((0, 0, 3), (1, 3, 4), (2, 4, 6))
    assert pack.ids.tolist() == [[token for text in ("abc", "x", "yz") for token in model.tokenizer(text)["input_ids"]]]
    assert pack.positions.tolist() == [[0, 1, 2, 0, 0, 1]]
    assert pack.first_tokens().tolist() == [True, False, False, True, True, False]
    assert pack.last_tokens().tolist() == [2, 3, 5]


def test_full_packs_are_closed_and_no_text_is_lost_or_split() -> None:
    texts = tuple(str(number) * 200 for number in range(5))
    packs = packs_of(tiny_tokenizer(), CONFIG, calibration_of(texts))
    assert [pack.ids.shape for pack in packs] == [(1, 400), (1, 400), (1, 200)]
    assert [span[0] for pack in packs for span in pack.spans] == [0, 1, 2, 3, 4]


def test_a_text_longer_than_a_pack_has_one_for_itself() -> None:
    packs = packs_of(tiny_tokenizer(), CONFIG, calibration_of(("short", "x" * 900, "short")))
    assert [pack.ids.shape[1] for pack in packs] == [5, 900, 5]


@pytest.mark.parametrize(("context", "expected"), [(100, 100), (None, MAX_TEXT_TOKENS), (10**6, MAX_TEXT_TOKENS)])
def test_texts_are_cut_at_the_context(context: int | None, expected: int) -> None:
    (pack,) = packs_of(tiny_tokenizer(), SimpleNamespace(max_position_embeddings=context, vocab_size=300), calibration_of(("x" * 5000,)))
    assert pack.ids.shape[1] == expected


def test_a_text_without_a_token_is_refused_with_its_beginning() -> None:
    with pytest.raises(TextError, match="no token in the text 'The cat"):
        packs_of(lambda text: {"input_ids": []}, CONFIG, calibration_of(TEXTS))
