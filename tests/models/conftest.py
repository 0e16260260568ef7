from pathlib import Path

import pytest

from tests.families import save_tiny


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound tiny model in one file, for a test to break."""
    return save_tiny(tmp_path / "model", "llama")
