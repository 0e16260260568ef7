"""The report states what the records contain, escapes user input, and loads nothing from the network."""

import html
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from typing import Any

import pytest

from engine.export.report.findings import faster, telling, verdict
from engine.export.report.html import report_html
from engine.export.report.pictures import strip
from engine.jobs import drain
from engine.judge.evaluation import Evaluation, Judge, Protocol, TextScore, summary
from engine.judge.similarity import SimilarityMeter
from engine.methods.depth.laco import Proposal
from engine.models.texts import calibration_of
from engine.passes.profiling import Profile, profile
from engine.plans.description import describe, weigh
from engine.plans.files import plan_from_json, plan_to_json
from engine.plans.rules import fold_spans, untouched
from engine.search.frontier import Frontier, Step
from engine.types import Block, Model, ModelSource, Plan, Repair
from tests.export.test_lineage import PLAN as STEP
from tests.export.test_lineage import RECOVERY, SOURCE
from tests.families import TEXTS
from ui.text.extraction import messages

PLAN = fold_spans(6, [(1, 3)], "reference")
EVIL = "<script>alert('x')</script>"
PROTOCOL = Protocol("evaluation-english", "ab" * 32, 64, 32, 300, True)


def generated(text: str, loops: bool = False) -> dict[str, Any]:
    return {"text": text, "tokens": 7, "distinct_1": 0.5, "distinct_2": 0.75, "longest_repeat": 4, "loops": loops}


SAMPLES = [
    {"prompt": f"Once {EVIL}", "decoding": "greedy", "source": generated("a fox & a hen"), "plan": generated("la la la la", loops=True)},
    {"prompt": "Then", "decoding": "sampled", "source": generated("it rained"), "plan": generated("  ")},
]
SPEED = {"device": "cpu", "dtype": "float32", "threads": 1, "processors": 2, "prompt_tokens": 128, "new_tokens": 32, "rounds": 5}
SPEED |= {"source_prefill": 512.25, "plan_prefill": 601.5, "source_decode": 21.25, "plan_decode": 27.5}
SPEED |= {"prefill_ratio": 1.17, "decode_ratio": 1.29, "prefill_range": (0.97, 1.2), "decode_range": (1.2, 1.4), "depth_ratio": 4 / 6}
SPEED |= {"source_peak": 4_000_000, "plan_peak": 3_000_000}
MEMORY = {"context": 4096, "batch": 2, "source_cache": 3_000_000, "plan_cache": 2_000_000, "plan_disk": 123_400, "depth_ratio": 4 / 6}
MEMORY |= {"source_parameters": 3, "plan_parameters": 2, "source_weights": 12, "plan_weights": 8}


def scores(*rises: float) -> Evaluation:
    """An evaluation of texts of 100 tokens each, of which the plan's log-likelihood is this much worse a token."""
    return summary(PROTOCOL, [TextScore(100, 300.0, 300.0 + 100 * rise, 40.0, 70.0, 95.0) for rise in rises])


class Addresses(HTMLParser):
    """Collects every attribute that may name something to fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = ("src", "srcset", "href", "xlink:href", "action", "formaction", "data", "poster", "background", "ping")
        self.found += [value or "" for name, value in attrs if name in names]


@cache
def measured(model: Model) -> tuple[Profile, Evaluation, Frontier]:
    texts = calibration_of(TEXTS)
    steps = tuple(
        Step(low, high, Proposal(plan, ())) for low, high, plan in ((0.75, 1.0, untouched(6)), (0.6, 0.75, PLAN), (0.5, 0.6, PLAN))
    )
    found = drain(profile(SimilarityMeter(model, texts).captures))
    return found, drain(Judge(model, calibration_of((*TEXTS, "Another text to judge by."))).judge(PLAN)), Frontier(0.5, steps)


def report_of(model: Model, **changes: Any) -> str:
    found, evaluation, frontier = measured(model)
    practice = {"name": "practice-english", "texts": 40, "fingerprint": "ef" * 32}
    values: dict[str, Any] = {"spec": model.spec, "source": model.source, "fingerprint": model.fingerprint, "plan": PLAN}
    values |= {"profile": found, "evaluation": evaluation, "frontier": frontier, "samples": SAMPLES, "speed": SPEED, "memory": MEMORY}
    values["facts"] = {"versions": {"torch": "9.8.7"}, "calibration": calibration_of(TEXTS), "practice": practice}
    return report_html(**{**values, **changes})


def bare(model: Model) -> str:
    return report_of(model, evaluation=None, frontier=None, samples=None, speed=None, memory=None, facts={})


def without_plotly(page: str) -> str:
    """The page less the one script that is plotly's."""
    start = page.index("<script>")
    assert "plotly.js v" in page[start : start + 200]
    return page[:start] + page[page.index("</script>", start) :]


