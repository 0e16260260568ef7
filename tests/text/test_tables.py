"""Tables: another CSV reader reads what was written, and rows follow Markdown's own rules."""

import csv
import io
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.answers import Answer, assert_refused
from tests.families import TEXTS, save_tiny
from ui.text.tables import COLUMNS, same, sheet, table, to_csv, to_markdown

JUDGED = {
    "perplexity": {"source": 20.0, "plan": 39.6, "ratio": 1.98, "interval": [1.9, 2.1]},
    "kl": 0.123456789,
    "protocol": {"texts": "evaluation-english", "tokens": 500, "context": 512, "stride": 512, "bos": False},
}
BOARD = [
    {"label": "LaCo | T 0.65", "plan": {"method": "laco", "settings": {"C": 4, "T": 0.65}}, "depth": 24, "bytes": 10, "evaluation": JUDGED},
    {"label": "by\nhand", "plan": {"method": "hand-made", "settings": {}}, "depth": 25, "bytes": 10, "verdict": "stable"},
]


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_a_board_is_read_back_from_csv_with_every_digit() -> None:
    first, second = read(to_csv(table("board", BOARD)))
    assert (first["plan"], first["layers"], first["C"], first["T"], first["kl"]) == ("LaCo | T 0.65", "24", "4", "0.65", "0.123456789")
    assert (first["ratio"], first["ratio_low"], first["ratio_high"], first["judged_tokens"]) == ("1.98", "1.9", "2.1", "500")
    assert (second["plan"], second["C"], second["ratio"], second["judged_bos"]) == ("by\nhand", "", "", "")  # a 4 stays a 4 beside it
    assert "decode_ratio" not in first  # nobody has measured it


def test_markdown_stays_a_table_whatever_a_label_holds() -> None:
    head, rule, *rows = to_markdown(table("board", BOARD)).splitlines()
    cells = [len(re.split(r"(?<!\\)\|", line)) for line in (head, rule, *rows)]
    assert len(set(cells)) == 1
    assert len(rows) == 2
    assert rows[0].startswith(r"| LaCo \| T 0.65 | laco |")
    assert "| 0.1235 |" in rows[0]
    assert rows[1].startswith("| by hand | hand-made | – |")
    assert to_markdown(table("sweep", [])) == ""


def test_records_may_be_dataclasses_and_what_is_no_number_is_missing() -> None:
    @dataclass(frozen=True)
    class Score:
        task: str
        metric: str
        source: float
        source_stderr: float
        plan: float
        plan_stderr: float

    (row,) = read(to_csv(table("tasks", [Score("cloze", "acc", 0.5, math.nan, math.inf, 0.125)])))
    assert row == {"task": "cloze", "metric": "acc", "source": "0.5", "source_stderr": "", "plan": "", "plan_stderr": "0.125"}


def test_a_sweep_has_its_settings_and_costs_and_a_cost_that_is_none_leaves_gaps() -> None:
    entry = {"rule": "mean", "C": 4, "I": 2, "T": 1.0, "depth": 24, "plan": {"blocks": []}}
    frame = table("sweep", [{**entry, "cost": {"ratio": 2.5, "low": 2.0, "high": 3.0, "kl": 0.7}}, {**entry, "cost": None}])
    assert list(frame) == ["layers", "rule", "C", "I", "T", "ratio", "ratio_low", "ratio_high", "kl"]
    assert [row["ratio"] for row in read(to_csv(frame))] == ["2.5", ""]
    assert [row["T"] for row in read(to_csv(frame))] == ["1.0", "1.0"]  # a figure, not a count


def test_an_ablation_spreads_its_measures_into_columns() -> None:
    rows = [{"label": "cosine", "settings": {"C": 2}, "measures": {"KL": 0.5}}, {"label": "cka", "settings": {"C": 3}, "measures": {}}]
    assert read(to_csv(table("ablation", rows))) == [{"plan": "cosine", "C": "2", "KL": "0.5"}, {"plan": "cka", "C": "3", "KL": ""}]


