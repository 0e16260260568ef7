import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from engine import surgery
from engine.architectures import architecture_of, blocks_of
from engine.calibration import calibration_of
from engine.errors import PlanError, SettingsError
from engine.evaluation import Judge
from engine.export import export
from engine.forward import capture, logits_of, normed, resume, run_block
from engine.jobs import drain
from engine.methods.baselines import plan_of_kept
from engine.objectives import Objective
from engine.plans import describe, fold_spans, plan_from_json, plan_to_json, untouched
from engine.repair import STRENGTHS, held_out, objective_for_repair, repair, repair_best, ridge_fit, scalar_fit, seams
from engine.surgery import Mixer, keep_map, map_file, map_of, name_map, pack_maps, repaired, unpack_maps
from engine.types import Block, DepthPlan, Model, Repair
from tests.exporting import write

SENTENCE = "the cat sat on a mat while rivers ran to seas and rain fell over hills that nobody had seen before"
WORDS = SENTENCE.split()
TEXTS = tuple(" ".join(WORDS[(7 * text + 3 * place * (text + 1)) % len(WORDS)] for place in range(20)) for text in range(20))
TOKENS = 1700
FOLDABLE = ("llama", "qwen2", "gpt2", "phi3")
DROPPED = plan_of_kept(6, (0, 1, 4), "hand-made")  # seams after blocks 1 and 2
MEAN = fold_spans(6, [(1, 2), (4, 5)], "mean")


def objective_of(model: Model, name: str = "kl", tokens: int = TOKENS, texts: tuple[str, ...] = TEXTS) -> Objective:
    return Objective(model, calibration_of(texts), name, tokens)


@pytest.fixture(scope="module")
def mended(tiny: Callable[..., Model]) -> Callable[[str, str], DepthPlan]:
    """A function that gives DROPPED repaired on a family, by kind."""
    known: dict[tuple[str, str], DepthPlan] = {}

    def of(family: str, kind: str = "ridge") -> DepthPlan:
        if (family, kind) not in known:
            known[family, kind] = drain(repair(objective_of(tiny(family)), DROPPED, kind))
        return known[family, kind]

    return of


def marked(plan: DepthPlan, place: int, tensor: torch.Tensor) -> DepthPlan:
    """A plan with a map of ours at one block."""
    mark = name_map(tensor)
    blocks = list(plan.blocks)
    blocks[place] = replace(blocks[place], repair=mark)
    return replace(plan, blocks=tuple(blocks), repairs=(Repair(place, "ridge", 1.0, 0.5, 0.25, mark),))


# --- The two fits ---

sizes = st.tuples(st.integers(3, 40), st.integers(1, 6), st.integers(0, 10_000), st.floats(-3, 3))


