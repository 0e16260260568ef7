"""`make bench`: performance as ratios within one run on the demo model, each beside its bar. Never a timed test.

`python -m tests.bench search judge fold cost memory gguf slider lab second sheared kills learning server` runs some of it.

Absolute times drift with the machine; the two sides of a ratio are measured one after the other in the same run.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

from engine.cache import cache_folder
from engine.export.gguf import export_gguf
from engine.jobs import drain
from engine.judge.cost import SLICE_EACH, SLICE_TOKENS, cost_judge, costs, practice_texts
from engine.judge.evaluation import Judge
from engine.judge.objectives import Objective
from engine.judge.similarity import SimilarityMeter
from engine.judge.speed import measure_speed
from engine.methods.depth.baselines import plan_of_kept
from engine.methods.depth.laco import LacoSettings, propose
from engine.methods.depth.sleb import greedy
from engine.models.loading import open_model
from engine.models.sources import parse_source
from engine.models.texts import bundled, calibration_of
from engine.plans.files import plan_to_json
from engine.plans.live import live_network
from engine.plans.rules import fold_spans
from engine.recover.repair.seam_maps import REPAIRS, RepairSettings, repair, repair_best
from engine.search.frontier import frontier, outwards, step_at
from engine.search.search import Search
from engine.types import Model, Plan, TextSet
from tests import naive
from tests.bench.lab import lab
from tests.bench.learning import learning
from tests.bench.recovery import kills
from tests.bench.second import second
from tests.bench.server import server
from tests.bench.sheared import sheared

SETTINGS = LacoSettings(C=4, I=2, T=0.65, lowest=0, highest=29)


def timed(call: Callable[[], object]) -> float:
    """Return the wall time of a call in seconds."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def row(what: str, value: str, bar: str, met: bool) -> None:
    """Print one line of the table."""
    print(f"{'ok  ' if met else 'MISS'} {what:<78} {value:>18}   bar {bar}", flush=True)


def forget() -> None:
    """Remove all measurements."""
    for file in cache_folder().glob("measurements.sqlite*"):
        file.unlink()


def proposals(model: Model, name: str, texts: TextSet) -> None:
    """One naive proposal against ours and against the whole T map, from an empty cache."""

    def ours() -> object:
        forget()
        return drain(propose(SimilarityMeter(model, texts), SETTINGS))

    def whole_map() -> object:
        forget()
        return drain(frontier(SimilarityMeter(model, texts), SETTINGS, 0.5))

    def naively() -> object:
        return naive.layer_collapse(model.network, model.tokenizer, texts.texts, 4, 2, 0.65, 0, 29, "reference")

    timed(ours)  # warm
    once = statistics.median([timed(ours) for _ in range(3)])
    slow = timed(naively)
    again = statistics.median([timed(ours) for _ in range(3)])
    whole = timed(whole_map)
    fast = (once + again) / 2  # on both sides of the naive run, so that drift cancels
    print(f"     {name}: naive {slow:.1f} s, ours {fast:.2f} s, map {whole:.1f} s")
    row(f"one proposal, naive / ours ({name})", f"{slow / fast:.1f}", ">= 25", slow / fast >= 25)
    row(f"whole T map to 0.5 / one naive proposal ({name})", f"{whole / slow:.2f}", "<= 1.0", whole / slow <= 1.0)


KEEPS = (26, 24, 22)


