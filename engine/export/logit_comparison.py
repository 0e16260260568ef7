"""Whether a checkpoint's logits are its plan's.

They are held against the masked form of the plan, which engine/export/reference.py makes of the source's files and which is run block by
block, whatever the model's size. Without a width both compute the same, bit for bit. With one, sums have fewer terms and round
elsewhere: so both are run in float64, on weights that are rounded alike, where `NEAR` tells rounding from anything else.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from engine.export.reference import Reference
from engine.models.sources import read_config
from engine.models.tensors import places_in
from engine.models.texts import Pack
from engine.passes.probe import logits_on, read_probe
from engine.passes.streamed import Loaded, streamed_logits
from engine.types import Plan

NEAR = 1e-6  # of the largest logit, where both were run in float64 and written down in float32
_Logits = Sequence[torch.Tensor]  # of each pack


def reference_of(network: Any, request: dict[str, Any], plan: Plan) -> Reference:
    """Return the weights that a checkpoint should have, rounded as its files hold them."""
    folder = Path(request["source"])
    stem, places = f"{network.base_model_prefix}.", {} if "gguf" in request else places_in(Path(request["target"]))
    names = network.state_dict().keys()  # with the word that base-model checkpoints leave out
    stored = {name: places[found].dtype for name in names for found in (name, name.removeprefix(stem)) if found in places}
    return Reference(folder, read_config(folder, request.get("trust_remote_code", False)), plan, network.dtype, stored)


def compare_logits(network: Any, packs: Sequence[Pack], request: dict[str, Any], plan: Plan) -> tuple[bool, str]:
    """Return whether the checkpoint's logits are those that are wanted, and what there is to say of it."""
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
    """Return what is wrong with logits of which some are no numbers, as in a dtype too narrow for a model's states; else nothing."""
    if all(bool(logits.isfinite().all()) for logits in found):
        return ""
    return f"the model's logits are not finite numbers in {str(found[0].dtype).removeprefix('torch.')}; try float32 or bfloat16"


def _same(found: _Logits, expected: _Logits) -> tuple[bool, str]:
    """Return whether logits are equal, bit for bit."""
    equal = all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    return equal, f"{'equal bit for bit' if equal else f'largest difference {_apart(found, expected):.3g}'} on {_tokens(found)} tokens"


def _near(found: _Logits, expected: _Logits) -> tuple[bool, str]:
    """Return whether logits differ by no more than rounding."""
    share = _apart(found, expected) / max(float(logits.abs().max()) for logits in expected)
    return share <= NEAR, (
        f"largest difference {share:.2g} of the largest logit on {_tokens(found)} tokens in float64, where at most {NEAR:g} is rounding"
    )


def _apart(found: _Logits, expected: _Logits) -> float:
    """Return the largest difference between logits, and no number where one of them is none."""
    return float(torch.stack([(a.float() - b.float()).abs().max() for a, b in zip(expected, found, strict=True)]).max())


def _tokens(found: _Logits) -> int:
    """Return on how many tokens logits were told."""
    return sum(one.shape[1] for one in found)