def words(page: str) -> str:
    """What a person reads, scripts and style left out."""
    body = re.sub(r"<(script|style)[^>]*>.*?</\1>", " ", without_plotly(page), flags=re.S)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", body)))


def figures(page: str) -> dict[str, Any]:
    return json.loads(re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, re.S).group(1))


TASKS = [
    {"task": "layerscope_cloze", "metric": "acc", "source": 0.625, "source_stderr": 0.031, "plan": 0.5, "plan_stderr": 0.032},
    {"task": EVIL, "metric": "word_perplexity", "source": 12.5, "source_stderr": None, "plan": float("nan"), "plan_stderr": float("nan")},
]


def test_tasks_stand_beside_the_costs_where_they_were_run(tiny: Callable[..., Model]) -> None:
    page = report_of(tiny("llama"), tasks=TASKS)
    assert "layerscope_cloze acc 0.625 ± 0.031 0.500 ± 0.032" in words(page)
    assert f"{EVIL} word_perplexity 12.5 not a number" in words(page)
    assert EVIL not in page
    assert "standard error" not in words(report_of(tiny("llama")))


def test_figures_are_the_records(tiny: Callable[..., Model]) -> None:
    model = tiny("llama")
    found, evaluation, frontier = measured(model)
    page = report_of(model)
    read, drawn = words(page), figures(page)
    parameters, size = weigh(model.spec, PLAN)
    expected = [model.spec.name, "6 layers to 4", f"{model.spec.parameters:,}", f"{parameters:,}", *describe(PLAN), model.fingerprint]
    expected += [
        evaluation.protocol.texts,
        f"windows of {evaluation.protocol.context} tokens, stride",
        evaluation.protocol.fingerprint[:12],
    ]
    expected += [f"{100 * evaluation.top1_agreement:.1f} %", f"{evaluation.kl:.3g}"]
    expected += [f"{value:.3g}" for value in (evaluation.perplexity.source, evaluation.perplexity.plan)]
    expected += [
        "512 602 no clear difference in speed (0.97× to 1.20×)",  # it lies among the rounds
        "21.2 27.5 1.30× as fast (1.20× to 1.40×)",  # 27.5 / 21.2
        "1.50× as fast",
        "4.0 MB 3.0 MB −25.0 %",
        "3.0 MB 2.0 MB −33.3 %",
        "123.4 kB",
    ]
    expected += ["versions: torch 9.8.7", calibration_of(TEXTS).fingerprint, "ef" * 32, *TEXTS]
    assert [text for text in expected if text not in read] == []
    assert (
        size
        == parameters * model.spec.bytes_per_parameter
        == sum(p.nbytes for p in model.network.parameters()) * parameters / (model.spec.parameters)
    )
    assert [value for row in drawn["similarity"] for value in row] == pytest.approx([v for row in found.similarity for v in row], rel=1e-5)
    assert drawn["influence"] == pytest.approx([layer.block_influence for layer in found.layers], rel=1e-5)
    assert drawn["touched"] == [1, 2, 3]
    assert [entry["tokens"] for entry in drawn["texts"]] == [text.tokens for text in evaluation.texts]
    ratios = [math.exp((text.plan_nll - text.source_nll) / text.tokens) for text in evaluation.texts]
    assert [entry["ratio"] for entry in drawn["texts"]] == pytest.approx(ratios, rel=1e-5)
    assert [step["depth"] for step in drawn["steps"]] == [step.proposal.plan.depth for step in frontier.steps]
    assert drawn["chosen"] == 1


