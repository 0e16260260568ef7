"""Export a plan as a checkpoint: streamed from the source's files, complete or not at all, then checked in a fresh process."""

import json
import math
import platform
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from engine.errors import ExportError
from engine.export.checkpoint import compatibility
from engine.export.checkpoint.target import appearing, require_disk, require_free, set_aside
from engine.export.lineage import hub_id, lineage_of, pruned
from engine.export.mergekit import mergekit_config
from engine.export.provenance import UNKNOWN, Provenance, provenance_to_json
from engine.export.report.card import model_card
from engine.jobs import Job, Progress, in_fresh_process
from engine.messages import Message
from engine.models.files.tensors import places_in, write_shards
from engine.models.loading import fingerprint_of, generation_config_in, inspected
from engine.models.sources import COMPANIONS, lies_within
from engine.plans.description import require_depth
from engine.plans.files import plan_to_json
from engine.plans.outputs import plan_outputs
from engine.plans.tensor_store import require_tensors
from engine.plans.trimming import form_of
from engine.types import Check, ModelSource, ModelSpec, Plan
from engine.untrusted import ForeignError, object_in

if TYPE_CHECKING:
    from transformers import PretrainedConfig

DEFAULT_SHARD_BYTES = 5_000_000_000


@dataclass(frozen=True, slots=True)
class ExportReport:
    """An exported checkpoint's path, its checks and its files (name, bytes)."""

    path: str
    checks: tuple[Check, ...]
    files: tuple[tuple[str, int], ...]

    @property
    def passed(self) -> bool:
        """Whether every check that ran has passed."""
        return all(check.passed or not check.ran for check in self.checks)


def export(
    source: ModelSource,
    folder: Path,
    plan: Plan,
    target: Path,
    dtype: str = "auto",
    shard_bytes: int = DEFAULT_SHARD_BYTES,
    known: Provenance = UNKNOWN,
) -> Job[ExportReport]:
    """Write the checkpoint of a plan from the safetensors in `folder`, and check it in a fresh process.

    Tensors of single-source blocks are copied byte for byte; sums are computed in float32 and cast. Memory holds only a few tensors at a
    time. `target` must not exist; it appears only when complete and checked. A checkpoint that fails a check is kept next to it as
    NAME.failed; checks that could not run are listed in the model card. `known` is stored in layerscope.json.

    Raises:
        ExportError: the target exists or cannot be written, or a file to copy is a link to outside `folder`.
        PlanError: the plan is for another depth.
    """
    config, spec = inspected(folder, source)
    require_depth(plan, spec.depth)
    require_tensors(plan.tensors)
    form = form_of(config, plan)
    new_config = form.config
    companions = companions_of(folder)
    require_free(target)
    yield Progress(Message("Planning the files"), 0.0)
    places = {name: place for name, place in places_in(folder).items() if name not in spec.left_out}
    outputs = plan_outputs(config, plan, form, places, dtype)
    total = sum(output.bytes for output in outputs.values())
    require_disk(target, total)
    fingerprint = fingerprint_of(folder)
    with appearing(target) as partial:
        partial.mkdir()
        for written in write_shards(partial, outputs, shard_bytes):
            yield Progress(
                Message("Writing weights: {written:.0f} of {total:.0f} MB", written=written / 1e6, total=total / 1e6),
                0.8 * written / max(total, 1),
            )
        new_config.dtype = config.dtype if dtype == "auto" else getattr(torch, dtype)
        new_config.save_pretrained(partial)
        record = layerscope_record(source, spec, plan, fingerprint, folder, new_config.dtype, provenance_to_json(known))
        notes = add_companion_files(partial, source, folder, spec, plan, companions, record, new_config, known)
        name = (hub_id(source) or spec.name) + (f"@{source.revision}" if source.revision else "")
        if merge := mergekit_config(plan, name, record["dtype"]):
            (partial / "mergekit.yml").write_text(merge, encoding="utf-8")
        yield Progress(Message("Checking the checkpoint in a fresh process"), 0.85)
        checks = (*(yield from verify(folder, plan, partial, source.trust_remote_code)), *notes)
        _list_unchecked(partial, checks)
        files = tuple((path.name, path.stat().st_size) for path in sorted(partial.iterdir()))
        return reported(partial, target, checks, files)


def reported(partial: Path, target: Path, checks: tuple[Check, ...], files: tuple[tuple[str, int], ...]) -> ExportReport:
    """Return the report of an export; if a check failed, the checkpoint is renamed first."""
    report = ExportReport(str(target), checks, files)
    return report if report.passed else replace(report, path=str(set_aside(partial, target)))


