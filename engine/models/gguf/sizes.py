"""Check the sizes in a GGUF file's metadata against its tensors."""

from engine.errors import SourceError
from engine.messages import Message
from engine.models.gguf.file import GgufFile
from engine.models.gguf.keys import head_size

_BOUNDED = (
    "embedding_length", "feed_forward_length", "vocab_size", "attention.head_count", "attention.head_count_kv", "attention.key_length",
    "attention.value_length",
)  # fmt: skip


def needed(gguf: GgufFile, name: str) -> int:
    """Return a number that every model has; it is at least 1."""
    value = gguf.whole("{arch}." + name)
    if value is None:
        raise SourceError(
            "{path}: the required key {architecture}.{name} is missing",
            path=gguf.path,
            architecture=gguf.architecture,
            name=name,
        )
    if value < 1:
        raise SourceError(
            "{path}: {architecture}.{name} is {value}; it must be at least 1",
            path=gguf.path,
            architecture=gguf.architecture,
            name=name,
            value=value,
        )
    return value


def require_depth(gguf: GgufFile, depth: int) -> None:
    """Raise SourceError where the declared number of blocks differs from the blocks that have tensors."""
    found = {int(parts[1]) for parts in (name.split(".", 2) for name in gguf.tensors) if parts[0] == "blk" and parts[1].isdigit()}
    if (held := max(found, default=-1) + 1) != depth:
        raise SourceError(
            "{path}: {architecture}.block_count says {depth} blocks, but the tensors form {held} blocks",
            path=gguf.path,
            architecture=gguf.architecture,
            depth=depth,
            held=held,
        )


def require_bounded(gguf: GgufFile) -> None:
    """Raise SourceError where a number exceeds every size of the tensors, before anything is built from it."""
    largest = max((int(size) for tensor in gguf.tensors.values() for size in tensor.shape), default=0)
    for name in _BOUNDED:
        value = gguf.whole("{arch}." + name)
        if value is not None and not 0 <= value <= largest:
            raise SourceError(
                "{path}: {architecture}.{name} is {value}; the tensors allow at most {largest}",
                path=gguf.path,
                architecture=gguf.architecture,
                name=name,
                value=value,
                largest=largest,
            )


def require_widths(gguf: GgufFile) -> None:
    """Raise SourceError where a declared width differs from the tensors', UnsupportedModelError where values and keys differ in width."""
    heads, size = needed(gguf, "attention.head_count"), head_size(gguf)
    groups = gguf.whole("{arch}.attention.head_count_kv") or heads
    value = gguf.whole("{arch}.attention.value_length")
    if value is not None and value != size:
        raise gguf.unread(
            "{arch}.attention.value_length",
            value,
            Message("keys are {size} wide, and the stock class needs values of the same width", size=size),
        )
    if heads % groups:
        raise SourceError(
            "{path}: {heads} heads cannot share {groups} keys and values (attention.head_count_kv) evenly",
            path=gguf.path,
            heads=heads,
            groups=groups,
        )
    channels, neurons = needed(gguf, "embedding_length"), needed(gguf, "feed_forward_length")
    expected = (  # tensor, axis, expected size, and the metadata it comes from
        ("token_embd.weight", 1, channels, "embedding_length"),
        ("blk.0.ffn_down.weight", 1, neurons, "feed_forward_length"),
        ("blk.0.attn_q.weight", 0, heads * size, "attention.head_count * attention.key_length"),
        ("blk.0.attn_k.weight", 0, groups * size, "attention.head_count_kv * attention.key_length"),
        ("blk.0.attn_v.weight", 0, groups * size, "attention.head_count_kv * attention.key_length"),
        ("blk.0.attn_qkv.weight", 0, (heads + 2 * groups) * size, "attention.head_count and head_count_kv * attention.key_length"),
        ("position_embd.weight", 0, needed(gguf, "context_length"), "context_length"),
    )
    for name, axis, said, how in expected:
        shape = gguf.shape(name)
        if shape is not None and len(shape) == 2 and shape[axis] != said:
            raise SourceError(
                "{path}: {architecture}.{how} is {said}, but {name} has {shape}",
                path=gguf.path,
                architecture=gguf.architecture,
                how=how,
                said=said,
                name=name,
                shape=shape[axis],
            )