def searches(model: Model) -> None:
    """Search and repair against the greedy KL baseline, judged on held-out English text."""
    practice, held = bundled("english", "practice"), bundled("english", "evaluation")
    judge, quick = Judge(model, held, limit=6000), Judge(model, held, limit=3000)

    def ratio(plan: Plan, by: Judge = judge) -> float:
        return drain(by.judge(plan)).perplexity.ratio

    scores: dict[int, tuple[float, float, list[Plan], Objective]] = {}
    slow = Objective(model, practice)  # greedy removal goes through each depth on its way to the next
    for keep in KEEPS:
        greedy_plan = drain(greedy(slow, keep)).plan
        goal = Objective(model, practice)
        run = Search(goal, keep, seconds=165, forwards=slow.forwards / 3)
        took = timed(lambda run=run: drain(run.run()))
        ours, theirs = ratio(run.history[-1].plan), ratio(greedy_plan)
        scores[keep] = (ours, theirs, run.best(3), goal)
        print(
            f"     {keep} layers: greedy x{theirs:.3f}, {slow.forwards:.0f} blocks; search x{ours:.3f}, {goal.forwards:.0f}, {took:.0f} s"
        )
        row(f"perplexity, searched / greedy KL, {keep} layers", f"{ours / theirs:.3f}", "<= 1.00", ours <= theirs * 1.0005)
        row(
            f"blocks run, search / greedy, {keep} layers",
            f"{goal.forwards / slow.forwards:.2f}",
            "<= 1/3",
            goal.forwards <= slow.forwards / 3,
        )
        row(f"seconds of the search, {keep} layers", f"{took:.0f}", "<= 180", took <= 180)
    ours, theirs, plans, goal = scores[24]
    wide = Objective(model, practice, limit=RepairSettings().tokens)
    repaired = ratio(drain(repair(wide, plans[0])))
    row("24 layers, ridge repair / without", f"{repaired / ours:.3f}", "<= 0.90", repaired <= 0.9 * ours)
    inside = ratio(drain(repair_best(wide, plans)).plan)
    row("24 layers, search with the repair inside / greedy KL", f"{inside / theirs:.3f}", "<= 0.85", inside <= 0.85 * theirs)
    worst = 0.0
    for gone in (range(3, 7), (1, 15, 28), (4, 12, 20, 25), range(24, 29)):  # some of them after massive activations
        plan = plan_of_kept(30, set(range(30)) - set(gone), "bench")
        for kind in REPAIRS:
            worst = max(worst, ratio(drain(repair(wide, plan, kind)), quick) / ratio(plan, quick))
    row("any plan repaired / the same unrepaired, the worst of eight", f"{worst:.3f}", "<= 1.01", worst <= 1.01)
    laco = drain(frontier(SimilarityMeter(model, bundled("english")), LacoSettings(C=4, I=2), 0.5))
    nearest = min(laco.steps, key=lambda step: (abs(step.proposal.plan.depth - 24), -step.t_from))  # the one it is surest of
    against = ratio(nearest.proposal.plan)
    what = f"searched and repaired, 24 layers / LaCo reference at its highest T, {nearest.proposal.plan.depth} layers"
    row(what, f"{inside / against:.3f}", "report", inside < against)


def costing(model: Model) -> None:
    """Quick costs from a ready map, the plan at T = 0.65 shown; against judging plans one by one with nothing shared."""
    for settings in (LacoSettings(C=4, I=2), LacoSettings(C=3, I=2, rule="keep-last")):
        name = f"C {settings.C}, I {settings.I}, {settings.rule}"
        found = drain(frontier(SimilarityMeter(model, bundled("english")), settings, 0.5))
        plans = outwards(found.steps, found.steps.index(step_at(found, 0.65)))
        forget()
        began, there = time.perf_counter(), list[float]()
        drain(costs(cost_judge(model), plans, lambda *_, there=there, began=began: there.append(time.perf_counter() - began)))
        row(f"from a ready map to the cost of the plan shown ({name})", f"{there[0]:.1f} s", "<= 5 s", there[0] <= 5)
        row(f"to the costs of all {len(plans)} plans to T = 0.5 ({name})", f"{there[-1]:.0f} s", "<= 90 s", there[-1] <= 90)
        forget()
        alone = Judge(model, practice_texts("english"), limit=SLICE_TOKENS, each=SLICE_EACH)
        slow = timed(lambda plans=plans, alone=alone: drain(costs(alone, plans[:8], lambda *_: None)))
        row(f"the first 8 of them, nothing shared / shared ({name})", f"{slow / there[7]:.2f}", "report", slow > there[7])


