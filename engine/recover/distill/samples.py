"""Samples of a student's text during a run, which show its progress."""

from functools import partial
from typing import TYPE_CHECKING

import torch
from transformers import GenerationConfig

from engine.judge.generation import PROMPTS, decoding_config, encode
from engine.recover.run.training_context import TrainingContext

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROMPT, NEW_TOKENS = PROMPTS[0], 24


@torch.no_grad()
def spoken(school: TrainingContext) -> str:
    """Return the student's greedy continuation of a prompt."""
    network: PreTrainedModel = school.student
    ids = torch.tensor([encode(school.model, PROMPT, NEW_TOKENS)], device=school.device)
    own, training = network.generation_config, network.training
    config, network.generation_config = decoding_config(own, NEW_TOKENS, sampled=False), GenerationConfig()
    network.eval()
    try:
        made = school.within(partial(network.generate, ids, attention_mask=torch.ones_like(ids), generation_config=config))
    finally:
        network.train(training)
        network.generation_config = own
    return str(school.model.tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True))
