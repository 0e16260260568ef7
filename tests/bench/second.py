"""Width and weights on a second family: a small qwen3 over bytes, trained on the practice texts and judged on the evaluation texts.

It trains here in minutes, and has KV groups of three heads, so that a third of them can be cut as in the demo.
"""

from dataclasses import replace
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from engine.jobs import drain
from engine.judge.cost import practice_texts
from engine.judge.evaluation import Judge
from engine.judge.practice import practice_packs
from engine.methods.masks.pruning import prune
from engine.methods.masks.selection import Wanted
from engine.methods.width.settings import TrimSettings
from engine.methods.width.widths import trim
from engine.models.loading import open_model
from engine.models.sources import parse_source
from engine.models.texts import bundled
from engine.plans.rules import untouched
from engine.plans.tensor_store import for_now
from engine.types import Model, Plan
from tests.bench.lab import Row
from tests.families import tiny_network, tiny_tokenizer

SIZES = {"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 8, "num_attention_heads": 6, "num_key_value_heads": 2}
STEPS, ROWS, LENGTH = 800, 4, 256


def trained(folder: Path) -> Model:
    """Return the model, opened from a folder that it is saved into."""
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(tiny_network("qwen3", **SIZES, head_dim=16, max_position_embeddings=1024).config)
    tokenizer = tiny_tokenizer()
    ids = torch.tensor(tokenizer("\n\n".join(practice_texts("english").texts)).input_ids)
    chance = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(network.train().parameters(), lr=2e-3, weight_decay=0.1)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=STEPS)
    for _ in range(STEPS):
        starts = torch.randint(len(ids) - LENGTH, (ROWS,), generator=chance)
        rows = torch.stack([ids[start : start + LENGTH] for start in starts.tolist()])
        network(input_ids=rows, labels=rows).loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        rate.step()
    network.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return drain(open_model(parse_source(str(folder))))


def second(row: Row, folder: Path) -> None:
    """Train it and print what cuts cost here: deeper ones than on the demo, of which so small a model feels little."""
    model = trained(folder)
    judge = Judge(model, bundled("english", "evaluation"), limit=20_000)
    packs = practice_packs(model, practice_texts("english"), 20_000)
    whole = untouched(SIZES["num_hidden_layers"])
    perplexity = drain(judge.judge(whole)).perplexity.source
    print(f"     qwen3, {model.spec.parameters / 1e6:.1f} M parameters, {perplexity:.2f} a byte on held-out text")

    def cost(plan: Plan) -> float:
        found = drain(judge.judge(plan))
        print(f"       x{found.perplexity.ratio:.3f} [{found.perplexity.interval[0]:.3f}, {found.perplexity.interval[1]:.3f}]")
        return found.perplexity.ratio

    with for_now():
        for what, kept in (("heads 6 to 2", TrimSettings(heads=2)), ("neurons -75 %", TrimSettings(neurons=88))):
            plain = cost(drain(trim(model, whole, packs, replace(kept, score="minitron", compensation="nothing"))))
            ratio = cost(drain(trim(model, whole, packs, kept))) / plain
            row(f"qwen3: {what}, refit / plain Minitron", f"{ratio:.2f}", "< 1", ratio < 1)
        methods = ("magnitude", "wanda", "gblm", "sparsegpt")
        costs = {method: cost(drain(prune(model, whole, packs, method, Wanted(0.75)))) for method in methods}
        for method in methods[1:]:
            ratio = costs[method] / costs["magnitude"]
            row(f"qwen3: 75 % of the weights by {method} / by magnitude", f"{ratio:.2f}", "< 1", ratio < 1)
