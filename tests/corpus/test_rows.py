import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.corpus.building import corpus
from engine.corpus.rows import Rows
from engine.errors import SettingsError, TextError
from engine.jobs import drain
from engine.models.texts import bundled
from engine.types import Model
from tests.families import FAMILIES, tiny_network

Open = Callable[..., Model]
END = 1  # the tiny tokenizer's


def texts(count: int, size: int = 23) -> list[str]:
    return [f"{number} " + "abcdefghij"[number % 10] * (size + number % 7) for number in range(count)]


def rows_of(model: Model, folder: Path, documents: list[str], length: int = 32, **asked: Any) -> Rows:
    (folder / "text.txt").write_text("\n\n".join(documents), encoding="utf-8")
    return drain(corpus(model, str(folder / "text.txt"), length, folder / "kept", **asked))


def naive(model: Model, documents: list[str]) -> tuple[list[int], list[int]]:
    """Ids and positions of documents end to end, one token at a time."""
    ids, positions = [], []
    for text in documents:
        for position, token in enumerate([*model.tokenizer(text)["input_ids"], END]):
            ids.append(token)
            positions.append(position)
    return ids, positions


def test_rows_are_the_documents_end_to_end_without_every_20th(tiny: Open, tmp_path: Path) -> None:
    model, documents = tiny("llama"), texts(45)
    rows = rows_of(model, tmp_path, documents)
    held = [documents[19], documents[39]]
    ids, positions = naive(model, [text for text in documents if text not in held])
    assert rows.tokens == len(ids)
    assert len(rows) == len(ids) // 32
    whole = rows.parts[0].train
    for row in range(len(rows)):
        begin, (found, places) = row * 32, whole.window(row * 32, 32)
        assert found.tolist() == ids[begin : begin + 32]
        first = next((place for place in range(32) if positions[begin + place] == 0), 32)
        assert places.tolist() == [*range(first), *positions[begin + first : begin + 32]]  # what goes on from the row before starts anew
    (pack,) = rows.held_out(10_000)
    assert pack.ids[0].tolist() == [token for text in held for token in naive(model, [text])[0]][: pack.ids.shape[1]]
    assert [stop - start for _, start, stop in pack.spans] == [len(naive(model, [text])[0]) for text in held]
    assert pack.fingerprint == rows.fingerprint


def test_a_batch_tells_its_rows_numbers(tiny: Open, tmp_path: Path) -> None:
    rows = rows_of(tiny("llama"), tmp_path, texts(45))
    for step in (0, len(rows)):  # of the first epoch and of a later one
        batch = rows.batch(step, 2, seed=3)
        for number, ids in zip(batch.numbers.tolist(), batch.ids, strict=True):
            assert ids.tolist() == rows.parts[0].train.window(32 * number, 32)[0].tolist()


def test_the_order_is_a_function_of_seed_and_place_and_an_epoch_is_every_row_once(tiny: Open, tmp_path: Path) -> None:
    rows = rows_of(tiny("llama"), tmp_path, texts(60))
    epochs = [[tuple(rows.row(k, 7)[0]) for k in range(epoch * len(rows), (epoch + 1) * len(rows))] for epoch in range(2)]
    assert epochs[0] != epochs[1]
    assert sorted(epochs[0]) == sorted(epochs[1])
    assert epochs[0] != [tuple(rows.row(k, 8)[0]) for k in range(len(rows))]
    batch = rows.batch(3, 4, 7)
    assert batch.ids.dtype == batch.positions.dtype == torch.int64
    assert batch.ids.shape == batch.positions.shape == (4, 32)
    for place in range(4):
        ids, positions = rows.row(12 + place, 7)
        assert torch.equal(batch.ids[place], torch.from_numpy(ids))
        assert torch.equal(batch.positions[place], torch.from_numpy(positions))


@pytest.mark.parametrize(("count", "held"), [(2, 1), (19, 18), (20, 19)])
def test_at_least_one_document_is_held_out(count: int, held: int, tiny: Open, tmp_path: Path) -> None:
    documents = texts(count, 40)
    (pack,) = rows_of(tiny("llama"), tmp_path, documents).held_out(32)
    assert pack.ids[0].tolist() == naive(tiny("llama"), [documents[held]])[0][:32]


