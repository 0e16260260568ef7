"""The model card of an exported checkpoint."""

import math
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from engine.export.lineage import base_model, before, learned, sentences_of
from engine.export.provenance import Provenance
from engine.export.report.figures import bytes_of
from engine.judge.evaluation import Evaluation
from engine.models.checks.accounting import patterns
from engine.models.sources import lies_within
from engine.models.texts import assets_folder
from engine.plans.description import describe
from engine.plans.provenance import made
from engine.types import ModelSource, ModelSpec, Plan
from engine.untrusted import text_in

_INHERITED = ("license", "license_name", "license_link", "language")


def model_card(source: ModelSource, folder: Path, spec: ModelSpec, plan: Plan, record: dict[str, Any], known: Provenance) -> str:
    """Return the text of README.md: the model's origin, what was folded under which rule, and what was not done. `record` is the
    content of layerscope.json.

    `base_model` is named only if it is known to be a Hub id; licence and language come from the source's own card.
    """
    base = base_model(source, folder)
    inherited = {"license": "apache-2.0", "language": "en"} if source.kind == "demo" else _from_card(folder)
    evaluation = known.evaluation if known.evaluation and math.isfinite(known.evaluation.perplexity.plan) else None
    results = _results(evaluation)
    data = ModelCardData(
        model_name=f"{spec.name}, {plan.depth} layers" if results else None,
        eval_results=results or None,
        base_model=base,
        base_model_relation="finetune" if base else None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=_tags(plan),
        **inherited,
    )
    settings, lineage = dict(plan.settings), record["lineage"]
    accepted = [trial.similarity for trial in known.trials or () if trial.accepted]
    template = (assets_folder() / "model_card.md.j2").read_text(encoding="utf-8")
    card = ModelCard.from_template(
        data,
        template_str=template,
        name=spec.name,
        base=base,
        repruned=bool(before(lineage)),
        learned=learned(lineage[len(before(lineage)) :]),
        lineage=sentences_of(lineage) if before(lineage) or learned(lineage) else (),
        plan=plan,
        settings=settings,
        sentences=describe(plan),
        made=made(plan),
        parameters=record["parameters"],
        size=bytes_of(record["bytes"]),
        left_out=patterns(record["left_out"]),
        oldest=record["oldest_transformers"],
        spec=spec,
        similarity=accepted[-1] if accepted and math.isfinite(accepted[-1]) else None,
        calibration=known.calibration,
        evaluation=evaluation,
        speed=known.speed,
        memory=known.memory,
        bytes_of=bytes_of,
        fingerprint=record["source"]["fingerprint"],
        versions=record["versions"],
    )
    return str(card)


def _tags(plan: Plan) -> list[str]:
    parts = {"depth-pruning": plan.depth < plan.source_depth, "layer-merge": plan.folds, "width-pruning": plan.width, "sparse": plan.masks}
    untrimmed = not plan.width and not plan.masks
    named = [tag for tag, true in parts.items() if true or (untrimmed and tag in ("depth-pruning", "layer-merge"))]
    return ["pruned", *named, *(["laco"] if plan.method == "laco" else [])]


def _results(evaluation: Evaluation | None) -> list[EvalResult]:
    """Return the model-index: the plan's measured cost with texts and protocol."""
    if evaluation is None:
        return []
    protocol = evaluation.protocol
    how = f"{protocol.tokens} tokens, windows of {protocol.context}, stride {protocol.stride}"
    measured = {
        "perplexity": evaluation.perplexity.plan,
        "perplexity of the source": evaluation.perplexity.source,
        "KL divergence from the source (nats per token)": evaluation.kl,
        "top-1 agreement with the source": evaluation.top1_agreement,
    }
    return [
        EvalResult(
            task_type="text-generation",
            dataset_type="text",
            dataset_name=f"{protocol.texts} ({how})",
            dataset_revision=protocol.fingerprint,
            metric_type="perplexity" if name.startswith("perplexity") else name,
            metric_name=name,
            metric_value=value,
        )
        for name, value in measured.items()
    ]


def _from_card(folder: Path) -> dict[str, Any]:
    card = folder / "README.md"
    if not lies_within(card, folder):
        return {}
    try:
        data = ModelCard(text_in(card), ignore_metadata_errors=True).data.to_dict()
    except Exception:  # YAML parsers raise many kinds of errors
        return {}
    return {key: data[key] for key in _INHERITED if data.get(key)}
