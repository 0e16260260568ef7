"""Tiny valid files of every kind that is read, for other tests to corrupt."""

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import pandas
import pytest
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from engine import measurements
from engine.jobs import Job, drain
from engine.methods.depth.baselines import plan_of_kept
from engine.models.loading import open_model
from engine.models.sources import parse_source
from engine.plans import tensor_store
from engine.plans.bundle import TENSORS, write_bundle
from engine.plans.files import plan_to_json
from engine.plans.tensor_store import pack_tensors
from engine.recover.run.recovery import recover
from engine.recover.run.runs import Run
from engine.recover.run.settings import ShearSettings
from engine.recover.shear.shearing import begin_shearing, shear
from engine.types import Model
from tests.families import save_tiny
from tests.foreign.spoiling import ADDED, IN_BYTES, IN_JSON, KINDS, OF_KIND, Spoilt, added_to, places, spoil
from tests.foreign.surfaces import CALIBRATED, EXPORTED, FILES, JUDGED, LEARNT, MEASURED, PRUNED, VERBS, WROTE
from tests.foreign.trying import patched
from tests.ggufs import save_gguf
from tests.recovering import DEEP, SENTENCES, begun, with_zeros
from ui.terminal import cli

_JSON = (".json",)
_INSTEAD = (None, "x", -1, 10**400, [], {})


@dataclass(frozen=True)
class Case:
    """What is spoilt: the surface, which file of it (the pattern of its name and a share of those it matches), how; and the verb that
    then meets it."""

    surface: str
    file: str
    which: float
    spoilt: tuple[Spoilt, ...]
    verb: tuple[str, ...] = field(repr=True)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any verb that reads any surface, one of whose files is spoilt once or twice."""
    surface, verb = draw(st.sampled_from([(surface, verb) for surface, verbs in VERBS.items() for verb in verbs]))
    file = draw(st.sampled_from(FILES.get(surface, ("",))))
    name = file or surface
    ways = [IN_BYTES, OF_KIND] + ([IN_JSON, IN_JSON, added_to(name)] if name.endswith(_JSON) else [])
    spoilt = draw(st.lists(st.one_of(*ways), min_size=1, max_size=2))
    return Case(surface, file, draw(st.floats(0, 1)), tuple(spoilt), verb)


def every(stock: Path) -> Iterator[Case]:
    """Each file of each surface as each kind and with each addition, for each verb that reads it; each value of a small JSON file left
    out, renamed and replaced, for the first two."""
    for surface, verbs in VERBS.items():
        for pattern in FILES.get(surface, ("",)):
            found = sorted(file for file in (stock / surface).glob(pattern) if file.is_file()) if pattern else [stock / surface]
            for number, file in enumerate(found):
                added = [Spoilt("add", 0.0, (key, value)) for key, values in ADDED.get(file.name, {}).items() for value in values]
                whole = product([*(Spoilt("kind", 0.0, kind) for kind in KINDS), *added], verbs)
                for spoilt, verb in [*whole, *product(_within(file) if surface != "cache" else (), verbs[:2])]:
                    yield Case(surface, pattern, (number + 0.5) / len(found), (spoilt,), verb)


def _within(file: Path) -> Iterator[Spoilt]:
    if file.suffix in _JSON and file.name != "tokenizer.json":  # whose values are thousands, and alike
        many = len(list(places(json.loads(file.read_text(encoding="utf-8")))))
        for number, (how, what) in product(range(many), (("without", None), ("key", "x"), *(("value", value) for value in _INSTEAD))):
            yield Spoilt(how, (number + 0.5) / many, what)


def place(case: Case, stock: Path, folder: Path) -> tuple[str, ...]:
    """Lay the stock's files out in a folder and spoil what the case says; return the arguments of its verb, to be run there."""
    shutil.copytree(stock, folder, symlinks=True, dirs_exist_ok=True)
    if case.surface != "cache":
        shutil.rmtree(folder / "cache")
    path = folder / case.surface
    if case.file:
        found = sorted(file for file in path.glob(case.file) if file.is_file())
        path = found[min(int(case.which * len(found)), len(found) - 1)]
    for spoilt in case.spoilt:
        spoil(path, spoilt)
    return case.verb


def stocked(folder: Path) -> Path:
    """Make the stock: a model whole, in shards, quantised and exported, plans, figures, texts, runs under way."""
    save_tiny(folder / "whole", "llama")
    (folder / "whole" / "README.md").write_text("---\nlicense: mit\nlanguage: en\n---\n# A tiny one\n", encoding="utf-8")
    shutil.copytree(folder / "whole", folder / "sharded")
    (folder / "sharded" / "model.safetensors").unlink()
    network = AutoModelForCausalLM.from_pretrained(folder / "whole", trust_remote_code=False)
    size = sum(tensor.nbytes for tensor in load_file(folder / "whole" / "model.safetensors").values())
    network.save_pretrained(folder / "sharded", max_shard_size=size * 6 // 10)
    save_gguf(folder / "tiny.gguf", "llama")
    (folder / "texts.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    table = pandas.DataFrame({"text": SENTENCES, "domain": ["even", "odd"] * (len(SENTENCES) // 2)})
    table.to_json(folder / "texts.jsonl", orient="records", lines=True)
    table.to_parquet(folder / "texts.parquet")
    model = drain(open_model(parse_source(str(folder / "whole"))))
    _plans(folder, model)
    with pytest.MonkeyPatch.context() as patch:  # here, not in a process of its own: what it imports each case will need
        patched(patch.setattr)
        patch.chdir(folder)
        patch.setenv("LAYERSCOPE_CACHE", str(folder / "cache"))
        _runs(model)
        for verb in (*CALIBRATED, JUDGED, MEASURED, WROTE, EXPORTED, LEARNT, PRUNED):
            patch.setattr(sys, "argv", ["layerscope", *verb])
            with pytest.raises(SystemExit, match=r"^0$"):
                cli.main()
    shutil.rmtree(folder / "out")
    (folder / f"pruned{TENSORS}").unlink()  # they are in the cache, too
    measurements._store.close()  # what its log holds goes into the database
    tensor_store._fresh.clear()  # a case finds tensors in files alone
    return folder


def _plans(folder: Path, model: Model) -> None:
    """Plans of less depth, for the model and for what is exported of it; and one with tensors, in one file and beside each other."""
    for name, plan in (("plan", DEEP), ("less", plan_of_kept(DEEP.depth, (0, 1, 3), "hand-made"))):
        (folder / f"{name}.json").write_text(json.dumps(plan_to_json(plan)), encoding="utf-8")
    masked = with_zeros(DEEP, (model.spec.hidden_size, model.config.intermediate_size))
    (folder / "kept").mkdir()
    write_bundle(plan_to_json(masked), masked.tensors, folder / "kept.zip")
    (folder / "kept" / "plan.json").write_text(json.dumps(plan_to_json(masked)), encoding="utf-8")
    pack_tensors(masked.tensors, folder / "kept" / f"plan{TENSORS}")


def _runs(model: Model) -> None:
    """A run whose teacher is stored and a shearing, as the verbs would begin them, both paused after two steps."""
    run = begun(model, DEEP, Path("run"), texts=("texts.jsonl",), teacher="stored", top=8)
    _paused(run, recover({"folder": str(run.folder)}))
    shearing = begin_shearing(model, {"neurons": 24}, ["texts.jsonl"], ShearSettings(tokens=48, rows=1, length=16), Path("sheared.run"))
    _paused(shearing, shear(model, shearing))


def _paused(run: Run, job: Job[object]) -> None:
    for step in job:
        if ": step 2 " in step.label:
            run.ask_to_pause()