def samples(tokens: int, width: int, seed: int, spread: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    written, wanted = torch.randn(2, tokens, width, generator=generator, dtype=torch.float64)
    return written, wanted * (spread * torch.randn(tokens, 1, generator=generator, dtype=torch.float64)).exp()


@given(sizes)
def test_the_factor_is_the_weighted_least_squares(size: tuple[int, int, int, float]) -> None:
    written, wanted = samples(*size)
    scale = 1 / wanted.norm(dim=-1, keepdim=True)  # every token weighs the inverse square of its size
    column, right = ((scale * side).numpy().reshape(-1) for side in (written, wanted))
    (expected,), *_ = np.linalg.lstsq(column[:, None], right, rcond=None)
    assert scalar_fit(written, wanted) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(sizes, st.sampled_from([1e-4, *STRENGTHS]))
def test_the_matrix_is_the_weighted_least_squares_drawn_to_the_identity(size: tuple[int, int, int, float], strength: float) -> None:
    written, wanted = samples(*size)
    width = size[1]
    scale = 1 / wanted.norm(dim=-1, keepdim=True)
    left, right = (scale * written).numpy(), (scale * wanted).numpy()
    penalty = strength * np.mean(np.linalg.eigvalsh(left.T @ left))
    stacked = np.concatenate([left, math.sqrt(penalty) * np.eye(width)])
    expected, *_ = np.linalg.lstsq(stacked, np.concatenate([right, math.sqrt(penalty) * np.eye(width)]), rcond=None)
    np.testing.assert_allclose(ridge_fit(written, wanted, strength).numpy(), expected.T, rtol=1e-6, atol=1e-7)


def test_fits_by_hand() -> None:
    written, wanted = torch.tensor([[1.0, 0.0], [0.0, 2.0]]).double(), torch.tensor([[3.0, 0.0], [0.0, 2.0]]).double()
    # weights 1/9 and 1/4: s = (3/9 + 4/4) / (1/9 + 4/4)
    assert scalar_fit(written, wanted) == pytest.approx((4 / 3) / (10 / 9))
    # gram = diag(1/9, 1), penalty = (1/9 + 1) / 2 = 5/9: each place is (w u y + penalty) / (w u^2 + penalty)
    expected = [[(3 / 9 + 5 / 9) / (1 / 9 + 5 / 9), 0.0], [0.0, 1.0]]
    assert ridge_fit(written, wanted, 1.0).tolist() == [pytest.approx(row) for row in expected]


def test_a_map_that_is_there_is_found_and_a_strong_penalty_leaves_things_alone() -> None:
    written, _ = samples(200, 4, 1, 0.0)
    matrix = torch.tensor([[1.0, 0.5, 0, 0], [0, 2.0, 0, 0], [0, 0, -1.0, 0.3], [0.1, 0, 0, 1.0]]).double()
    assert torch.allclose(ridge_fit(written, written @ matrix.mT, 1e-9), matrix, atol=1e-6)
    assert torch.allclose(ridge_fit(written, written @ matrix.mT, 1e9), torch.eye(4).double(), atol=1e-6)
    assert scalar_fit(written, -2.5 * written) == pytest.approx(-2.5)


# --- Seams ---


def whole(*layers: int) -> tuple[Block, ...]:
    return tuple(Block(layer, ((layer, 1.0),)) for layer in layers)


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        (whole(0, 1, 2, 3, 4, 5), ()),
        (whole(0, 1, 4, 5), ((1, 4),)),
        (whole(0, 1, 4), ((1, 4), (2, 6))),
        (whole(0, 1, 2, 3), ((3, 6),)),
        (whole(0, 2, 4), ((0, 2), (1, 4), (2, 6))),
        (whole(3), ((0, 6),)),
        (whole(2, 3, 4, 5), ()),  # what is missing below the first block has no block to stand in
        ((Block(0, ((0, 1.0),)), Block(1, ((1, 0.5), (2, 0.5))), *whole(3, 4, 5)), ((1, 3),)),
        ((Block(0, ((1, 1.0),)), *whole(1, 2, 3, 4, 5)), ((0, 1),)),  # another's projections, nothing missing
        ((Block(0, ((0, 2.0),)), *whole(1, 2, 3, 4, 5)), ((0, 1),)),
        ((*whole(0, 1, 2, 3, 4), Block(5, ((5, 1.0),), "a" * 64)), ()),  # a repair alone makes no seam
    ],
)
def test_seams_are_where_layers_are_missing_or_stand_in_for_others(
    blocks: tuple[Block, ...], expected: tuple[tuple[int, int], ...]
) -> None:
    assert seams(DepthPlan(6, blocks, "hand-made")) == expected


# --- Repairing ---


