"""The terminal commands that repeat an export, with options quoted for a shell."""

import shlex
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

from engine.judge.evaluation import Evaluation
from engine.models.texts import BUNDLED
from engine.types import ModelSource, Plan


def model_option(source: ModelSource) -> str:
    """Return the terminal's --model option of a source, including a Hub revision."""
    return "--model " + shlex.quote(str(source) + (f"@{source.revision}" if source.kind == "hub" and source.revision else ""))


def commands(source: ModelSource, plan: Plan, evaluation: Evaluation | None, facts: Mapping[str, Any]) -> list[str]:
    """Return the commands that repeat a result; lines that begin with # name files the user must supply."""
    opened = f"{model_option(source)} --dtype {source.dtype}"
    settings, lines = dict(plan.settings), []
    bare = not (plan.repairs or plan.width or plan.masks)
    if plan.method == "laco" and bare and {"C", "I", "T", "lowest", "highest", "rule", "similarity"} <= settings.keys():
        texts, note = texts_named(records(facts).get("calibration") or {}, "calibration")
        lines += [*note, f"layerscope propose {opened} --device {source.device} --calibration {texts}"]
        lines[-1] += "".join(f" -{name} {settings[name]}" for name in "CIT")
        lines[-1] += "".join(f" --{name} {settings[name]}" for name in ("lowest", "highest", "rule", "similarity")) + " --out plan.json"
    else:
        lines.append("# plan.json is the plan below" + ("; put plan.tensors.safetensors in the same folder" if plan.tensors else ""))
    if evaluation is not None:
        protocol = evaluation.protocol
        texts, note = texts_named({"name": protocol.texts}, "evaluation")
        lines += [*note, f"layerscope evaluate --plan plan.json {opened} --device {source.device} --text {texts}"]
        lines[-1] += f" --context {protocol.context} --stride {protocol.stride} --tokens {protocol.tokens}"
    return [*lines, f"layerscope export --plan plan.json {opened} --out pruned"]


def texts_named(record: Mapping[str, Any], purpose: str) -> tuple[str, list[str]]:
    """Return the terminal's name for these texts, and a remark if they are neither bundled nor a file."""
    name = str(record.get("name", "english")).removeprefix(f"{purpose}-")
    if name in BUNDLED or "/" in name or "." in name:
        return shlex.quote(name), []
    return f"{purpose}.txt", [f"# {purpose}.txt holds the {purpose} texts, one a line"]


def records(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return facts with dataclass records as mappings."""
    return {key: asdict(value) if is_dataclass(value) and not isinstance(value, type) else value for key, value in facts.items()}
