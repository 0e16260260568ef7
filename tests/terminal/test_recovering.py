"""Training commands in the terminal: a model's own text, resumed runs, shearing, and refusals."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.jobs import drain
from engine.models.loading import resolve
from engine.models.sources import parse_source
from engine.plans.files import read_plan
from engine.recover.run.runs import Run
from engine.recover.run.settings import RecoverySettings
from engine.recover.run.start import begin
from tests.answers import Answer, assert_refused
from tests.recovering import text_in


def test_a_model_writes_its_own_text_and_goes_on(tiny_folder: Path, inside: Callable[..., Answer], tmp_path: Path) -> None:
    def write(tokens: int, name: str, seed: int = 1) -> Answer:
        return inside("write", "--model", tiny_folder, "--tokens", tokens, "--seed", seed, "--out", tmp_path / name)

    told = write(40, "a.jsonl").json
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()]
    assert (told["documents"], told["tokens"]) == (len(lines), sum(line["tokens"] for line in lines))
    assert told["tokens"] >= 40
    assert all(line["text"].strip() for line in lines)
    assert write(40, "a.jsonl").json["tokens"] == told["tokens"]
    assert write(40, "b.jsonl").code == 0
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    assert_refused(write(40, "a.jsonl", seed=2), "contains another text")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--tokens", 0, "--out", "a.jsonl"), "0 tokens with seed 0"),
        (("--tokens", 9, "--seed", -1, "--out", "a.jsonl"), "seed -1"),
        (("--tokens", "many", "--out", "a.jsonl"), "--tokens"),
        (("--tokens", 9), "--out"),
        (("--tokens", 9, "--out", "."), "cannot be read"),
    ],
)
def test_what_cannot_be_written_is_refused(
    options: tuple[object, ...],
    expected: str,
    tiny_folder: Path,
    inside: Callable[..., Answer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(inside("write", "--model", tiny_folder, *options), expected)


# --- Learning again ---


@pytest.fixture(scope="module")
def begun(tiny_folder: Path, files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that has not learned yet."""
    folder, source = tmp_path_factory.mktemp("runs"), parse_source(str(tiny_folder))
    _, spec = drain(resolve(source))
    settings = RecoverySettings(tokens=400, rows=2, length=32)
    return begin(source, spec, read_plan(files / "plan.json"), [text_in(folder)], settings, folder / "run").folder


def test_a_run_of_another_plan_is_not_gone_on_with(inside: Callable[..., Answer], files: Path, begun: Path) -> None:
    before = {path: path.read_bytes() for path in begun.iterdir()}
    assert_refused(inside("recover", "--resume", begun, "--plan", files / "whole.json"), "is a run of another plan than", "whole.json")
    assert {path: path.read_bytes() for path in begun.iterdir()} == before


