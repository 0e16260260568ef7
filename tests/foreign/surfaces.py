"""The inputs from elsewhere: file kinds, the commands that read them, and the names of valid examples."""

MODEL = ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "README.md", "model.safetensors")
SHARDED = ("model.safetensors.index.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
RUN = ("run.json", "metrics.jsonl", "plan.zip", "steps/*", "best.safetensors", "teacher.bin")
# The files of a surface that is a folder, as patterns; a surface that is not here is a file.
FILES: dict[str, tuple[str, ...]] = {
    "whole": MODEL,
    "sharded": SHARDED,
    "exported": ("layerscope.json", *MODEL),
    "kept": ("plan.json", "plan.tensors.safetensors"),
    "run": RUN,
    "sheared.run": ("run.json", "metrics.jsonl", "steps/*"),
    "cache": ("corpus/**/*", "digests/*", "library/*", "tensors/*", "measurements.sqlite", "measurements.lock"),
}

_READ, _PLAN = ("--calibration", "texts.txt"), ("--model", "whole", "--plan", "plan.json")
_SOME = ("--text", "texts.txt", "--tokens", "600")
_FEW = ("--rows", "1", "--length", "16", "--tokens", "48")


def _judging(plan: str, *more: str) -> tuple[str, ...]:
    return ("evaluate", "--model", "whole", "--plan", plan, "--text", "texts.txt", "--tokens", "60", *more)


def _exporting(plan: str, *more: str, model: str = "whole", out: str = "out") -> tuple[str, ...]:
    return ("export", "--model", model, "--plan", plan, "--out", out, *more)


def _learning(text: str) -> tuple[str, ...]:
    return ("recover", *_PLAN, "--text", text, "--out", "out", *_FEW)


CALIBRATED = (
    ("profile", "--model", "whole", *_READ),
    ("map", "--model", "whole", *_READ, "-C", "2"),
)
LEARNT = _learning("texts.jsonl")
SHEARED = ("shear", "--model", "whole", "--target", '{"neurons": 24}', "--text", "texts.jsonl", *_FEW, "--out", "sheared.json")
EXPORTED = _exporting("plan.json", out="exported")
WROTE = ("write", "--model", "whole", "--tokens", "40", "--out", "own.jsonl")
JUDGED, MEASURED = _judging("plan.json", "--out", "judged.json"), ("measure", *_PLAN, "--context", "64", "--out", "measured.json")
PRUNED = ("prune", *_PLAN, "--method", "wanda", "--sparsity", "0.5", *_SOME, "--out", "pruned.json")
# Each with what else it reads that is sound.
VERBS: dict[str, tuple[tuple[str, ...], ...]] = {
    "whole": (
        ("propose", "--model", "whole", *_READ, "-C", "2"),
        *CALIBRATED,
        _judging("plan.json"),
        _exporting("plan.json"),
        *(
            ("baseline", "--model", "whole", "--method", method, "--keep", "4", "--text", "texts.txt")
            for method in ("bi", "sleb", "angular")
        ),
        *(("importance", "--model", "whole", "--axis", "neurons", "--score", score, *_SOME) for score in ("flap", "taylor", "obs")),
        *(("prune", "--model", "whole", "--method", method, "--sparsity", "0.5", *_SOME) for method in ("sparsegpt", "gblm")),
        ("sweep", "--model", "whole", *_READ, "--t-min", "0.8"),
        ("search", "--model", "whole", "--keep", "4", "--seconds", "0.3", "--repair", *_SOME),
        ("shapes", "--model", "whole", "--params", "0.05M", "--measured", "1", "--seconds", "0.1", "--no-speed", *_SOME),
        ("ablate", "C", "--model", "whole", *_READ, "--text", "texts.txt", "--tokens", "60"),
        ("tasks", *_PLAN, "--limit", "1"),
        ("models", "--exports", "."),
    ),
    "sharded": (("profile", "--model", "sharded", *_READ), _exporting("plan.json", "--shard-size", "1MB", model="sharded")),
    "tiny.gguf": (
        ("profile", "--model", "tiny.gguf", *_READ),
        _exporting("plan.json", "--format", "gguf", model="tiny.gguf", out="out.gguf"),
    ),
    "exported": (
        ("models", "--exports", "."),
        ("profile", "--model", "exported", *_READ),
        _exporting("less.json", model="exported"),
    ),
    "plan.json": (
        _judging("plan.json"),
        _exporting("plan.json"),
        *(("repair", *_PLAN, "--kind", kind, *_SOME) for kind in ("ridge", "scalar", "refit")),
        ("trim", *_PLAN, "--neurons", "24", *_SOME),
        PRUNED,
        ("importance", *_PLAN, "--axis", "heads", *_SOME),
        ("tasks", *_PLAN, "--limit", "1"),
        ("measure", *_PLAN, "--context", "64"),
        ("report", *_PLAN, "--calibration", "texts.txt", "--text", "texts.txt", "--tokens", "60", "--out", "out.html"),
    ),
    "kept.zip": (_judging("kept.zip"), _exporting("kept.zip")),
    "kept": (_judging("kept/plan.json"), _exporting("kept/plan.json")),
    "judged.json": (_exporting("plan.json", "--evaluation", "judged.json"),),
    "measured.json": (_exporting("plan.json", "--measured", "measured.json"),),
    "texts.txt": (("propose", "--model", "whole", *_READ, "-C", "2"), _judging("plan.json"), _learning("texts.txt")),
    "texts.jsonl": (LEARNT,),
    "texts.parquet": (_learning("texts.parquet"),),
    "own.jsonl": (WROTE,),
    "run": (("recover", "--resume", "run"),),
    "sheared.run": (SHEARED,),
    "cache": (*CALIBRATED, LEARNT, _judging("plan.json"), _judging("pruned.json"), _exporting("pruned.json"), ("doctor",)),
}
