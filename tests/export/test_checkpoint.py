import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from engine.errors import ExportError, LayerscopeError, PlanError
from engine.export.checkpoint import export as export_module
from engine.export.checkpoint.export import DEFAULT_SHARD_BYTES, export, parse_size, verify
from engine.export.provenance import Calibration, Provenance
from engine.jobs import Job, Progress, drain
from engine.judge.similarity import SimilarityMeter
from engine.methods.depth.laco import LacoSettings, propose
from engine.models.library import DEMO_BASE_MODEL
from engine.models.sources import parse_source
from engine.models.texts import calibration_of
from engine.plans.files import plan_from_json
from engine.plans.rules import fold_spans, untouched
from engine.types import Check, Model, ModelSource, Plan
from tests.exporting import export_unverified, write
from tests.families import TEXTS, save_tiny

REFERENCE = fold_spans(6, [(2, 4)], "reference")
MEAN = fold_spans(6, [(2, 4)], "mean")
DEMO_PLAN = fold_spans(30, [(5, 9), (12, 20), (23, 29)], "reference")


@pytest.fixture
def llama(tiny: Callable[..., Model]) -> Model:
    return tiny("llama")


# --- Where it may be written ---


@pytest.mark.parametrize("kind", ["file", "folder", "dangling link"])
def test_nothing_is_overwritten(kind: str, llama: Model, tmp_path: Path) -> None:
    target = tmp_path / "out"
    {"file": target.touch, "folder": target.mkdir, "dangling link": lambda: target.symlink_to(tmp_path / "nowhere")}[kind]()
    with pytest.raises(ExportError, match="exists already"):
        drain(export(llama.source, llama.folder, REFERENCE, target))
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.usefixtures("in_this_process")
def test_a_folder_that_appears_during_the_writing_is_not_overwritten(llama: Model, tmp_path: Path) -> None:
    job = export(llama.source, llama.folder, REFERENCE, tmp_path / "out")
    next(step for step in job if step.label.startswith("Writing"))
    (tmp_path / "out").mkdir()
    with pytest.raises(ExportError, match="exists already"):
        drain(job)
    assert list(tmp_path.rglob("*")) == [tmp_path / "out"]


