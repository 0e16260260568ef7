import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from gguf import GGUFValueType

from engine.errors import ExportError, LayerscopeError, PlanError, SourceError, UnsupportedModelError
from engine.export.checkpoint.verify import check
from engine.export.gguf import Gguf, copied_tensors, export_gguf, read_gguf, require_pattern, write_gguf
from engine.jobs import drain
from engine.methods.depth.baselines import plan_of_kept
from engine.model_lock import Turn
from engine.models import loading
from engine.models.families import row_of
from engine.models.gguf.convert import load_gguf
from engine.models.loading import converted
from engine.plans.files import plan_from_json, plan_to_json
from engine.plans.live import live_network
from engine.plans.rules import fold_spans, untouched
from engine.types import Block, Model, ModelSource, Plan
from tests.families import TEXTS, save_tiny
from tests.ggufs import array, save_gguf
from tests.here import here

DEPTH = 6
REFERENCE = fold_spans(DEPTH, [(2, 4)], "reference")  # norms of 2, projections of 4
DROPPED = plan_of_kept(DEPTH, {0, 1, 4, 5}, "by hand")
ORIGINS = {"reference": [(0, 0), (1, 1), (2, 4), (5, 5)], "dropped": [(0, 0), (1, 1), (4, 4), (5, 5)]}
PROJECTIONS = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
BOOL, INT32, UINT8, FLOAT64, STRING = (getattr(GGUFValueType, name) for name in ("BOOL", "INT32", "UINT8", "FLOAT64", "STRING"))
EXTRA = {
    "llama__is_sliding": array([True, False, False, True, True, False], BOOL),
    "llama__clamp": array([0.5, 1.5, 2.5, 3.5, 4.5, 5.5], FLOAT64),
    "xielu__alpha": array([1, -2, 3, -4, 5, -6], INT32),
    "llama__rope__dimension_sections": array([1, 2, 3, 4, 5, 6], INT32),  # six of something else
    "llama__five": array([1, 2, 3, 4, 5], UINT8),
    "general__tags": array(["a", "b", "c", "d", "e", "f"], STRING),
    "general__parameter_count": (999, GGUFValueType.UINT64),
    "general__size_label": ("999", STRING),
    "general__file_type": (7, GGUFValueType.UINT32),
    "general__nothing": ("", STRING),
}  # fmt: skip
CUT = {
    "llama.is_sliding": [True, False, True, False],
    "llama.clamp": [0.5, 1.5, 4.5, 5.5],
    "xielu.alpha": [1, -2, 5, -6],
    "llama.block_count": 4,
}


@pytest.fixture(scope="module")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny llama with arrays that say something of each layer, and arrays that only look like it."""
    return save_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", "llama", alignment=64, **EXTRA)


@pytest.fixture(scope="module")
def plain_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny llama with the keys of one alone, which is what can be opened."""
    return save_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", "llama")


@pytest.fixture(scope="module")
def folder(plain_gguf: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "in_fresh_process", here)
        return drain(converted(ModelSource("gguf", str(plain_gguf))))


def written(source: Path, plan: Plan, target: Path) -> Path:
    """Write a plan's GGUF file and leave out the checks, which take a process of their own."""
    opened = read_gguf(source)
    require_pattern(opened, plan)
    list(write_gguf(opened, plan, copied_tensors(opened, plan), target))
    return target


def keys_of(file: Path) -> dict[str, tuple[Any, Any]]:
    """Return a GGUF file's metadata as the library reads it: types and value of each key."""
    return {key: (tuple(f.types), f.contents()) for key, f in gguf.GGUFReader(file).fields.items() if not key.startswith("GGUF.")}


# --- what is written ---


