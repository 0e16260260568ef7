"""GGUF to safetensors, once a file: run as `python -m engine.models.convert` so that its memory is given back at the end."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from engine.errors import SourceError, first_line
from engine.jobs import Job, Progress, answer_request


def convert(request: dict) -> Job[dict]:
    """Dequantise request["gguf"] in float32 and save it, with its tokenizer, as the folder request["target"]."""
    from filelock import FileLock

    gguf, target = Path(request["gguf"]), Path(request["target"])
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.parent / ".lock"):  # one at a time, for memory's sake; who comes second may find it done
        if not target.exists():
            yield from _convert(gguf, target)
    return {"folder": str(target)}


def _convert(gguf: Path, target: Path) -> Job[None]:
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    partial = Path(tempfile.mkdtemp(dir=target.parent, prefix=".partial-"))
    try:
        yield Progress(f"Reading {gguf.name}", 0.05)
        options: dict[str, Any] = {"gguf_file": gguf.name, "local_files_only": True}
        tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, trust_remote_code=False, **options)
        yield Progress("Dequantising the weights", 0.4)
        loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
            gguf.parent, dtype=torch.float32, trust_remote_code=False, output_loading_info=True, **options
        )
        network, info = loaded
        if missing := sorted(info["missing_keys"]):  # one part of a split file, or layers of experts; transformers would make them up
            raise ValueError(f"it lacks {len(missing)} of the tensors that such a model has, {missing[0]} for one")
        yield Progress("Writing safetensors", 0.85)
        forget_quantization(network)
        network.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        os.rename(partial, target)
    except Exception as error:  # the GGUF reader raises whatever the broken bytes lead it to
        raise SourceError(f"{gguf} is truncated, corrupted or not a language model: {first_line(error)}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def forget_quantization(network) -> None:  # type: ignore[no-untyped-def]  # any transformers model
    """Turn a dequantised model into an ordinary one: without this, saving it is refused."""
    network.hf_quantizer = None
    network.is_quantized = False
    if hasattr(network.config, "quantization_config"):
        del network.config.quantization_config


if __name__ == "__main__":
    answer_request(convert)
