"""Sound files of every kind that is read, tiny, for others to spoil; and the verbs that read them."""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from engine.jobs import drain
from engine.methods.baselines import plan_of_kept
from engine.models.loading import open_model
from engine.models.sources import parse_source
from engine.plans.files import plan_to_json
from tests.families import TEXTS, save_tiny
from tests.foreign.spoiling import IN_BYTES, IN_JSON, OF_KIND, Spoilt, added_to, spoil
from tests.foreign.trying import outcome
from tests.ggufs import save_gguf

MODEL = ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "README.md", "model.safetensors")
SHARDED = ("model.safetensors.index.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
_JSON = (".json",)

# What reads what: arguments with the names of the files, relative to the folder of the case.
VERBS: dict[str, tuple[tuple[str, ...], ...]] = {
    "whole": (
        ("propose", "--model", "whole", "--calibration", "texts.txt", "-C", "2"),
        ("profile", "--model", "whole", "--calibration", "texts.txt"),
        ("evaluate", "--model", "whole", "--plan", "plan.json", "--text", "texts.txt", "--tokens", "60"),
        ("export", "--model", "whole", "--plan", "plan.json", "--out", "out"),
        ("models", "--exports", "."),
    ),
    "sharded": (
        ("profile", "--model", "sharded", "--calibration", "texts.txt"),
        ("export", "--model", "sharded", "--plan", "plan.json", "--out", "out", "--shard-size", "1MB"),
    ),
    "tiny.gguf": (
        ("profile", "--model", "tiny.gguf", "--calibration", "texts.txt"),
        ("export", "--model", "tiny.gguf", "--plan", "plan.json", "--out", "out.gguf", "--format", "gguf"),
    ),
    "plan.json": (
        ("evaluate", "--model", "whole", "--plan", "plan.json", "--text", "texts.txt", "--tokens", "60"),
        ("export", "--model", "whole", "--plan", "plan.json", "--out", "out"),
    ),
    "judged.json": (("export", "--model", "whole", "--plan", "plan.json", "--out", "out", "--evaluation", "judged.json"),),
    "texts.txt": (
        ("propose", "--model", "whole", "--calibration", "texts.txt", "-C", "2"),
        ("evaluate", "--model", "whole", "--plan", "plan.json", "--text", "texts.txt", "--tokens", "60"),
    ),
    "cache": (
        ("profile", "--model", "whole", "--calibration", "texts.txt"),
        ("map", "--model", "whole", "--calibration", "texts.txt", "-C", "2"),
    ),
}


@dataclass(frozen=True)
class Case:
    """What is spoilt: the surface, a file of it, how; and the verb that then meets it."""

    surface: str
    file: str
    spoilt: tuple[Spoilt, ...]
    verb: tuple[str, ...] = field(repr=True)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any file of any surface, spoilt once or twice."""
    surface = draw(st.sampled_from(list(VERBS)))
    file = {"whole": draw(st.sampled_from(MODEL)), "sharded": draw(st.sampled_from(SHARDED)), "cache": ""}.get(surface, surface)
    ways = [IN_BYTES, OF_KIND] + ([IN_JSON, IN_JSON, added_to(file)] if file.endswith(_JSON) else [])
    spoilt = draw(st.lists(st.one_of(*ways), min_size=1, max_size=2))
    return Case(surface, file, tuple(spoilt), draw(st.sampled_from(VERBS[surface])))


def place(case: Case, stock: Path, folder: Path) -> list[str]:
    """Lay the stock's files out in a folder and spoil what the case says; return the arguments of its verb, with paths."""
    shutil.copytree(stock, folder, symlinks=True, dirs_exist_ok=True)
    if case.surface == "cache":
        files = sorted(path for path in (folder / "cache").rglob("*") if path.is_file())
        path = files[int(case.spoilt[0].where * (len(files) - 1))]
    else:
        shutil.rmtree(folder / "cache")
        path = folder / case.surface / case.file if case.file != case.surface else folder / case.file
    for spoilt in case.spoilt:
        spoil(path, spoilt)
    names = {path.name for path in stock.iterdir()} | {"out", "out.gguf", "."}
    return [str(folder / word) if word in names else word for word in case.verb]


def stocked(folder: Path) -> Path:
    """Make the stock: a model whole and in shards, a GGUF file, plans, figures, texts."""
    save_tiny(folder / "whole", "llama")
    (folder / "whole" / "README.md").write_text("---\nlicense: mit\nlanguage: en\n---\n# A tiny one\n", encoding="utf-8")
    shutil.copytree(folder / "whole", folder / "sharded")
    (folder / "sharded" / "model.safetensors").unlink()
    network = AutoModelForCausalLM.from_pretrained(folder / "whole", trust_remote_code=False)
    size = sum(tensor.nbytes for tensor in load_file(folder / "whole" / "model.safetensors").values())
    network.save_pretrained(folder / "sharded", max_shard_size=size * 6 // 10)
    save_gguf(folder / "tiny.gguf", "llama")
    model = drain(open_model(parse_source(str(folder / "whole"))))
    plan = plan_to_json(plan_of_kept(model.spec.depth, (0, 1, 4, 5), "hand-made"))
    (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    (folder / "texts.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    for verb in (*VERBS["cache"], (*VERBS["plan.json"][0], "--out", "judged.json")):
        names = {path.name for path in folder.iterdir()} | {"judged.json"}
        assert not outcome([folder / word if word in names else word for word in verb], folder, folder / "cache")
    (folder / "said").unlink()
    return folder