def test_of_a_single_document_the_last_20th_is_held_out(tiny: Open, tmp_path: Path) -> None:
    ids, _ = naive(tiny("llama"), ["x" * 999])
    rows = rows_of(tiny("llama"), tmp_path, ["x" * 999])
    assert rows.tokens == 950
    assert rows.held_out(1000)[0].ids[0].tolist() == ids[950:]


def test_the_tokens_are_found_again_by_content(tiny: Open, tmp_path: Path) -> None:
    first = rows_of(tiny("llama"), tmp_path, texts(30))
    made = next((tmp_path / "kept").glob("corpus-*/tokens.bin")).stat().st_mtime_ns
    again = rows_of(tiny("llama"), tmp_path, texts(30), length=16)
    assert first.fingerprint == again.fingerprint
    assert [file.stat().st_mtime_ns for file in (tmp_path / "kept").glob("corpus-*/tokens.bin")] == [made]
    assert not list((tmp_path / "kept").glob(".corpus-*"))
    assert rows_of(tiny("llama"), tmp_path, texts(31)).fingerprint != first.fingerprint
    assert first.parts[0].train.tokens.dtype == np.uint16


def test_a_larger_vocabulary_takes_wider_numbers(tiny: Open, tmp_path: Path) -> None:
    rows = rows_of(tiny("llama", vocab_size=70_000), tmp_path, texts(30))
    assert rows.parts[0].train.tokens.dtype == np.uint32
    assert rows.parts[0].train.window(0, 3)[0].tolist() == naive(tiny("llama"), texts(1))[0][:3]


