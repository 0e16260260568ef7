"""The terminal for a user: what its commands write, its help, and how it ends on an interrupt."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.jobs import Job, Progress
from engine.types import Model, ModelSource
from tests.answers import Answer
from tests.families import TEXTS, save_tiny
from tests.measured import counts
from tests.terminal.given import COMMAND, DEPTH, outside
from tests.waiting import wait_until
from ui.terminal import cli

TRIAL = {"step", "pointer", "absorbed", "similarity", "spread", "accepted", "depth_after"}


def test_propose_writes_every_trial_and_the_plan(plan_file: Path) -> None:
    found = json.loads(plan_file.read_text(encoding="utf-8"))
    assert set(found) == {"settings", "trials", "depth", "plan"}
    given = {"C": 3, "I": 3, "T": -1.0, "lowest": 0, "highest": DEPTH, "rule": "reference", "similarity": "flattened"}
    assert {key: found["settings"][key] for key in given} == given
    trials = [(trial["pointer"], trial["absorbed"], trial["accepted"], trial["depth_after"]) for trial in found["trials"]]
    assert trials == [(3, 2, True, 4), (0, 2, True, 2)]
    assert all(set(trial) == TRIAL and -1 < trial["similarity"] <= 1 for trial in found["trials"])
    assert found["depth"] == 2
    assert found["plan"]["source_depth"] == DEPTH
    # A fold keeps its first layer's place and takes its last layer's projections.
    assert found["plan"]["blocks"] == [{"home": 0, "mix": [[2, 1.0]]}, {"home": 3, "mix": [[5, 1.0]]}]


def test_map_tiles_t_and_each_of_its_plans_is_what_propose_finds_there(
    on_tiny: tuple[object, ...], inside: Callable[..., Answer], tmp_path: Path
) -> None:
    settings = ("-C", 2, "-I", 1, "--lowest", 0, "--rule", "mean")
    written = tmp_path / "new" / "folder" / "map.json"
    answer = inside("map", *on_tiny, *settings, "--t-min", -0.25, "--out", written)
    assert (answer.code, answer.out) == (0, "")
    found = json.loads(written.read_text(encoding="utf-8"))
    assert set(found) == {"settings", "steps", "complete"}
    assert "T" not in found["settings"]
    assert (found["settings"]["t_min"], found["settings"]["rule"], found["settings"]["C"]) == (-0.25, "mean", 2)
    steps = found["steps"]
    assert len(steps) > 2
    assert steps[0]["t_to"] == 1.0
    assert steps[-1]["t_from"] == -0.25
    assert [step["t_to"] for step in steps[1:]] == [step["t_from"] for step in steps[:-1]]  # no gap, exactly
    for step in steps:
        assert set(step) == {"t_from", "t_to", "depth", "plan"}
        assert step["t_from"] < step["t_to"]
        assert step["depth"] == len(step["plan"]["blocks"])
    for step in (steps[0], steps[len(steps) // 2], steps[-1]):
        assert inside("propose", *on_tiny, *settings, "-T", step["t_from"]).json["plan"]["blocks"] == step["plan"]["blocks"]


def test_profile_has_a_row_and_a_column_for_each_state_and_an_entry_for_each_layer(
    on_tiny: tuple[object, ...], inside: Callable[..., Answer]
) -> None:
    found = inside("profile", *on_tiny, "--removal").json
    for name in ("similarity", "similarity_rest", "angular"):
        assert [len(row) for row in found[name]] == [DEPTH + 1] * (DEPTH + 1)
    assert [layer["index"] for layer in found["layers"]] == list(range(DEPTH))
    for index, layer in enumerate(found["layers"]):
        assert layer["block_influence"] == pytest.approx(1 - found["similarity"][index][index + 1], abs=1e-9)
        assert layer["angular_distance"] == {str(n): found["angular"][index][index + n] for n in range(1, DEPTH - index + 1)}
        assert layer["perplexity_without"] > 1
    assert found["perplexity"] > 1
    assert found["texts"] == len(TEXTS)
    assert {len(row) for row in found["weight_distance"]["relative_l2"]} == {DEPTH - 1}
    plain = inside("profile", *on_tiny).json
    assert plain["perplexity"] is None
    assert "perplexity_without" not in plain["layers"][0]


def test_figures_that_do_not_exist_are_null(tiny_folder: Path, inside: Callable[..., Answer], tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("a\n", encoding="utf-8")  # one text of one token: nothing is left without the first
    found = inside("profile", "--model", tiny_folder, "--calibration", tmp_path / "one.txt").json
    assert found["similarity_rest"][0][1] is None
    assert found["layers"][0]["block_influence_rest"] is None


def test_the_demo_folds_from_the_terminal(demo: Model, texts: Path, inside: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch) -> None:
    def open_already(source: ModelSource, _: object) -> Job[Model]:
        assert source == demo.source
        yield Progress("")
        return demo

    monkeypatch.setattr("engine.models.loading.open_model", open_already)
    found = inside("propose", "--calibration", texts, "--lowest", 24, "-T", 0.5).json
    assert found["plan"]["source_depth"] == 30
    assert found["trials"][0]["pointer"] == 30 - 4
    assert found["depth"] == 30 - sum(trial["absorbed"] for trial in found["trials"] if trial["accepted"])


# --- interrupting ---


@pytest.mark.parametrize("command", ["propose", "app"])
def test_an_interrupted_command_ends_calmly(command: str, tmp_path: Path) -> None:
    """Ctrl-C in the middle of a long task: no traceback, no abort."""
    slow = save_tiny(tmp_path / "slow", "llama", num_hidden_layers=48, hidden_size=256, intermediate_size=512)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {"propose": ("-C", "2", "-I", "1", "-T", "1"), "app": ("--port", str(port), "--no-browser")}[command]
    child = subprocess.Popen(
        [COMMAND, command, "--model", slow, *options],
        env={**os.environ, "LAYERSCOPE_CACHE": str(tmp_path / "cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job would ignore it
    )
    try:
        assert child.stderr is not None
        if command == "app":
            assert child.stderr.readline().startswith("Layerscope is open")
        wait_until(lambda: counts(tmp_path / "cache"))  # something has been measured: the task runs
        assert child.poll() is None
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
    finally:
        child.kill()
    assert "Traceback" not in err
    assert "terminate called" not in err
    assert '"plan"' not in out
    assert child.returncode in ((0, 130) if command == "app" else (130,))


# --- help ---


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("propose", "--model --rule -C -I -T --lowest --highest --similarity --calibration --dtype --device --trust-remote-code --out"),
        (
            "map",
            "--model --rule -C -I --lowest --highest --t-min --similarity --calibration --judge --dtype --trust-remote-code --out --format",
        ),
        ("sweep", "--model --seconds --lowest --highest --t-min --similarity --calibration --dtype --trust-remote-code --out --format"),
        ("profile", "--model --calibration --removal --dtype --device --trust-remote-code --out --format"),
        ("export", "--plan --out --model --format --dtype --trust-remote-code --shard-size"),
        ("models", "--exports --out"),
        ("app", "--model --host --port --exports --browser"),
    ],
)
def test_help_names_every_option(command: str, options: str, inside: Callable[..., Answer]) -> None:
    answer = inside(command, "--help")
    assert answer.code == 0
    assert set(options.split()) <= set(answer.out.replace(",", " ").split())
    assert inside(command, "-h").out == answer.out
    assert f"\n  {command} " in inside("--help").out


def test_the_command_and_the_module_are_one() -> None:
    called = subprocess.run([sys.executable, "-m", "ui", "--help"], capture_output=True, text=True, cwd=Path(cli.__file__).parents[2])
    assert (called.returncode, called.stderr) == (0, "")
    assert set(outside("--help").out.splitlines()[1:]) == set(called.stdout.splitlines()[1:])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_whatever_becomes_of_it_on_its_way_out(number: signal.Signals) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupted() -> None:
        try:
            signal.raise_signal(number)
        except BaseException:
            raise ValueError("could not determine the shape of object type") from None  # as torch does

    try:
        with pytest.raises(SystemExit) as end, cli.stoppable():
            interrupted()
        assert end.value.code == 128 + number
        with pytest.raises(ValueError, match="an error of its own"), cli.stoppable():
            raise ValueError("an error of its own")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
