"""Check an exported checkpoint. Run as `python -m engine.export.checkpoint.verify`: a fresh process shares no state with the export."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import LayerscopeError, reason_of
from engine.jobs import Job, Progress, answer_request
from engine.messages import Message

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_PROMPT_TOKENS, _NEW_TOKENS, _FEW = 8, 16, 4
_ROUNDING = 2**-6  # of the largest logit: a few steps of bfloat16
_BASE = 900_000_000  # bytes of the interpreter, its libraries, and the logits
_EXACT = 16  # bytes per element in float64, including the source tensors it is made from
IN_MEMORY = 600_000_000  # bytes of a source's files; up to this size generation is checked in memory, in float32


def check(request: dict[str, Any]) -> Job[dict[str, Any]]:
    """Load request["target"] with plain transformers and compare it with the plan run on request["source"].

    A GGUF target is also compared with the file it was made from, request["gguf"].
    """
    from engine.export.checkpoint.logit_comparison import compare_logits
    from engine.models.gguf.convert import load_gguf
    from engine.passes.probe import probing
    from engine.plans.files import plan_from_json

    plan, target = plan_from_json(request["plan"]), Path(request["target"])
    checks: list[dict[str, Any]] = []

    def note(name: str, passed: bool, detail: str) -> None:
        checks.append({"name": name, "passed": bool(passed), "detail": detail})

    unable, needed = _unable(request)
    if unable:
        return {"checks": [unable]}
    yield Progress(Message("Loading the checkpoint with transformers, within {needed:.1f} GB", needed=needed / 1e9), 0.88)
    try:
        network, info, tokenizer = load_gguf(target) if "gguf" in request else _load(target, device_map={"": "disk"})
    except Exception as error:  # a failure to load is a result
        note("loads", False, f"{type(error).__name__}: {error}")
        return {"checks": checks}
    note("loads", True, f"{type(network).__name__}, {str(network.dtype).removeprefix('torch.')}")
    note("keys", *_compare_keys(info))
    note("depth", *_compare_depth(network, plan))

    if plan.width is not None:
        note("shapes", *_compare_shapes(network, request, plan))
    if info["missing_keys"]:  # an incomplete model cannot be run
        return {"checks": checks}
    packs = probing(tokenizer, network.config)
    yield Progress(Message("Running the plan in memory"), 0.92)
    note("logits", *_tried(lambda: compare_logits(network, packs, request, plan)))

    if "gguf" in request:
        note("tokenizer", *_compare_tokenizers(tokenizer, Path(request["source"])))
        note("bytes", *_compare_bytes(target, Path(request["gguf"]), plan))

    yield Progress(Message("Generating with and without cache"), 0.96)
    prompt = packs[0].ids[:, :_PROMPT_TOKENS]
    note("generation", *_tried(lambda: _compare_generation(network, tokenizer, prompt, whole=_fits(request))))
    return {"checks": checks}


def _tried(compare: Callable[[], tuple[bool, str]]) -> tuple[bool, str]:
    """Return the result of a comparison; an error while running the checkpoint is a failed check."""
    try:
        return compare()
    except LayerscopeError:
        raise
    except Exception as error:
        return False, f"{type(error).__name__}: {reason_of(error)}"


def _compare_keys(info: Mapping[str, Any]) -> tuple[bool, str]:
    """Return whether transformers found exactly the tensors it expected."""
    missing, unexpected = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
    said = f"{len(missing)} missing, {len(unexpected)} unexpected {(missing + unexpected)[:3] or ''}"
    return not missing and not unexpected, said.strip()


def _compare_generation(network: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", prompt: Any, whole: bool) -> tuple[bool, str]:
    """Return whether a network generates the same tokens with and without a cache, which shows that its layers are numbered correctly.

    In half precision rounding alone can change a greedy choice, so this runs in float32. Without memory for that (not `whole`), choices
    count as equal if their logits differ only by rounding.
    """
    import torch
    from transformers import GenerationConfig

    from engine.judge.generation import decoding_config

    new = _NEW_TOKENS if whole else _FEW
    if whole:
        network.float()
    greedy = decoding_config(network.generation_config, new, sampled=False)
    greedy.min_new_tokens, greedy.return_dict_in_generate, greedy.output_logits = new, True, True
    network.generation_config = GenerationConfig()  # transformers takes unset options from it
    cached, uncached = (
        network.generate(prompt, attention_mask=torch.ones_like(prompt), generation_config=greedy, use_cache=use) for use in (True, False)
    )
    differing = (cached.sequences != uncached.sequences).flatten().nonzero().flatten().tolist()
    same = not differing
    if differing and not whole:
        logits = uncached.logits[differing[0] - prompt.shape[1]][0].float()
        best, taken = logits.max(), logits[cached.sequences[0, differing[0]]]
        same = bool(best - taken <= _ROUNDING * logits.abs().max())
    return same, f"cached {'equals' if same else 'differs from'} uncached: {tokenizer.decode(cached.sequences[0])!r}"


def _compare_depth(network: "PreTrainedModel", plan: Any) -> tuple[bool, str]:
    """Return whether blocks, config and layer indices agree with the plan."""
    from engine.models.families import blocks_of, depth_of

    blocks, said = blocks_of(network), depth_of(network.config)
    indices = [module.layer_idx for block in blocks for module in block.modules() if hasattr(module, "layer_idx")]
    counted = said == len(blocks) == plan.depth and sorted(set(indices)) == list(range(plan.depth))
    return counted, f"{len(blocks)} blocks, config says {said}"


def _load(folder: Path, dtype: str = "auto", **options: Any) -> tuple[Any, Any, Any]:
    """Load a folder with transformers: the network, the loading info, the tokenizer."""
    from engine.models.loading import load_with_transformers, read_tokenizer

    network, info = load_with_transformers(folder, dtype, **options)
    return network, info, read_tokenizer(folder)


def _unable(request: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """Return a failed check if the checkpoint cannot be loaded, else {}; and the bytes that checking needs."""
    from engine.models.devices import free_bytes

    try:
        needed, free = room(request), free_bytes("cpu")
    except LayerscopeError as error:
        return {"name": "loads", "passed": False, "detail": str(error)}, 0
    if needed <= free:
        return {}, needed
    detail = f"not run: {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free"
    return {"name": "loads", "passed": False, "detail": detail, "ran": False}, needed


def room(request: dict[str, Any]) -> int:
    """Return the maximum bytes that checking needs: for a GGUF file twice its float32 size; for a small source its size and the plan's;
    otherwise the largest tensors of source and checkpoint, or a block's largest tensor in float64 with its sources."""
    from engine.models.files.tensors import places_in

    places = places_in(Path(request["source"]))
    source = _sizes(places)
    if "gguf" in request:
        return _BASE + 2 * sum(source)
    if _fits(request):
        return _BASE + 3 * sum(source)
    made = max((math.prod(one.shape) for name, one in places.items() if any(map(str.isdigit, name.split(".")))), default=0)
    return _BASE + max(max(source) + max(_sizes(places_in(Path(request["target"])))), _EXACT * made)


