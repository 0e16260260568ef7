"""Export a plan of a GGUF file as a smaller GGUF file: tensors are renamed and copied byte for byte in their quantised form.

Nothing is computed, so every block of the plan must take its projections from a single source layer.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from gguf import MODEL_ARCH_NAMES, GGUFReader, GGUFValueType, GGUFWriter, Keys, ReaderField, ReaderTensor, get_tensor_name_map, size_label

from engine.errors import ExportError, PlanError, SourceError, UnsupportedModelError
from engine.export.checkpoint.export import ExportReport, reported, verify
from engine.export.checkpoint.target import appearing, require_disk, require_free
from engine.jobs import Job, Progress
from engine.messages import Message
from engine.models.families import Architecture, row_of
from engine.models.gguf.file import FAMILIES, read_header
from engine.models.loading import converted
from engine.plans.description import require_depth
from engine.plans.files import plan_to_json
from engine.types import ModelSource, Plan

# What llama.cpp derives from a layer's position alone, by general.architecture (set_swa_pattern, n_no_rope_layer_step): every n-th layer
# differs from the others, with full attention or without rotary positions.
PERIODS = {"cohere2": 4, "exaone4": 4, "gemma2": 2, "gemma3": 6, "gemma3n": 5, "gpt-oss": 2, "llama4": 4, "olmo2": 4, "smollm3": 4}
# At exactly this depth llama.cpp assumes the 27B model, which scales attention differently.
SCALED_AT = {"gemma2": 46, "gemma3": 62}

_NOT_PER_LAYER = (Keys.Rope.DIMENSION_SECTIONS,)  # arrays that are never per layer, even if their length is the depth
_RECIPE = "layerscope.plan"
_CHUNK = 16 << 20
_LAYER = re.compile(r"blk\.(\d+)\.((.+)\.[^.]+)")


class Gguf(NamedTuple):
    """A GGUF file's header; tensor data is read only when it is copied."""

    path: Path
    reader: GGUFReader
    architecture: str
    row: Architecture
    depth: int

    def value(self, key: str) -> Any:
        """Return a metadata key's value, or None if the key is missing."""
        field = self.reader.get_field(key.format(arch=self.architecture))
        return None if field is None else field.contents()


def export_gguf(source: ModelSource, plan: Plan, target: Path) -> Job[ExportReport]:
    """Write the GGUF file of a plan of a GGUF source, and check it in a fresh process.

    Memory holds only the file's header. `target` must not exist; it appears only when complete and checked; a file that fails a check is
    kept as NAME.failed.gguf. The plan is stored in the file's metadata.

    Raises:
        ExportError: the source is not a GGUF file, the target cannot be written, or llama.cpp would run kept layers as another kind.
        PlanError: the plan needs new weights, or is for another depth.
        SourceError: the source cannot be read.
    """
    require_copies(plan)
    if source.kind not in ("demo", "gguf"):
        raise ExportError("a GGUF export needs a GGUF source, and {source} is not one; export it as safetensors", source=source)
    if target.suffix != ".gguf":
        raise ExportError("{target_name} must end in .gguf", target_name=target.name)
    require_free(target)
    yield Progress(Message("Reading {name}", name=Path(source.location).name), 0.0)
    gguf = read_gguf(Path(source.location))
    require_pattern(gguf, plan)
    tensors = copied_tensors(gguf, plan)
    total = sum(tensor.n_bytes for tensor in tensors.values())
    require_disk(target, total + gguf.reader.data_offset)
    folder = yield from converted(source)  # the copy is compared with these weights
    with appearing(target) as partial:
        for written in write_gguf(gguf, plan, tensors, partial):
            yield Progress(
                Message("Writing weights: {written:.0f} of {total:.0f} MB", written=written / 1e6, total=total / 1e6),
                0.1 * written / max(total, 1),
            )
        yield Progress(Message("Checking the checkpoint in a fresh process"), 0.1)
        checks = yield from verify(folder, plan, partial, gguf=gguf.path)
        return reported(partial, target, checks, ((target.name, partial.stat().st_size),))


