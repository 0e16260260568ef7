"""GGUF to safetensors, once a file: run as `python -m engine.models.convert` so that its memory is given back at the end."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from engine.aside import making
from engine.errors import SourceError, first_line
from engine.jobs import Job, Progress, answer_request


def convert(request: dict) -> Job[dict]:
    """Dequantise request["gguf"] in float32 and save it, with its tokenizer, as the folder request["target"].

    Raises:
        SourceError: the file is broken, or the cache cannot hold what it comes to.
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
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    yield Progress(f"Reading {gguf.name}", 0.05)
    options: dict[str, Any] = {"gguf_file": gguf.name, "local_files_only": True}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, trust_remote_code=False, **options)
        yield Progress("Dequantising the weights", 0.4)
        loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
            gguf.parent, dtype=torch.float32, trust_remote_code=False, output_loading_info=True, **options
        )
        network, info = loaded
        if missing := sorted(info["missing_keys"]):  # one part of a split file, or layers of experts; transformers would make them up
            raise ValueError(f"it lacks {len(missing)} of the tensors that such a model has, {missing[0]} for one")
    except Exception as error:  # the GGUF reader raises whatever the broken bytes lead it to
        raise SourceError(f"{gguf} is truncated, corrupted or not a language model: {first_line(error)}") from error
    yield Progress("Writing safetensors", 0.85)
    forget_quantization(network)
    needed, free = sum(parameter.nbytes for parameter in network.parameters()), shutil.disk_usage(partial.parent).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"{needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free")
    try:
        network.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
    except SafetensorError as error:  # which says in its own way that the disk is full
        raise OSError(None, first_line(error)) from error


def forget_quantization(network) -> None:  # type: ignore[no-untyped-def]  # any transformers model
    """Turn a dequantised model into an ordinary one: without this, saving it is refused."""
    network.hf_quantizer = None
    network.is_quantized = False
    if hasattr(network.config, "quantization_config"):
        del network.config.quantization_config


if __name__ == "__main__":
    answer_request(convert)