def test_columns_that_say_the_same_are_named_and_how_a_plan_was_judged_is_compared_among_the_judged() -> None:
    frame = table("board", [*BOARD, {**BOARD[0], "label": "c", "depth": 26}])
    assert set(same(frame)) >= {"bytes", "judged_texts", "judged_tokens"}
    assert not set(same(frame)) & {"plan", "layers", "ratio", "writes", "C"}
    other = {**BOARD[0], "evaluation": {**JUDGED, "protocol": {**JUDGED["protocol"], "tokens": 4000}}}
    assert "judged_tokens" not in same(table("board", [*BOARD, other]))
    assert same(table("board", BOARD[:1])) == []  # one row is no comparison
    assert same(table("board", [{"label": "a", "verdict": None}])) == ["writes"]  # but a column that says nothing goes


def test_a_sheets_lines_are_the_tables_own_in_any_order() -> None:
    frame = table("board", BOARD)
    made = json.loads(json.dumps(sheet(frame, ("plan", "layers", "bytes", "decode_ratio")), allow_nan=False))
    assert "".join(made["csv"]) == to_csv(frame)
    assert "".join(made["markdown"]["all"]) == to_markdown(frame[["plan", "layers", "bytes"]])
    assert "".join(made["markdown"]["varying"]) == to_markdown(frame[["plan", "layers"]])
    assert [row[0] for row in read(made["csv"][0] + made["csv"][2])[0].items()] == made["columns"]
    assert made["rows"][1][made["columns"].index("C")] is None


def test_every_kind_makes_a_table_of_nothing() -> None:
    assert all(table(kind, []).empty for kind in COLUMNS)


# --- the terminal ---


@pytest.fixture(scope="module")
def on_tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, ...]:
    folder = save_tiny(tmp_path_factory.mktemp("models") / "tiny", "llama")
    file = tmp_path_factory.mktemp("texts") / "texts.txt"
    file.write_text("\n".join(TEXTS), encoding="utf-8")
    return "--model", folder, "--calibration", file


def test_a_profile_and_a_map_are_tables_of_their_json(on_tiny: tuple[object, ...], inside: Callable[..., Answer], tmp_path: Path) -> None:
    layers = inside("profile", *on_tiny).json["layers"]
    rows = read(inside("profile", *on_tiny, "--format", "csv").out)
    assert [int(row["layer"]) for row in rows] == list(range(6))
    assert [float(row["block_influence"]) for row in rows] == [layer["block_influence"] for layer in layers]
    assert [float(row["angular_distance"]) for row in rows] == [layer["angular_distance"]["1"] for layer in layers]
    asked = ("map", *on_tiny, "-C", 2, "-I", 1, "--lowest", 0, "--t-min", -0.25)
    steps, written = inside(*asked).json["steps"], tmp_path / "map.csv"
    assert inside(*asked, "--format", "csv", "--out", written).out == ""
    assert [(float(row["t_from"]), int(row["layers"])) for row in read(written.read_text("utf-8"))] == [
        (step["t_from"], step["depth"]) for step in steps
    ]
    assert len(inside(*asked, "--format", "md").out.splitlines()) == len(steps) + 2


def test_another_format_is_refused_before_a_model_is_opened(on_tiny: tuple[object, ...], inside: Callable[..., Answer]) -> None:
    for verb in (("profile",), ("map",), ("ablate", "C"), ("tasks", "--plan", "x.json"), ("evaluate", "--plan", "x.json")):
        assert_refused(inside(*verb, "--format", "xlsx"), "json")


def test_help_does_without_pandas() -> None:
    seen = "import sys, ui.terminal.cli, ui.text.tables; print(sorted({'pandas', 'torch', 'gradio'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", seen], capture_output=True, text=True, check=True).stdout.strip() == "[]"
