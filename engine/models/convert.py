"""GGUF to safetensors, once a file: run as `python -m engine.models.convert` so that its memory is given back at the end."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from engine.atomic import making
from engine.errors import LayerscopeError, SourceError, reason_of
from engine.jobs import Job, Progress, answer_request
from engine.models.gguf_config import gguf_config
from engine.models.gguf_file import GgufFile, read_header
from engine.models.gguf_keys import require_accounted
from engine.models.gguf_tokenizer import gguf_tokenizer
from engine.models.gguf_weights import empty_network, weights_of


def convert(request: dict) -> Job[dict]:
    """Dequantise request["gguf"] in float32 and save it, with its tokenizer, as the folder request["target"].

    Raises:
        SourceError: the file is broken, or the cache cannot hold what it comes to. UnsupportedModelError: something in it that would
            change what the model computes has no place in a stock class.
    """
    from filelock import FileLock

    gguf, target = Path(request["gguf"]), Path(request["target"])
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.parent / ".lock"):  # one at a time, for memory's sake; who comes second may find it done
            if not target.exists():
                with making(target.parent, ".partial-") as beside:
                    yield from _convert(gguf, beside / target.name)
                    os.rename(beside / target.name, target)
    except OSError as error:
        raise SourceError(
            f"{target.parent} cannot be written: {error.strerror}; make room, or set LAYERSCOPE_CACHE to another folder"
        ) from error
    return {"folder": str(target)}


def _convert(gguf: Path, partial: Path) -> Job[None]:
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    yield Progress(f"Reading {gguf.name}", 0.05)
    with _telling_of(gguf):
        header = described(gguf)
        config, tokenizer = complete_config(header), gguf_tokenizer(header)
        yield Progress("Dequantising the weights", 0.4)
        needed, free = 4 * sum(one.numel() for one in empty_network(config).parameters()), shutil.disk_usage(partial.parent).free
        if needed > free:
            raise OSError(errno.ENOSPC, f"{needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free")
        network = _filled(header, config)
    yield Progress("Writing safetensors", 0.85)
    try:
        network.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
    except SafetensorError as error:  # which says in its own way that the disk is full
        raise OSError(None, reason_of(error)) from error


def load_gguf(gguf: Path) -> tuple[Any, dict[str, Any], Any]:
    """Return what a GGUF file holds, in float32: the network in evaluation mode, an account of its keys as transformers gives one, the
    tokenizer.

    Raises:
        SourceError: see `convert`.
    """
    with _telling_of(gguf):
        header = described(gguf)
        network = _filled(header, complete_config(header))
        return network.eval(), {"missing_keys": set(), "unexpected_keys": set()}, gguf_tokenizer(header)


@contextmanager
def _telling_of(gguf: Path) -> Iterator[None]:
    """Tell of whatever goes wrong within as of a broken file, but for what is told of already."""
    try:
        yield
    except (LayerscopeError, OSError):
        raise
    except Exception as error:  # the GGUF reader raises whatever the broken bytes lead it to
        raise SourceError(f"{gguf} is truncated, corrupted or not a language model: {reason_of(error)}") from error


def described(gguf: Path) -> GgufFile:
    """Return a GGUF file's header, every key of it accounted for."""
    header = read_header(gguf)
    require_accounted(header)
    return header


def complete_config(header: GgufFile) -> Any:
    """Return the config of a file that says all that it must."""
    norm = "{arch}.attention.layer_norm_epsilon" if header.architecture == "gpt2" else "{arch}.attention.layer_norm_rms_epsilon"
    if not header.real(norm):
        raise SourceError(f"{header.path}: {header.key(norm)} is missing, and no model can be without it")
    return gguf_config(header)


def _filled(header: GgufFile, config: Any) -> Any:
    """Return the stock network of a config with a file's weights in it."""
    import torch

    empty = empty_network(config)
    state = dict(weights_of(header, empty))
    network, info = type(empty).from_pretrained(None, config=config, state_dict=state, dtype=torch.float32, output_loading_info=True)
    if info["missing_keys"] or info["unexpected_keys"]:  # a stock class that is not as we know it
        raise ValueError(f"{sorted(info['missing_keys'])[:3]} missing, {sorted(info['unexpected_keys'])[:3]} unexpected")
    return network


def forget_quantization(network) -> None:  # type: ignore[no-untyped-def]  # any transformers model
    """Turn a dequantised model into an ordinary one: without this, saving it is refused."""
    network.hf_quantizer = None
    network.is_quantized = False
    if hasattr(network.config, "quantization_config"):
        del network.config.quantization_config


if __name__ == "__main__":
    answer_request(convert)
