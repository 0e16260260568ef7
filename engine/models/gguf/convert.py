"""Convert GGUF to safetensors, once per file. Run as `python -m engine.models.gguf.convert`: its memory is freed when the process exits."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from engine.errors import LayerscopeError, SourceError, reason_of
from engine.jobs import Job, Progress, answer_request
from engine.messages import Message
from engine.models.files.made_once import made_once
from engine.models.gguf.config import gguf_config
from engine.models.gguf.file import GgufFile, read_header
from engine.models.gguf.keys import require_accounted
from engine.models.gguf.tokenizer import gguf_tokenizer
from engine.models.gguf.weights import empty_network, weights_of

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def convert(request: dict) -> Job[dict]:
    """Dequantise request["gguf"] to float32 and save it, with its tokenizer, as the folder request["target"].

    Raises:
        SourceError: the file is broken, or the cache has no room for the result.
        UnsupportedModelError: the stock class has no equivalent for something that changes what the model computes.
    """
    return (yield from made_once(Path(request["target"]), partial(_convert, Path(request["gguf"]))))


def _convert(gguf: Path, partial: Path) -> Job[None]:
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    yield Progress(Message("Reading {name}", name=gguf.name), 0.05)
    with _telling_of(gguf):
        header = described(gguf)
        config, tokenizer = complete_config(header), gguf_tokenizer(header)
        yield Progress(Message("Dequantising the weights"), 0.4)
        needed, free = 4 * sum(one.numel() for one in empty_network(config).parameters()), shutil.disk_usage(partial.parent).free
        if needed > free:
            raise OSError(errno.ENOSPC, f"{needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free")
        network = _filled(header, config)
    yield Progress(Message("Writing safetensors"), 0.85)
    try:
        network.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
    except SafetensorError as error:  # safetensors reports a full disk as its own error type
        raise OSError(None, reason_of(error)) from error


def load_gguf(gguf: Path) -> tuple[Any, dict[str, Any], Any]:
    """Return a GGUF file's model in float32: the network in evaluation mode, loading info in transformers' form, and the tokenizer.

    Raises:
        SourceError: see `convert`.
    """
    with _telling_of(gguf):
        header = described(gguf)
        network = _filled(header, complete_config(header))
        return network.eval(), {"missing_keys": set(), "unexpected_keys": set()}, gguf_tokenizer(header)


@contextmanager
def _telling_of(gguf: Path) -> Iterator[None]:
    """Turn any other exception in the block into a SourceError about a broken file; LayerscopeError and OSError pass through."""
    try:
        yield
    except (LayerscopeError, OSError):
        raise
    except Exception as error:  # the GGUF reader raises arbitrary errors on broken bytes
        raise SourceError("{gguf} is truncated, corrupted or not a language model: {reason}", gguf=gguf, reason=reason_of(error)) from error


def described(gguf: Path) -> GgufFile:
    """Return a GGUF file's header after checking every key of it."""
    header = read_header(gguf)
    require_accounted(header)
    return header


def complete_config(header: GgufFile) -> Any:
    """Return the config of a file that has all required keys."""
    norm = "{arch}.attention.layer_norm_epsilon" if header.architecture == "gpt2" else "{arch}.attention.layer_norm_rms_epsilon"
    if header.real(norm) is None:
        raise SourceError("{path}: the required key {key} is missing", path=header.path, key=header.key(norm))
    return gguf_config(header)


def _filled(header: GgufFile, config: "PretrainedConfig") -> Any:
    """Return the stock network of a config, loaded with a file's weights."""
    import torch

    empty = empty_network(config)
    state = dict(weights_of(header, empty))
    network, info = type(empty).from_pretrained(None, config=config, state_dict=state, dtype=torch.float32, output_loading_info=True)
    if info["missing_keys"] or info["unexpected_keys"]:  # the installed stock class differs from the one this code was written for
        raise ValueError(f"{sorted(info['missing_keys'])[:3]} missing, {sorted(info['unexpected_keys'])[:3]} unexpected")
    return network


if __name__ == "__main__":
    answer_request(convert)
