"""Foreign files, corrupted by hypothesis: each is opened, or refused in one line, in bounded time and memory.

`make soak` tries ten thousand, and each file and value replaced by each other kind. Here it is a fixed sample, and the cases that once
failed.
"""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from tests.foreign.given import Case, cases, every, place, stocked
from tests.foreign.surfaces import VERBS
from tests.foreign.trying import outcome, tried

MANY = int(os.environ.get("LAYERSCOPE_FOREIGN", "12"))
ALL = MANY > 1000  # or the first verb of each surface


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stocked(tmp_path_factory.mktemp("stock"))


@pytest.mark.parametrize("surface", VERBS)
def test_what_is_sound_is_opened(surface: str, stock: Path, tmp_path: Path) -> None:
    shutil.copytree(stock, tmp_path, dirs_exist_ok=True)
    for verb in VERBS[surface][: None if ALL else 1]:
        code, err = tried(verb, tmp_path)
        assert code == 0, (verb, err)
        shutil.rmtree(tmp_path / "out", ignore_errors=True)


def holds(case: Case, stock: Path) -> None:
    folder = stock.parent / "case"
    try:
        assert not (found := outcome(place(case, stock, folder), folder)), (case, found)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_each_file_may_be_of_another_kind_and_each_value_another(stock: Path) -> None:
    some = list(every(stock))
    for case in some if ALL else some[::1200]:
        holds(case, stock)


@given(case=cases())
@settings(max_examples=MANY, suppress_health_check=[*HealthCheck], print_blob=True)
def test_whatever_a_file_holds_it_is_opened_or_refused_in_one_line(stock: Path, case: Case) -> None:
    holds(case, stock)
