import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import engine
from engine import errors
from engine.jobs import Job, Progress, drain, in_fresh_process

CHILD = "tests.children"
ROOT = Path(engine.__file__).resolve().parent.parent
CHILDREN = [  # every module of the product that answers from a process of its own, and the tests' own
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for package in ("engine", "ui")
    for path in sorted((ROOT / package).rglob("*.py"))
    if "\n    answer_request(" in path.read_text(encoding="utf-8")
] + [CHILD]


def job_of(steps: int, log: list[str]) -> Job[str]:
    try:
        for step in range(steps):
            yield Progress(f"step {step}", step / steps)
        return "the result"
    finally:
        log.append("closed")


def wait_until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


# --- drain ---


def test_drain_tells_every_step_and_returns_the_result() -> None:
    told: list[Progress] = []
    assert drain(job_of(2, []), told.append) == "the result"
    assert told == [Progress("step 0", 0.0), Progress("step 1", 0.5)]
    assert drain(job_of(0, []), told.append) == "the result"


def test_drain_closes_the_job_when_the_listener_fails() -> None:
    log: list[str] = []
    job = job_of(2, log)  # held here, so that no garbage collector closes it
    with pytest.raises(ZeroDivisionError):
        drain(job, lambda progress: print(1 / 0))
    assert log == ["closed"]


# --- in_fresh_process ---


def test_a_child_answers_from_a_process_of_its_own() -> None:
    told: list[Progress] = []
    answer = drain(in_fresh_process(CHILD, {"do": "echo", "echo": "한글 ✓\n" * 50_000}, "Working"), told.append)
    assert answer["echo"] == "한글 ✓\n" * 50_000  # more than a pipe holds
    assert answer["process"] != os.getpid()
    assert told
    assert all(step == Progress("working", 0.25) or step.label.startswith("Working (") for step in told)


@pytest.mark.parametrize("kind", ["SourceError", "PlanError", "MemoryLimitError", "LayerscopeError"])
def test_a_persons_mistake_keeps_its_kind_and_words(kind: str) -> None:
    with pytest.raises(errors.LayerscopeError, match=r"^a person's mistake$") as caught:
        drain(in_fresh_process(CHILD, {"do": "refuse", "kind": kind}, "Working"))
    assert type(caught.value) is getattr(errors, kind)


def test_a_bug_in_the_child_comes_back_with_its_traceback() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)tests\.children ended with code 1.*Traceback.*ValueError: a bug"):
        drain(in_fresh_process(CHILD, {"do": "crash"}, "Working"))


def test_a_child_that_dies_without_a_word_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="code 3"):
        drain(in_fresh_process(CHILD, {"do": "vanish"}, "Working"))


@pytest.mark.parametrize("size", [1, 1_000_000])
def test_a_child_that_dies_before_it_reads_is_told_by_its_standard_error(size: int) -> None:
    with pytest.raises(RuntimeError, match="No module named"):
        drain(in_fresh_process("tests.no_such_module", {"echo": "x" * size}, "Working"))


def test_closing_the_job_kills_the_child() -> None:
    job = in_fresh_process(CHILD, {"do": "wait"}, "Working")
    process = next(int(step.label) for step in job if step.label.isdigit())
    assert alive(process)
    job.close()
    assert wait_until(lambda: not alive(process))


def test_a_quiet_child_still_lets_its_job_tell_and_be_closed() -> None:
    job = in_fresh_process(CHILD, {"do": "wait"}, "Working")
    began, told = time.monotonic(), list[str]()
    for step in job:
        told.append(step.label)
        if told.count(told[-1]) >= 3 and told[-1].isdigit():  # what it said last stays told
            break
    job.close()
    assert time.monotonic() - began < 10


# --- whose code a child runs ---


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that would appear if anything in the current folder ran: it holds files named after all that a child imports."""
    mark, folder = tmp_path / "it-ran", tmp_path / "model"
    code = f"open({str(mark)!r}, 'w').close()\nraise SystemExit('a file of the current folder ran')\n"
    libraries = ["torch", "transformers", "safetensors", "filelock", "json", "subprocess", "sitecustomize", "usercustomize"]
    for module in [*CHILDREN, *libraries]:
        file = folder.joinpath(*module.split(".")).with_suffix(".py")
        for package in [parent for parent in file.parents if parent.is_relative_to(folder) and parent != folder]:
            package.mkdir(parents=True, exist_ok=True)
            (package / "__init__.py").write_text(code)
        file.write_text(code)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep)  # empty entries, which mean the current folder
    return mark


def test_every_child_is_known() -> None:
    assert len(CHILDREN) >= 3
    assert {module.rpartition(".")[2] for module in CHILDREN} >= {"convert", "verify", "children"}


@pytest.mark.parametrize("module", [CHILDREN[0], CHILD])  # all start in one way
def test_a_file_of_the_current_folder_is_never_run(module: str, planted: Path) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)Traceback.*KeyError") as told:  # an empty request: the real module missed its first key
        drain(in_fresh_process(module, {}, "Working"))
    assert str(ROOT.joinpath(*module.split("."))) in str(told.value)
    assert not planted.exists()


def test_the_planted_files_would_run(planted: Path) -> None:
    assert os.spawnl(os.P_WAIT, sys.executable, sys.executable, "-m", CHILDREN[0]) != 0
    assert planted.exists()