@pytest.mark.parametrize(("plan", "name"), [(REFERENCE, "reference"), (DROPPED, "dropped")], ids=["reference", "dropped"])
def test_tensors_are_the_sources_under_other_names_byte_for_byte(plan: Plan, name: str, tiny_gguf: Path, tmp_path: Path) -> None:
    source = {tensor.name: tensor for tensor in gguf.GGUFReader(tiny_gguf).tensors}
    expected = {tensor: tensor for tensor in ("token_embd.weight", "output_norm.weight", "output.weight")}
    for place, (norms, projections) in enumerate(ORIGINS[name]):
        expected |= {f"blk.{place}.{norm}.weight": f"blk.{norms}.{norm}.weight" for norm in ("attn_norm", "ffn_norm")}
        expected |= {f"blk.{place}.{part}.weight": f"blk.{projections}.{part}.weight" for part in PROJECTIONS}
    found = gguf.GGUFReader(written(tiny_gguf, plan, tmp_path / "out.gguf"))
    assert {tensor.name for tensor in found.tensors} == set(expected)
    assert {tensor.tensor_type.name for tensor in found.tensors} == {"F32", "F16", "Q8_0"}
    for tensor in found.tensors:
        origin = source[expected[tensor.name]]
        assert (tensor.tensor_type, tensor.shape.tolist()) == (origin.tensor_type, origin.shape.tolist())
        assert tensor.data.tobytes() == origin.data.tobytes()
        assert tensor.data_offset % 64 == 0  # as the source is aligned


def test_the_metadata_stays_true(tiny_gguf: Path, tmp_path: Path) -> None:
    before, after = keys_of(tiny_gguf), keys_of(written(tiny_gguf, DROPPED, tmp_path / "out.gguf"))
    assert {key: after[key][1] for key in CUT} == CUT
    count = sum(tensor.n_elements for tensor in gguf.GGUFReader(tmp_path / "out.gguf").tensors)
    assert after["general.parameter_count"][1] == int(count)
    assert after["general.size_label"][1] == f"{count / 1000:.0f}K"
    assert plan_from_json(json.loads(after["layerscope.plan"][1])) == DROPPED
    changed = {*CUT, "general.parameter_count", "general.size_label", "layerscope.plan"}
    assert {key: value for key, value in after.items() if key not in changed} == {k: v for k, v in before.items() if k not in changed}
    assert all(after[key][0] == before[key][0] for key in changed - {"layerscope.plan"})  # the types stay


def test_a_pruned_model_is_pruned_again(tiny_gguf: Path, tmp_path: Path) -> None:
    once = written(tiny_gguf, DROPPED, tmp_path / "once.gguf")
    again = plan_of_kept(4, {0, 3}, "by hand")
    twice = written(once, again, tmp_path / "twice.gguf")
    assert keys_of(twice)["xielu.alpha"][1] == [1, -6]
    assert plan_from_json(json.loads(keys_of(twice)["layerscope.plan"][1])) == again


@pytest.mark.parametrize("family", ["qwen2", "gemma3_text", "gpt2"])
def test_transformers_makes_of_it_what_the_plan_is(family: str, tmp_path: Path) -> None:
    """Biases, a pattern of layers, fused and transposed projections: against the live plan, both read from GGUF files."""
    source = save_gguf(tmp_path / "source.gguf", family)
    depth = read_gguf(source).depth
    plan = plan_of_kept(12, {0, 1, 2, 9, 10, 11}, "by hand") if family == "gemma3_text" else fold_spans(depth, [(2, 4)], "reference")
    network, _, tokenizer = load_gguf(source)
    model = Model(ModelSource("gguf", str(source)), None, tmp_path, network.config, network, tokenizer, "", Turn())  # type: ignore[arg-type]
    found, info, _ = load_gguf(written(source, plan, tmp_path / "out.gguf"))
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    ids = tokenizer(TEXTS[2], return_tensors="pt").input_ids
    with torch.no_grad():
        assert torch.equal(found(ids).logits, live_network(model, plan)(ids).logits)
        assert not torch.allclose(found(ids).logits, network(ids).logits)


def test_fused_projections_go_by_their_gguf_names(tmp_path: Path) -> None:
    opened = read_gguf(save_gguf(tmp_path / "phi.gguf", "phi3"))
    names = {name: tensor.name for name, tensor in copied_tensors(opened, REFERENCE).items()}
    assert {name: origin for name, origin in names.items() if name.startswith("blk.2.")} == {
        **{f"blk.2.{norm}.weight": f"blk.2.{norm}.weight" for norm in ("attn_norm", "ffn_norm")},
        **{f"blk.2.{part}.weight": f"blk.4.{part}.weight" for part in ("attn_qkv", "attn_output", "ffn_up", "ffn_down")},
    }


