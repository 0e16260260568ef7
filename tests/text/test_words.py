import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

import ui.text.words
from engine.corpus.settings import UPDATES
from engine.judge.generation import Verdict
from engine.judge.objectives import OBJECTIVES, Stage
from engine.methods.analysis.importance import DEFAULTS
from engine.methods.depth.baselines import BASELINES
from engine.methods.depth.laco import DEFINITIONS
from engine.methods.masks.pruning import MASKS
from engine.methods.masks.selection import GROUPS
from engine.methods.width.scores import AXES, SCORES
from engine.methods.width.widths import COMPENSATIONS
from engine.models.texts import BUNDLED
from engine.passes.heads import ROLES
from engine.plans.rules import RULES
from engine.recover.distill.student import TRAINS
from engine.recover.repair.seam_maps import REPAIRS
from engine.search.ablations import ABLATIONS, QUESTIONS
from engine.search.settings import SURVIVORS, TARGETS
from engine.settings import Registry
from ui.page.bench.lab.trimming import ARMS
from ui.page.bench.plans.measuring import ALSO
from ui.page.controls import PLANS, PRESETS, TEXTS
from ui.page.tabs.recover import BUDGETS
from ui.page.tabs.recover import TEXTS as LEARNED
from ui.text.commands import MORE, SHEARED, SHEARED_TO
from ui.text.words import LANGUAGES, all_words, words

ROOT = Path(ui.text.words.__file__).resolve().parents[2]
ENGLISH, KOREAN = all_words("en"), all_words("ko")
PYTHON = sorted((ROOT / "ui").rglob("*.py"))
SCRIPTS = sorted((ROOT / "assets" / "js").glob("*.js"))


def placeholders(text: str) -> list[str]:
    return sorted(re.findall(r"\{(\w+)\}", text))


# --- the two languages ---


def test_both_languages_have_the_same_texts_and_none_is_empty() -> None:
    assert set(LANGUAGES) == {"en", "ko"}
    assert set(ENGLISH) == set(KOREAN)
    for name, text in [*ENGLISH.items(), *KOREAN.items()]:
        assert text == text.strip() != "", name


@pytest.mark.parametrize("name", ENGLISH)
def test_a_text_says_the_same_in_both_languages(name: str) -> None:
    assert set(placeholders(ENGLISH[name])) == set(placeholders(KOREAN[name]))
    for text in (ENGLISH[name], KOREAN[name]):
        assert not set("{}") & set(re.sub(r"\{\w+\}", "", text)), "a brace that is no placeholder"
        assert text.count("**") % 2 == 0 == text.count("`") % 2
    assert ENGLISH[name].startswith("#") == KOREAN[name].startswith("#")


def test_each_text_stands_in_its_own_language() -> None:
    swapped = {"other_language"}  # the link to the other language names it in that language
    hangul = re.compile("[가-힣]")
    assert [name for name, text in ENGLISH.items() if hangul.search(text) and name not in swapped] == []
    names = {"title", "definition_per-token", "save_svg"}  # the same in both
    assert [name for name, text in KOREAN.items() if not hangul.search(text) and name not in swapped | names] == []
    assert {name for name in ENGLISH if ENGLISH[name] == KOREAN[name]} == names


