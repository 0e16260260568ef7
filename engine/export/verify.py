"""Check an exported checkpoint: run as `python -m engine.export.verify`, so that nothing of the exporting process can help it."""

from pathlib import Path
from typing import Any

from engine.jobs import Job, Progress, answer_request

_PROMPT_TOKENS, _NEW_TOKENS, _TEXTS = 8, 16, 4


def check(request: dict[str, Any]) -> Job[dict[str, Any]]:
    """Load request["target"] with plain transformers and compare it with the plan run in memory on request["source"]."""
    import torch
    from transformers import AutoTokenizer, GenerationConfig

    from engine.judge.generation import decoding_config
    from engine.models.families import blocks_of, depth_of
    from engine.models.loading import load_with_transformers
    from engine.models.texts import bundled, calibration_of, packs_of
    from engine.plans.files import plan_from_json
    from engine.types import ModelSource

    plan, target = plan_from_json(request["plan"]), Path(request["target"])
    checks: list[dict[str, Any]] = []

    def note(name: str, passed: bool, detail: str) -> None:
        checks.append({"name": name, "passed": bool(passed), "detail": detail})

    yield Progress("Loading the checkpoint with transformers", 0.88)
    try:
        network, info = load_with_transformers(target, "auto")
        tokenizer = AutoTokenizer.from_pretrained(target, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever keeps it from loading is the finding
        note("loads", False, f"{type(error).__name__}: {error}")
        return {"checks": checks}
    note("loads", True, f"{type(network).__name__}, {str(network.dtype).removeprefix('torch.')}")
    missing, unexpected = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
    note(
        "keys",
        not missing and not unexpected,
        f"{len(missing)} missing, {len(unexpected)} unexpected {(missing + unexpected)[:3] or ''}".strip(),
    )
    indices = [module.layer_idx for block in blocks_of(network) for module in block.modules() if hasattr(module, "layer_idx")]
    counted = depth_of(network.config) == len(blocks_of(network)) == plan.depth and sorted(set(indices)) == list(range(plan.depth))
    note("depth", counted, f"{len(blocks_of(network))} blocks, config says {depth_of(network.config)}")

    texts = calibration_of(bundled("english").texts[:_TEXTS])
    packs = packs_of(tokenizer, network.config, texts)
    yield Progress("Running the plan in memory", 0.92)
    source = ModelSource("folder", request["source"], trust_remote_code=request.get("trust_remote_code", False))
    note("logits", *_compare_logits(network, source, plan, packs))

    yield Progress("Generating with and without cache", 0.96)
    network.float()  # what is checked is the layers' numbering; in half precision rounding alone may turn a greedy choice
    prompt = packs[0].ids[:, :_PROMPT_TOKENS]
    greedy = decoding_config(network.generation_config, _NEW_TOKENS, sampled=False)
    greedy.min_new_tokens = _NEW_TOKENS
    network.generation_config = GenerationConfig()  # transformers fills with it whatever is left unsaid
    cached, uncached = (
        network.generate(prompt, attention_mask=torch.ones_like(prompt), generation_config=greedy, use_cache=use) for use in (True, False)
    )
    same = torch.equal(cached, uncached)
    note("generation", same, f"cached {'equals' if same else 'differs from'} uncached: {tokenizer.decode(cached[0])!r}")
    return {"checks": checks}


def _compare_logits(network: Any, source: Any, plan: Any, packs: Any) -> tuple[bool, str]:
    """Return whether the checkpoint's logits are the plan's, bit for bit, and what there is to say of it."""
    import torch

    from engine.errors import SourceError

    try:
        expected = _plan_logits(source, plan, packs, network.dtype)
    except SourceError as error:  # a dtype too narrow for the model's states
        return False, f"{error} (exported as {str(network.dtype).removeprefix('torch.')})"
    with torch.no_grad():
        found = [network(input_ids=pack.ids, position_ids=pack.positions, use_cache=False).logits for pack in packs]
    difference = max(float((a.float() - b.float()).abs().max()) for a, b in zip(expected, found, strict=True))
    equal = all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    tokens = sum(pack.ids.shape[1] for pack in packs)
    return equal, f"{'equal bit for bit' if equal else f'largest difference {difference:.3g}'} on {tokens} tokens"


def _plan_logits(source: Any, plan: Any, packs: Any, dtype: Any) -> list[Any]:
    """Run the plan in memory, summed as the exporter sums and cast to the exported dtype, and return its logits."""
    import torch

    from engine.models.loading import read_network
    from engine.models.sources import inspect_folder
    from engine.passes.forward import capture, logits_of, normed, resume
    from engine.plans.surgery import Mixer
    from engine.types import Model

    folder = Path(source.location)
    _, spec = inspect_folder(folder, source)
    same = getattr(torch, spec.dtype) == dtype
    network = read_network(folder, spec.dtype if same else "float32", source.trust_remote_code)
    mixer = Mixer(network, keep=plan.depth)
    for block in plan.blocks:
        mixer.overrides(block)
    mixer.cast(network, dtype)
    model = Model(source, spec, folder, network.config, network, None, "")
    records = [capture(model, pack) for pack in packs]
    return [logits_of(model, normed(model, resume(model, mixer, record, plan.blocks, plan.prefix))) for record in records]


if __name__ == "__main__":
    answer_request(check)
