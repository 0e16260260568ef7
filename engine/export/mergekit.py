"""Write a plan that only drops layers as a config for mergekit (github.com/arcee-ai/mergekit)."""

from huggingface_hub.utils import yaml_dump

from engine.plans.description import runs
from engine.types import Plan


def mergekit_config(plan: Plan, model: str, dtype: str) -> str | None:
    """Return the passthrough merge that makes a plan of `model` (a Hub id or a folder); None if any block is changed."""
    if not all(block.untouched for block in plan.blocks):
        return None
    slices = [{"sources": [{"model": model, "layer_range": [first, last + 1]}]} for first, last in runs(plan.kept)]
    return yaml_dump({"slices": slices, "merge_method": "passthrough", "dtype": dtype})
