"""Code that comes with a model is refused unless it is trusted, and no prompt offers to trust it."""

import ast
import json
from pathlib import Path

import pytest

import engine
from engine.errors import SourceError, UnsupportedModelError
from engine.models import inspection
from engine.models.inspection import inspect_folder, read_config
from engine.models.sources import parse_source

CALLS = [  # every call by which transformers may come to a model's code
    pytest.param(node, id=f"{file.stem}:{node.lineno}")
    for package in ("engine", "ui")
    for file in sorted((Path(engine.__file__).parents[1] / package).rglob("*.py"))
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    if isinstance(node, ast.Call)
    and isinstance(node.func, ast.Attribute)
    and node.func.attr in ("from_pretrained", "from_config")
    and "Auto" in ast.unparse(node.func)
]


def test_the_calls_to_transformers_are_found() -> None:
    assert len(CALLS) >= 7


@pytest.mark.parametrize("call", CALLS)
def test_every_call_to_transformers_says_whether_code_is_trusted(call: ast.Call) -> None:
    said = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    assert said.get("trust_remote_code") in ("False", "trust_remote_code", "source.trust_remote_code")


def write_json(file: Path, **changes: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("config.json", {"AutoConfig": "theirs.Config"}),
        ("config.json", {"AutoModelForCausalLM": "theirs.Model"}),
        ("tokenizer_config.json", {"AutoTokenizer": ["theirs.Tokenizer", None]}),
        ("tokenizer_config.json", ["theirs.Tokenizer", None]),
    ],
)
def test_a_model_that_wants_code_is_refused_with_the_reason(name: str, wanted: object, folder: Path) -> None:
    write_json(folder / name, auto_map=wanted)  # transformers has classes of its own for the rest
    with pytest.raises(SourceError, match=rf"its own Python files.*auto_map in {name}.*--trust-remote-code"):
        inspect_folder(folder, parse_source(str(folder)))


@pytest.mark.parametrize("trusted", [False, True])
def test_a_family_that_cannot_be_folded_is_refused_before_any_of_its_code_is_run(
    trusted: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question was asked"))
    monkeypatch.setattr(inspection, "AutoConfig", None)
    write_json(folder / "config.json", model_type="theirs", auto_map={"AutoConfig": "theirs.Config"})
    with pytest.raises(UnsupportedModelError, match="'theirs'"):
        read_config(folder, trusted)


def test_code_of_another_repository_is_refused_even_where_code_is_trusted(folder: Path) -> None:
    write_json(folder / "config.json", auto_map={"AutoModelForCausalLM": "someone/else--theirs.Model"})
    with pytest.raises(SourceError, match="another repository"):
        read_config(folder, trust_remote_code=True)


@pytest.mark.parametrize("text", ["demo --trust-remote-code", "hub:org/name?trust_remote_code=true"])
def test_no_text_asks_for_trust(text: str) -> None:
    with pytest.raises(SourceError):
        parse_source(text)
    assert not parse_source("demo").trust_remote_code