@pytest.mark.parametrize("family", FOLDABLE)
@pytest.mark.parametrize("kind", ["ridge", "scalar"])
@pytest.mark.parametrize("plan", [DROPPED, MEAN], ids=["dropped", "mean"])
def test_no_repair_makes_it_worse_on_texts_it_was_not_fitted_to(
    family: str, kind: str, plan: DepthPlan, tiny: Callable[..., Model]
) -> None:
    objective = objective_of(tiny(family))
    held = held_out(objective)
    assert 0 < len(held) < len(objective.records)
    before = objective.score(plan, held)
    found = drain(repair(objective, plan, kind))
    assert objective.score(found, held) <= before
    assert [entry.place for entry in found.repairs] == sorted({entry.place for entry in found.repairs})
    assert {entry.place for entry in found.repairs} <= {place for place, _ in seams(plan)}
    for entry in found.repairs:
        assert entry.after < entry.before <= before
        assert entry.kind == kind
        assert found.blocks[entry.place].repair == entry.fingerprint
        assert map_file(entry.fingerprint).exists()
        assert tuple(map_of(entry.fingerprint).shape) == ((1,) if kind == "scalar" else (32, 32))
        assert entry.strength in STRENGTHS or kind == "scalar"
    chain = [value for entry in found.repairs for value in (entry.before, entry.after)]
    assert chain == sorted(chain, reverse=True)
    if found.repairs:
        assert found.repairs[0].before == before
        assert found.repairs[-1].after == objective.score(found, held)
    assert tuple(replace(block, repair="") for block in found.blocks) == plan.blocks
    assert sum(bool(block.repair) for block in found.blocks) == len(found.repairs)
    kept = {key: value for key, value in found.settings if key in ("repair", "practice", "practice_tokens")}
    assert kept == {"repair": kind, "practice": objective.texts.fingerprint, "practice_tokens": objective.protocol.tokens}


def test_some_repair_really_helps(tiny: Callable[..., Model], mended: Callable[..., DepthPlan]) -> None:
    """Judged on other texts, by other code."""
    model = tiny("llama")
    assert mended("llama").repairs
    judge = Judge(model, calibration_of(tuple(text.title() for text in TEXTS[:10])))
    assert drain(judge.judge(mended("llama"))).kl < drain(judge.judge(DROPPED)).kl


def test_the_scalar_is_fitted_by_hand_alike(tiny: Callable[..., Model], mended: Callable[..., DepthPlan]) -> None:
    """The first seam of DROPPED: u of layer 1 over the packs that are not held out, against what enters layer 4."""
    model, objective = tiny("llama"), objective_of(tiny("llama"))
    total, weights = 0.0, 0.0
    for index, record in enumerate(objective.records):
        if index % 3 == 0:
            continue
        wrote: list[torch.Tensor] = []
        hook = blocks_of(model.network)[1].mlp.down_proj.register_forward_hook(lambda _m, _a, output, wrote=wrote: wrote.append(output))
        after = run_block(model, objective.mixer, DROPPED.blocks[1], record.states[1], record)
        hook.remove()
        for u, out, x in zip(wrote[0][0].double(), after[0].double(), record.states[4][0].double(), strict=True):
            y = x - (out - u)
            total += float(u @ y / (y @ y))
            weights += float(u @ u / (y @ y))
    found = mended("llama", "scalar")
    at_seam = [entry for entry in found.repairs if entry.place == 1]
    assert at_seam
    assert at_seam[0].strength == pytest.approx(total / weights, rel=1e-6)
    assert map_of(at_seam[0].fingerprint).item() == pytest.approx(total / weights, rel=1e-6)


@pytest.mark.parametrize("plan", [untouched(6), plan_of_kept(6, (2, 3, 4, 5), "hand-made")], ids=["untouched", "first gone"])
def test_a_plan_without_seams_keeps_its_blocks(plan: DepthPlan, tiny: Callable[..., Model]) -> None:
    found = drain(repair(objective_of(tiny("llama")), plan))
    assert (found.blocks, found.repairs, found.method) == (plan.blocks, (), plan.method)


def test_an_earlier_repair_is_dropped(tiny: Callable[..., Model], mended: Callable[..., DepthPlan]) -> None:
    again = drain(repair(objective_of(tiny("llama")), mended("llama", "ridge"), "scalar"))
    assert (again.blocks, again.repairs) == (mended("llama", "scalar").blocks, mended("llama", "scalar").repairs)


