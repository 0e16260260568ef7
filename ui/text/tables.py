"""Records to tables: `table` builds every table of the page, the terminal and the report, as a pandas DataFrame.

pandas is imported with the first table, so that `layerscope --help` stays quick.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any

from engine.cache import plain

if TYPE_CHECKING:
    import pandas

_SETTINGS = {name: f"settings.{name}" for name in ("rule", "C", "I", "T")}
_COST = {"ratio": "cost.ratio", "ratio_low": "cost.low", "ratio_high": "cost.high", "kl": "cost.kl"}
_PROTOCOL = {f"judged_{name}": f"evaluation.protocol.{name}" for name in ("texts", "tokens", "context", "stride", "bos")}

# A kind of table is its columns, each with the path of its value in a record as the engine writes it. A path that ends
# in * gives one column per entry of a mapping, under the entry's name.
COLUMNS: dict[str, dict[str, str]] = {
    "board": {
        "plan": "label",
        "method": "plan.method",
        **{name: f"plan.{path}" for name, path in _SETTINGS.items()},
        "layers": "depth",
        "parameters": "parameters",
        "bytes": "bytes",
        "ratio": "evaluation.perplexity.ratio",
        "ratio_low": "evaluation.perplexity.interval.0",
        "ratio_high": "evaluation.perplexity.interval.1",
        "perplexity": "evaluation.perplexity.plan",
        "source_perplexity": "evaluation.perplexity.source",
        "kl": "evaluation.kl",
        "top1_agreement": "evaluation.top1_agreement",
        "decode_ratio": "speed.decode_ratio",
        "prefill_ratio": "speed.prefill_ratio",
        "cache_bytes": "memory.plan_cache",
        "disk_bytes": "memory.plan_disk",
        "writes": "verdict",
        **_PROTOCOL,
    },
    "sweep": {"layers": "depth", "rule": "rule", "C": "C", "I": "I", "T": "T", **_COST},
    "shapes": {
        "layers": "shape.depth",
        **{axis: f"shape.{axis}" for axis in ("heads", "neurons", "channels")},
        **{name: name for name in ("parameters", "by_estimate", "by_size")},
        **_COST,
        "decode_ratio": "speed.decode_ratio",
        "decode_low": "speed.decode_range.0",
        "decode_high": "speed.decode_range.1",
        "prefill_ratio": "speed.prefill_ratio",
    },
    "map": {"t_from": "t_from", "t_to": "t_to", "layers": "depth", **_COST},
    "layers": {
        "layer": "index",
        "block_influence": "block_influence",
        "block_influence_rest": "block_influence_rest",
        "cosine_to_next": "cosine_to_next",
        "cosine_to_next_rest": "cosine_to_next_rest",
        "angular_distance": "angular_distance.1",
        "perplexity_without": "perplexity_without",
    },
    "ablation": {
        "plan": "label",
        **_SETTINGS,
        "layers": "depth",
        "similarity": "similarity",
        "ratio": "ratio",
        "ratio_low": "interval.0",
        "ratio_high": "interval.1",
        "kl": "kl",
        "*": "measures",
    },
    "tasks": {name: name for name in ("task", "metric", "source", "source_stderr", "plan", "plan_stderr")},
    "texts": {name: name for name in ("tokens", "source_nll", "plan_nll", "kl", "agreement", "cosine")},
}
# The columns of a board that the page shows, and copies as Markdown.
ON_BOARD = (
    *("plan", "layers", "ratio", "ratio_low", "ratio_high", "kl", "top1_agreement", "decode_ratio", "parameters", "bytes", "writes"),
    *_PROTOCOL,
)
_ABSENT = object()


def table(kind: str, records: Sequence[Any]) -> "pandas.DataFrame":
    """Return the table of a kind of COLUMNS with one row per record (a dataclass, or a mapping of JSON), in their order.

    A column that no record has is omitted. Integers stay integers if some are missing; NaN and infinity count as missing.
    """
    import pandas

    rows = [_row(kind, plain(asdict(record) if is_dataclass(record) and not isinstance(record, type) else record)) for record in records]
    columns = [name for name in COLUMNS[kind] if name != "*" and any(row[name] is not _ABSENT for row in rows)]
    columns += [name for name in dict.fromkeys(name for row in rows for name in row) if name not in COLUMNS[kind]]
    cells = {name: [None if (value := row.get(name)) is _ABSENT else value for row in rows] for name in columns}
    return pandas.DataFrame({name: pandas.Series(values, dtype=_dtype(values)) for name, values in cells.items()}, columns=columns)


def _row(kind: str, record: Any) -> dict[str, Any]:
    found = {name: _at(record, path) for name, path in COLUMNS[kind].items()}
    more = found.pop("*", {})
    return {**found, **(more if isinstance(more, Mapping) else {})}


def _at(record: Any, path: str) -> Any:
    for key in path.split("."):
        if isinstance(record, Mapping) and key in record:
            record = record[key]
        elif isinstance(record, list) and key.isdigit() and int(key) < len(record):
            record = record[int(key)]
        else:
            return _ABSENT
    return record


def _dtype(values: Sequence[Any]) -> str:
    """Return pandas' dtype that represents integers, booleans and missing values exactly."""
    known = {type(value) for value in values if value is not None}
    return {frozenset({bool}): "boolean", frozenset({int}): "Int64", frozenset({float}): "Float64", frozenset({int, float}): "Float64"}.get(
        frozenset(known), "object"
    )


