"""A GGUF file and a plan become a smaller GGUF file: tensors renamed and copied byte for byte in their quantised form.

Nothing is computed, so it serves the plans whose blocks each take one source layer, whole or by its projections.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from gguf import MODEL_ARCH_NAMES, GGUFReader, GGUFValueType, GGUFWriter, Keys, ReaderField, ReaderTensor, get_tensor_name_map, size_label

from engine.errors import ExportError, PlanError, SourceError, UnsupportedModelError
from engine.export.checkpoint import ExportReport, reported, verify
from engine.export.target import appearing, require_disk, require_free
from engine.jobs import Job, Progress
from engine.models.families import Architecture, row_of
from engine.models.gguf_file import FAMILIES, read_header
from engine.models.loading import converted
from engine.plans.description import require_depth
from engine.plans.files import plan_to_json
from engine.types import ModelSource, Plan

# What llama.cpp decides by a layer's position alone, by general.architecture (set_swa_pattern, n_no_rope_layer_step): the last
# layer of every so many is of another kind than the rest, with full attention or without rotary positions.
PERIODS = {"cohere2": 4, "exaone4": 4, "gemma2": 2, "gemma3": 6, "gemma3n": 5, "gpt-oss": 2, "llama4": 4, "olmo2": 4, "smollm3": 4}
# At exactly this depth it takes the model for the 27B one, whose attention is scaled in another way.
SCALED_AT = {"gemma2": 46, "gemma3": 62}

_NOT_PER_LAYER = (Keys.Rope.DIMENSION_SECTIONS,)  # arrays that say nothing of layers, whatever their length
_RECIPE = "layerscope.plan"
_CHUNK = 16 << 20
_LAYER = re.compile(r"blk\.(\d+)\.((.+)\.[^.]+)")


class Gguf(NamedTuple):
    """A GGUF file's header: nothing of its tensors is read before it is copied."""

    path: Path
    reader: GGUFReader
    architecture: str
    row: Architecture
    depth: int

    def value(self, key: str) -> Any:
        """Return what a metadata key holds, None where there is none."""
        field = self.reader.get_field(key.format(arch=self.architecture))
        return None if field is None else field.contents()


def export_gguf(source: ModelSource, plan: Plan, target: Path) -> Job[ExportReport]:
    """Write the GGUF file that a plan of a GGUF source describes, and check it in a fresh process.

    Memory stays at the file's header. `target` must not exist; it appears complete and checked; what fails a
    check is kept as NAME.failed.gguf. The plan is kept in the file's metadata.

    Raises:
        ExportError: the source is no GGUF file, the target cannot be written, or llama.cpp would run the layers kept as others.
        PlanError: the plan needs new weights, or is for another depth. SourceError: the source cannot be read.
    """
    require_copies(plan)
    if source.kind not in ("demo", "gguf"):
        raise ExportError(f"a GGUF file is made from a GGUF file, and {source} is none; export it as safetensors")
    if target.suffix != ".gguf":
        raise ExportError(f"a GGUF file's name ends in .gguf, and {target.name} does not")
    require_free(target)
    yield Progress(f"Reading {Path(source.location).name}", 0.0)
    gguf = read_gguf(Path(source.location))
    require_pattern(gguf, plan)
    tensors = copied_tensors(gguf, plan)
    total = sum(tensor.n_bytes for tensor in tensors.values())
    require_disk(target, total + gguf.reader.data_offset)
    folder = yield from converted(source)  # what the copy is held against
    with appearing(target) as partial:
        for written in write_gguf(gguf, plan, tensors, partial):
            yield Progress(f"Writing weights: {written / 1e6:.0f} of {total / 1e6:.0f} MB", 0.1 * written / max(total, 1))
        yield Progress("Checking the checkpoint in a fresh process", 0.1)
        checks = yield from verify(folder, plan, partial, gguf=gguf.path)
        return reported(partial, target, checks, ((target.name, partial.stat().st_size),))


def require_copies(plan: Plan) -> None:
    """Raise PlanError where a plan's blocks are not made of one source layer each."""
    for place, block in enumerate(plan.blocks):
        reasons = {
            "the sum of its layers": len(block.mix) > 1 or block.mix[0][1] != 1.0,
            "its repair": block.repair or block.refits,
            "its width": block.trim is not None,
            "its mask": block.masks,
        }
        if why := next((reason for reason, true in reasons.items() if true), None):
            raise PlanError(
                f"block {place} of this plan needs float weights ({why}), and a GGUF file's are copied as they are; "
                "export it as safetensors"
            )


def read_gguf(path: Path) -> Gguf:
    """Read a GGUF file's header.

    Raises:
        SourceError: it is no such file, one part of several, or does not say its depth. UnsupportedModelError: its family cannot be folded.
    """
    header = read_header(path)
    depth = header.whole(Keys.LLM.BLOCK_COUNT)
    if not depth:
        raise SourceError(f"{path}: {header.architecture}.block_count is missing, and no model can be without it")
    row = row_of(FAMILIES.get(header.architecture, header.architecture))
    return Gguf(path, header.reader, header.architecture, row, depth)