def test_what_a_build_that_was_stopped_left_is_no_corpus(tiny: Open, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("\n\n".join(texts(200)))
    job = corpus(tiny("llama"), str(tmp_path / "text.txt"), 32, tmp_path / "kept")
    next(job)
    next(job)
    job.close()
    assert not list((tmp_path / "kept").iterdir())
    assert len(rows_of(tiny("llama"), tmp_path, texts(200)))


@pytest.mark.parametrize("name", ["tokens.bin", "starts.npy", "domains.npy", "index.json"])
def test_a_corpus_that_is_not_as_it_was_written_is_written_again(name: str, tiny: Open, tmp_path: Path) -> None:
    model, documents = tiny("llama"), texts(40)
    ids = rows_of(model, tmp_path, documents).batch(0, 4, 0).ids
    (file,) = tmp_path.glob(f"kept/corpus-*/{name}")
    content = file.read_bytes()
    file.write_bytes(content[:-3] + bytes(255 - byte for byte in content[-3:]))
    os.utime(file, (0, 0))
    assert torch.equal(rows_of(model, tmp_path, documents).batch(0, 4, 0).ids, ids)
    assert file.read_bytes() == content


def test_domains_are_parts_of_their_own(tiny: Open, tmp_path: Path) -> None:
    for name, letter in (("code", "c"), ("web", "w")):
        (tmp_path / "in" / name).mkdir(parents=True)
        (tmp_path / "in" / name / "a.txt").write_text("\n\n".join(letter * 40 for _ in range(25)))
    model = tiny("llama")
    rows = drain(corpus(model, str(tmp_path / "in"), 32, tmp_path / "kept"))
    assert rows.domains == ("code", "web")
    assert [model.tokenizer.decode(rows.of(name).row(0, 0)[0])[:1] for name in rows.domains] == ["c", "w"]
    assert len(rows) == len(rows.of("code")) + len(rows.of("web"))
    turns = "".join(model.tokenizer.decode(rows.row(k, 0)[0])[0] for k in range(6))
    assert turns == "cwcwcw"
    assert sorted(rows.reading(2 * len(rows), 0)) == list(range(len(rows)))
    held = model.tokenizer.decode(rows.held_out(60)[0].ids[0])
    assert held.count("c") == held.count("w") > 20


def test_several_choices_are_a_domain_each(tiny: Open, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n\n".join(texts(30)))
    own = str(tmp_path / "a.txt")
    rows = drain(corpus(tiny("llama"), ("korean", own), 64, tmp_path / "kept"))
    assert rows.domains == ("korean", own)
    assert rows.name == f"korean, {own}"


def test_messages_are_not_begun_or_ended_twice(tiny: Open, tmp_path: Path) -> None:
    model = tiny("llama")
    before = model.tokenizer.chat_template
    model.tokenizer.chat_template = "<s>{% for m in messages %}{{ m.content }}</s>{% endfor %}"
    try:
        (tmp_path / "a.jsonl").write_text('{"messages": [{"role": "user", "content": "Hello?"}]}\n' * 40)
        rows = drain(corpus(model, str(tmp_path / "a.jsonl"), 16, tmp_path / "kept"))
    finally:
        model.tokenizer.chat_template = before
    assert rows.parts[0].train.window(0, 16)[0].tolist() == 2 * [0, *model.tokenizer("Hello?")["input_ids"], END]


@pytest.mark.parametrize(
    ("documents", "length", "expected"),
    [
        (["short", "shorter"], 32, "6 training tokens, fewer than one row of 32"),
        (texts(30), 1, "a row has 1 tokens"),
        (texts(30), 129, "the model's context of 128"),
    ],
)
def test_what_makes_no_row_is_refused(documents: list[str], length: int, expected: str, tiny: Open, tmp_path: Path) -> None:
    with pytest.raises((TextError, SettingsError), match=expected):
        rows_of(tiny("llama"), tmp_path, documents, length)


def test_a_batch_of_more_rows_than_there_are_is_refused(tiny: Open, tmp_path: Path) -> None:
    rows = rows_of(tiny("llama"), tmp_path, texts(4))
    assert len(rows) == 2
    with pytest.raises(TextError, match="has 2 rows of 32 tokens, fewer than one batch of 3"):
        rows.batch(0, 3, 0)
    with pytest.raises(SettingsError, match="1 tokens of 1 domains are too few to evaluate on"):
        rows.held_out(1)


def test_reading_ends_at_the_limit(tiny: Open, tmp_path: Path) -> None:
    some = rows_of(tiny("llama"), tmp_path, texts(200), limit=1000)
    assert 1000 < some.tokens < rows_of(tiny("llama"), tmp_path, texts(200)).tokens


def test_what_is_judged_on_is_dropped_and_told(tiny: Open, tmp_path: Path) -> None:
    judged = bundled("english", "evaluation").texts
    mixed = [*texts(30), "Somebody wrote: " + judged[3].upper().replace(",", " –")]
    rows = rows_of(tiny("llama"), tmp_path, mixed)
    assert rows.dropped.count == 1
    assert rows.dropped.beginnings[0].startswith("Somebody wrote: " + judged[3].split()[0].upper())
    with pytest.raises(TextError, match=r"all 48 documents of .* overlap with the evaluation texts"):
        rows_of(tiny("llama"), tmp_path, list(judged))
    assert rows_of(tiny("llama"), tmp_path, texts(30)).dropped.count == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_gives_each_document_the_logits_it_has_alone(family: str, tiny: Open, tmp_path: Path) -> None:
    """Documents of a row do not see each other, in any family, in a batch of several rows; sliding windows are 6 tokens here."""
    rows, network = rows_of(tiny("llama"), tmp_path, texts(40, 8)), tiny_network(family)
    batch = rows.batch(0, 3, 0)
    with torch.no_grad():
        found = network(input_ids=batch.ids, position_ids=batch.positions, use_cache=False).logits
        for ids, positions, logits in zip(batch.ids, batch.positions, found, strict=True):
            starts = [*(positions == 0).nonzero().flatten().tolist(), len(ids)]
            assert len(starts) > 2
            for start, stop in pairwise(starts):
                alone = network(input_ids=ids[None, start:stop], use_cache=False).logits[0]
                torch.testing.assert_close(logits[start:stop], alone, atol=1e-5, rtol=1e-5)