def _list_unchecked(partial: Path, checks: Sequence[Check]) -> None:
    """Add the checks that could not run to the checkpoint's card and record."""
    if unchecked := [check for check in checks if not check.ran]:
        with (partial / "README.md").open("a", encoding="utf-8") as card:
            card.write("\n## Not checked\n\n" + "".join(f"- {check.name}: {check.detail}\n" for check in unchecked))
        file = partial / "layerscope.json"
        record = {**json.loads(file.read_text(encoding="utf-8")), "unchecked": [check.name for check in unchecked]}
        file.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def add_companion_files(
    partial: Path,
    source: ModelSource,
    folder: Path,
    spec: ModelSpec,
    plan: Plan,
    companions: Sequence[Path],
    record: dict[str, Any],
    config: "PretrainedConfig",
    known: Provenance = UNKNOWN,
) -> tuple[Check, ...]:
    """Add the tokenizer's files, the record and the card to a checkpoint's weights and config; return notes about them."""
    for path in companions:
        shutil.copyfile(path, partial / path.name)
    _remove_code(partial)
    values = _rewritten(partial / "config.json", compatibility.legacy_config)
    _rewritten(partial / "tokenizer_config.json", compatibility.legacy_tokenizer_config)
    written = places_in(partial).values()
    record |= {
        "parameters": sum(math.prod(place.shape) for place in written),
        "bytes": sum(place.dtype.itemsize * math.prod(place.shape) for place in written),
        "left_out": list(spec.left_out),
        "oldest_transformers": compatibility.oldest_transformers(values),
    }
    notes = _cleaned_generation_config(partial, config)
    (partial / "layerscope.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    (partial / "README.md").write_text(model_card(source, folder, spec, plan, record, known), encoding="utf-8")
    return notes


def verify(
    folder: Path, plan: Plan, target: Path, trust_remote_code: bool = False, gguf: Path | None = None, probe: Path | None = None
) -> Job[tuple[Check, ...]]:
    """Return the checks of an exported checkpoint, run in a separate process (engine/export/checkpoint/verify.py).

    For a file made from a GGUF file, `gguf` is that file and `folder` holds its dequantised weights. For trained weights, `probe` holds
    their logits before they were written.
    """
    request = {"source": str(folder), "plan": plan_to_json(plan), "target": str(target), "trust_remote_code": trust_remote_code}
    request |= {name: str(path) for name, path in (("gguf", gguf), ("probe", probe)) if path is not None}
    answer = yield from in_fresh_process("engine.export.checkpoint.verify", request, "Checking")
    return tuple(Check(**check) for check in answer["checks"])


def parse_size(text: str) -> int:
    """Return the bytes of a size such as "5GB", "500MB" or "1000000", in powers of ten.

    Raises:
        ExportError: the text is not a size, or is below one megabyte.
    """
    match = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,15})?)\s*([KMG]?)B?\s*", text.upper())
    size = int(float(match[1]) * {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}[match[2]]) if match else 0
    if size < 10**6:
        raise ExportError("'{text}' is not a valid shard size; write at least 1MB, such as 500MB or 5GB", text=text)
    return size


def companions_of(folder: Path) -> list[Path]:
    """Return the files copied into a checkpoint unchanged.

    Raises:
        ExportError: a file is a link to outside the model's folder.
    """
    files = sorted({path for pattern in COMPANIONS for path in folder.glob(pattern) if path.is_file()})
    for path in files:
        if not lies_within(path, folder):
            raise ExportError(
                "{path} is a link to a place outside the model's folder and is not copied; replace it with the file, or remove it",
                path=path,
            )
    return files


def _rewritten(file: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """Change the JSON object in a file, if the file exists, and return it."""
    if not file.exists():
        return {}
    before = json.loads(file.read_text(encoding="utf-8"))
    content = change(before)
    if content != before:
        file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return content


def _cleaned_generation_config(partial: Path, config: "PretrainedConfig") -> tuple[Check, ...]:
    """Keep a checkpoint's generation config if it is valid; otherwise keep only its special tokens, and return a note."""
    tokens, fault = generation_config_in(partial, config)
    if not fault:
        return ()
    tokens.save_pretrained(partial)
    return (Check("generation_config", True, f"only its special tokens were kept: {fault[:200]}"),)


def _remove_code(partial: Path) -> None:
    """Remove a source's Python files and `auto_map` from a checkpoint: it loads with transformers' own classes."""
    for path in partial.glob("*.py"):
        path.unlink()
    for path in (partial / "config.json", partial / "tokenizer_config.json"):
        try:
            content = object_in(path) if path.exists() else {}
        except ForeignError as error:
            raise ExportError("{path} cannot be read: {error}", path=path.name, error=error) from error
        if content.pop("auto_map", None):
            path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def layerscope_record(
    source: ModelSource, spec: ModelSpec, plan: Plan, fingerprint: str, folder: Path, dtype: torch.dtype, more: dict[str, Any]
) -> dict[str, Any]:
    """Return the content of a checkpoint's layerscope.json; `more` is added to it."""
    return {
        "layerscope": 1,
        "plan": plan_to_json(plan),
        "source": {"kind": source.kind, "name": spec.name, "revision": source.revision, "fingerprint": fingerprint},
        "lineage": [*lineage_of(source, folder, spec, fingerprint), pruned(plan)],
        "dtype": str(dtype).removeprefix("torch."),
        **more,
        "versions": versions(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and the packages that a result depends on, by name."""
    found = {"python": platform.python_version()}
    for name in ("layerscope", "torch", "transformers", "safetensors"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
