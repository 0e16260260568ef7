"""What a config may ask for, given the tensors that are there: seen before anything is built of it.

A config is text that a stranger wrote: three digits too many in one of its numbers and a library makes lists and buffers until the memory
is gone. What sizes a model has left its mark in the headers of its weights, and is held against them.
"""

import re
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from engine.errors import SourceError
from engine.models.families import require_text_model, row_of

_LABELS = 10_000  # of a classifier, for which transformers makes names
_POSITIONS = 1 << 31  # of a context; they cost nothing where no table of them is among the tensors
_SIZES = (  # what no tensor of the model can be without
    "vocab_size", "hidden_size", "intermediate_size", "n_embd", "n_inner",
    "n_head", "num_attention_heads", "num_key_value_heads", "head_dim",
)  # fmt: skip
_TABLES = ("n_positions", "n_ctx")  # positions that are learned
_PER_LAYER = ("layer_types", "mlp_layer_types", "no_rope_layers", "layers_block_type")  # an entry a layer
_HEADER = 1 << 20  # bytes of a GGUF file in which its sizes stand, before the words of the vocabulary


def require_bounded(config: Mapping[str, Any], shapes: Iterable[tuple[int, ...]]) -> None:
    """Raise SourceError where a config (plain JSON) asks for more than tensors of these shapes can be of.

    Raises:
        UnsupportedModelError: it is of a family that has no row.
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
            raise SourceError(f"the configuration says {name} = {value:.12g}, and its tensors allow {least} to {most}")
    for name in _PER_LAYER:
        listed, layers = config.get(name), config.get(depth)
        if isinstance(listed, list) and isinstance(layers, int) and len(listed) != layers:
            raise SourceError(f"the configuration says {depth} = {layers}, and {name} lists {len(listed)} layers")


def require_bounded_gguf(file: Path) -> None:
    """Raise SourceError where a GGUF file names more blocks than it has tensors."""
    with file.open("rb") as opened:
        head = opened.read(_HEADER)
    tensors = struct.unpack_from("<Q", head, 8)[0] if len(head) >= 16 else 0
    for found in re.finditer(rb"\.block_count([\4\5\n\v])\0\0\0(.{4,8})", head, re.DOTALL):
        wide = found[1] in b"\n\v"  # 64 bits, where 4 and 5 have 32
        blocks = int.from_bytes(found[2][: 8 if wide else 4], "little")
        if not 1 <= blocks <= tensors:
            raise SourceError(f"{file} says that it has {blocks} blocks, and its tensors are {tensors}")
