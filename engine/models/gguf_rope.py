"""The rotary positions that a GGUF file asks for, as transformers' rope_parameters.

llama.cpp turns pair i of a head by position * base ** (-2i / d) / divisor[i], and multiplies the result by one factor. The divisors
come of a scaling (linear, yarn), of the tensor rope_freqs (Llama 3.x), or of the tensors rope_factors_short and rope_factors_long
(longrope). Where transformers has a name for that, it is used; what it has none for is written as longrope, whose lists are divisors
of any kind.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from gguf import dequantize

from engine.errors import SourceError
from engine.models.gguf_file import GgufFile

_FREQS, _SHORT, _LONG = "rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight"
_TYPE = "{arch}.rope.scaling.type"
_FACTORED = ("llama", "phi3")  # where llama.cpp reads factors from tensors at all
_LLAMA3 = [2**power for power in range(5, 21)]  # contexts that a model may have been trained on before its scaling


@dataclass(frozen=True)
class Scaling:
    """What a file's rope.scaling keys come to. `trained` is the context before the scaling, `attention` the factor of the result, `own`
    that part of it which is no work of yarn's; `fast` and `slow` are yarn's bounds, in turns over that context."""

    kind: str
    factor: float
    trained: int
    attention: float
    own: float
    fast: float
    slow: float


def rotary_tensors(gguf: GgufFile) -> set[str]:
    """Return the names of the tensors of factors that a file has and that are read."""
    if gguf.architecture not in _FACTORED:
        return set()
    longrope = gguf.architecture == "phi3" or gguf.value(_TYPE) == "longrope"
    return {name for name in ((_SHORT, _LONG) if longrope else (_FREQS,)) if name in gguf.tensors}


def rope_parameters(gguf: GgufFile, size: int) -> dict[str, Any]:
    """Return the rope_parameters of a file's model, of which `size` channels of a head turn.

    Raises:
        UnsupportedModelError: a scaling that is not known, or that is read in different ways. SourceError: a tensor of the wrong length.
    """
    scaling, base = scaling_of(gguf), _base(gguf, "{arch}.rope.freq_base")
    tensors = rotary_tensors(gguf)
    if tensors >= {_SHORT, _LONG}:
        return _longrope(gguf, scaling, base, size)
    if scaling.kind == "longrope" or tensors & {_SHORT, _LONG}:
        raise gguf.unread(_TYPE, scaling.kind, f"longrope needs the tensors {_SHORT} and {_LONG}, and they are not both there")
    factors = _factors(gguf, _FREQS, size) if _FREQS in tensors else None
    return _named(gguf, scaling, base, size, factors) or _listed(gguf, scaling, base, _divisors(scaling, base, size, factors))


def sliding_parameters(gguf: GgufFile, size: int) -> dict[str, Any]:
    """Return the same for Gemma 3's layers of sliding attention: they have a base of their own and no scaling but the file's own factor."""
    scaling, base = scaling_of(gguf), _base(gguf, "{arch}.rope.freq_base_swa")
    plain = replace(scaling, kind="none", factor=1.0, attention=scaling.own)
    return _named(gguf, plain, base, size, None) or _listed(gguf, plain, base, np.ones(size // 2))


def _base(gguf: GgufFile, name: str) -> float:
    base = _or(gguf.real(name), 10000.0)
    if not 1 < base < math.inf:
        raise gguf.unread(name, base, "no positions turn by it")
    return base


def scaling_of(gguf: GgufFile) -> Scaling:
    """Return what the rope.scaling keys come to.

    llama.cpp (llama_context) reads them so, but for yarn's own factor and bounds, which it passes over in the families here; the
    converter writes them for the model's own code, which goes by them.

    Raises:
        UnsupportedModelError: it names the key, its value, and why.
    """
    name = "{arch}.rope.scaling."
    kind = gguf.value(_TYPE) or "linear"  # llama.cpp's default, at a factor of one
    if kind not in ("none", "linear", "yarn", "longrope"):
        raise gguf.unread(_TYPE, kind, "none, linear, yarn and longrope are known")
    factor = gguf.real(name + "factor") or gguf.real("{arch}.rope.scale_linear") or 1.0
    if not 0 < factor < math.inf:
        raise gguf.unread(name + "factor", factor, "no positions can be scaled by it")
    factor = 1.0 if kind == "none" else factor
    own, yarn = _or(gguf.real(name + "attn_factor"), 1.0), gguf.real(name + "yarn_attn_factor")
    fast, slow = _or(gguf.real(name + "yarn_beta_fast"), 32.0), _or(gguf.real(name + "yarn_beta_slow"), 1.0)
    if kind != "yarn" and yarn not in (None, 1):
        raise gguf.unread(name + "yarn_attn_factor", yarn, "it belongs to yarn, and the scaling is another")
    if not fast >= slow > 0:
        raise gguf.unread(name + "yarn_beta_fast", fast, f"it must not lie below yarn_beta_slow, which is {slow}")
    return Scaling(
        kind=kind,
        factor=factor,
        trained=gguf.whole(name + "original_context_length") or gguf.whole("{arch}.context_length") or 2048,
        attention=own * (_or(yarn, _mscale(factor)) if kind == "yarn" else 1.0),
        own=own,
        fast=fast,
        slow=slow,
    )


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _mscale(factor: float) -> float:
    """Return by what yarn multiplies the result where nothing else is said (arXiv 2309.00071, section 3.4)."""
    return 1.0 if factor <= 1 else 0.1 * math.log(factor) + 1.0


def _divisors(scaling: Scaling, base: float, size: int, factors: np.ndarray | None) -> np.ndarray:
    """Return by what each pair's plain angle is divided."""
    plain = _ramp(scaling, base, size) if scaling.kind == "yarn" else 0.0
    share = (1 - plain) / scaling.factor + plain
    return (np.ones(size // 2) if factors is None else factors) / share


def _ramp(scaling: Scaling, base: float, size: int) -> np.ndarray:
    """Return 1 where yarn leaves a pair as it is, 0 where it interpolates it, and the way between (arXiv 2309.00071, eq. 18)."""
    low, high = (size * math.log(scaling.trained / (turns * 2 * math.pi)) / (2 * math.log(base)) for turns in (scaling.fast, scaling.slow))
    first, last = max(0, math.floor(low)), min(size - 1, math.ceil(high))
    return 1 - np.clip((np.arange(size // 2) - first) / max(0.001, last - first), 0, 1)


def _named(gguf: GgufFile, scaling: Scaling, base: float, size: int, factors: np.ndarray | None) -> dict[str, Any] | None:
    """Return the rope_parameters by transformers' own name for them, None where it has none."""
    parameters: dict[str, Any] = {"rope_theta": base}
    plain = scaling.attention == 1 and scaling.kind != "yarn"
    if factors is not None:
        return _llama3(factors, base, size) if plain and scaling.factor == 1 else None
    if plain and scaling.factor == 1:
        return parameters | {"rope_type": "default"}
    if gguf.architecture == "phi3":  # whose class knows longrope alone
        return None
    if plain:
        return parameters | {"rope_type": "linear", "factor": scaling.factor}
    if scaling.kind == "yarn":
        parameters |= {"rope_type": "yarn", "factor": scaling.factor, "original_max_position_embeddings": scaling.trained}
        return parameters | {"attention_factor": scaling.attention, "beta_fast": scaling.fast, "beta_slow": scaling.slow}
    return None


def _llama3(factors: np.ndarray, base: float, size: int) -> dict[str, Any] | None:
    """Return Llama 3.x's scaling where it gives these factors; its low and high are 1 and 4 in every model that was published."""
    turn = 2 * math.pi * base ** (np.arange(0, size, 2) / size)
    most = float(factors.max())
    for trained in _LLAMA3 if most > 1 else ():
        smooth = np.clip((trained / turn - 1) / 3, 0, 1)
        if np.allclose(factors, 1 / ((1 - smooth) / most + smooth), rtol=2e-6, atol=0):
            found = {"rope_type": "llama3", "rope_theta": base, "factor": most, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
            return found | {"original_max_position_embeddings": trained}
    return None


def _longrope(gguf: GgufFile, scaling: Scaling, base: float, size: int) -> dict[str, Any]:
    """Return longrope's parameters: short factors up to the context that was trained, long ones beyond."""
    if scaling.kind == "yarn":
        raise gguf.unread(_TYPE, scaling.kind, f"the tensor {_LONG} is another scaling, and two at once are not read")
    short, long = (_factors(gguf, name, size) * scaling.factor for name in (_SHORT, _LONG))
    return _listed(gguf, scaling, base, short, long)


def _listed(gguf: GgufFile, scaling: Scaling, base: float, short: np.ndarray, long: np.ndarray | None = None) -> dict[str, Any]:
    stretched = (gguf.whole("{arch}.context_length") or scaling.trained) / scaling.trained
    return {
        "rope_type": "longrope",
        "rope_theta": base,
        "factor": max(1.0, stretched),
        "attention_factor": scaling.attention,
        "original_max_position_embeddings": scaling.trained,
        "short_factor": short.tolist(),
        "long_factor": (short if long is None else long).tolist(),
    }


def _factors(gguf: GgufFile, name: str, size: int) -> np.ndarray:
    """Return the numbers of a tensor of factors, in the fewest digits that say them."""
    tensor = gguf.tensors[name]
    values = np.asarray(dequantize(tensor.data, tensor.tensor_type), np.float32).ravel()
    if len(values) != size // 2:
        raise SourceError(f"{gguf.path}: {name} holds {len(values)} factors, and {size // 2} pairs of a head turn")
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise SourceError(f"{gguf.path}: {name} holds factors that are no positive numbers")
    return np.array([float(str(value)) for value in values])
