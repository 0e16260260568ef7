"""One shape made in three ways from equally many tokens: by learned masks (Sheared LLaMA), by Minitron's scores, and by our scores with
a refit of the layers that read the cut parts. Perplexity on the evaluation texts as a multiple of the source's. The first trains on its
tokens once, forward and backward."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from engine.jobs import drain
from engine.judge.cost import practice_texts
from engine.judge.evaluation import Judge
from engine.judge.practice import practice_packs
from engine.methods.width.settings import TrimSettings
from engine.methods.width.widths import trim
from engine.models.texts import bundled
from engine.plans.rules import untouched
from engine.plans.tensor_store import for_now
from engine.recover.run.settings import ShearSettings
from engine.recover.shear.shearing import begin_shearing, shear
from engine.types import Model, Plan

Row = Callable[[str, str, str, bool], None]
TOKENS = 12_000
KEPT = TrimSettings(heads=6, neurons=1152)
TARGET = {"heads": 6, "neurons": 1152}
SHEARING = ShearSettings(tokens=TOKENS, rows=1, length=256, loss="kl", rate=3e-4)


def sheared(model: Model, row: Row, tokens: int = TOKENS) -> None:
    """Measure all three."""
    packs, judge = practice_packs(model, practice_texts("english"), tokens), Judge(model, bundled("english", "evaluation"), limit=6000)
    start = untouched(model.spec.depth)

    def by_masks() -> Plan | None:
        with tempfile.TemporaryDirectory() as folder:
            settings = replace(SHEARING, tokens=tokens)
            return drain(shear(model, begin_shearing(model, TARGET, ["practice"], settings, Path(folder, "run"))))

    ways: dict[str, Callable[[], Plan | None]] = {
        "Minitron's scores": lambda: drain(trim(model, start, packs, replace(KEPT, score="minitron", compensation="nothing"))),
        "our scores, solved again": lambda: drain(trim(model, start, packs, KEPT)),
        "sheared": by_masks,
    }
    found = {}
    for name, way in ways.items():
        with for_now():
            began = time.perf_counter()
            plan = way()
            took = time.perf_counter() - began
            assert plan is not None
            found[name] = drain(judge.judge(plan)).perplexity.ratio
        print(f"     6 of 9 heads, 1152 of 1536 neurons, {tokens} tokens, {name}: x{found[name]:.2f}, {took:.0f} s")
    for name in ("Minitron's scores", "our scores, solved again"):
        share = found["sheared"] / found[name]
        row(f"perplexity, sheared / {name}, the same shape and tokens", f"{share:.2f}", "report", share < 1)
