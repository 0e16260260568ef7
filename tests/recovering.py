"""Runs of tiny models for tests: started, resumed, stopped.

`python -m tests.recovering DEED=FOLDER...` goes on with some, in a process that may be killed: `finish` resumes a run to its end, `learn`
leaves its checkpoint out, and `replicate` takes its steps with torch's own data parallelism instead.
"""

import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from transformers import AutoModelForCausalLM, AutoTokenizer

from engine.export.checkpoint import export as checkpoint
from engine.export.checkpoint import recovered
from engine.jobs import drain
from engine.methods.depth.baselines import plan_of_kept
from engine.models.loading import open_model
from engine.models.sources import parse_source
from engine.plans.surgery import pack_mask
from engine.plans.tensor_store import keep_tensor, name_tensor
from engine.recover.distill import samples
from engine.recover.distill.student import student_of, trained
from engine.recover.run import learning, recovery, run_process
from engine.recover.run.recovery import recover
from engine.recover.run.runs import Run
from engine.recover.run.settings import RecoverySettings
from engine.recover.run.start import begin
from engine.training import parallel
from engine.training.loop import BETAS
from engine.training.recipe import rate_at
from engine.types import Model, Part, Plan, Trim
from tests.families import save_tiny
from tests.here import here
from tests.repairing import WORDS

LENGTH, ROWS, STEPS = 32, 4, 6
DEEP = plan_of_kept(6, (0, 1, 4, 5), "hand-made")  # a seam after block 1
NARROW = tuple(channel for channel in range(32) if channel % 8)  # 28 channels: four heads still divide them
SENTENCES = [" ".join(WORDS[(5 * text + 3 * place * (text + 1)) % len(WORDS)] for place in range(12)) for text in range(80)]


def literate(folder: Path, family: str, steps: int = 80) -> Model:
    """Save and open a tiny model that has learned to write such sentences: without that, to forget its source would be to gain."""
    save_tiny(folder, family)
    network, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = torch.tensor([token for sentence in SENTENCES for token in [*tokenizer(sentence)["input_ids"], 1]])
    rows = ids[: len(ids) // LENGTH * LENGTH].view(-1, LENGTH)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    torch.manual_seed(0)
    for _ in range(steps):
        some = rows[torch.randint(len(rows), (16,))]
        optimizer.zero_grad()
        network(input_ids=some, labels=some).loss.backward()
        optimizer.step()
    network.eval().save_pretrained(folder)
    return drain(open_model(parse_source(str(folder))))


def with_width(plan: Plan, trim: Trim) -> Plan:
    """Return a plan whose blocks all have a trim."""
    return replace(plan, blocks=tuple(replace(block, trim=trim) for block in plan.blocks), width=Part("hand-made"))


def with_zeros(plan: Plan, shape: tuple[int, int], name: str = "mlp.down_proj.weight") -> Plan:
    """Return a plan in which half of a projection's weights are zero."""
    left = torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.5
    masks = ((name, keep_tensor(name_tensor(pack_mask(left)))),)
    return replace(plan, blocks=tuple(replace(block, masks=masks) for block in plan.blocks), masks=Part("hand-made"))


def text_in(folder: Path, sentences: list[str] = SENTENCES) -> str:
    """Write a text to learn from, and return its path."""
    (folder / "text.txt").write_text("\n\n".join(sentences), encoding="utf-8")
    return str(folder / "text.txt")


def begun(model: Model, plan: Plan, folder: Path, autocast: str = "", texts: tuple[str, ...] = (), **asked: Any) -> Run:
    """Return a run that has not learned yet, of STEPS steps in a number format that is not measured."""
    settings = RecoverySettings(**{"tokens": 1, "rows": ROWS, "length": LENGTH, "rate": 3e-3, **asked})
    run = begin(model.source, model.spec, plan, texts or (text_in(folder.parent),), settings, folder)
    run.note(recipe=replace(run.record.asked, steps=STEPS, autocast=autocast))
    return run


def played(run: Run) -> dict[str, Any]:
    """Go on with a run in this process."""
    return drain(recover({"folder": str(run.folder)}))


def going_on(*deeds: tuple[str, Run], processes: int = 1) -> subprocess.Popen[bytes]:
    """Go on with runs, each by a deed named above, in a process of its own, or in several that learn together."""
    starting = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)] if processes > 1 else []
    return subprocess.Popen([sys.executable, *starting, "-m", "tests.recovering", *(f"{deed}={run.folder}" for deed, run in deeds)])


