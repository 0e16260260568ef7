"""Settings of evaluations and measurements. Imports no torch."""

from dataclasses import dataclass, field

from engine.settings import Action, control

CONTEXT = 512  # tokens in one window
TOKENS = 20_000  # scored tokens at most


@dataclass(frozen=True, slots=True)
class WindowSettings:
    """How held-out text is cut: windows of `context` tokens, each `stride` tokens after the one before, `tokens` scored tokens at most."""

    context: int = field(default=CONTEXT, metadata=control("tokens in one window"))
    stride: int | None = field(default=None, metadata=control("tokens from one window to the next; the context when left out"))
    tokens: int = field(default=TOKENS, metadata=control("how many tokens to score at most"))


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """The KV cache that memory is counted for."""

    context: int = field(default=4096, metadata=control("tokens in the KV cache"))
    batch: int = field(default=1, metadata=control("sequences of that length"))


@dataclass(frozen=True, slots=True)
class TaskSettings:
    """Which tasks are scored."""

    names: str = field(
        default="bundled",
        metadata=control("tasks of lm-evaluation-harness, with commas; bundled runs our two without it, offline", flag="--tasks"),
    )
    limit: int | None = field(default=None, metadata=control("items of each task at most"))


EVALUATE = Action(
    "evaluate", "Evaluate a plan and its source: perplexity, KL divergence, top-1 agreement, with the spread over texts.", WindowSettings
)
MEASURE = Action(
    "measure",
    "Measure what a plan gains, and how it writes: speed, memory, and source and plan continuing the same prompts.",
    CacheSettings,
)
TASKS = Action(
    "tasks",
    "Score source and plan on tasks, with standard errors; other tasks than ours need layerscope[eval] and a network.",
    TaskSettings,
)
