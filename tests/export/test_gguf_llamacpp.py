"""A GGUF file that is exported runs in llama.cpp, and computes what its plan computes here."""

from pathlib import Path

import pytest
import torch

from engine.export.gguf import copied_tensors, read_gguf, require_pattern, write_gguf
from engine.methods.depth.baselines import plan_of_kept
from engine.model_lock import Turn
from engine.models.gguf.convert import load_gguf
from engine.plans.live import live_network
from engine.plans.rules import fold_spans
from engine.types import Model, ModelSource, Plan
from tests.ggufs import write_gguf as write_tiny
from tests.llamacpp import apart, running
from tests.models.test_gguf_logits import CASES, sharp

IDS = torch.randint(2, 250, (1, 200), generator=torch.Generator().manual_seed(1))
DROPPED = plan_of_kept(6, {0, 1, 4, 5}, "by hand")
FOLDED = fold_spans(6, [(2, 4)], "reference")


def written(source: Path, plan: Plan, target: Path) -> Path:
    opened = read_gguf(source)
    require_pattern(opened, plan)
    list(write_gguf(opened, plan, copied_tensors(opened, plan), target))
    return target


@pytest.mark.parametrize("plan", [DROPPED, FOLDED], ids=["dropped", "folded"])
@pytest.mark.parametrize("case", ["llama, yarn", "llama 3", "llama with biases", "qwen2, yarn"])
def test_a_plan_of_float_weights_computes_the_same_there(case: str, plan: Plan, tmp_path: Path) -> None:
    family, settings, keys, tensors = CASES[case]
    network = sharp(family, **{**settings, "num_hidden_layers": 6})
    source = write_tiny(tmp_path / "source.gguf", network, {f"{family}.{key}": value for key, value in keys.items()}, tensors)
    network, _, tokenizer = load_gguf(source)
    model = Model(ModelSource("gguf", str(source)), None, tmp_path, network.config, network, tokenizer, "", Turn())  # type: ignore[arg-type]
    live = live_network(model, plan)
    with running(written(source, plan, tmp_path / "out.gguf"), 256) as server:
        assert apart(server, live, IDS, 300)[0] <= 2e-5
        assert apart(server, network, IDS, 300)[0] > 1e-2  # and not what the source computes


def test_the_demo_at_26_layers_computes_the_same_there_but_for_the_rounding_of_its_blocks(demo: Model, tmp_path: Path) -> None:
    """llama.cpp multiplies the demo's blocks of four bits by activations of eight: that is what may differ, and what differs less in the
    tokens that are likely."""
    plan = plan_of_kept(30, set(range(30)) - {9, 13, 17, 21}, "by hand")
    file = written(Path(demo.source.location), plan, tmp_path / "demo.gguf")
    ids = demo.tokenizer(
        "The harbour lies where the river meets the sea, and the ships that come in at night", return_tensors="pt"
    ).input_ids
    live = live_network(demo, plan)
    with running(file, 256) as server:
        difference, seen = apart(server, live, ids, 50)
        other, _ = apart(server, demo.network, ids, 50)
    assert seen == 50
    assert difference < 0.5 < 2 < other  # of a log-probability; 0.27 and 3.4 where this was written