def test_no_text_is_defined_twice() -> None:
    files = (Path(tab.__file__) for tab in ui.text.words.TABS if tab.__file__)
    nodes = (node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    names = [ast.literal_eval(key) for node in nodes if isinstance(node, ast.Dict) and len(node.keys) > 9 for key in node.keys]
    assert sorted(set(names)) == sorted(names)
    assert set(names) == set(ENGLISH)


def test_an_unknown_text_or_language_is_an_error() -> None:
    with pytest.raises(KeyError):
        words("en")("never heard of")
    with pytest.raises(ValueError):
        words("fr")
    assert words("ko")("explore") == KOREAN["explore"]


# --- every text that is used exists ---


def said_in(file: Path) -> Iterator[str]:
    """Names given to say(...), as patterns: what stands in an f-string's braces may be anything."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "say":
            (name,) = node.args
            if isinstance(name, ast.Constant):
                yield re.escape(name.value)
            elif isinstance(name, ast.JoinedStr):
                yield "".join(re.escape(part.value) if isinstance(part, ast.Constant) else ".+" for part in name.values)


def test_every_text_that_python_asks_for_exists() -> None:
    asked = {(file.name, pattern) for file in PYTHON for pattern in said_in(file)}
    assert len(asked) > 40  # the search itself works
    missing = [(file, pattern) for file, pattern in asked if not any(re.fullmatch(pattern, name) for name in ENGLISH)]
    assert missing == []


def test_every_text_that_a_script_asks_for_exists() -> None:
    used, families = set(), set()
    for file in SCRIPTS:
        script = file.read_text(encoding="utf-8")
        used |= set(re.findall(r"\bwords\.(\w+)", script)) | set(re.findall(r"\bwords\[\"([^\"]+)\"\]", script))
        families |= set(re.findall(r"\bwords\[`([^`$]+)\$\{", script))
    assert len(used) > 40
    assert families == {
        "also_",
        "asks_",
        "models_",
        "row_",
        "waiting_",
        "is_",
        "job_",
        "check_",
        "score_",
        "stage_",
        "verdict_",
        "baseline_",
        "col_",
        "decoding_",
        "repair_",
        "shear_",
        "group_",
        "role_",
        "width_",
        "unit_",
        "width_arm_",
        "making_",
        "state_",
        "run_",
        "train_",
    }  # each is looked at below; a new one wants a test of its own
    assert used - set(ENGLISH) == set()


def names_in(file: str, function: str) -> set[str]:
    """The constant first arguments of every call of a function or method in a file."""
    calls = [node for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))) if isinstance(node, ast.Call) and node.args]
    named = [call for call in calls if getattr(call.func, "attr", getattr(call.func, "id", None)) == function]
    return {call.args[0].value for call in named if isinstance(call.args[0], ast.Constant)}


JOBS = {
    name
    for file in sorted((ROOT / "ui" / "page" / "bench").rglob("*.py"))
    for call in ("submit", "Task", "Curves")
    for name in names_in(str(file.relative_to(ROOT)), call)
}
JOBS |= {*ALSO, *names_in("ui/page/bench/plans/comparison.py", "_measure")}
CHECKS = names_in("engine/export/checkpoint/verify.py", "note") | names_in("engine/export/checkpoint/export.py", "Check")
RECOVERY = (ROOT / "assets" / "js" / "recovery.js").read_text(encoding="utf-8")
DEEDS = {
    state: re.findall(r'"(\w+)"', deeds)
    for state, deeds in re.findall(r"(\w+): \[([^\]]+)\]", re.search(r"DEEDS = \{(.*)\};", RECOVERY)[1])
}
BOARD = (ROOT / "assets" / "js" / "board.js").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("rule_", set(RULES)),
        ("definition_", set(DEFINITIONS)),
        ("plan_", set(PLANS)),
        ("texts_", set(TEXTS)),
        ("", set(PRESETS) | {"undo", "redo"}),
        ("is_", {"kept", "home", "donor", "gone", "repaired"}),
        ("job_", {"measure-hand", "measure-file", "measure-found"}),
        ("job_", JOBS),
        ("stage_", set(get_args(Stage)) | {"greedy"}),
        ("baseline_", set(BASELINES)),
        ("score_", set(OBJECTIVES)),
        ("objective_", set(OBJECTIVES)),
        ("survivors_", set(SURVIVORS)),
        ("verdict_", set(get_args(Verdict))),
        ("decoding_", {"greedy", "sampled"}),
        ("target_", set(TARGETS)),
        ("judge_", set(TEXTS)),
        ("repair_", set(REPAIRS)),
        ("ablation_", set(ABLATIONS)),
        ("asks_", set(QUESTIONS)),
        ("models_", {"demo", "recent", "export", "hub"}),
        ("also_", set(ALSO)),
        ("row_", set(ALSO)),
        ("row_", set(re.findall(r'"(\w+)"', re.search(r"\[([^\]]+)\]\.map\(\(what\)", BOARD)[1]))),
        ("col_", set(re.findall(r'\bby\("(\w+)"', BOARD))),
        ("check_", CHECKS),
        ("score_", set(SCORES) | set(MASKS)),
        ("axis_", set(DEFAULTS)),
        ("role_", {"mixed", *(name for name, _ in ROLES)}),
        ("width_", set(AXES)),
        ("unit_", {"neurons", "channels"}),
        ("masks_group_", set(GROUPS)),
        ("width_arm_", {beside for _, beside in ARMS} - {"nothing"}),
        ("width_beside_", set(COMPENSATIONS)),
        ("making_", {"refit", "bias", "redistributed", "learned"}),  # what engine/plans/description.done_beside names
        ("train_", set(TRAINS)),
        ("state_", set(DEEDS)),
        ("run_", {deed for offered in DEEDS.values() for deed in offered}),
        ("learn_", set(MORE)),
        ("shear_", {*SHEARED_TO, *SHEARED, "loss"}),
        ("learn_update_", {"none", *UPDATES}),
        ("shear_update_", set(UPDATES)),
        ("learn_from_", set(LEARNED)),
        ("learn_by_", set(BUDGETS)),
        ("learn_language_", set(BUNDLED)),
        ("group_", {"look", "cut", "judge", "recover", "export"}),
        ("", {"explore", "importance", "fold", "widths", "masks", "search", "compare", "recover", "export"}),
    ],
)
def test_every_member_of_a_family_has_a_text(family: str, names: set[str]) -> None:
    assert len(names) > 1
    assert {f"{family}{name}" for name in names} - set(ENGLISH) == set()


@pytest.mark.parametrize("registry", [BASELINES, OBJECTIVES, REPAIRS], ids=lambda registry: registry.kind)
def test_every_setting_of_a_method_has_its_texts(registry: Registry) -> None:
    names = {name for _, name in registry.controls()}
    assert {f"set_{name}{part}" for name in names for part in ("", "_info")} - set(ENGLISH) == set()


def test_the_page_asks_what_the_engine_asks() -> None:
    assert {name: ENGLISH[f"asks_{name}"] for name in QUESTIONS} == QUESTIONS


def test_no_rule_definition_plan_job_or_check_is_described_that_does_not_exist() -> None:
    jobs = JOBS | {"measure-hand", "measure-file", "measure-found"}
    for family, names in {
        "rule_": set(RULES),
        "definition_": set(DEFINITIONS),
        "job_": jobs,
        "check_": CHECKS,
    }.items():
        assert {name for name in ENGLISH if name.startswith(family)} - {f"{family}{name}" for name in names} <= {f"{family}info"}


# --- every placeholder is filled ---


def fills(script: str) -> Iterator[tuple[str, str]]:
    """The two arguments of every call fill(template, values), as they are written."""
    for start in (match.end() for match in re.finditer(r"(?<![\w.])fill\(", script)):
        depth, end, comma = 1, start, None
        while depth:
            depth += (script[end] in "([{") - (script[end] in ")]}")
            if depth == 1 and script[end] == "," and comma is None:
                comma = end
            end += 1
        assert comma is not None
        yield script[start:comma], script[comma + 1 : end - 1].strip()


def keys_of(literal: str) -> set[str]:
    """The keys of a JavaScript object literal, short ones ({a, b}) too."""
    depth, parts = 0, [""]
    for letter in literal[1:-1]:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return {re.match(r"\s*(\w+)", part)[1] for part in parts if part.strip()}


def test_the_scripts_fill_every_placeholder() -> None:
    filled: dict[str, set[str]] = {}
    for file in SCRIPTS:
        script = file.read_text(encoding="utf-8")
        for template, values in fills(script):
            if not values.startswith("{"):  # a variable: its one definition in the same file
                values = re.search(rf"const {re.escape(values)} = (\{{.*\}});", script)[1]
            for name in re.findall(r"words\.(\w+)", template):
                filled.setdefault(name, keys_of(values))
                assert set(placeholders(ENGLISH[name])) <= keys_of(values), name
    assert len(filled) > 15
    by_python = {"export_name_info", "device_free"}
    unfilled = {name for name, text in ENGLISH.items() if placeholders(text)} - set(filled) - by_python
    assert unfilled == set()  # a person would read "{depth}"
