"""Check a config's sizes against its tensors before anything is built from it.

A config is untrusted text: three extra digits in one number make a library build lists and buffers until memory runs out. Every size of a
model shows in the tensor shapes of its file headers, so the config's sizes are checked against those.
"""

import re
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from engine.errors import SourceError
from engine.models.families import require_text_model, row_of

_LABELS = 10_000  # classes; transformers creates a name for each
_POSITIONS = 1 << 31  # context length; it costs nothing unless the tensors contain a position table
_SIZES = (  # sizes that must occur in some tensor's shape
    "vocab_size", "hidden_size", "intermediate_size", "n_embd", "n_inner",
    "n_head", "num_attention_heads", "num_key_value_heads", "head_dim",
)  # fmt: skip
_TABLES = ("n_positions", "n_ctx")  # sizes of learned position tables
_PER_LAYER = ("layer_types", "mlp_layer_types", "no_rope_layers", "layers_block_type")  # lists with one entry per layer
_HEADER = 1 << 20  # bytes at the start of a GGUF file that hold its sizes; the vocabulary follows them


def require_bounded(config: Mapping[str, Any], shapes: Iterable[tuple[int, ...]]) -> None:
    """Raise SourceError where a config (plain JSON) asks for larger sizes than tensors of these shapes allow.

    Raises:
        UnsupportedModelError: no row describes the family.
    """
    shapes = list(shapes)
    require_text_model(config.get("model_type"), config.get("text_config"))
    largest = max((size for shape in shapes for size in shape), default=0)
    depth = row_of(str(config.get("model_type"))).depth_key
    bounds = {depth: (1, len(shapes)), **dict.fromkeys((*_SIZES, *_TABLES), (1, largest))}
    bounds |= {"max_position_embeddings": (1, _POSITIONS), "num_labels": (0, _LABELS), "_num_labels": (0, _LABELS)}
    for name, (least, most) in bounds.items():
        value = config.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and not least <= value <= most:
            raise SourceError(
                "the configuration says {name} = {value:.12g}, but its tensors allow {least} to {most}",
                name=name,
                value=value,
                least=least,
                most=most,
            )
    for name in _PER_LAYER:
        listed, layers = config.get(name), config.get(depth)
        if isinstance(listed, list) and isinstance(layers, int) and len(listed) != layers:
            raise SourceError(
                "the configuration says {depth} = {layers}, but {name} lists {count} layers",
                depth=depth,
                layers=layers,
                name=name,
                count=len(listed),
            )


def require_bounded_gguf(file: Path) -> None:
    """Raise SourceError where a GGUF file declares more blocks than it has tensors."""
    with file.open("rb") as opened:
        head = opened.read(_HEADER)
    tensors = struct.unpack_from("<Q", head, 8)[0] if len(head) >= 16 else 0
    for found in re.finditer(rb"\.block_count([\4\5\n\v])\0\0\0(.{4,8})", head, re.DOTALL):
        wide = found[1] in b"\n\v"  # types 10 and 11 are 64-bit, 4 and 5 are 32-bit
        blocks = int.from_bytes(found[2][: 8 if wide else 4], "little")
        if not 1 <= blocks <= tensors:
            raise SourceError(
                "{file} declares {blocks} blocks; it must declare between 1 and {tensors}, the number of its tensors",
                file=file,
                blocks=blocks,
                tensors=tensors,
            )
