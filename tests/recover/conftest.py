"""Tiny models that are trained enough to lose something by pruning."""

from collections.abc import Callable

import pytest

from engine.types import Model
from tests.recovering import literate


@pytest.fixture(scope="session")
def able(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Model]:
    """A function that opens a tiny model of a family that has learned to write some sentences; the same one for the same family."""
    opened: dict[str, Model] = {}

    def open_able(family: str) -> Model:
        if family not in opened:
            opened[family] = literate(tmp_path_factory.mktemp(f"able-{family}"), family)
        return opened[family]

    return open_able
