"""Format numbers for readers: as many digits as their uncertainty supports, units, and words for NaN and infinity."""

import math

NOT_A_NUMBER, BEYOND = "not a number", "too large for a number"


def number(value: float | None, unsure: float = math.nan) -> str:
    """Return a number with the digits that its uncertainty supports, or three significant digits if that is unknown.

    The uncertainty counts with one digit, or two if it begins with less than 3.55: the rounding rule of the Particle Data Group (Review of
    Particle Physics, 5.3). NaN and infinity are written as words.
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
    """Return the decimal place of a number's first digit: 1 for 0.2, 0 for 2, -1 for 20."""
    return -math.floor(math.log10(abs(size)))


def spread(value: float, low: float, high: float) -> float:
    """Return an interval's uncertainty: the distance to its nearer end, because the upper end of a ratio may be far away."""
    return min(value - low, high - value)


def many(value: float) -> str:
    """Return a count in millions or billions: 134.5 M."""
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
    """Return the change of a number in percent."""
    return f"{100 * (after / before - 1):+.1f} %".replace("-", "−") if before else "–"
