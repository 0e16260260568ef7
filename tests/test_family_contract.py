"""What must hold for every family: the network runs as its parts say, and a fold survives the disk."""

from collections.abc import Callable
from itertools import cycle, product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from engine.export.checkpoint.export import export
from engine.jobs import drain
from engine.models.families import ARCHITECTURES, blocks_of, depth_of, layer_types_of
from engine.models.loading import open_model
from engine.models.sources import parse_source
from engine.models.texts import Pack, calibration_of, packs_of
from engine.passes.forward import capture, logits_of, normed, resume
from engine.plans.rules import RULES, fold_spans, untouched
from engine.plans.surgery import Mixer
from engine.types import Model, Plan
from tests.exporting import write
from tests.families import FAMILIES, TEXTS, save_tiny
from tests.naive import token_ids

# A rule changes what is mixed, not how a family is written: every rule on one family, one rule on each. Where layers are of two types,
# what a rule takes as a block's home decides its type too.
OTHERS = [family for family in FAMILIES if family != "llama"]
EACH = [*(("llama", rule) for rule in RULES), *zip(OTHERS, cycle(reversed(list(RULES))), strict=False)]
ON_DISK = list(dict.fromkeys([*EACH, *product(("gemma3_text", "qwen2"), RULES)]))


def packs_for(model: Model) -> tuple[Pack, ...]:
    return packs_of(model.tokenizer, model.config, calibration_of(TEXTS))


def plan_logits(model: Model, plan: Plan) -> list[torch.Tensor]:
    mixer = Mixer(model.network)
    records = [capture(model, pack) for pack in packs_for(model)]
    return [logits_of(model, normed(model, resume(model, mixer, record, plan.blocks, plan.prefix))) for record in records]


def reload(target: Path) -> tuple[Any, dict[str, Any]]:
    network, info = AutoModelForCausalLM.from_pretrained(target, dtype="auto", local_files_only=True, output_loading_info=True)
    return network.eval(), info


def test_there_is_a_tiny_model_of_every_family() -> None:
    assert FAMILIES.keys() == ARCHITECTURES.keys()


@pytest.mark.parametrize("family", FAMILIES)
def test_running_all_blocks_from_state_0_is_the_network_bit_for_bit(family: str, tiny: Callable[..., Model]) -> None:
    model = tiny(family)
    for pack in packs_for(model):
        record = capture(model, pack)
        final = normed(model, resume(model, Mixer(model.network), record, untouched(model.spec.depth).blocks, 0))
        with torch.no_grad():
            output = model.network(input_ids=pack.ids, position_ids=pack.positions, use_cache=False, output_hidden_states=True)
        assert torch.equal(final, output.hidden_states[-1])
        assert torch.equal(logits_of(model, final), output.logits)


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_in_a_pack_do_not_see_each_other(family: str, tiny: Callable[..., Model]) -> None:
    model = tiny(family)
    (pack,) = packs_for(model)
    final = capture(model, pack).final[0]
    for ids, (_, start, stop) in zip(token_ids(model.tokenizer, TEXTS), pack.spans, strict=True):
        with torch.no_grad():
            alone = model.network.base_model(ids).last_hidden_state[0]
        assert torch.equal(pack.ids[:, start:stop], ids)
        torch.testing.assert_close(final[start:stop], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("family", "rule"), ON_DISK)
def test_a_fold_on_disk_is_the_fold_in_memory(family: str, rule: str, tiny: Callable[..., Model], tmp_path: Path) -> None:
    model, target = tiny(family), tmp_path / "out"
    plan = fold_spans(model.spec.depth, [(2, 4)], rule)  # crosses layer types in gemma3_text and qwen2
    write(model, plan, target)
    network, info = reload(target)

    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert depth_of(network.config) == len(blocks_of(network)) == 4
    for index, block in enumerate(blocks_of(network)):
        assert {module.layer_idx for module in block.modules() if hasattr(module, "layer_idx")} == {index}
    types = layer_types_of(model.config)
    assert layer_types_of(network.config) == (types and tuple(types[home] for home in plan.kept))
    for side in ("get_input_embeddings", "get_output_embeddings"):
        assert torch.equal(getattr(network, side)().weight, getattr(model.network, side)().weight)

    packs = packs_for(model)
    with torch.no_grad():
        found = [network(input_ids=pack.ids, position_ids=pack.positions, use_cache=False).logits for pack in packs]
    for expected, logits in zip(plan_logits(model, plan), found, strict=True):
        assert torch.equal(expected, logits)

    prompt = packs[0].ids[:, :8]  # longer than the sliding windows, and 12 more tokens roll them on
    options = {"attention_mask": torch.ones_like(prompt), "do_sample": False, "min_new_tokens": 12, "max_new_tokens": 12}
    cached, uncached = (network.generate(prompt, use_cache=use, **options) for use in (True, False))
    assert torch.equal(cached, uncached)


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(("family", "rule"), EACH)
def test_a_whole_export_passes_its_own_checks(family: str, rule: str, tiny: Callable[..., Model], tmp_path: Path) -> None:
    model = tiny(family)
    plan = fold_spans(model.spec.depth, [(0, 1), (3, 5)], rule)
    report = drain(export(model.source, model.folder, plan, tmp_path / "out"))
    assert [check.name for check in report.checks] == ["loads", "keys", "depth", "logits", "generation"]
    assert report.passed, report.checks
    assert dict(report.files) == {path.name: path.stat().st_size for path in (tmp_path / "out").iterdir()}


def test_a_checkpoint_named_as_a_base_model_folds_as_any_other(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "source", "gpt2")
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    assert "h.0.attn.c_attn.weight" in tensors
    tensors["h.0.attn.bias"] = torch.ones(1, 1, 4, 4).tril()  # old GPT-2 checkpoints carry their causal masks
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    model = drain(open_model(parse_source(str(folder))))
    plan = fold_spans(6, [(2, 4)], "mean")
    write(model, plan, tmp_path / "out")
    network, info = reload(tmp_path / "out")
    assert not info["missing_keys"]
    pack = packs_for(model)[0]
    with torch.no_grad():
        logits = network(input_ids=pack.ids, position_ids=pack.positions, use_cache=False).logits
    assert torch.equal(logits, plan_logits(model, plan)[0])