def test_a_plan_repaired_twice_tells_only_of_the_last(tiny: Callable[..., Model], mended: Callable[..., DepthPlan]) -> None:
    again = drain(repair(objective_of(tiny("llama")), mended("llama", "ridge"), "scalar"))
    assert [key for key, _ in again.settings].count("repair") == 1


def test_a_repair_that_cannot_help_is_thrown_out(tiny: Callable[..., Model]) -> None:
    """With every candidate's score above what there was, the plan stays as it is."""
    objective = objective_of(tiny("llama"))
    real = objective.score
    objective.score = lambda plan, packs=None: real(plan, packs) + bool(plan.folds)  # type: ignore[method-assign]
    found = drain(repair(objective, DROPPED))
    assert (found.blocks, found.repairs) == (DROPPED.blocks, ())


def test_states_that_are_no_numbers_may_become_some(tiny: Callable[..., Model]) -> None:
    objective = objective_of(tiny("llama"))
    real = objective.score
    objective.score = lambda plan, packs=None: real(plan, packs) if plan.folds else math.nan  # type: ignore[method-assign]
    found = drain(repair(objective, DROPPED))
    assert found.repairs
    assert math.isnan(found.repairs[0].before)
    assert math.isfinite(found.repairs[0].after)


# --- Refused ---


def test_a_family_without_a_last_projection_is_refused(tiny: Callable[..., Model]) -> None:
    objective = objective_of(tiny("gemma3_text"))
    with pytest.raises(PlanError, match="gemma3_text normalises after its last projection"):
        drain(repair(objective, DROPPED))
    assert objective.forwards == 0


def test_too_few_packs_are_refused(tiny: Callable[..., Model]) -> None:
    with pytest.raises(SettingsError, match="more practice text"):
        drain(repair(objective_of(tiny("llama"), texts=TEXTS[:3]), DROPPED))
    assert len(objective_of(tiny("llama"), texts=TEXTS[:3]).records) == 1


def test_an_unknown_kind_is_refused(tiny: Callable[..., Model]) -> None:
    objective = objective_of(tiny("llama"))
    with pytest.raises(SettingsError, match=r"'magic'.*ridge, scalar"):
        drain(repair(objective, DROPPED, "magic"))
    assert objective.forwards == 0


# --- The best of a few ---


def test_the_best_of_a_few_is_the_best_on_what_is_held_out(tiny: Callable[..., Model]) -> None:
    objective = objective_of(tiny("llama"))
    plans = [plan_of_kept(6, kept, "hand-made") for kept in ((0, 1, 2), (0, 1, 4), (1, 3, 5))]
    each = [drain(repair(objective, plan)) for plan in plans]
    scores = [objective.score(plan, held_out(objective)) for plan in each]
    found = drain(repair_best(objective, plans))
    assert found.score == pytest.approx(min(scores))
    assert found.plan.blocks == each[scores.index(min(scores))].blocks
    assert found.stage == "repair"


def test_more_texts_are_used_than_the_search_had(tiny: Callable[..., Model]) -> None:
    small = objective_of(tiny("llama"), tokens=400)
    found = drain(repair_best(objective_for_repair(small, TOKENS), [DROPPED]))
    expected = drain(repair(objective_of(tiny("llama")), DROPPED))
    assert (found.plan.blocks, found.plan.repairs) == (expected.blocks, expected.repairs)


@pytest.mark.parametrize("name", ["cosine", "perplexity"])
def test_a_repair_tells_of_the_divergence_whatever_was_searched_for(name: str, tiny: Callable[..., Model]) -> None:
    """`Repair.before` and `after` are KL divergences."""
    model = tiny("llama")
    objective = objective_of(model, "kl")
    found = drain(repair_best(objective_for_repair(objective_of(model, name), TOKENS), [DROPPED]))
    assert found.score == pytest.approx(objective.score(found.plan, held_out(objective)), rel=1e-6)


# --- What a map does to a block ---