def same(frame: "pandas.DataFrame") -> list[str]:
    """Return the columns that are equal in all of two or more rows, or empty in all rows.

    Columns of the protocol are compared only among evaluated plans.
    """
    judged = {name for name in frame if name.startswith("judged_")}
    return [name for name in frame if frame[name].isna().all() or (len(frame) > 1 and frame[name].nunique(dropna=name in judged) == 1)]


def to_csv(frame: "pandas.DataFrame") -> str:
    """Return a table as CSV with a header and all digits; missing values are empty."""
    return str(frame.to_csv(index=False, lineterminator="\n"))


def to_markdown(frame: "pandas.DataFrame") -> str:
    """Return a table as Markdown, numbers to four digits.

    pandas' own Markdown needs another package and does not escape a | in a label.
    """
    if frame.columns.empty:
        return ""
    rules = ["---" if frame[name].dtype == object else "---:" for name in frame]
    rows = [[_cell(value) for value in row] for row in ([*frame.columns], *frame.itertuples(index=False))]
    return "".join(f"| {' | '.join(row)} |\n" for row in (rows[0], rules, *rows[1:]))


def _cell(value: Any) -> str:
    import pandas

    if value is None or value is pandas.NA:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else " ".join(str(value).split()).replace("\\", "\\\\").replace("|", "\\|")


def to_text(frame: "pandas.DataFrame", form: str) -> str:
    """Return a table in "csv" or "md"."""
    return to_csv(frame) if form == "csv" else to_markdown(frame)


def sheet(frame: "pandas.DataFrame", shown: Sequence[str]) -> dict[str, Any]:
    """Return the JSON from which a script of the page sorts a table, hides columns and copies it.

    `csv` and `markdown` are lists of one text per row, the header first, so that any order of rows can be copied. The CSV has all
    columns; the Markdown has those of `shown`, in "varying" without the columns that are the `same`.
    """
    alike = same(frame)
    wide = frame[[name for name in shown if name in frame]]
    return {
        "columns": list(frame.columns),
        "rows": plain(frame.astype(object).where(frame.notna(), None).values.tolist()),
        "same": alike,
        "csv": [
            to_csv(frame.head(0)),
            *(str(frame.iloc[[row]].to_csv(index=False, header=False, lineterminator="\n")) for row in range(len(frame))),
        ],
        "markdown": {"all": _lines(wide), "varying": _lines(wide[[name for name in wide if name not in alike]])},
    }


def _lines(frame: "pandas.DataFrame") -> list[str]:
    lines = to_markdown(frame).splitlines(keepends=True)
    return ["".join(lines[:2]), *lines[2:]]