def require_copies(plan: Plan) -> None:
    """Raise PlanError unless each of a plan's blocks is made of one source layer."""
    for place, block in enumerate(plan.blocks):
        reasons = {
            Message("the sum of its layers"): len(block.mix) > 1 or block.mix[0][1] != 1.0,
            Message("its repair"): block.repair or block.refits,
            Message("its width"): block.trim is not None,
            Message("its mask"): block.masks,
        }
        if why := next((reason for reason, true in reasons.items() if true), None):
            raise PlanError(
                "block {place} of this plan needs float weights ({why}), but a GGUF export copies the quantised "
                "weights unchanged; export it as safetensors",
                place=place,
                why=why,
            )


def read_gguf(path: Path) -> Gguf:
    """Read a GGUF file's header.

    Raises:
        SourceError: the file is broken, part of a split file, or lacks its depth.
        UnsupportedModelError: the family is not supported.
    """
    header = read_header(path)
    depth = header.whole(Keys.LLM.BLOCK_COUNT)
    if not depth:
        raise SourceError("{path}: the required key {architecture}.block_count is missing", path=path, architecture=header.architecture)
    row = row_of(FAMILIES.get(header.architecture, header.architecture))
    return Gguf(path, header.reader, header.architecture, row, depth)


def require_pattern(gguf: Gguf, plan: Plan) -> None:
    """Raise ExportError if llama.cpp, which derives a layer's kind from its position, would run a kept layer as another kind."""
    name = gguf.architecture
    written = gguf.value(Keys.Attention.SLIDING_WINDOW_PATTERN)  # llama.cpp reads it only as a number
    period = (written or 1) if isinstance(written, int) and name in PERIODS else PERIODS.get(name, 1)
    for place, home in enumerate(plan.kept):
        if ((home + 1) % period == 0) != ((place + 1) % period == 0):
            raise ExportError(
                "llama.cpp derives a layer's type from its position: every {period}th layer of {name} has another "
                "type. Source layer {home} would run with the wrong type at position {place}; keep the pattern, or "
                "export as safetensors",
                period=period,
                name=name,
                home=home,
                place=place,
            )
    if (plan.source_depth == SCALED_AT.get(name)) != (plan.depth == SCALED_AT.get(name)):
        raise ExportError(
            "llama.cpp scales the attention of {name} differently at exactly {scaled_at} layers, so a plan cannot "
            "change the depth to or from {scaled_at}; export as safetensors",
            name=name,
            scaled_at=SCALED_AT[name],
        )


def copied_tensors(gguf: Gguf, plan: Plan) -> dict[str, ReaderTensor]:
    """Return the tensors of a plan's GGUF file by name, in the source's order; each is a tensor of the source.

    Raises:
        PlanError: the plan is for another depth, or layers differ in shape.
        ExportError: a tensor is missing.
    """
    require_depth(plan, gguf.depth)
    source = {tensor.name: tensor for tensor in gguf.reader.tensors}
    projections, places = _projections(gguf), {home: place for place, home in enumerate(plan.kept)}
    found: dict[str, ReaderTensor] = {}
    for name, tensor in source.items():
        if (match := _LAYER.fullmatch(name)) is None:
            found[name] = tensor
        elif (home := int(match[1])) in places:
            layer = plan.blocks[places[home]].mix[0][0] if match[3] in projections else home
            origin = _needed(source, f"blk.{layer}.{match[2]}")
            if origin.shape.tolist() != tensor.shape.tolist():
                raise PlanError(
                    "layers of different shapes cannot be mixed: {shape} and {other_shape}",
                    shape=tuple(origin.shape),
                    other_shape=tuple(tensor.shape),
                )
            found[f"blk.{places[home]}.{match[2]}"] = origin
    for block in plan.blocks:
        for projection in projections:
            _needed(source, f"blk.{block.home}.{projection}.weight")  # other layouts, such as experts, have no tensor of this name
    return found