def require_pattern(gguf: Gguf, plan: Plan) -> None:
    """Raise ExportError where llama.cpp, which knows a layer's kind by its position, would run a layer kept as one of another."""
    name = gguf.architecture
    written = gguf.value(Keys.Attention.SLIDING_WINDOW_PATTERN)  # a number where the file says it; what else it holds goes unread there
    period = (written or 1) if isinstance(written, int) and name in PERIODS else PERIODS.get(name, 1)
    for place, home in enumerate(plan.kept):
        if ((home + 1) % period == 0) != ((place + 1) % period == 0):
            raise ExportError(
                f"llama.cpp takes every {period}th layer of {name} for one of another kind, by its position alone: source layer {home} "
                f"would run as the wrong kind at {place}; keep the pattern, or export as safetensors"
            )
    if (plan.source_depth == SCALED_AT.get(name)) != (plan.depth == SCALED_AT.get(name)):
        raise ExportError(
            f"llama.cpp scales the attention of {name} in another way at exactly {SCALED_AT[name]} layers, so a model cannot come to "
            "that depth or leave it; export as safetensors"
        )


def copied_tensors(gguf: Gguf, plan: Plan) -> dict[str, ReaderTensor]:
    """Return the tensors of a plan's GGUF file by name, in the source's order: each is the source's, under another name.

    Raises:
        PlanError: the plan is for another depth, or layers differ in shape. ExportError: a tensor is missing.
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
                raise PlanError(f"layers of different shapes cannot be mixed: {tuple(origin.shape)} and {tuple(tensor.shape)}")
            found[f"blk.{places[home]}.{match[2]}"] = origin
    for block in plan.blocks:
        for projection in projections:
            _needed(source, f"blk.{block.home}.{projection}.weight")  # another layout, such as experts, has none of this name
    return found


def _projections(gguf: Gguf) -> set[str]:
    """Return GGUF's names of the projections in a block, such as "attn_q"."""
    known = {name: key for key, name in MODEL_ARCH_NAMES.items()}
    if gguf.architecture not in known:
        raise UnsupportedModelError(f"the GGUF library has no names for the tensors of '{gguf.architecture}'")
    names = get_tensor_name_map(known[gguf.architecture], gguf.depth)
    return {names[f"{gguf.row.blocks}.0.{projection}"].removeprefix("blk.0.") for projection in gguf.row.projections}


def _needed(tensors: dict[str, ReaderTensor], name: str) -> ReaderTensor:
    if name not in tensors:
        raise ExportError(f"the source holds no tensor {name}, which the plan needs")
    return tensors[name]


def write_gguf(gguf: Gguf, plan: Plan, tensors: dict[str, ReaderTensor], file: Path) -> Iterator[int]:
    """Write a GGUF file of tensors that lie in another one; yields the bytes written so far."""
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
    """Add a key of the source's metadata as it is, with the value that `changed` has for it, or cut to the layers kept."""
    if field.name.startswith(("GGUF.", "split.")) or field.name in (Keys.General.ARCHITECTURE, _RECIPE):
        return  # what the reader and the writer count themselves, and the recipe of a model that this one is made of
    if GGUFValueType.ARRAY in field.types[1:]:
        raise ExportError(f"the GGUF key {field.name} holds arrays of arrays, which the GGUF library cannot copy")
    kind, parts = field.types[-1], [field.parts[index] for index in field.data]
    values: list[Any] = [part.tobytes() if kind == GGUFValueType.STRING else part.tolist()[0] for part in parts]
    if field.types[0] != GGUFValueType.ARRAY:
        writer.add_key_value(field.name, changed.get(field.name, values[0]), kind)
    elif values:  # the library has no way to write an empty array
        if len(values) == gguf.depth and _is_per_layer(gguf, field.name):
            values = [values[home] for home in plan.kept]
        writer.add_key_value(field.name, values, GGUFValueType.ARRAY, kind)


def _is_per_layer(gguf: Gguf, key: str) -> bool:
    return not key.startswith(("general.", "tokenizer.")) and key not in [name.format(arch=gguf.architecture) for name in _NOT_PER_LAYER]


def _copy_bytes(path: Path, tensors: dict[str, ReaderTensor], writer: GGUFWriter, out: Any) -> Iterator[int]:
    """Copy each tensor's bytes behind the header, through the file and not its map, whose pages would count as our memory."""
    written = 0
    writer.write_padding(out, out.tell())
    with path.open("rb") as source:
        for tensor in tensors.values():
            source.seek(tensor.data_offset)
            for start in range(0, tensor.n_bytes, _CHUNK):
                written += out.write(source.read(min(_CHUNK, tensor.n_bytes - start)))
                yield written
            writer.write_padding(out, tensor.n_bytes)
