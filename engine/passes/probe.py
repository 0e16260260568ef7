"""A network's logits on a few bundled sentences: networks whose logits agree bit for bit are taken to be the same."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file

from engine.models.texts import Pack, bundled, calibration_of, packs_of

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_TEXTS = 4


def probing(tokenizer: "PreTrainedTokenizerBase", config: "PretrainedConfig") -> tuple[Pack, ...]:
    """Return the sentences as packs of tokens."""
    return packs_of(tokenizer, config, calibration_of(bundled("english").texts[:_TEXTS]))


@torch.no_grad()
def logits_on(network: "PreTrainedModel", packs: Sequence[Pack]) -> list[torch.Tensor]:
    """Return a network's logits [1, tokens, vocabulary] on each pack."""
    return [network(input_ids=pack.ids, position_ids=pack.positions, use_cache=False).logits for pack in packs]


def write_probe(logits: Sequence[torch.Tensor], file: Path) -> None:
    """Write logits to a file, for a process without the network."""
    save_file({str(number): one.contiguous() for number, one in enumerate(logits)}, file)


def read_probe(file: Path) -> list[torch.Tensor]:
    """Return the logits written by `write_probe`."""
    kept = load_file(file)
    return [kept[str(number)] for number in range(len(kept))]