def stopped(run: Run, when: Callable[[str], bool]) -> None:
    """Go on with a run until a step of it is called as asked for, and let it drop there."""
    with closing(recover({"folder": str(run.folder)})) as job:
        next(step for step in job if when(step.label))


def told(run: Run) -> list[dict[str, Any]]:
    """Return a run's lines without how long anything took."""
    return [{key: value for key, value in line.items() if key != "seconds"} for line in run.lines()]


def weights_in(run: Run) -> dict[str, torch.Tensor]:
    """Return the weights that a run has written."""
    return load_file((run.weights if run.weights.exists() else run.folder) / "model.safetensors")


def assert_same(one: Run, other: Run) -> None:
    """Two runs came to the same bits, and tell the same of every step."""
    assert told(one) == told(other)
    ours, theirs = weights_in(one), weights_in(other)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def shortened(set_to: Callable[[object, str, Any], None] = setattr) -> None:
    """Let looks read little, and not often."""
    set_to(recovery, "JUDGE_TOKENS", 600)
    set_to(learning, "LOOK_TOKENS", 300)
    set_to(learning, "LOOKS", 3)
    set_to(learning, "LOOKING", 9.0)
    set_to(samples, "NEW_TOKENS", 6)


def _replicated(run: Run) -> None:
    """Take a run's steps on cross entropy by torch's DDP; the first process tells of each as the run would."""
    opened, recipe = drain(recovery._opened(run)), run.record.recipe
    assert recipe is not None
    student = student_of(opened.model, opened.plan)
    learns = list(trained(student, opened.plan, "all").values())
    network, optimizer = DistributedDataParallel(student), torch.optim.AdamW(learns, betas=BETAS, weight_decay=recipe.decay)
    for step in range(recipe.steps):
        batch = opened.rows.batch(step, recipe.rows, recipe.seed)
        ids, positions = (each.chunk(parallel.size())[parallel.rank()] for each in (batch.ids, batch.positions))
        follows = positions[:, 1:] > 0
        logits = network(input_ids=ids, position_ids=positions, use_cache=False).logits[:, :-1]
        loss = cross_entropy(logits[follows], ids[:, 1:][follows], reduction="sum") / recipe.tokens
        optimizer.zero_grad()
        (loss * parallel.size()).backward()  # DDP takes the mean of the processes' gradients
        length = torch.nn.utils.clip_grad_norm_(learns, recipe.clip).item()
        optimizer.param_groups[0]["lr"] = rate_at(recipe, step)
        optimizer.step()
        total = loss.detach().clone()
        torch.distributed.all_reduce(total)
        if parallel.first():
            run.log_line({"step": step + 1, "tokens": (step + 1) * recipe.tokens, "loss": total.item(), "gradient": length})


if __name__ == "__main__":
    shortened()
    learning.SAVE = 0.0  # a checkpoint after every step, so that a kill may fall into one
    run_process.in_fresh_process = checkpoint.in_fresh_process = here  # all in the one process that is killed
    with parallel.together():
        for deed, folder in (each.split("=", 1) for each in sys.argv[1:]):
            match deed:
                case "finish":
                    drain(recovered.recovered(Run(Path(folder))))
                case "learn":
                    played(Run(Path(folder)))
                case "replicate":
                    _replicated(Run(Path(folder)))