@pytest.mark.parametrize("family", ["gpt2", "qwen2", "phi3"])
@pytest.mark.parametrize("shape", ["matrix", "factor"])
def test_a_map_turns_what_the_last_projection_writes(family: str, shape: str, tiny: Callable[..., Model]) -> None:
    model = tiny(family)
    objective = objective_of(model, texts=TEXTS[:4])
    (record,) = objective.records
    generator = torch.Generator().manual_seed(3)
    tensor = torch.randn(32, 32, generator=generator) if shape == "matrix" else torch.tensor([-1.7])
    row = architecture_of(model.config)
    for place in (0, 1):
        wrote: list[torch.Tensor] = []
        module = blocks_of(model.network)[DROPPED.blocks[place].home].get_submodule(row.writes or "")
        hook = module.register_forward_hook(lambda _m, _a, output, wrote=wrote: wrote.append(output))
        before = run_block(model, objective.mixer, DROPPED.blocks[place], record.states[place], record)
        hook.remove()
        after = run_block(model, objective.mixer, marked(DROPPED, place, tensor).blocks[place], record.states[place], record)
        by_hand = wrote[0] @ tensor.T if shape == "matrix" else wrote[0] * tensor
        torch.testing.assert_close(after, before - wrote[0] + by_hand, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(after, before, atol=1e-2)


def test_a_map_reaches_the_bias_too() -> None:
    matrix = torch.tensor([[1.0, 2.0], [0.0, 1.0]])
    mark = name_map(matrix)
    bias, weight = torch.tensor([3.0, 4.0]), torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 5.0]])
    assert repaired([(1.0, bias)], torch.float32, mark, False).tolist() == [11.0, 4.0]
    assert repaired([(1.0, bias)], torch.float32, mark, True).tolist() == [11.0, 4.0]
    assert repaired([(1.0, weight)], torch.float32, mark, False).tolist() == [[1.0, 2.0, 12.0], [0.0, 1.0, 5.0]]
    assert repaired([(1.0, weight.T)], torch.float32, mark, True).T.tolist() == [[1.0, 2.0, 12.0], [0.0, 1.0, 5.0]]
    assert repaired([(0.5, bias), (0.5, bias + 2)], torch.float32, mark, False).tolist() == [14.0, 5.0]
    assert repaired([(1.0, bias)], torch.bfloat16, name_map(torch.tensor([2.0])), False).tolist() == [6.0, 8.0]


# --- Exported ---


