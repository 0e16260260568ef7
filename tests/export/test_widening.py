"""An export computes in a wider dtype and rounds once, to the dtype it writes; its checks are independent of the writing code."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from engine.export.checkpoint import verify
from engine.export.checkpoint.verify import check
from engine.jobs import drain
from engine.models.families import architecture_of, blocks_of
from engine.models.loading import open_model
from engine.models.sources import parse_source
from engine.plans import outputs, surgery, trimming
from engine.plans.files import plan_to_json
from engine.plans.live import live_network
from engine.plans.rules import fold_spans, untouched
from engine.recover.distill.student import student_of
from engine.types import Block, Model, Part, Plan, Trim
from tests.exporting import write
from tests.families import tiny_network, tiny_tokenizer

CHANNELS = tuple(channel for channel in range(32) if channel % 8)  # 28 of them: four heads still divide them
CASES = [("llama", True), ("llama", False), ("qwen2", True), ("qwen2", False), ("gemma3_text", True), ("gemma3_text", False)]
SHALLOW: dict[str, dict[str, Any]] = {
    "llama": {"num_hidden_layers": 3},
    "qwen2": {"num_hidden_layers": 3, "max_window_layers": 2},
    "gemma3_text": {"num_hidden_layers": 3, "layer_types": ["sliding_attention", "sliding_attention", "full_attention"]},
}
IDS = torch.arange(40)[None] * 7 % 290 + 2


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Model]:
    """A function that opens a tiny bfloat16 model of a family."""
    opened: dict[tuple[str, bool], Model] = {}

    def half(family: str, tied: bool) -> Model:
        if (family, tied) not in opened:
            folder = tmp_path_factory.mktemp(family)
            tiny_network(family, tie_word_embeddings=tied, **SHALLOW[family]).to(torch.bfloat16).save_pretrained(folder)
            tiny_tokenizer().save_pretrained(folder)
            opened[family, tied] = drain(open_model(parse_source(str(folder))))
        return opened[family, tied]

    return half


@pytest.fixture(autouse=True)
def _logits_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Generating takes seconds and shows nothing here."""
    monkeypatch.setattr(verify, "_compare_generation", lambda *_, **__: (True, ""))


def cut(plan: Plan, trim: Trim | None = None) -> Plan:
    trim = trim or Trim(channels=CHANNELS)
    return replace(plan, blocks=tuple(replace(block, trim=trim) for block in plan.blocks), width=Part("hand-made"))


@torch.no_grad()
def masked(folder: Path, plain: bool = False) -> torch.Tensor:
    """The source in float64 as it is without the channels: nothing is written to them, and their zeros count in every mean."""
    network: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, local_files_only=True).eval()
    row = architecture_of(network.config)
    gone = [channel for channel in range(32) if channel not in CHANNELS]
    head = torch.nn.Parameter(network.lm_head.weight.clone())
    network.get_submodule(row.embedding).weight[:, gone] = 0
    network.lm_head.weight = head
    for block in blocks_of(network):
        for name in ("self_attn.o_proj", "mlp.down_proj"):
            block.get_submodule(name).weight[gone] = 0
    if plain:
        for norm in (network.model.norm, *(block.get_submodule(name) for block in blocks_of(network) for name in row.norms)):
            unit = 1.0 if row.unit_gains else 0.0
            norm.weight.copy_((norm.weight + unit) * (28 / 32) ** 0.5 - unit)
    return network(input_ids=IDS, use_cache=False).logits


@torch.no_grad()
def exported(folder: Path, dtype: Any = "auto") -> torch.Tensor:
    network: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True).eval()
    return network(input_ids=IDS, use_cache=False).logits


def apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, as a share of the largest logit."""
    return float((found.double() - expected.double()).abs().max() / expected.abs().max())


def finding(model: Model, plan: Plan, target: Path) -> tuple[bool, str]:
    """What the logits' check says; the others pass."""
    request = {"source": str(model.folder), "plan": plan_to_json(plan), "target": str(target)}
    checks = {one["name"]: one for one in drain(check(request))["checks"]}
    assert all(one["passed"] for name, one in checks.items() if name != "logits"), checks
    return checks["logits"]["passed"], checks["logits"]["detail"]


