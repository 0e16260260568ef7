"""Figures as people read them: as many digits as their uncertainty supports, units, and words for what is no number."""

import math

NOT_A_NUMBER, BEYOND = "not a number", "beyond any number"


def number(value: float | None, unsure: float = math.nan) -> str:
    """Return a figure with the digits that an uncertainty of it supports, or three significant ones where none is known.

    Of the uncertainty one digit counts, two where it begins with less than 3.55: the rounding rule of the Particle Data
    Group (Review of Particle Physics, 5.3). NaN and infinity come in words.
    """
    if value is None or math.isnan(value):
        return NOT_A_NUMBER
    if math.isinf(value):
        return BEYOND
    if value == 0:
        return "0"
    if abs(value) >= 1e7 or abs(value) < 1e-3:
        return f"{value:.3g}"
    decimals = _place(unsure / 3.55) if math.isfinite(unsure) and unsure > 0 else 2 + _place(float(f"{value:.3g}"))
    return f"{round(value, decimals):,.{max(decimals, 0)}f}"


def _place(size: float) -> int:
    """Return the decimal place of a figure's first digit: 1 for 0.2, 0 for 2, -1 for 20."""
    return -math.floor(math.log10(abs(size)))


def spread(value: float, low: float, high: float) -> float:
    """Return the uncertainty that an interval leaves: the distance to its nearer end, since ratios' upper ends run far."""
    return min(value - low, high - value)


def many(value: float) -> str:
    """Return a count as people say it: 134.5 M."""
    for unit, name in ((1e9, " B"), (1e6, " M")):
        if value >= unit:
            return f"{value / unit:,.1f}{name}"
    return f"{value:,.0f}"


def bytes_of(value: float) -> str:
    """Return bytes in decimal units."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= unit:
            return f"{value / unit:,.{2 if unit == 1e9 else 1}f} {name}"
    return f"{value:,.0f} B"


def percent(share: float | None) -> str:
    """Return a share in [0, 1] as percent."""
    return NOT_A_NUMBER if share is None or not math.isfinite(share) else f"{100 * share:.1f} %"


def change(before: float, after: float) -> str:
    """Return by how much a figure changed, in percent."""
    return f"{100 * (after / before - 1):+.1f} %".replace("-", "−") if before else "–"