@pytest.mark.parametrize("family", FOLDABLE)
@pytest.mark.parametrize("kind", ["ridge", "scalar"])
def test_an_exported_repair_reloads_as_it_ran(
    family: str, kind: str, tiny: Callable[..., Model], mended: Callable[..., DepthPlan], tmp_path: Path
) -> None:
    model, plan = tiny(family), mended(family, kind)
    if not plan.repairs:
        plan = marked(DROPPED, 1, torch.eye(32) * 0.5 + 0.1 if kind == "ridge" else torch.tensor([0.7]))
    network, info = AutoModelForCausalLM.from_pretrained(
        write(model, plan, tmp_path / "out"), local_files_only=True, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    mixer = Mixer(model.network)
    for pack in objective_of(model, texts=TEXTS[:4]).packs:
        record = capture(model, pack)
        expected = logits_of(model, normed(model, resume(model, mixer, record, plan.blocks, plan.prefix)))
        bare = logits_of(model, normed(model, resume(model, mixer, record, DROPPED.blocks, DROPPED.prefix)))
        with torch.no_grad():
            found = network(input_ids=pack.ids, position_ids=pack.positions, use_cache=False).logits
        assert torch.equal(found, expected)
        assert not torch.allclose(found, bare, atol=1e-6)
    assert plan_from_json(json.loads((tmp_path / "out" / "layerscope.json").read_text())) == plan


def test_only_the_last_projection_of_a_repaired_block_changes(tiny: Callable[..., Model], tmp_path: Path) -> None:
    model = tiny("gpt2")
    matrix = torch.randn(32, 32, generator=torch.Generator().manual_seed(1))
    plain = load_file(write(model, DROPPED, tmp_path / "plain") / "model.safetensors")
    found = load_file(write(model, marked(DROPPED, 1, matrix), tmp_path / "found") / "model.safetensors")
    changed = {name for name, tensor in plain.items() if not torch.equal(found[name], tensor)}
    assert changed == {"transformer.h.1.mlp.c_proj.weight", "transformer.h.1.mlp.c_proj.bias"}
    weight, bias = (f"transformer.h.1.mlp.c_proj.{kind}" for kind in ("weight", "bias"))
    torch.testing.assert_close(found[weight], plain[weight] @ matrix.T)
    torch.testing.assert_close(found[bias], matrix @ plain[bias])


def test_a_repair_is_rounded_once(tiny: Callable[..., Model], mended: Callable[..., DepthPlan], tmp_path: Path) -> None:
    whole_ = load_file(write(tiny("llama"), mended("llama"), tmp_path / "whole") / "model.safetensors")
    half = load_file(write(tiny("llama"), mended("llama"), tmp_path / "half", dtype="bfloat16") / "model.safetensors")
    # float64 to float32 to bfloat16 rounds twice at most: one unit in the last place apart, almost everywhere equal
    pairs = [(half[name].float(), tensor.bfloat16().float()) for name, tensor in whole_.items()]
    assert all(torch.allclose(a, b, rtol=2**-7, atol=0) for a, b in pairs)
    assert sum(int((a != b).sum()) for a, b in pairs) < 5


@pytest.mark.parametrize("broken", [False, True])
def test_a_map_that_is_missing_is_told_before_anything_is_written(broken: bool, tiny: Callable[..., Model], tmp_path: Path) -> None:
    model, mark = tiny("llama"), ("b" if broken else "a") * 64
    if broken:
        map_file(mark).parent.mkdir(parents=True, exist_ok=True)
        map_file(mark).write_bytes(b"no safetensors")
    plan = replace(DROPPED, blocks=(*DROPPED.blocks[:2], replace(DROPPED.blocks[2], repair=mark)))
    with pytest.raises(PlanError, match=f"{mark[:12]} of this plan is not on this machine"):
        next(export(model.source, model.folder, plan, tmp_path / "out"))  # at the first step, before any planning
    assert not list(tmp_path.iterdir())
    with pytest.raises(PlanError, match="not on this machine"):
        objective_of(model).score(plan)


@pytest.mark.parametrize("shape", [(16, 16), (32, 16), (3,)])
def test_a_map_of_another_width_is_refused_in_words(shape: tuple[int, ...], tiny: Callable[..., Model], tmp_path: Path) -> None:
    """A plan that was repaired on a wider or narrower model of the same depth."""
    model = tiny("llama")
    plan = marked(DROPPED, 1, torch.ones(shape))
    with pytest.raises(PlanError):
        drain(export(model.source, model.folder, plan, tmp_path / "out"))
    assert not list(tmp_path.iterdir())


# --- JSON and the maps' files ---


@pytest.mark.parametrize("kind", ["ridge", "scalar"])
def test_a_repaired_plan_goes_through_json(kind: str, mended: Callable[..., DepthPlan]) -> None:
    plan = mended("llama", kind)
    assert plan.repairs
    value = json.loads(json.dumps(plan_to_json(plan), allow_nan=False))
    assert plan_from_json(value) == plan
    assert value["repairs"][0].keys() == {"place", "kind", "strength", "before", "after", "fingerprint"}
    assert [block.get("repair", "") for block in value["blocks"]] == [block.repair for block in plan.blocks]
    assert any(f"({kind})" in sentence for sentence in describe(plan))


def test_figures_that_are_none_come_back_as_nan() -> None:
    value = plan_to_json(marked(DROPPED, 1, torch.tensor([2.0])))
    value["repairs"][0]["before"] = None
    assert math.isnan(plan_from_json(value).repairs[0].before)


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value["blocks"][1].update(repair="A" * 64),
        lambda value: value["blocks"][1].update(repair="../../etc/passwd"),
        lambda value: value["blocks"][1].update(repair="a" * 63),
        lambda value: value["blocks"][1].update(repair="a" * 64 + "\n"),
        lambda value: value["blocks"][1].update(repair=5),
        lambda value: value["blocks"][1].update(repair=None),
        lambda value: value.update(repairs=5),
        lambda value: value.update(repairs=[{}]),
        lambda value: value["repairs"][0].update(place="1"),
        lambda value: value["repairs"][0].update(after="much"),
        lambda value: value["repairs"][0].update(fingerprint="short"),
    ],
)
def test_repairs_that_are_none_are_refused(change: Callable[[Any], object]) -> None:
    value = plan_to_json(marked(DROPPED, 1, torch.tensor([2.0])))
    change(value)
    with pytest.raises(PlanError, match="no plan"):
        plan_from_json(value)


