import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from engine.corpus.reading import Document
from engine.errors import TextError
from tests.corpus.test_reading import TALK, TEMPLATE, read, written


def test_parquet_is_read_as_lines_are(tmp_path: Path) -> None:
    records = [{"text": f"text {number}", "domain": "web" if number % 2 else None} for number in range(600)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), tmp_path / "a.parquet", row_group_size=100)
    assert read(tmp_path / "a.parquet") == read(written(tmp_path, "a.jsonl", *records))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"messages": TALK}]), tmp_path / "b.parquet")
    assert read(tmp_path / "b.parquet", TEMPLATE) == [Document("<user>Hello?</s><assistant>Hello.</s>", templated=True)]


def test_a_table_without_text_is_refused(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"body": "one"}]), tmp_path / "a.parquet")
    with pytest.raises(TextError, match="row 0 has neither the field text nor the field messages"):
        read(tmp_path / "a.parquet")


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"no parquet")
    with pytest.raises(TextError, match=r"a\.parquet cannot be read: Parquet"):
        read(tmp_path / "a.parquet")


def test_without_pyarrow_one_line_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"never looked at")
    program = "import sys; sys.modules['pyarrow'] = None; from engine.corpus.reading import documents; next(documents(sys.argv[1], None))"
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "a.parquet"], capture_output=True, text=True)
    assert done.stderr.strip().endswith("a.parquet cannot be read without pyarrow; run: pip install 'layerscope[train]'")