def judging(model: Model) -> None:
    """Judging a plan against a plain loop over the same windows; decode speed of 24 layers."""
    both = (bundled(language, "evaluation") for language in ("english", "korean"))  # neither has 20,000 tokens by itself
    held = calibration_of(tuple(text for texts in both for text in texts.texts), "evaluation")
    plan = plan_of_kept(30, set(range(30)) - set(range(13, 19)), "bench")
    live = live_network(model, plan)
    judge = Judge(model, held)
    windows_of = [(pack, span) for pack in judge.packs for span in pack.spans]

    @torch.no_grad()
    def plainly() -> None:
        for pack, (_, start, stop) in windows_of:
            ids = pack.ids[:, start:stop]
            for network in (model.network, live):
                network(input_ids=ids, labels=ids, use_cache=False)

    def ours() -> None:
        forget()
        drain(Judge(model, held).judge(plan))

    pairs = [(timed(ours), timed(plainly)) for _ in range(2)]
    share = statistics.median([a / b for a, b in pairs])
    row(f"judging a plan ({judge.protocol.tokens} tokens) / a plain transformers loop", f"{share:.2f}", "<= 1.1", share <= 1.1)
    speed = drain(measure_speed(model, plan, rounds=9))
    row("decode speed of 24 layers / the source's", f"{speed.decode_ratio:.3f}", ">= 1.1875", speed.decode_ratio >= 0.95 * 30 / 24)


_PEAK = "\nprint(next(int(l.split()[1]) for l in open('/proc/self/status') if l.startswith('VmHWM')))"


def peak(script: str) -> int:
    """Return the peak resident bytes of a fresh interpreter that runs a script (its own, not its children's)."""
    done = subprocess.run([sys.executable, "-c", script + _PEAK], check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1]) * 1024


# A verb of the terminal, run to its end.
_VERB = """import sys
sys.argv = ['layerscope', *{!r}]
from ui.terminal.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code"""


def memory(model: Model) -> None:
    """Peak memory of `propose` and of `export`, each in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        plan = f"{folder}/plan.json"
        command = ["propose", "-C", "4", "-I", "2", "-T", "0.65", "--lowest", "0", "--highest", "29", "--dtype", "float32", "--out", plan]
        forget()
        used = peak(_VERB.format(command))
        weights = model.spec.parameters * 4
        row("peak resident memory of propose / the model's float32 bytes", f"{used / weights:.2f}", "<= 2.0", used / weights <= 2.0)
        bare = peak("import torch")
        used = peak(_VERB.format(["export", "--plan", plan, "--out", f"{folder}/out", "--dtype", "float32"]))
        above = used - bare
        row("export: peak resident memory above the interpreter with torch imported", f"{above / 1e6:.0f} MB", "<= 300 MB", above <= 300e6)


def gguf(model: Model) -> None:
    """The demo's own GGUF file cut from 30 layers to 24, from an open plan to the file in its place; the check is told apart."""
    plan = fold_spans(30, [(12, 18)], "reference")
    source = Path(model.source.location)
    with tempfile.TemporaryDirectory() as folder:
        copied = timed(lambda: shutil.copyfile(source, f"{folder}/copy"))
        began = time.perf_counter()
        job = export_gguf(model.source, plan, Path(folder, "smaller.gguf"))
        next(step for step in job if step.label.startswith("Checking"))
        wrote = time.perf_counter() - began
        report = drain(job)
        checked = time.perf_counter() - began - wrote
        equal = next(check for check in report.checks if check.name == "bytes")
        print(f"     writing {wrote:.1f} s (a plain copy of the source {copied:.2f} s), checks {checked:.0f} s: {report.passed}")
        row("GGUF, 30 to 24 layers: tensors equal to the source's, byte for byte", equal.detail, "all", equal.passed)
        row("GGUF, 30 to 24 layers: seconds of the writing", f"{wrote:.1f}", "<= 5", wrote <= 5)
        Path(folder, "plan.json").write_text(json.dumps(plan_to_json(plan)), encoding="utf-8")
        above = peak(_VERB.format(["export", "--plan", f"{folder}/plan.json", "--format", "gguf", "--out", f"{folder}/again.gguf"]))
        above -= peak("import torch")
        row("GGUF export: peak memory above the interpreter with torch imported", f"{above / 1e6:.0f} MB", "<= 200 MB", above <= 200e6)