def test_a_folder_that_holds_no_run_is_told(inside: Callable[..., Answer], tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        assert_refused(inside("recover", "--resume", folder), "holds no run that can be resumed", str(folder))
    assert not list(tmp_path.iterdir())


def test_a_run_begins_in_a_folder_of_its_own(inside: Callable[..., Answer], tiny_folder: Path, files: Path, begun: Path) -> None:
    asked = ("recover", "--model", tiny_folder, "--plan", files / "plan.json", "--tokens", 400)
    assert_refused(inside(*asked, "--out", begun), "is not empty", "resume the run")
    assert_refused(inside(*asked), "name a plan and a folder")
    assert_refused(inside(*asked, "--out", begun.parent / "new", "--text", begun.parent / "no.txt"), "does not exist")
    assert not (begun.parent / "new").exists()


@pytest.mark.usefixtures("in_this_process")
def test_a_step_is_measured_and_nothing_learned(inside: Callable[..., Answer], tiny_folder: Path, files: Path, tmp_path: Path) -> None:
    text = text_in(tmp_path)
    asked = ("recover", "--model", tiny_folder, "--plan", files / "plan.json", "--text", text, "--rows", 2, "--length", 32)
    answer = inside(*asked, "--tokens", 640, "--measure", "--out", tmp_path / "run")
    assert answer.code == 0
    told = json.loads(answer.out)
    assert (told["steps"], told["tokens"], told["path"]) == (10, 640, str(tmp_path / "run"))
    assert told["seconds"] > 0
    assert told["memory"] > 0
    assert not (tmp_path / "run" / "metrics.jsonl").exists() or not Run(tmp_path / "run").lines()


# --- Shearing ---


@pytest.fixture
def domains(tmp_path: Path) -> Path:
    for name in ("code", "news"):
        (tmp_path / "text" / name).mkdir(parents=True)
        (tmp_path / "text" / name / "a.txt").write_text("\n\n".join(f"{name} {number:03} " * 5 for number in range(40)), encoding="utf-8")
    return tmp_path / "text"


def test_a_model_is_sheared_to_a_plan_that_others_read(
    tiny_folder: Path, domains: Path, inside: Callable[..., Answer], tmp_path: Path
) -> None:
    target = {"layers": 4, "heads": 2, "neurons": 30, "channels": 28}
    out = tmp_path / "sheared.json"
    options = ("--text", domains, "--tokens", 640, "--rows", 2, "--length", 32, "--every", 4, "--references", '{"code": 1.5}')
    shear = ("shear", "--model", tiny_folder, "--target", json.dumps(target), *options, "--out", out)
    assert inside(*shear).code == 0
    plan = json.loads(out.read_text(encoding="utf-8"))
    assert (plan["method"], len(plan["blocks"]), len(plan["width"]["channels"])) == ("sheared", 4, 28)
    assert {(len(layer["heads"]), len(layer["neurons"])) for layer in plan["width"]["layers"]} == {(2, 30)}
    lines = [json.loads(line) for line in (tmp_path / "sheared.run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert set(lines[0]["masks"]) == set(target)
    assert lines[-1]["domains"]["code"]["reference"] == 1.5
    exported = inside("export", "--model", tiny_folder, "--plan", out, "--out", tmp_path / "smaller")
    assert exported.json["passed"], exported.json
    config = json.loads((tmp_path / "smaller" / "config.json").read_text(encoding="utf-8"))
    assert (config["num_hidden_layers"], config["intermediate_size"], config["hidden_size"]) == (4, 30, 28)


@pytest.mark.parametrize(
    ("target", "options", "expected"),
    [
        ("24 layers", (), "--target is '24 layers'; write a JSON object of numbers"),
        ("[24]", (), "--target is '[24]'"),
        ('{"layers": "all"}', (), "--target is"),
        ('{"depth": 3}', (), "'depth' cannot be a shearing target; choose from layers"),
        ('{"layers": 7}', (), "7 of 6 layers cannot be kept"),
        ('{"neurons": 1e9}', (), "neurons is 1000000000.0; write a whole number"),
        ('{"channels": 30}', (), "llama does not support 4 heads, 48 neurons and 30 channels"),
        ('{"layers": 4}', ("--tokens", 0), "tokens is 0"),
        ('{"layers": 4}', ("--update", "often"), "unknown update 'often'"),
        ('{"layers": 4}', ("--references", "many"), "--references is 'many'"),
        ('{"layers": 4}', ("--text", "nowhere.txt"), "nowhere.txt does not exist"),
        ('{"layers": 4}', ("--length", 4000), "a row has 4000 tokens"),
    ],
)
def test_what_cannot_be_sheared_is_refused(
    target: str, options: tuple[object, ...], expected: str, tiny_folder: Path, inside: Callable[..., Answer], tmp_path: Path
) -> None:
    out = tmp_path / "plan.json"
    assert_refused(inside("shear", "--model", tiny_folder, "--target", target, *options, "--out", out), expected)
    assert not out.exists()
