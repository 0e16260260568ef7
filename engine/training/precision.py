"""Choose the fastest number format of a pass by measurement: bfloat16 helps only if the processor or the GPU computes in it."""

import time
from collections.abc import Callable

import torch

GAIN = 0.9  # a format must save a tenth of the time to justify its rounding


def quickest(run: Callable[[str], object], device: str) -> tuple[str, float]:
    """Return the fastest autocast format of a pass ("" for the weights' own dtype) and its seconds; of two passes in each, the second
    counts."""
    took = {}
    for name in ("", "bfloat16") if offers_bfloat16(device) else ("",):
        for _ in range(2):
            began = time.perf_counter()
            run(name)
            took[name] = time.perf_counter() - began
    best = "bfloat16" if took.get("bfloat16", took[""]) < GAIN * took[""] else ""
    return best, took[best]


def offers_bfloat16(device: str) -> bool:
    """Return whether a device supports bfloat16."""
    return torch.cuda.is_bf16_supported() if device.startswith("cuda") else device == "cpu"


def casting(device: str, autocast: str) -> torch.autocast:
    """Return the context in which passes run in a format, or in the weights' own dtype if it is empty."""
    return torch.autocast(device.partition(":")[0], getattr(torch, autocast) if autocast else None, enabled=bool(autocast))