def test_the_cost_is_told_with_the_digits_that_its_interval_supports(tiny: Callable[..., Model]) -> None:
    evaluation = scores(0.4, 0.5)
    evaluation = replace(evaluation, perplexity=replace(evaluation.perplexity, ratio=1.9832, interval=(1.8967, 2.0731)))
    others = (("block influence", 3, 50_000, 2.04, 1.63, 2.44), ("broken", 2, 40_000, math.inf, math.nan, math.nan))
    page = report_of(tiny("llama"), evaluation=evaluation, others=others)
    read, drawn = words(page), figures(page)["cost"]
    assert "1.98 times as many (95 % confidence interval: 1.90 to 2.07 times)" in read
    assert "1.98 (1.90 to 2.07)" in read
    assert "block influence 3 50,000 2.0 (1.6 to 2.4)" in read
    assert [(point["label"], point["depth"], point["ratio"]) for point in drawn["points"]] == [
        (None, 4, 1.9832),
        ("block influence", 3, 2.04),
    ]
    assert drawn["source"] == pytest.approx(tiny("llama").spec.parameters)
    assert "Hollow: 2 other plans" in read


def test_what_matters_comes_first_and_the_rest_is_folded_away(tiny: Callable[..., Model]) -> None:
    page = without_plotly(report_of(tiny("llama")))
    front, rest = page.split('<details id="all">')
    assert re.findall(r'<section[^>]* id="(\w+)"', front) == ["verdict", "size", "pair", "gains"]
    assert re.findall(r'<section[^>]* id="(\w+)"', rest) == ["plan", "costs", "further", "redundancy", "frontier", "samples", "repeat"]
    assert front.count('class="sample"') == 1


def test_korean_says_the_same_figures(tiny: Callable[..., Model]) -> None:
    english, korean = (report_of(tiny("llama"), language=language, tasks=TASKS) for language in ("en", "ko"))
    assert '<html lang="ko">' in korean
    assert figures(korean)["similarity"] == figures(english)["similarity"]
    read = words(korean)
    assert "레이어 6개를 4개로" in read
    assert "2-3번 레이어를 1번 레이어에 병합" in read
    assert "512 602 속도에 뚜렷한 차이 없음(0.97–1.20배)" in read
    assert "샘플 2개 가운데 작아진 모델은 1개, 원본은 0개에서" in read
    said = [sentence for sentence, place in messages() if place.startswith(("assets/report", "engine/export", "engine/plans/description"))]
    sentences = [sentence for sentence in said if len(sentence) > 12 and "{" not in sentence]
    assert len([sentence for sentence in sentences if sentence in words(english)]) > 40
    assert [sentence for sentence in sentences if sentence in read] == []


@pytest.mark.parametrize(
    ("before", "after", "rounds", "told"),
    [
        (21.2, 27.5, (1.2, 1.4), "1.30× as fast (1.20× to 1.40×)"),
        (100.0, 103.0, (0.97, 1.09), "no clear difference in speed (0.97× to 1.09×)"),
        (100.0, 81.0, (0.6, 0.9), "0.81× as fast (0.60× to 0.90×)"),
        (21.2, 27.5, None, "1.30× as fast"),  # measured before ranges were kept
        (21.2, 27.5, (1.3, 1.3), "1.30× as fast"),  # a single round has no range
    ],
)
def test_a_speed_is_told_by_the_two_figures_beside_it(before: float, after: float, rounds: tuple[float, float] | None, told: str) -> None:
    assert faster(before, after, rounds) == told


def test_the_pair_shown_is_the_most_telling_one() -> None:
    def sample(decoding: str, source: dict[str, Any], plan: dict[str, Any]) -> dict[str, Any]:
        return {"prompt": "", "decoding": decoding, "source": source, "plan": plan}

    same, other, stuck, blank = generated("a"), generated("b"), generated("la la", loops=True), generated("  ")
    alike, differ = sample("greedy", same, same), sample("sampled", same, other)
    silent, loops = sample("sampled", same, blank), sample("sampled", same, stuck)
    both = sample("greedy", stuck, stuck)
    assert telling([]) is None
    assert [telling(found)[0] for found in ([alike, differ], [differ, silent, alike], [silent, loops, differ])] == [differ, silent, loops]
    assert telling([loops, sample("greedy", same, stuck)])[0]["decoding"] == "greedy"
    assert telling([both, differ])[0] == differ  # the source is stuck there too
    assert telling([alike])[1] == "In all 1 samples the smaller model writes the same text as its source; this is one of them."