# --- the checks; an export runs to its end in tests/terminal/test_gguf.py, and on the demo in tests/test_readme.py ---


@pytest.mark.parametrize(
    ("edit", "failing"),
    [
        (lambda file: None, set()),
        (lambda file: rename(file, {"blk.1.": "blk.2.", "blk.2.": "blk.1."}), {"logits", "bytes"}),
        (lambda file: overwrite(file, "blk.3.ffn_up.weight"), {"logits", "bytes"}),
        (lambda file: replace_bytes(file, b"message.content", b"message.CONTENT"), {"tokenizer"}),
    ],
    ids=["sound", "two layers swapped", "a tensor changed", "another template"],
)
def test_what_is_wrong_shows_in_the_checks(
    edit: Callable[[Path], None], failing: set[str], plain_gguf: Path, folder: Path, tmp_path: Path
) -> None:
    target = written(plain_gguf, REFERENCE, tmp_path / "out.gguf")
    edit(target)
    request = {"source": str(folder), "plan": plan_to_json(REFERENCE), "target": str(target), "gguf": str(plain_gguf)}
    checks = drain(check(request))["checks"]
    assert {entry["name"] for entry in checks if not entry["passed"]} == failing


def rename(file: Path, names: dict[str, str]) -> None:
    """Rename tensors in the table of a file, where no metadata speaks of them."""
    content = file.read_bytes()
    for old, new in names.items():
        content = content.replace(old.encode(), new.upper().encode())
    file.write_bytes(content.replace(b"BLK.", b"blk."))


def overwrite(file: Path, name: str) -> None:
    tensor = next(tensor for tensor in gguf.GGUFReader(file, "r+").tensors if tensor.name == name)
    tensor.data[0, :2] = 0


def replace_bytes(file: Path, old: bytes, new: bytes) -> None:
    assert len(old) == len(new)
    assert old in file.read_bytes()
    file.write_bytes(file.read_bytes().replace(old, new))


@pytest.mark.parametrize("stop_at", [1, 2, 8])
def test_a_cancelled_export_leaves_nothing_behind(stop_at: int, plain_gguf: Path, folder: Path, tmp_path: Path) -> None:
    with contextlib.closing(export_gguf(ModelSource("gguf", str(plain_gguf)), DROPPED, tmp_path / "out.gguf")) as job:
        for _ in range(stop_at):
            step = next(job)
        assert step.label.startswith("Writing" if stop_at > 1 else "Reading")
        assert len(list(tmp_path.iterdir())) == (stop_at > 1)
    assert not list(tmp_path.iterdir())


# --- what is refused ---


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        (fold_spans(DEPTH, [(2, 4)], "mean"), "the sum of its layers"),
        (fold_spans(DEPTH, [(2, 4)], "paper"), "the sum of its layers"),
        (Plan(DEPTH, (Block(0, ((0, 2.0),)),), "twice"), "the sum of its layers"),
        (Plan(DEPTH, (Block(0, ((0, 1.0),), "0" * 64),), "repaired"), "its repair"),
    ],
)
def test_a_plan_that_needs_new_weights_is_refused(plan: Plan, why: str, tiny_gguf: Path, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=rf"float weights \({why}\).*safetensors"):
        drain(export_gguf(ModelSource("gguf", str(tiny_gguf)), plan, tmp_path / "out.gguf"))
    assert not list(tmp_path.iterdir())