def test_a_checkpoint_that_fails_a_check_never_has_the_name_of_a_sound_one(
    llama: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(folder: Path, plan: Plan, partial: Path, *_: object) -> Job[tuple[Check, ...]]:
        yield Progress("Checking")
        assert (partial / "model.safetensors").exists()
        assert not (tmp_path / "out").exists()
        return (Check("logits", False, "they differ"),)

    monkeypatch.setattr(export_module, "verify", failing)
    for name in ("out.failed", "out.failed-1"):
        report = drain(export(llama.source, llama.folder, REFERENCE, tmp_path / "out"))
        assert (report.passed, report.path) == (False, str(tmp_path / name))
    assert {path.name for path in tmp_path.iterdir()} == {"out.failed", "out.failed-1"}


def test_what_could_not_be_checked_is_told_in_card_and_record(llama: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unable(*_: object) -> Job[tuple[Check, ...]]:
        yield Progress("Checking")
        return (Check("loads", False, "not run: 3 GB are needed", ran=False),)

    monkeypatch.setattr(export_module, "verify", unable)
    report = drain(export(llama.source, llama.folder, REFERENCE, tmp_path / "out"))
    assert (report.passed, report.path) == (True, str(tmp_path / "out"))
    assert (tmp_path / "out" / "README.md").read_text().endswith("## Not checked\n\n- loads: not run: 3 GB are needed\n")
    assert json.loads((tmp_path / "out" / "layerscope.json").read_text())["unchecked"] == ["loads"]


@pytest.mark.parametrize("target", ["file/out", "file/deeper/out", "name\0", "x" * 300])
def test_a_target_that_cannot_be_made_is_refused(target: str, llama: Model, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ExportError):
        write(llama, REFERENCE, tmp_path / target)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_folders_above_the_target_are_made(llama: Model, tmp_path: Path) -> None:
    assert (write(llama, REFERENCE, tmp_path / "new" / "deeper" / "out") / "config.json").exists()


def test_a_full_disk_is_refused_before_anything_is_written(llama: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 64 << 20})
    monkeypatch.setattr(export_module.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ExportError, match=r"0\.00 GB, but only 0\.07 GB are free"):
        write(llama, REFERENCE, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_plan_for_another_depth_is_refused(llama: Model, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"8 layers.*has 6"):
        drain(export(llama.source, llama.folder, untouched(8), tmp_path / "out"))
    assert not list(tmp_path.iterdir())


def test_an_incomplete_source_is_refused(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model", "llama")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.3.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(LayerscopeError, match=r"layers\.3\.mlp\.up_proj\.weight"):
        export_unverified(parse_source(str(folder)), folder, MEAN, tmp_path / "out")


@pytest.mark.parametrize("stop_at", [1, 2, 10, 30])
def test_a_cancelled_export_leaves_nothing_behind(stop_at: int, llama: Model, tmp_path: Path) -> None:
    job = export(llama.source, llama.folder, MEAN, tmp_path / "out")
    for _ in range(stop_at):
        step = next(job)
    assert step.label.startswith("Writing" if stop_at > 1 else "Planning")
    assert len(list(tmp_path.iterdir())) == (stop_at > 1)
    job.close()
    assert not list(tmp_path.iterdir())


# --- What is written ---


def test_where_every_block_has_one_source_tensors_are_only_renamed(llama: Model, tmp_path: Path) -> None:
    source = load_file(llama.folder / "model.safetensors")
    found = load_file(write(llama, REFERENCE, tmp_path / "out") / "model.safetensors")
    expected = {name: tensor for name, tensor in source.items() if ".layers." not in name}
    for index, (norms, projections) in enumerate([(0, 0), (1, 1), (2, 4), (5, 5)]):
        for rest in (name.split(".", 3)[3] for name in source if ".layers.0." in name):
            origin = norms if "norm" in rest else projections
            expected[f"model.layers.{index}.{rest}"] = source[f"model.layers.{origin}.{rest}"]
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name].view(torch.int32), tensor.view(torch.int32)) for name, tensor in expected.items())


@pytest.mark.parametrize("plan", [REFERENCE, MEAN], ids=["reference", "mean"])
def test_a_dtype_is_cast_once_from_the_sum(plan: Plan, llama: Model, tmp_path: Path) -> None:
    whole = load_file(write(llama, plan, tmp_path / "whole") / "model.safetensors")
    half = load_file(write(llama, plan, tmp_path / "half", dtype="bfloat16") / "model.safetensors")
    assert half.keys() == whole.keys()
    assert all(torch.equal(half[name], tensor.bfloat16()) for name, tensor in whole.items())
    network = AutoModelForCausalLM.from_pretrained(tmp_path / "half", local_files_only=True)
    assert network.dtype == torch.bfloat16


