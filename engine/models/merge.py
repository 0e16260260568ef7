"""Merge an adapter into its model, once. Run as `python -m engine.models.merge`: its memory is freed when the process exits."""

import os
from pathlib import Path
from typing import Any

from engine.atomic import making
from engine.errors import SourceError, UnsupportedModelError, reason_of
from engine.jobs import Job, Progress, answer_request
from engine.messages import Message

_WEIGHTS = "adapter_model.safetensors"


def merge(request: dict[str, Any]) -> Job[dict[str, Any]]:
    """Merge the adapter in the folder request["adapter"] into the model in request["base"], and save it as request["target"].

    Raises:
        SourceError: peft is not installed, or the adapter does not fit the model.
        UnsupportedModelError: an adapter of this type cannot be merged.
    """
    from filelock import FileLock

    target = Path(request["target"])
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.parent / ".lock"):
            if not target.exists():
                with making(target.parent, ".partial-") as beside:
                    yield from _merge(Path(request["adapter"]), Path(request["base"]), beside / target.name)
                    os.rename(beside / target.name, target)
    except OSError as error:
        raise SourceError(
            "{path} cannot be written: {reason}; make room, or set LAYERSCOPE_CACHE to another folder",
            path=target.parent,
            reason=error.strerror,
        ) from error
    return {"folder": str(target)}


def _merge(adapter: Path, base: Path, partial: Path) -> Job[None]:
    from engine.models.loading import read_network, read_tokenizer
    from engine.models.sources import read_config

    yield Progress(Message("Reading the model below the adapter"), 0.1)
    network = read_network(base, str(read_config(base).dtype).removeprefix("torch."))
    tokenizer = read_tokenizer(adapter if (adapter / "tokenizer.json").exists() else base)
    yield Progress(Message("Merging the adapter"), 0.5)
    merged = _merged(network, adapter)
    yield Progress(Message("Writing safetensors"), 0.8)
    merged.save_pretrained(partial)
    tokenizer.save_pretrained(partial)


def _merged(network: Any, adapter: Path) -> Any:
    """Return a network with an adapter merged into its weights, checking that every tensor of the adapter is used."""
    try:
        from peft import PeftConfig, get_peft_model, set_peft_model_state_dict
    except ImportError as error:
        raise SourceError("an adapter is merged with peft, which is not installed; run: pip install 'layerscope[train]'") from error
    from safetensors.torch import load_file

    try:
        config = PeftConfig.from_pretrained(str(adapter))
        config.init_lora_weights = True  # other initialisations compute or read files, only to be overwritten
        wrapped = get_peft_model(network, config, autocast_adapter_dtype=False)
        found: Any = set_peft_model_state_dict(wrapped, load_file(adapter / _WEIGHTS))
    except Exception as error:  # an adapter may contain anything
        raise SourceError("the adapter in {adapter} cannot be read: {reason}", adapter=adapter, reason=reason_of(error)) from error
    missing = [name for name in found.missing_keys if "lora_" in name or "modules_to_save" in name]
    if unfit := [*found.unexpected_keys, *missing]:
        raise SourceError(
            "the adapter in {adapter} does not fit its model: {count} tensors differ, such as {unfit}",
            adapter=adapter,
            count=len(unfit),
            unfit=unfit[0],
        )
    if not hasattr(wrapped, "merge_and_unload"):
        raise UnsupportedModelError("an adapter of type {peft_type} cannot be merged into weights", peft_type=config.peft_type)
    return wrapped.merge_and_unload(safe_merge=True)


if __name__ == "__main__":
    answer_request(merge)