def test_only_a_gguf_source_has_quantised_tensors(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model", "llama")
    with pytest.raises(ExportError, match=r"and .*model is not one; export it as safetensors"):
        drain(export_gguf(ModelSource("folder", str(folder)), DROPPED, tmp_path / "out.gguf"))


def test_where_it_may_be_written(tiny_gguf: Path, tmp_path: Path) -> None:
    source = ModelSource("gguf", str(tiny_gguf))
    with pytest.raises(ExportError, match=r"out must end in \.gguf"):
        drain(export_gguf(source, DROPPED, tmp_path / "out"))
    (tmp_path / "out.gguf").touch()
    with pytest.raises(ExportError, match="exists already"):
        drain(export_gguf(source, DROPPED, tmp_path / "out.gguf"))
    with pytest.raises(PlanError, match=r"8 layers.*has 6"):
        drain(export_gguf(source, untouched(8), tmp_path / "other.gguf"))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"name": "rwkv7"}, UnsupportedModelError, "models of type 'rwkv7' are not supported; supported types: llama"),
        ({"name": "mistral"}, UnsupportedModelError, "has no names for the tensors of 'mistral'"),
        ({"split__count": (3, GGUFValueType.UINT16)}, SourceError, "one part of a split GGUF file; join the parts first"),
    ],
)
def test_a_file_that_cannot_be_pruned_is_refused(options: Any, error: type[LayerscopeError], words: str, tmp_path: Path) -> None:
    source = save_gguf(tmp_path / "source.gguf", "llama", **options)
    with pytest.raises(error, match=words):
        drain(export_gguf(ModelSource("gguf", str(source)), DROPPED, tmp_path / "out.gguf"))
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize("length", [4, 100, 3000, -1000])
def test_a_truncated_file_is_refused(length: int, tiny_gguf: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.gguf").write_bytes(tiny_gguf.read_bytes()[:length])
    with pytest.raises(SourceError, match=r"cut\.gguf is truncated, corrupted or not a language model"):
        read_gguf(tmp_path / "cut.gguf")


def test_layers_in_another_layout_are_refused(tiny_gguf: Path, tmp_path: Path) -> None:
    (tmp_path / "experts.gguf").write_bytes(tiny_gguf.read_bytes().replace(b"ffn_gate", b"gate_exp"))
    with pytest.raises(ExportError, match=r"lacks the tensor blk\.0\.ffn_gate\.weight, which the plan needs"):
        copied_tensors(read_gguf(tmp_path / "experts.gguf"), DROPPED)


# --- what llama.cpp decides by position ---


def header(folder: Path, architecture: str, depth: int, pattern: int | list[bool] | None) -> Gguf:
    """Return a GGUF file without tensors, whose metadata says what layers there are."""
    writer = gguf.GGUFWriter(folder / "header.gguf", architecture)
    writer.add_block_count(depth)
    if pattern is not None:
        writer.add_sliding_window_pattern(pattern)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Gguf(folder / "header.gguf", gguf.GGUFReader(folder / "header.gguf"), architecture, row_of("llama"), depth)


@pytest.mark.parametrize(
    ("architecture", "depth", "pattern", "kept"),
    [
        ("llama", 12, None, [0, 3, 4, 11]),
        ("gemma3", 26, None, [*range(6), *range(12, 26)]),  # a whole period dropped
        ("gemma3", 26, None, [*range(3), *range(9, 26)]),  # six layers of two periods
        ("gemma3", 26, None, [*range(24)]),
        ("gemma3", 26, None, [0, 7, 9]),  # too few for a layer of the other kind
        ("gemma3", 12, 1, [0, 7, 11]),
        ("gemma3", 12, 0, [0, 7, 11]),
        ("gemma3", 12, 4, [*range(4), *range(8, 12)]),
    ],
)
def test_a_pattern_that_is_kept_may_be_cut(architecture: str, depth: int, pattern: Any, kept: list[int], tmp_path: Path) -> None:
    require_pattern(header(tmp_path, architecture, depth, pattern), plan_of_kept(depth, set(kept), "by hand"))


@pytest.mark.parametrize(
    ("architecture", "depth", "pattern", "kept", "words"),
    [
        ("gemma3", 26, None, [*range(12), *range(13, 26)], r"every 6th layer of gemma3 .* Source layer 17 would run .* position 16"),
        ("gemma3", 26, None, [5], "Source layer 5 .* position 0"),
        ("gemma3", 12, 4, [0, 1, 2, 7, 8, 11], "every 4th layer .* Source layer 11 .* position 5"),
        ("gemma3", 12, [True] * 12, [5], "Source layer 5 .* position 0"),  # llama.cpp reads one number there, and no array
        ("olmo2", 32, None, [*range(30), 31], "Source layer 31 .* position 30"),
        ("gemma3", 62, None, [*range(60)], "attention of gemma3 differently at exactly 62 layers"),
    ],
)
def test_a_pattern_that_is_broken_is_refused_with_the_reason(
    architecture: str, depth: int, pattern: Any, kept: list[int], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=words):
        require_pattern(header(tmp_path, architecture, depth, pattern), plan_of_kept(depth, set(kept), "by hand"))
