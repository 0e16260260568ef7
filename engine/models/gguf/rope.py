"""Convert a GGUF file's rotary settings to transformers' rope_parameters.

llama.cpp rotates pair i of a head by position * base ** (-2i / d) / divisor[i] and multiplies the result by one factor. The divisors come
from a scaling (linear, yarn), from the tensor rope_freqs (Llama 3.x), or from the tensors rope_factors_short and rope_factors_long
(longrope). Scalings that transformers has a name for keep it; all others are written as longrope, whose lists can hold any divisors.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from gguf import dequantize

from engine.errors import SourceError
from engine.messages import Message
from engine.models.gguf.file import GgufFile

_FREQS, _SHORT, _LONG = "rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight"
_TYPE = "{arch}.rope.scaling.type"
_FACTORED = ("llama", "phi3")  # the only architectures for which llama.cpp reads factor tensors
_LLAMA3 = [2**power for power in range(5, 21)]  # candidate context lengths before scaling


@dataclass(frozen=True)
class Scaling:
    """A file's rope.scaling settings. `trained` is the context length before scaling, `attention` the factor of the result, and `own` the
    part of that factor that yarn does not contribute; `fast` and `slow` are yarn's bounds, in rotations over that context."""

    kind: str
    factor: float
    trained: int
    attention: float
    own: float
    fast: float
    slow: float


def rotary_tensors(gguf: GgufFile) -> set[str]:
    """Return the names of the factor tensors in a file that are read."""
    if gguf.architecture not in _FACTORED:
        return set()
    longrope = gguf.architecture == "phi3" or gguf.value(_TYPE) == "longrope"
    return {name for name in ((_SHORT, _LONG) if longrope else (_FREQS,)) if name in gguf.tensors}


def rope_parameters(gguf: GgufFile, size: int) -> dict[str, Any]:
    """Return the rope_parameters of a file's model; `size` channels of each head are rotated.

    Raises:
        UnsupportedModelError: the scaling is unknown or ambiguous.
        SourceError: a tensor has the wrong length.
    """
    scaling, base = scaling_of(gguf), _base(gguf, "{arch}.rope.freq_base")
    tensors = rotary_tensors(gguf)
    if tensors >= {_SHORT, _LONG}:
        return _longrope(gguf, scaling, base, size)
    if scaling.kind == "longrope" or tensors & {_SHORT, _LONG}:
        raise gguf.unread(
            _TYPE,
            scaling.kind,
            Message("longrope needs both tensors {short} and {long}", short=_SHORT, long=_LONG),
        )
    factors = _factors(gguf, _FREQS, size) if _FREQS in tensors else None
    return _named(gguf, scaling, base, size, factors) or _listed(gguf, scaling, base, _divisors(scaling, base, size, factors))


