"""A plan with seams, texts to repair it with, and its repair."""

from engine.jobs import drain
from engine.judge.objectives import Objective
from engine.methods.depth.baselines import plan_of_kept
from engine.models.texts import calibration_of
from engine.recover.repair.seam_maps import repair
from engine.types import Model, Plan

SENTENCE = "the cat sat on a mat while rivers ran to seas and rain fell over hills that nobody had seen before"
WORDS = SENTENCE.split()
TEXTS = tuple(" ".join(WORDS[(7 * text + 3 * place * (text + 1)) % len(WORDS)] for place in range(20)) for text in range(20))
TOKENS = 1700
FOLDABLE = ("llama", "qwen2", "gpt2", "phi3")
DROPPED = plan_of_kept(6, (0, 1, 4), "hand-made")  # seams after blocks 1 and 2

_mended: dict[tuple[str, str], Plan] = {}


def objective_of(model: Model, name: str = "kl", tokens: int = TOKENS, texts: tuple[str, ...] = TEXTS) -> Objective:
    return Objective(model, calibration_of(texts), name, tokens)


def mended(model: Model, kind: str = "ridge") -> Plan:
    """DROPPED, repaired on a model; once a process."""
    key = (model.fingerprint, kind)
    if key not in _mended:
        _mended[key] = drain(repair(objective_of(model), DROPPED, kind))
    return _mended[key]
