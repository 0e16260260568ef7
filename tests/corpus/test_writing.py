import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine.corpus.building import corpus
from engine.corpus.settings import WritingSettings
from engine.corpus.writing import Written, beginning_of, write_own
from engine.errors import SettingsError, TextError
from engine.jobs import Progress, drain
from engine.plans.live import live_network
from engine.plans.rules import untouched
from engine.types import Model
from tests.families import tiny_tokenizer

Open = Callable[..., Model]
ASKED = WritingSettings(tokens=300, seed=3, length=12, together=4)


def write(model: Model, out: Path, settings: WritingSettings = ASKED) -> Written:
    return drain(write_own(model, out, settings))


def records(out: Path) -> list[dict]:
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def test_the_same_seed_writes_the_same_documents(tiny: Open, tmp_path: Path) -> None:
    model = tiny("llama")
    found = write(model, tmp_path / "a.jsonl")
    write(model, tmp_path / "b.jsonl")
    write(model, tmp_path / "c.jsonl", replace(ASKED, seed=4))
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    assert [one["text"] for one in records(tmp_path / "a.jsonl")] != [one["text"] for one in records(tmp_path / "c.jsonl")]
    lines = records(tmp_path / "a.jsonl")
    assert (found.documents, found.tokens) == (len(lines), sum(one["tokens"] for one in lines))
    assert 300 <= found.tokens < 312
    assert all(one["text"].strip() and 0 < one["tokens"] <= 12 for one in lines)
    assert len({one["by"]["number"] for one in lines}) > 5


def test_documents_are_samples_of_the_model_itself(tiny: Open, tmp_path: Path) -> None:
    """The share of each first token comes to its probability after the token that begins a text: nothing is cut off or sharpened."""
    model = tiny("llama")
    write(model, tmp_path / "a.jsonl", WritingSettings(tokens=3000, length=1, together=500))
    network = live_network(model, untouched(6))
    with torch.no_grad():
        chances = network(torch.tensor([[beginning_of(model.tokenizer)]])).logits[0, 0].softmax(-1)
    texts = [one["text"] for one in records(tmp_path / "a.jsonl")]
    letters = [token for token in range(2, 258) if len(text := model.tokenizer.decode([token])) == 1 and text.isascii() and text.isalnum()]
    expected = chances[letters].sum() / (1 - chances[[0, 1, *range(258, 300)]].sum() - blank(model, chances))
    found = sum(text in {model.tokenizer.decode([token]) for token in letters} for text in texts) / len(texts)
    assert found == pytest.approx(float(expected), abs=0.04)


def blank(model: Model, chances: torch.Tensor) -> torch.Tensor:
    """How likely a letter of nothing but white space is."""
    return chances[[token for token in range(2, 258) if not model.tokenizer.decode([token]).strip()]].sum()


@pytest.mark.parametrize("stop", [1, 5, 9, 14])
def test_a_run_that_was_stopped_goes_on_to_the_same_file(stop: int, tiny: Open, tmp_path: Path) -> None:
    model, whole, cut = tiny("llama"), tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    write(model, whole)
    kept = whole.read_bytes().splitlines(keepends=True)
    cut.write_bytes(b"".join(kept[:stop]) + kept[stop][: len(kept[stop]) // 2])  # killed in the middle of a line
    assert write(model, cut) == replace(write(model, whole), seconds=pytest.approx(0, abs=60))
    assert cut.read_bytes() == whole.read_bytes()


def test_a_closed_job_leaves_a_file_that_goes_on(tiny: Open, tmp_path: Path) -> None:
    model = tiny("llama")
    write(model, tmp_path / "whole.jsonl")
    job, steps = write_own(model, tmp_path / "cut.jsonl", ASKED), list[Progress]()
    while len(steps) < 20:
        steps.append(next(job))
    job.close()
    assert 0 < len(records(tmp_path / "cut.jsonl")) < len(records(tmp_path / "whole.jsonl"))
    write(model, tmp_path / "cut.jsonl")
    assert (tmp_path / "cut.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert steps[-1].label.startswith("Writing text: ")
    assert " of 300 tokens, " in steps[-1].label
    shares = [step.fraction for step in steps]
    assert shares == sorted(shares)


def test_what_is_there_is_not_written_again_and_more_is_added(tiny: Open, tmp_path: Path) -> None:
    model, out = tiny("llama"), tmp_path / "a.jsonl"
    write(model, out)
    before = out.read_bytes()
    assert write(model, out).tokens >= 300
    assert out.read_bytes() == before
    write(model, out, replace(ASKED, tokens=500))
    assert out.read_bytes().startswith(before)
    write(model, tmp_path / "b.jsonl", replace(ASKED, tokens=500))
    assert out.read_bytes() == (tmp_path / "b.jsonl").read_bytes()


@pytest.mark.parametrize("content", ['{"text": "mine"}\n', "mine", "[]\n", '{"text": "x", "tokens": 1, "by": {"seed": 9, "number": 0}}\n'])
def test_another_text_is_never_overwritten(content: str, tiny: Open, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(TextError, match="contains another text"):
        write(tiny("llama"), tmp_path / "a.jsonl")
    assert (tmp_path / "a.jsonl").read_text() == content


def test_what_cannot_be_written_is_refused(tiny: Open, tmp_path: Path) -> None:
    model = tiny("llama")
    with pytest.raises(SettingsError, match="0 tokens with seed 3"):
        write(model, tmp_path / "a.jsonl", replace(ASKED, tokens=0))
    with pytest.raises(SettingsError, match="300 tokens with seed -1"):
        write(model, tmp_path / "a.jsonl", replace(ASKED, seed=-1))
    with pytest.raises(TextError, match=r"cannot be read: it is a folder|cannot be written"):
        write(model, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(TextError, match="cannot be"):
        write(model, tmp_path / "file" / "a.jsonl")


def test_a_source_that_writes_nothing_is_told(tiny: Open, tmp_path: Path) -> None:
    model = tiny("llama", eos_token_id=list(range(300)))
    with pytest.raises(TextError, match="wrote 64 empty documents"):
        write(model, tmp_path / "a.jsonl")


def test_a_text_begins_as_the_tokenizer_begins_it() -> None:
    tokenizer = tiny_tokenizer()
    assert beginning_of(tokenizer) == 1  # what ended the text before
    tokenizer.eos_token = None
    assert beginning_of(tokenizer) == 0
    tokenizer.bos_token = None
    with pytest.raises(TextError, match="no start token"):
        beginning_of(tokenizer)


def test_self_is_a_text_to_train_on(tiny: Open, tmp_path: Path) -> None:
    model = tiny("llama")
    rows = drain(corpus(model, "self", 16, tmp_path, own=ASKED))
    assert rows.name == "self"
    assert len(rows) >= 10
    (own,) = tmp_path.glob("self-*.jsonl")
    ids = [*model.tokenizer(records(own)[0]["text"])["input_ids"], 1]
    assert rows.parts[0].train.window(0, len(ids))[0].tolist() == ids