def test_a_sharded_source_is_read_and_shards_are_written(llama: Model, tmp_path: Path) -> None:
    folder = tmp_path / "sharded"
    llama.network.save_pretrained(folder, max_shard_size="50KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    export_unverified(parse_source(str(folder)), folder, MEAN, tmp_path / "out", shard_bytes=30_000)
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 2
    a = AutoModelForCausalLM.from_pretrained(tmp_path / "out", local_files_only=True).state_dict()
    b = AutoModelForCausalLM.from_pretrained(write(llama, MEAN, tmp_path / "single"), local_files_only=True).state_dict()
    assert all(torch.equal(a[name], tensor) for name, tensor in b.items())


def test_the_tokenizer_comes_along_and_the_source_is_left_alone(llama: Model, tmp_path: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in llama.folder.iterdir()}
    target = write(llama, REFERENCE, tmp_path / "out")
    assert (target / "tokenizer.json").read_bytes() == (llama.folder / "tokenizer.json").read_bytes()
    assert {path.name: path.stat().st_mtime_ns for path in llama.folder.iterdir()} == before
    assert (target.stat().st_mode & 0o777) == 0o755


def test_the_recipe_is_kept(llama: Model, tmp_path: Path) -> None:
    provenance = {"settings": {"T": 0.5}, "trials": [], "calibration": {"texts": 3, "fingerprint": "abc", "name": "own"}}
    known = Provenance(settings={"T": 0.5}, trials=(), calibration=Calibration(3, "abc", "own"))
    record = json.loads((write(llama, MEAN, tmp_path / "out", known=known) / "layerscope.json").read_text())
    assert plan_from_json(record["plan"]) == plan_from_json(record) == MEAN
    assert record["source"] == {"kind": "folder", "name": llama.spec.name, "revision": None, "fingerprint": llama.fingerprint}
    assert record["dtype"] == "float32"
    assert {key: record[key] for key in provenance} == provenance
    assert record["versions"]["torch"] == torch.__version__
    assert {"python", "transformers", "safetensors"} <= record["versions"].keys()


# --- What is not copied ---


def hub_snapshot(tmp_path: Path, *blobs: Path) -> Path:
    """A tiny model as the Hub's cache keeps it: each file a link into the repository's blobs, or through them into `blobs`."""
    repository = tmp_path / "hub" / "models--org--name"
    snapshot = save_tiny(repository / "snapshots" / "0123", "llama")
    (repository / "blobs").mkdir()
    for path in list(snapshot.iterdir()):
        kept = repository / "blobs" / f"hash-of-{path.name}"
        path.rename(kept)
        path.symlink_to(Path("../..") / "blobs" / kept.name)
        for shared in blobs:
            shared.mkdir(parents=True, exist_ok=True)
            kept.rename(shared / kept.name)
            kept.symlink_to(shared / kept.name)
    return snapshot


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file outside the model that is nobody's business."""
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "secret").write_text('{"license": "secret"}')
    return tmp_path / "private" / "secret"