def test_the_plan_can_be_read_back(tiny: Callable[..., Model]) -> None:
    plan = replace(PLAN, repairs=(Repair(1, "ridge", 0.1, math.nan, 0.2, "ab" * 32),), settings=(("rule", EVIL), ("keep", 4)))
    page = report_of(tiny("llama"), plan=plan)
    recipe = html.unescape(re.search(r'<pre id="recipe">(.*?)</pre>', page, re.S).group(1))
    back = plan_from_json(json.loads(recipe))
    assert math.isnan(back.repairs[0].before)
    assert plan_to_json(replace(back, repairs=())) == plan_to_json(replace(plan, repairs=()))


def test_what_people_typed_is_quoted(tiny: Callable[..., Model]) -> None:
    model = tiny("llama")
    plain = report_of(model, samples=None)
    facts = {"calibration": calibration_of((EVIL,)), EVIL: EVIL}
    page = report_of(model, spec=replace(model.spec, name=EVIL), source=ModelSource("hub", EVIL, EVIL), facts=facts)
    assert page.count("<script") == plain.count("<script")
    assert page.lower().count(EVIL) == 0
    assert page.count(html.escape("<script>alert(")) >= 6
    assert "hub:" in words(page)


@pytest.mark.parametrize("full", [True, False])
def test_nothing_is_fetched_and_it_is_small(full: bool, tiny: Callable[..., Model]) -> None:
    page = report_of(tiny("llama")) if full else bare(tiny("llama"))
    assert len(page.encode()) < 6_000_000
    assert page.count("plotly.js v") == 1
    own = without_plotly(page)
    addresses = Addresses()
    addresses.feed(own)
    assert [value.split(",")[0] for value in addresses.found] == ["data:application/json;charset=utf-8"]
    assert not re.search(r"url\(|@import|import\(|fetch\(|<link|<iframe|https?://", own)
    assert "default-src 'none'" in own


def test_everything_optional_can_be_left_out(tiny: Callable[..., Model]) -> None:
    page = bare(tiny("gpt2"))
    read = words(page)
    assert "The cost of the plan has not been measured" in read
    assert "Speed was not measured" in read
    assert "Generated text" not in read
    assert "Other possible depths" not in read
    assert "layerscope evaluate" not in read
    assert not {"texts", "steps"} & figures(page).keys()


def test_generations_stand_side_by_side_and_loops_are_marked(tiny: Callable[..., Model]) -> None:
    page = report_of(tiny("llama"))
    read = words(page)
    assert page.count('class="loops"') == 2  # in the pair in front, and among all samples
    assert "smaller, greedy · ↻ repeats itself la la la la" in read
    assert "a fox & a hen" in read
    assert "smaller, sampled nothing" in read
    assert "repeats itself in 1 of 2 samples; the source in 0" in read


def test_a_plan_that_gives_no_numbers_is_called_broken(tiny: Callable[..., Model]) -> None:
    broken = scores(0.1, math.nan, math.nan)
    page = report_of(tiny("llama"), evaluation=broken)
    read = words(page)
    assert "The plan is broken On 2 of 3 texts the smaller model produces values that are not numbers (NaN), so it cannot be used." in read
    assert "2 of 3 texts have no dot" in read
    assert "not a number (no interval)" in read
    assert "nan" not in read.lower().split()
    assert [entry["ratio"] for entry in figures(page)["texts"]] == [pytest.approx(math.exp(0.1), rel=1e-5), None, None]
    assert "No text has a finite result to compare" in words(report_of(tiny("llama"), evaluation=scores(math.nan)))


@pytest.mark.parametrize(
    ("rises", "level", "headline"),
    [
        ((0.01, 0.02, 0.015), "good", "very little"),
        ((0.1, 0.12, 0.11), "good", "small but measurable"),
        ((0.4, 0.5, 0.45), "fair", "clear cost"),
        ((1.4, 1.5, 1.45), "poor", "heavy cost"),
        ((4.0, 5.0, 4.5), "broken", "It is effectively broken"),
        ((900.0, 900.0), "broken", "broken"),
        ((-0.1, -0.12), "good", "unusual"),
        ((-0.01, 0.01, 0.02), "good", "does not differ measurably"),
        ((-1.0, 2.0), "fair", "too few texts"),
    ],
)
def test_the_verdict_follows_the_numbers(rises: tuple[float, ...], level: str, headline: str) -> None:
    found = verdict(PLAN, scores(*rises))
    assert found[0] == level
    assert headline in found[1]