_DRAG = """async () => {
  const range = document.querySelector('#T input[type=range]'), ls = window.layerscope, taken = [];
  const frame = () => new Promise(requestAnimationFrame);
  const line = () => Number(document.querySelector('#ls-fold .ls-now').dataset.t);
  for (let i = 0; i < 60; i++) {
    const T = Math.round((0.97 - 0.46 * ((i * 37) % 60) / 60) * 1e4) / 1e4, wanted = ls.snap(T, true);
    const began = performance.now();
    range.value = T;
    range.dispatchEvent(new Event('input', {bubbles: true}));
    while (line() !== wanted && performance.now() - began < 2000) await frame();
    await frame(); await frame();
    taken.push(performance.now() - began);
    await new Promise((go) => setTimeout(go, 120));
  }
  return taken;
}"""


def slider() -> None:
    """T moved in headless Chromium: event to painted charts (the marks changed, and two animation frames), once the map, its
    costs and the landscape are there, which takes minutes."""
    from playwright.sync_api import sync_playwright

    from tests.browser.chromium import install
    from tests.browser.conftest import ARGUMENTS, asks

    port = 7898
    process = subprocess.Popen([sys.executable, "-m", "ui", "app", "--port", str(port)], stderr=subprocess.DEVNULL)
    try:
        with sync_playwright() as playwright:
            page = playwright.chromium.launch(executable_path=install(), args=ARGUMENTS).new_page(viewport={"width": 1440, "height": 900})
            for _ in range(120):
                try:
                    page.goto(f"http://127.0.0.1:{port}/#fold")
                    break
                except Exception:
                    time.sleep(0.5)
            page.locator("#ls-fold .ls-steps .plot-container").wait_for(timeout=400_000)
            page.get_by_text("Ready", exact=True).wait_for(timeout=400_000)
            page.wait_for_timeout(1500)
            requests: list[str] = []
            page.on("request", lambda request: requests.append(request.url) if asks(request.url) else None)
            taken = sorted(page.evaluate(_DRAG))
        p50, p95 = taken[len(taken) // 2], taken[int(len(taken) * 0.95)]
        row("T slider to painted charts, p95 (median)", f"{p95:.0f} ms ({p50:.0f})", "<= 100 ms", p95 <= 100)
        row("requests to the server while T moved", str(len(requests)), "0", not requests)
    finally:
        process.terminate()
        process.wait(20)


def main() -> None:
    """Run every benchmark, on a cache of its own that borrows the converted demo model."""
    lent = cache_folder() / "converted"
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LAYERSCOPE_CACHE"] = folder
        if lent.exists():
            (Path(folder) / "converted").symlink_to(lent)
        model = drain(open_model(parse_source("demo", "float32")))
        texts = bundled("english")
        openings = calibration_of(tuple(" ".join(text.split()[:10]) for text in texts.texts[:5]), "openings")
        chosen = set(sys.argv[1:]) or {
            "fold",
            "cost",
            "search",
            "judge",
            "memory",
            "gguf",
            "slider",
            "lab",
            "second",
            "sheared",
            "kills",
            "learning",
        }
        if "search" in chosen:
            searches(model)
        if "judge" in chosen:
            judging(model)
        if "cost" in chosen:
            costing(model)
        if "fold" in chosen:
            proposals(model, "5 truncated openings, as LaCo's code", openings)
            proposals(model, "the 10 bundled sentences", texts)
        if "memory" in chosen:
            memory(model)
        if "gguf" in chosen:
            gguf(model)
        if "lab" in chosen:
            lab(model, row, peak)
        if "sheared" in chosen:
            sheared(model, row)
        if "second" in chosen:
            second(row, Path(folder, "second"))
        if "learning" in chosen:
            learning(model, row, Path(folder, "learning"))
        if "kills" in chosen:
            kills(row, Path(folder, "kills"))
        if "slider" in chosen:
            slider()
        if "server" in chosen:
            server(row, Path(folder, "server"))


if __name__ == "__main__":
    main()