def _projections(gguf: Gguf) -> set[str]:
    """Return GGUF's names of the projections in a block, such as "attn_q"."""
    known = {name: key for key, name in MODEL_ARCH_NAMES.items()}
    if gguf.architecture not in known:
        raise UnsupportedModelError("the GGUF library has no names for the tensors of '{architecture}'", architecture=gguf.architecture)
    names = get_tensor_name_map(known[gguf.architecture], gguf.depth)
    return {names[f"{gguf.row.blocks}.0.{projection}"].removeprefix("blk.0.") for projection in gguf.row.projections}


def _needed(tensors: dict[str, ReaderTensor], name: str) -> ReaderTensor:
    if name not in tensors:
        raise ExportError("the source lacks the tensor {name}, which the plan needs", name=name)
    return tensors[name]


def write_gguf(gguf: Gguf, plan: Plan, tensors: dict[str, ReaderTensor], file: Path) -> Iterator[int]:
    """Write a GGUF file with tensors copied from another one; yields the bytes written so far."""
    writer = GGUFWriter(file, gguf.architecture, endianess=gguf.reader.endianess)
    writer.data_alignment = int(gguf.reader.alignment)
    for name, tensor in tensors.items():
        writer.add_tensor_info(name, tensor.data.shape, tensor.data.dtype, tensor.n_bytes, tensor.tensor_type)
    parameters, *of_it = writer.get_total_parameter_count()
    changed = {
        Keys.LLM.BLOCK_COUNT.format(arch=gguf.architecture): plan.depth,
        Keys.General.SIZE_LABEL: size_label(parameters, *of_it),
        "general.parameter_count": parameters,
    }
    for field in gguf.reader.fields.values():
        _copy_field(writer, gguf, plan, field, changed)
    writer.add_string(_RECIPE, json.dumps(plan_to_json(plan)))
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        assert writer.fout is not None
        yield from _copy_bytes(gguf.path, tensors, writer, writer.fout[0])
    finally:
        writer.close()


def _copy_field(writer: GGUFWriter, gguf: Gguf, plan: Plan, field: ReaderField, changed: dict[str, Any]) -> None:
    """Copy a metadata key: unchanged, with its new value in `changed`, or reduced to the kept layers."""
    if field.name.startswith(("GGUF.", "split.")) or field.name in (Keys.General.ARCHITECTURE, _RECIPE):
        return  # written by the library itself, or the plan of an earlier export
    if GGUFValueType.ARRAY in field.types[1:]:
        raise ExportError("the GGUF key {field_name} contains nested arrays, which the GGUF library cannot copy", field_name=field.name)
    kind, parts = field.types[-1], [field.parts[index] for index in field.data]
    values: list[Any] = [part.tobytes() if kind == GGUFValueType.STRING else part.tolist()[0] for part in parts]
    if field.types[0] != GGUFValueType.ARRAY:
        writer.add_key_value(field.name, changed.get(field.name, values[0]), kind)
    elif values:  # the library cannot write an empty array
        if len(values) == gguf.depth and _is_per_layer(gguf, field.name):
            values = [values[home] for home in plan.kept]
        writer.add_key_value(field.name, values, GGUFValueType.ARRAY, kind)


def _is_per_layer(gguf: Gguf, key: str) -> bool:
    return not key.startswith(("general.", "tokenizer.")) and key not in [name.format(arch=gguf.architecture) for name in _NOT_PER_LAYER]


def _copy_bytes(path: Path, tensors: dict[str, ReaderTensor], writer: GGUFWriter, out: Any) -> Iterator[int]:
    """Copy each tensor's bytes after the header, reading through the file rather than its memory map, whose pages would count as memory in
    use."""
    written = 0
    writer.write_padding(out, out.tell())
    with path.open("rb") as source:
        for tensor in tensors.values():
            source.seek(tensor.data_offset)
            for start in range(0, tensor.n_bytes, _CHUNK):
                written += out.write(source.read(min(_CHUNK, tensor.n_bytes - start)))
                yield written
            writer.write_padding(out, tensor.n_bytes)