def sliding_parameters(gguf: GgufFile, size: int) -> dict[str, Any]:
    """Return the rope_parameters of Gemma 3's sliding-attention layers: a separate base, and no scaling except the file's own factor."""
    scaling, base = scaling_of(gguf), _base(gguf, "{arch}.rope.freq_base_swa")
    plain = replace(scaling, kind="none", factor=1.0, attention=scaling.own)
    return _named(gguf, plain, base, size, None) or _listed(gguf, plain, base, np.ones(size // 2))


def _base(gguf: GgufFile, name: str) -> float:
    base = _or(gguf.real(name), 10000.0)
    if not 1 < base < math.inf:
        raise gguf.unread(name, base, Message("it is not a valid base of the rotary positions"))
    return base


def scaling_of(gguf: GgufFile) -> Scaling:
    """Return a file's rope.scaling settings.

    This follows llama.cpp (llama_context) except for yarn's factor and bounds: llama.cpp ignores them for these families, but the converter
    writes them and the model's own code uses them.

    Raises:
        UnsupportedModelError: the message gives the key, its value and the reason.
    """
    name = "{arch}.rope.scaling."
    kind = gguf.value(_TYPE)
    kind = "linear" if kind is None else kind  # llama.cpp's default, with a factor of one
    if kind not in ("none", "linear", "yarn", "longrope"):
        raise gguf.unread(_TYPE, kind, Message("supported types: none, linear, yarn, longrope"))
    factor = 1.0 if kind == "none" else _factor(gguf)
    own, yarn = _or(gguf.above(name + "attn_factor", 0), 1.0), gguf.above(name + "yarn_attn_factor", 0)
    fast, slow = _or(gguf.real(name + "yarn_beta_fast"), 32.0), _or(gguf.real(name + "yarn_beta_slow"), 1.0)
    if kind != "yarn" and yarn not in (None, 1):
        raise gguf.unread(name + "yarn_attn_factor", yarn, Message("it belongs to yarn, but the file uses another scaling"))
    if not fast >= slow > 0:
        raise gguf.unread(name + "yarn_beta_fast", fast, Message("it must not be below yarn_beta_slow, which is {slow}", slow=slow))
    return Scaling(
        kind=kind,
        factor=factor,
        trained=int(gguf.above(name + "original_context_length", -1) or gguf.whole("{arch}.context_length") or 2048),
        attention=own * (_or(yarn, _mscale(factor)) if kind == "yarn" else 1.0),
        own=own,
        fast=fast,
        slow=slow,
    )


def _factor(gguf: GgufFile) -> float:
    """Return the factor of the positions; as in llama.cpp, the newer key wins, and 0 means 1."""
    for name in ("{arch}.rope.scaling.factor", "{arch}.rope.scale_linear"):
        if (found := gguf.real(name)) is not None:
            if found < 0:
                raise gguf.unread(name, found, Message("it is not a valid scaling factor of positions"))
            return found or 1.0
    return 1.0


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _mscale(factor: float) -> float:
    """Return yarn's default factor of the result (arXiv 2309.00071, section 3.4)."""
    return 1.0 if factor <= 1 else 0.1 * math.log(factor) + 1.0


def _divisors(scaling: Scaling, base: float, size: int, factors: np.ndarray | None) -> np.ndarray:
    """Return the divisor of each pair's unscaled angle."""
    plain = _ramp(scaling, base, size) if scaling.kind == "yarn" else 0.0
    share = (1 - plain) / scaling.factor + plain
    return (np.ones(size // 2) if factors is None else factors) / share


def _ramp(scaling: Scaling, base: float, size: int) -> np.ndarray:
    """Return 1 for pairs that yarn leaves unscaled, 0 for pairs it interpolates, and a ramp between (arXiv 2309.00071, eq. 18)."""
    low, high = (size * math.log(scaling.trained / (turns * 2 * math.pi)) / (2 * math.log(base)) for turns in (scaling.fast, scaling.slow))
    first, last = max(0, math.floor(low)), min(size - 1, math.ceil(high))
    return 1 - np.clip((np.arange(size // 2) - first) / max(0.001, last - first), 0, 1)


def _named(gguf: GgufFile, scaling: Scaling, base: float, size: int, factors: np.ndarray | None) -> dict[str, Any] | None:
    """Return rope_parameters of a type that transformers names, or None where no type fits."""
    parameters: dict[str, Any] = {"rope_theta": base}
    plain = scaling.attention == 1 and scaling.kind != "yarn"
    if factors is not None:
        return _llama3(factors, base, size) if plain and scaling.factor == 1 else None
    if plain and scaling.factor == 1:
        return parameters | {"rope_type": "default"}
    if gguf.architecture == "phi3":  # its class supports only longrope
        return None
    if plain:
        return parameters | {"rope_type": "linear", "factor": scaling.factor}
    if scaling.kind == "yarn":
        parameters |= {"rope_type": "yarn", "factor": scaling.factor, "original_max_position_embeddings": scaling.trained}
        return parameters | {"attention_factor": scaling.attention, "beta_fast": scaling.fast, "beta_slow": scaling.slow}
    return None


def _llama3(factors: np.ndarray, base: float, size: int) -> dict[str, Any] | None:
    """Return Llama 3.x's scaling if it reproduces these factors, else None; all published models use low = 1 and high = 4."""
    turn = 2 * math.pi * base ** (np.arange(0, size, 2) / size)
    most = float(factors.max())
    for trained in _LLAMA3 if most > 1 else ():
        smooth = np.clip((trained / turn - 1) / 3, 0, 1)
        if np.allclose(factors, 1 / ((1 - smooth) / most + smooth), rtol=2e-6, atol=0):
            found = {"rope_type": "llama3", "rope_theta": base, "factor": most, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
            return found | {"original_max_position_embeddings": trained}
    return None


def _longrope(gguf: GgufFile, scaling: Scaling, base: float, size: int) -> dict[str, Any]:
    """Return longrope's parameters: short factors up to the trained context, long factors beyond it."""
    if scaling.kind == "yarn":
        raise gguf.unread(_TYPE, scaling.kind, Message("the tensor {long} defines a second scaling; only one is supported", long=_LONG))
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
    """Return the values of a factor tensor, each as the shortest decimal that equals it."""
    tensor = gguf.tensors[name]
    values = np.asarray(dequantize(tensor.data, tensor.tensor_type), np.float32).ravel()
    if len(values) != size // 2:
        raise SourceError(
            "{path}: {name} has {count} factors, but a head has {size} rotated pairs",
            path=gguf.path,
            name=name,
            count=len(values),
            size=size // 2,
        )
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise SourceError("{path}: {name} contains factors that are not positive", path=gguf.path, name=name)
    return np.array([float(str(value)) for value in values])