def test_maps_go_to_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = [torch.randn(5, 5, generator=torch.Generator().manual_seed(8)), torch.tensor([1.25])]
    marks = [name_map(tensor) for tensor in tensors]
    assert len(set(marks)) == 2
    assert [name_map(tensor) for tensor in tensors] == marks
    for mark in marks:
        keep_map(mark)
    pack_maps(marks, tmp_path / "plan.repairs.safetensors")
    elsewhere(monkeypatch, tmp_path)
    with pytest.raises(PlanError, match="not on this machine"):
        map_of(marks[0])
    unpack_maps(tmp_path / "plan.repairs.safetensors")
    monkeypatch.setattr(surgery, "_fresh", type(surgery._fresh)())  # and another session there
    assert [torch.equal(map_of(mark), tensor) for mark, tensor in zip(marks, tensors, strict=True)] == [True, True]
    assert {path.name for path in (tmp_path / "elsewhere" / "repairs").iterdir()} == {f"{mark}.safetensors" for mark in marks}


def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Another machine: nothing is kept on its disk, and nothing in memory."""
    monkeypatch.setenv("LAYERSCOPE_CACHE", str(tmp_path / "elsewhere"))
    monkeypatch.setattr(surgery, "_fresh", type(surgery._fresh)())


def test_a_map_is_what_its_numbers_and_shape_are() -> None:
    row = torch.arange(4.0)
    assert len({name_map(row), name_map(row.reshape(2, 2)), name_map(row + 1e-6)}) == 3
    assert name_map(row.double()) == name_map(row)
    assert name_map(row.reshape(2, 2).T.contiguous().T) == name_map(row.reshape(2, 2))


def test_few_maps_that_were_not_kept_stay_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere(monkeypatch, tmp_path)
    marks = [name_map(torch.tensor([float(number)])) for number in range(100)]
    assert len(surgery._fresh) <= 20
    assert map_of(marks[-1]).item() == 99
    with pytest.raises(PlanError):
        map_of(marks[0])
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_that_is_not_there_holds_no_maps(tmp_path: Path) -> None:
    unpack_maps(tmp_path / "plan.repairs.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_tampered_file_of_maps_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "plan.repairs.safetensors"
    mark = name_map(torch.tensor([1.5]))
    elsewhere(monkeypatch, tmp_path)
    save_file({mark: torch.tensor([1.5001])}, file)
    with pytest.raises(PlanError, match="not the one its plan names"):
        unpack_maps(file)
    save_file({"../../evil": torch.tensor([1.5])}, file)
    with pytest.raises(PlanError, match="not the one its plan names"):
        unpack_maps(file)
    for content in (b"", b"no safetensors at all", file.read_bytes()[:-3]):
        file.write_bytes(content)
        with pytest.raises(PlanError, match="cannot be read"):
            unpack_maps(file)
    assert not (tmp_path / "elsewhere").exists()