@pytest.fixture(params=["whole", "streamed"])
def size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A source is small, or larger than memory."""
    if request.param == "streamed":
        monkeypatch.setattr(verify, "IN_MEMORY", 0)
    return request.param


# --- Rounded once ---


@pytest.mark.parametrize(
    ("family", "tied", "plain"),
    [*((*case, False) for case in CASES), ("llama", True, True), ("gemma3_text", True, True), ("gemma3_text", False, True)],
)
def test_channels_cut_from_bfloat16_are_exact_in_float32(
    family: str, tied: bool, plain: bool, halves: Callable[..., Model], tmp_path: Path
) -> None:
    model, plan = halves(family, tied), cut(untouched(3), Trim(channels=CHANNELS, plain=plain))
    target = write(model, plan, tmp_path / "out", dtype="float32")
    assert apart(exported(target), masked(model.folder, plain)) < 1e-5
    assert apart(exported(target), exported(model.folder, torch.float32)) > 1e-2  # the cut does something
    passed, said = finding(model, plan, target)
    assert passed, said


@pytest.mark.parametrize(("family", "tied"), [("llama", False), ("qwen2", True), ("gemma3_text", True)])
@pytest.mark.parametrize(("dtype", "near"), [("float16", 4e-3), ("bfloat16", 3e-2)])
def test_channels_cut_from_bfloat16_are_rounded_once_in_half_precision(
    family: str, tied: bool, dtype: str, near: float, halves: Callable[..., Model], tmp_path: Path
) -> None:
    model, plan = halves(family, tied), cut(untouched(3))
    target = write(model, plan, tmp_path / "out", dtype=dtype)
    assert apart(exported(target, torch.float64), masked(model.folder)) < near
    gains = load_file(model.folder / "model.safetensors")["model.layers.2.input_layernorm.weight"].double()[list(CHANNELS)]
    unit = 1.0 if family == "gemma3_text" else 0.0
    exact = (gains + unit) * (32 / 28) ** 0.5 - unit
    assert torch.equal(load_file(target / "model.safetensors")["model.layers.2.input_layernorm.weight"], exact.to(getattr(torch, dtype)))
    passed, said = finding(model, plan, target)
    assert passed, said


def test_a_network_in_float32_is_scaled_and_summed_in_it(halves: Callable[..., Model]) -> None:
    model, plan = halves("gemma3_text", True), cut(fold_spans(3, [(0, 1)], "mean"))
    rough, fine, student = live_network(model, plan), live_network(model, plan, torch.float32), student_of(model, plan)
    assert (rough.dtype, fine.dtype) == (torch.bfloat16, torch.float32)
    for name, tensor in fine.named_parameters():
        assert torch.equal(student.get_parameter(name), tensor)
        assert torch.equal(rough.get_parameter(name), tensor.to(torch.bfloat16))
    for name in ("model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight", "model.layers.0.input_layernorm.weight"):
        assert not torch.equal(rough.get_parameter(name).float(), fine.get_parameter(name))
    assert fine.lm_head.weight is fine.model.embed_tokens.weight


# --- Writers that are wrong ---


def through_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gains are rounded to the source's dtype on the way, as they once were."""
    scaled = trimming.Cutter._scaled
    monkeypatch.setattr(trimming.Cutter, "_scaled", lambda self, gains, factor, dtype: scaled(self, gains, factor, gains.dtype).to(dtype))


def instead(monkeypatch: pytest.MonkeyPatch, name: str, change: Callable[[torch.Tensor], None]) -> None:
    """A parameter of the third block comes out changed, of everything that makes blocks."""

    def made(cutter: Any, block: Block, parameter: str, *args: Any) -> torch.Tensor:
        tensor = whole(cutter, block, parameter, *args)
        if parameter == name and block.home == 2:
            tensor = tensor.clone()
            change(tensor)
        return tensor

    whole = surgery.made
    for module in (surgery, outputs):
        monkeypatch.setattr(module, "made", made)


def round_one(tensor: torch.Tensor) -> None:
    tensor[3] = tensor[3].to(torch.bfloat16)


def swap_rows(tensor: torch.Tensor) -> None:
    tensor[[4, 5]] = tensor[[5, 4]]


def other_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two layers come out in each other's place."""
    whole, other = surgery.made, {1: 2, 2: 1}

    def made(cutter: Any, block: Block, *args: Any) -> torch.Tensor:
        return whole(cutter, replace(block, mix=((other[block.home], 1.0),)) if block.home in other else block, *args)

    for module in (surgery, outputs):
        monkeypatch.setattr(module, "made", made)


def wrong_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = surgery.mix_tensors
    monkeypatch.setattr(surgery, "mix_tensors", lambda parts, dtype: whole(((w * 1.0001, t) for w, t in parts), dtype))


def wrong_stretch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trimming.Cutter, "stretch", lambda self, trim: 1.0 if trim.channels is None else 32 / len(trim.channels))


def wrong_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = trimming.Cutter._kept
    moved = lambda self, axis, trim: kept(self, axis, replace(trim, channels=(0, *CHANNELS[1:])) if trim.channels else trim)  # noqa: E731
    monkeypatch.setattr(trimming.Cutter, "_kept", moved)


WRONG: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "gains through bfloat16": through_bfloat16,
    "one gain in bfloat16": lambda patch: instead(patch, "input_layernorm.weight", round_one),
    "two rows": lambda patch: instead(patch, "mlp.up_proj.weight", swap_rows),
    "a bias": lambda patch: instead(patch, "self_attn.v_proj.bias", lambda tensor: tensor.mul_(1.001)),
    "two layers": other_layers,
    "a factor": wrong_stretch,
    "a channel": wrong_channels,
}


@pytest.mark.usefixtures("size")
@pytest.mark.parametrize("wrong", WRONG)
def test_a_width_that_is_written_wrong_fails_the_check(
    wrong: str, halves: Callable[..., Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, plan = halves("qwen2", False), cut(untouched(3))
    WRONG[wrong](monkeypatch)  # and it stays wrong while the check runs
    assert not finding(model, plan, write(model, plan, tmp_path / "out", dtype="float32"))[0]


@pytest.mark.usefixtures("size")
@pytest.mark.parametrize("wrong", ["one gain in bfloat16", "two rows", "a bias", "two layers", "sums"])
def test_a_depth_that_is_written_wrong_fails_the_check(
    wrong: str, tiny: Callable[..., Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, plan = tiny("qwen2", **SHALLOW["qwen2"]), fold_spans(3, [(0, 1)], "mean")
    (WRONG | {"sums": wrong_sums})[wrong](monkeypatch)
    assert not finding(model, plan, write(model, plan, tmp_path / "out"))[0]


def test_what_a_check_could_expect_is_told(halves: Callable[..., Model], tmp_path: Path) -> None:
    model = halves("llama", True)
    for number, (plan, said) in enumerate(((fold_spans(3, [(0, 1)], "mean"), "equal bit for bit"), (cut(untouched(3)), "in float64"))):
        passed, told = finding(model, plan, write(model, plan, tmp_path / str(number), dtype="float32"))
        assert passed
        assert said in told
