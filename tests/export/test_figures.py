"""Every expectation is worked out by hand from the rule in `number`'s docstring."""

import math

import pytest

from engine.export.report.figures import bytes_of, change, many, number, percent, spread


@pytest.mark.parametrize(
    ("value", "low", "high", "told"),
    [
        (1.9832, 1.90, 2.07, ("1.98", "1.90", "2.07")),  # .083: one digit, hundredths
        (2.0, 1.6, 2.4, ("2.0", "1.6", "2.4")),  # .4: one digit, tenths
        (1.98, 1.2, 3.9, ("2.0", "1.2", "3.9")),  # .78: tenths; the far end does not count
        (1.0042, 0.9861, 1.031, ("1.004", "0.986", "1.031")),  # .018 begins with less than 3.55: two digits, thousandths
        (45.3, 12.0, 130.0, ("45", "12", "130")),  # 33: two digits, ones
        (153.0, 90.0, 250.0, ("150", "90", "250")),  # 63: one digit, tens
        (31234.0, 24000.0, 41000.0, ("31,000", "24,000", "41,000")),  # 7234: thousands
    ],
)
def test_an_interval_decides_the_digits(value: float, low: float, high: float, told: tuple[str, ...]) -> None:
    assert tuple(number(figure, spread(value, low, high)) for figure in (value, low, high)) == told


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (512.25, "512"),
        (601.5, "602"),
        (18.234, "18.2"),
        (1.9832, "1.98"),
        (0.70143, "0.701"),
        (0.0123456, "0.0123"),
        (9.996, "10.0"),
        (999.6, "1,000"),
        (1234.5, "1,230"),
        (-3.14159, "-3.14"),
        (0.0, "0"),
        (0.00041234, "0.000412"),
        (123456789.0, "1.23e+08"),
        (math.nan, "not a number"),
        (None, "not a number"),
        (math.inf, "too large for a number"),
    ],
)
def test_three_significant_digits_where_no_interval_is_known(value: float | None, told: str) -> None:
    assert number(value) == told
    assert number(value, math.nan) == number(value, 0.0) == told


def test_units() -> None:
    assert (many(134_515_008), many(1_230_000_000), many(999)) == ("134.5 M", "1.2 B", "999")
    assert (bytes_of(1_234_000_000), bytes_of(45_600_000), bytes_of(1_500), bytes_of(12)) == ("1.23 GB", "45.6 MB", "1.5 kB", "12 B")
    assert (percent(0.6234), percent(math.nan), percent(None)) == ("62.3 %", "not a number", "not a number")
    assert (change(30, 24), change(2, 3), change(0, 1)) == ("−20.0 %", "+50.0 %", "–")
