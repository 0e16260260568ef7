"""What a cache holds, read as any other program would."""

import sqlite3
from contextlib import closing
from pathlib import Path

from engine.measurements import FILE


def counts(cache: Path) -> dict[str, int]:
    """Return how many measurements there are of each definition; none while there is no database."""
    try:
        with closing(sqlite3.connect(f"file:{cache / FILE}?mode=ro", uri=True)) as found:
            return dict(found.execute("SELECT definition, count(*) FROM measurement GROUP BY definition").fetchall())
    except sqlite3.OperationalError:
        return {}