def test_the_verdict_knows_one_text_a_broken_source_and_an_untouched_plan() -> None:
    assert "One text gives no confidence interval" in " ".join(verdict(PLAN, scores(0.4))[2])
    assert "(95 %" not in " ".join(verdict(PLAN, scores(0.4))[2])
    assert "source model itself" in verdict(PLAN, replace(scores(0.4), perplexity=replace(scores(0.4).perplexity, source=math.nan)))[1]
    assert verdict(PLAN, replace(scores(0.01, 0.02, 0.015), top1_agreement=0.3))[1].endswith("but it predicts other tokens")
    assert verdict(untouched(6), scores(0.0, 0.0))[1] == "Nothing was changed, so nothing is lost"


def test_texts_that_the_plan_was_made_with_are_owned_up_to(tiny: Callable[..., Model]) -> None:
    confession = "fitted to these same texts"
    assert confession not in words(report_of(tiny("llama")))
    assert confession in words(
        report_of(tiny("llama"), plan=replace(PLAN, settings=(("practice", "ab" * 32),)), evaluation=scores(0.1, 0.2))
    )
    facts = {"calibration": {"name": "own", "fingerprint": "ab" * 32}}
    assert confession in words(report_of(tiny("llama"), facts=facts, evaluation=scores(0.1, 0.2)))


def test_commands_repeat_it(tiny: Callable[..., Model]) -> None:
    settings = {"C": 3, "I": 2, "T": 0.7123456789, "lowest": 1, "highest": 6, "rule": "mean", "similarity": "per-token"}
    plan = replace(PLAN, method="laco", settings=tuple(settings.items()))
    source = ModelSource("hub", "org/name", "v1", "bfloat16")
    page = report_of(tiny("llama"), plan=plan, source=source, evaluation=scores(0.1, 0.2), facts={"calibration": {"name": "my texts.txt"}})
    lines = html.unescape(re.search(r'<pre id="commands">(.*?)</pre>', page, re.S).group(1)).strip().splitlines()
    opened = "--model hub:org/name@v1 --dtype bfloat16"
    assert lines == [
        f"layerscope propose {opened} --device cpu --calibration 'my texts.txt' -C 3 -I 2 -T 0.7123456789 --lowest 1 --highest 6"
        " --rule mean --similarity per-token --out plan.json",
        f"layerscope evaluate --plan plan.json {opened} --device cpu --text english --context 64 --stride 32 --tokens 300",
        f"layerscope export --plan plan.json {opened} --out pruned",
    ]
    own = report_of(tiny("llama"), facts={"commands": ["make it so"]})
    assert "make it so" in words(own)
    assert "layerscope export" not in words(own)
    assert "# plan.json is the plan below" in words(report_of(tiny("llama")))


@pytest.mark.parametrize("upright", [False, True])
def test_the_strip_has_every_layer_and_every_block(upright: bool) -> None:
    blocks = (Block(0, ((0, 1.0),)), Block(1, ((3, 1.0),)), Block(5, ((5, 1.0),), "ab" * 32))
    drawn = strip(Plan(6, blocks, "hand-made"), upright)
    rows = [[cell for cell in drawn["cells"] if cell["row"] == row] for row in (0, 1)]
    assert [cell["kind"] for cell in rows[0]] == ["kept", "home", "gone", "donor", "gone", "kept"]
    assert [(cell["layer"], cell["kind"], cell["repaired"]) for cell in rows[1]] == [
        (0, "kept", False),
        (1, "home", False),
        (5, "kept", True),
    ]
    assert [link["folded"] for link in drawn["links"]] == [False, True, False]
    for x, y, width, height in (cell["box"] for cell in drawn["cells"]):
        assert 0 <= x <= x + width <= drawn["width"]
        assert 0 <= y <= y + height <= drawn["height"]


def test_a_report_tells_what_the_model_went_through(tiny: Callable[..., Model]) -> None:
    assert 'id="lineage"' not in report_of(tiny("llama"), lineage=[SOURCE])
    page = words(report_of(tiny("llama"), lineage=[SOURCE, STEP, RECOVERY]))
    assert "History of the model" in page
    assert "It was pruned to 24 of 30 layers" in page
    assert "this plan retrains nothing" in page
    assert "Nothing was retrained." not in page
