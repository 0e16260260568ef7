"""Python files that come with a model run only where a person trusts them."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.answers import Answer, assert_refused
from tests.families import save_tiny
from ui.terminal import cli


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
    verbs = [
        "propose",
        "map",
        "profile",
        "export",
        "evaluate",
        "baseline",
        "search",
        "repair",
        "tasks",
        "ablate",
        "measure",
        "report",
        "write",
    ]
    assert [verb for verb in verbs if "--trust-remote-code" not in inside(verb, "--help").out] == []