def _sizes(places: Mapping[str, Any]) -> list[int]:
    """Return the bytes of each tensor."""
    return [place.dtype.itemsize * math.prod(place.shape) for place in places.values()]


def _fits(request: dict[str, Any]) -> bool:
    """Return whether the source is small enough to check generation in memory."""
    return sum(file.stat().st_size for file in Path(request["source"]).glob("*.safetensors")) <= IN_MEMORY


def _compare_tokenizers(tokenizer: "PreTrainedTokenizerBase", folder: Path) -> tuple[bool, str]:
    """Return whether a tokenizer gives the same tokens as a folder's, and has the same chat template."""
    from engine.models.loading import read_tokenizer
    from engine.models.texts import BUNDLED, bundled

    other = read_tokenizer(folder)
    texts = [text for language in BUNDLED for text in bundled(language).texts]
    same = all(tokenizer(text)["input_ids"] == other(text)["input_ids"] for text in texts)
    kept = tokenizer.chat_template == other.chat_template
    template = "without a chat template" if other.chat_template is None else f"chat template {'kept' if kept else 'differs'}"
    return same and kept, f"{len(texts)} texts {'give the same tokens' if same else 'do not all give the same tokens'}, {template}"


def _compare_bytes(file: Path, source: Path, plan: Any) -> tuple[bool, str]:
    """Return whether each tensor of a GGUF file equals the plan's source tensor, byte for byte."""
    import numpy as np

    from engine.export.gguf import copied_tensors, read_gguf

    expected, found = copied_tensors(read_gguf(source), plan), {tensor.name: tensor for tensor in read_gguf(file).reader.tensors}
    equal = [
        name
        for name, tensor in expected.items()
        if name in found and found[name].tensor_type == tensor.tensor_type and np.array_equal(found[name].data, tensor.data)
    ]
    total = sum(tensor.n_bytes for tensor in found.values())
    return len(equal) == len(expected) == len(found), f"{len(equal)} of {len(expected)} tensors, {total / 1e6:.1f} MB"


def _compare_shapes(network: "PreTrainedModel", request: dict[str, Any], plan: Any) -> tuple[bool, str]:
    """Return whether each tensor that transformers built has the plan's shape: a stock class may silently use other shapes."""
    from engine.export.checkpoint.logit_comparison import reference_of

    reference = reference_of(network, request, plan)
    found = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    wrong = [name for name, shape in found.items() if reference.shape(name) != shape]
    facts = "all as the plan says" if not wrong else f"{len(wrong)} other than the plan says, such as {wrong[0]}: {found[wrong[0]]}"
    return not wrong, f"{len(found)} tensors, {facts}"


if __name__ == "__main__":
    answer_request(check)
