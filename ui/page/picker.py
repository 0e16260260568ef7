"""The models and devices that the side bar offers."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict

from engine.models.devices import Device, device_names, devices
from engine.models.library import Listed


def models_data(listed: Sequence[Listed], in_words: Callable[[str], str]) -> str:
    """Return the list below the Model box. Models that were opened before are in the group "recent", from any source."""
    rows = [
        {**asdict(entry), "group": "recent" if entry.opened and entry.kind != "demo" else entry.kind, "reason": in_words(entry.reason)}
        for entry in listed
    ]
    return json.dumps({"models": rows}, ensure_ascii=False)


def device_choices(say: Callable[[str], str]) -> list[tuple[str, str]]:
    """Return every device with its free memory, as a dropdown's labels and values."""

    def label(at: Device) -> str:
        name = f"{at.name} ({at.title})" if at.title else at.name
        free, total = (f"{size / 1e9:.{int(size < 1e10)}f}" for size in (at.free, at.total))  # short enough for the side bar
        return say("device_free").format(name=name, free=free, total=total)

    return [(label(at), at.name) for at in devices()]


def device_at_hand(name: str) -> str:
    """Return the device for the control: the link's, or "cpu" where this machine lacks it."""
    return name if name in device_names() else "cpu"
