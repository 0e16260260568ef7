"""Run the command line in tests, and check its answers and refusals."""

import json
from typing import Any, NamedTuple

import pytest


def read_json(text: str) -> Any:
    """Read JSON as others do: it knows no NaN and no Infinity."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


class Answer(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        return read_json(self.out)


def assert_refused(answer: Answer, *expected: str) -> None:
    """A person's mistake: exit code 2, one line on standard error that names what is wrong, and nothing else."""
    assert "Traceback" not in answer.err
    lines = [line for line in answer.err.splitlines() if line.strip()]
    assert (answer.code, answer.out, len(lines)) == (2, "", 1), answer
    for words in expected:
        assert words in lines[0]