@pytest.mark.parametrize("name", ["tokenizer.json", "chat_template.jinja", "tokenizer_notes.txt", "own.model", "generation_config.json"])
def test_a_link_that_leads_out_of_the_model_is_refused(name: str, secret: Path, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model", "llama")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(secret)
    with pytest.raises(ExportError, match=f"{name} is a link to a place outside the model's folder"):
        export_unverified(parse_source(str(folder)), folder, MEAN, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_link_within_the_model_is_followed(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "real", "llama")
    (folder / "tokenizer.json").rename(folder / "kept.json")
    (folder / "tokenizer.json").symlink_to("kept.json")
    (tmp_path / "model").symlink_to(folder)  # where the folder itself is reached by a link, its files are still its own
    target = export_unverified(parse_source(str(folder)), tmp_path / "model", MEAN, tmp_path / "out")
    assert not (target / "tokenizer.json").is_symlink()
    assert (target / "tokenizer.json").read_bytes() == (folder / "kept.json").read_bytes()


@pytest.mark.parametrize("shared", [False, True])
def test_the_links_of_a_hub_snapshot_are_followed_to_its_cache(shared: bool, tmp_path: Path) -> None:
    snapshot = hub_snapshot(tmp_path, *([tmp_path / "hub" / "blobs"] if shared else []))
    target = export_unverified(ModelSource("hub", "org/name"), snapshot, MEAN, tmp_path / "out")
    assert (target / "tokenizer.json").read_bytes() == (snapshot / "tokenizer.json").read_bytes()
    assert not [path for path in target.iterdir() if path.is_symlink()]


@pytest.mark.parametrize("way", ["the file", "its blob", "all blobs"])
def test_the_links_of_a_hub_snapshot_are_followed_nowhere_else(way: str, secret: Path, tmp_path: Path) -> None:
    snapshot = hub_snapshot(tmp_path, *([secret.parent] if way == "its blob" else []))
    blobs = snapshot.parent.parent / "blobs"
    if way == "the file":
        (snapshot / "tokenizer.json").unlink()
        (snapshot / "tokenizer.json").symlink_to(secret)
    elif way == "all blobs":
        blobs.rename(secret.parent / "blobs")
        blobs.symlink_to(secret.parent / "blobs")
    with pytest.raises(ExportError, match="a place outside the model's folder"):
        export_unverified(ModelSource("hub", "org/name"), snapshot, MEAN, tmp_path / "out")


@pytest.mark.parametrize("leads_to", ["../elsewhere.md", "README.md"])
def test_a_model_card_that_lies_elsewhere_or_nowhere_is_not_read(leads_to: str, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model", "llama")
    (tmp_path / "elsewhere.md").write_text("---\nlicense: mit\n---\n")
    (folder / "README.md").symlink_to(leads_to)
    target = export_unverified(parse_source(str(folder)), folder, MEAN, tmp_path / "out")
    assert ModelCard.load(target / "README.md").data.license is None


def test_python_files_of_the_model_are_not_copied(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model", "llama")
    (folder / "tokenizer_theirs.py").write_text("")
    assert not list(export_unverified(parse_source(str(folder)), folder, MEAN, tmp_path / "out").glob("*.py"))


# --- The generation config ---


def test_a_sound_generation_config_is_kept_as_it_is(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model", "llama")
    (folder / "generation_config.json").write_text('{"do_sample": true, "temperature": 0.6, "eos_token_id": [1, 5], "theirs": 1}')
    target = export_unverified(parse_source(str(folder)), folder, MEAN, tmp_path / "out")
    assert (target / "generation_config.json").read_bytes() == (folder / "generation_config.json").read_bytes()


@pytest.mark.usefixtures("in_this_process")
def test_of_an_unsound_generation_config_the_special_tokens_are_kept_and_it_is_said(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model", "llama")
    (folder / "generation_config.json").write_text('{"num_beams": 100000, "eos_token_id": [1, 5]}')
    report = drain(export(parse_source(str(folder)), folder, MEAN, tmp_path / "out"))
    assert report.passed
    assert report.checks[-1] == Check("generation_config", True, "only its special tokens were kept: num_beams is 100000")
    kept = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert kept["eos_token_id"] == [1, 5]
    assert "num_beams" not in kept
    whole = export(parse_source(str(tmp_path / "out")), tmp_path / "out", fold_spans(4, [(1, 2)], "mean"), tmp_path / "again")
    assert "generation_config" not in {check.name for check in drain(whole).checks}


# --- The model card ---


def test_the_card_of_a_local_model_names_no_base_model(llama: Model, tmp_path: Path) -> None:
    card = ModelCard.load(write(llama, MEAN, tmp_path / "out") / "README.md")
    assert card.data.base_model is None
    assert "base_model" not in card.content
    assert "license" not in card.data.to_dict()
    assert card.data.library_name == "transformers"
    assert "**Nothing was retrained.**" in card.text
    assert "Layers 3-4 fold into 2: the mean of their projections and its own" in card.text
    assert "Method: hand-made, rule `mean`." in card.text
    assert llama.fingerprint in card.text
    kept = llama.spec.parameters - 2 * llama.spec.block_parameters[0]
    assert f"({kept:,} of {llama.spec.parameters:,} parameters, {kept * 4 / 1e3:.1f} kB)" in card.text


def test_licence_and_language_are_inherited_from_the_sources_card(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model", "llama")
    (folder / "README.md").write_text("---\nlicense: mit\nlanguage: [ko, en]\ntags: [theirs]\nbase_model: someone/else\n---\n# Theirs\n")
    target = export_unverified(parse_source(str(folder)), folder, MEAN, tmp_path / "out")
    data = ModelCard.load(target / "README.md").data
    assert (data.license, data.language, data.base_model) == ("mit", ["ko", "en"], None)
    assert "theirs" not in data.tags


def test_a_hub_model_is_named_as_the_base(llama: Model, tmp_path: Path) -> None:
    card = ModelCard.load(export_unverified(ModelSource("hub", "org/name", "v1"), llama.folder, REFERENCE, tmp_path / "out") / "README.md")
    assert card.data.base_model == "org/name"
    assert "[org/name](https://huggingface.co/org/name)" in card.text
    assert "laco" not in card.data.tags


def test_the_card_of_a_laco_plan_tells_its_settings_and_the_last_accepted_similarity(llama: Model, tmp_path: Path) -> None:
    calibration = calibration_of(TEXTS)
    proposal = drain(propose(SimilarityMeter(llama, calibration), LacoSettings(C=2, I=1, T=0.5, lowest=0)))
    accepted = [trial.similarity for trial in proposal.trials if trial.accepted]
    assert len(accepted) > 1
    assert not proposal.trials[-1].accepted
    known = Provenance(trials=proposal.trials, calibration=Calibration(3, calibration.fingerprint))
    card = ModelCard.load(write(llama, proposal.plan, tmp_path / "out", known=known) / "README.md")
    assert "rule `reference` (Layer Collapse, arXiv 2402.11187): C = 2, I = 1, T = 0.5, L = 0, H = 6." in card.text
    assert f"(flattened): {accepted[-1]:.4f}." in card.text
    assert f"Calibration: 3 texts, SHA-256 `{calibration.fingerprint}`." in card.text
    assert "laco" in card.data.tags


# --- The demo, to the end ---


@pytest.fixture(scope="module")
def exported(demo: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(demo, DEMO_PLAN, tmp_path_factory.mktemp("demo") / "out")


@pytest.mark.usefixtures("in_this_process")
def test_the_demo_passes_its_checks(demo: Model, exported: Path) -> None:
    checks = drain(verify(demo.folder, DEMO_PLAN, exported))
    assert all(check.passed for check in checks), checks
    assert next(check for check in checks if check.name == "logits").detail.startswith("equal bit for bit")


def test_the_demos_tensors_are_its_sources_byte_for_byte(demo: Model, exported: Path) -> None:
    with (
        safe_open(demo.folder / "model.safetensors", framework="pt") as source,
        safe_open(exported / "model.safetensors", framework="pt") as found,
    ):
        assert "lm_head.weight" not in found.keys()  # noqa: SIM118  # tied, and stored once
        assert len(found.keys()) == len(source.keys()) - 9 * (30 - DEMO_PLAN.depth)
        for index, block in enumerate(DEMO_PLAN.blocks):
            for rest, layer in (("input_layernorm", block.home), ("self_attn.k_proj", block.mix[0][0]), ("mlp.down_proj", block.mix[0][0])):
                a, b = found.get_tensor(f"model.layers.{index}.{rest}.weight"), source.get_tensor(f"model.layers.{layer}.{rest}.weight")
                assert torch.equal(a.view(torch.int32), b.view(torch.int32))


def test_the_demos_card_names_its_base_and_its_licence(exported: Path) -> None:
    card = ModelCard.load(exported / "README.md")
    assert (card.data.base_model, card.data.license, card.data.language) == (DEMO_BASE_MODEL, "apache-2.0", "en")
    assert "30 layers folded to 12" in card.text
    assert "**Nothing was retrained.**" in card.text
    assert "Cosine similarity" not in card.text  # nobody measured this plan


# --- Sizes ---


@pytest.mark.parametrize(
    ("text", "size"),
    [("5GB", DEFAULT_SHARD_BYTES), ("500MB", 500_000_000), ("1.5 gb", 1_500_000_000), ("1000000", 10**6), (" 2M ", 2 * 10**6)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-5GB", "5TB", "5 apples", "999999", "1KB", "nan", "1e9", "0GB", "9" * 400])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ExportError, match="shard size"):
        parse_size(text)
