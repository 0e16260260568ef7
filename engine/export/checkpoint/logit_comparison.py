"""Compare a checkpoint's logits with its plan's.

The reference is the plan's masked form, which engine/export/checkpoint/reference.py builds from the source's files and runs block
by block, for models of any size. Without width changes both must agree bit for bit. With them, sums have fewer terms and round
differently, so both run in float64 on equally rounded weights, where `NEAR` separates rounding from errors.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from engine.export.checkpoint.reference import Reference
from engine.messages import Message
from engine.models.files.tensors import places_in
from engine.models.inspection import read_config
from engine.models.texts import Pack
from engine.passes.probe import logits_on, read_probe
from engine.passes.streamed import Loaded, streamed_logits
from engine.types import Plan

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NEAR = 1e-6  # of the largest logit; both run in float64 and are stored in float32
_Logits = Sequence[torch.Tensor]  # one tensor per pack


def reference_of(network: "PreTrainedModel", request: dict[str, Any], plan: Plan) -> Reference:
    """Return the weights that a checkpoint should have, rounded to the dtypes of its files."""
    folder = Path(request["source"])
    stem, places = f"{network.base_model_prefix}.", {} if "gguf" in request else places_in(Path(request["target"]))
    names = network.state_dict().keys()  # with the first word, which base-model checkpoints omit
    stored = {name: places[found].dtype for name in names for found in (name, name.removeprefix(stem)) if found in places}
    return Reference(folder, read_config(folder, request.get("trust_remote_code", False)), plan, network.dtype, stored)


def compare_logits(network: "PreTrainedModel", packs: Sequence[Pack], request: dict[str, Any], plan: Plan) -> tuple[bool, str]:
    """Return whether the checkpoint's logits match the reference, and a sentence about the difference."""
    found = logits_on(network, packs)
    if fault := _not_finite(found):
        return False, fault
    if "probe" in request:
        return _same(found, read_probe(Path(request["probe"])))
    exact = all(block.trim is None for block in plan.blocks)
    trusted, dtype = request.get("trust_remote_code", False), network.dtype if exact else torch.float64
    config, reference = read_config(Path(request["source"]), trusted), reference_of(network, request, plan)
    expected = streamed_logits(config, reference, packs, dtype, trusted)
    if fault := _not_finite(expected):
        return False, fault
    if exact:
        return _same(found, expected)
    del found
    return _near(streamed_logits(network.config, Loaded(network), packs, torch.float64), expected)


def _not_finite(found: _Logits) -> str:
    """Return an error message if some logits are not finite, as happens in a dtype too narrow for a model's states; else ""."""
    if all(bool(logits.isfinite().all()) for logits in found):
        return ""
    return Message(
        "the model's logits are not finite in {dtype}; try float32 or bfloat16", dtype=str(found[0].dtype).removeprefix("torch.")
    )


def _same(found: _Logits, expected: _Logits) -> tuple[bool, str]:
    """Return whether logits are equal bit for bit, and a sentence."""
    equal = all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    return equal, f"{'equal bit for bit' if equal else f'largest difference {_apart(found, expected):.3g}'} on {_tokens(found)} tokens"


def _near(found: _Logits, expected: _Logits) -> tuple[bool, str]:
    """Return whether logits differ only by rounding, and a sentence."""
    share = _apart(found, expected) / max(float(logits.abs().max()) for logits in expected)
    return share <= NEAR, (
        f"largest difference {share:.2g} of the largest logit on {_tokens(found)} tokens in float64, where at most {NEAR:g} is rounding"
    )


def _apart(found: _Logits, expected: _Logits) -> float:
    """Return the largest difference between logits; NaN if any is NaN."""
    return float(torch.stack([(a.float() - b.float()).abs().max() for a, b in zip(expected, found, strict=True)]).max())


def _tokens(found: _Logits) -> int:
    """Return the number of tokens compared."""
    return sum(one.shape[1] for one in found)
