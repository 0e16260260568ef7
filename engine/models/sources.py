"""Parse model sources, find their files, and download Hub models."""

import os
from pathlib import Path

from engine.cache import cache_folder, content_key, file_digest
from engine.errors import SourceError, reason_of
from engine.messages import Message
from engine.models.checks.adapters import MERGING, WEIGHTS, adapter_values
from engine.models.devices import require_device
from engine.models.files.weights import weight_files
from engine.models.gguf.config import READING
from engine.models.library import HUB_ID, demo_file, only_adapter
from engine.types import ModelSource
from engine.untrusted import LARGE, ForeignError, real_path, require_regular

DTYPES = ("auto", "float32", "bfloat16", "float16")
COMPANIONS = (  # files copied along with a model's weights and config
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model", "chat_template*",
    "generation_config.json",
)  # fmt: skip
# files downloaded from the Hub
_FETCHED = ("*.safetensors", "*.json", "*.jinja", "tokenizer*", "*.model", "vocab*", "merges.txt", "README.md")


def parse_source(text: str, dtype: str = "auto", device: str = "cpu") -> ModelSource:
    """Parse a source: `demo`, a path to a folder or a .gguf file, `hub:org/name[@revision]`, or `merged:` and an adapter's folder.

    No source text can enable trust_remote_code.

    Raises:
        SourceError: nothing of that name exists, or the dtype or the device is unknown.
    """
    text = text.strip()
    if dtype not in DTYPES:
        raise SourceError("unknown dtype '{dtype}'; choose one of {choices}", dtype=dtype, choices=", ".join(DTYPES))
    require_device(device)
    if not text:
        raise SourceError("no model was named; write demo, a path, or hub:org/name")
    if text == "demo":
        return ModelSource("demo", str(demo_file()), dtype=dtype, device=device)
    if text.startswith("hub:"):
        match = HUB_ID.fullmatch(text)
        if match is None:
            raise SourceError("'{text}' is not a Hub id; write hub:org/name", text=text)
        return ModelSource("hub", match[1], match[2], dtype, device)
    merged = text.startswith("merged:")
    try:
        path = real_path(text.removeprefix("merged:"))
        is_folder, is_file = path.is_dir(), path.is_file()
    except (OSError, ValueError) as error:
        raise SourceError("'{text}' is not a valid path", text=text[:200]) from error
    if merged:
        if not only_adapter(path):
            raise SourceError("{path} does not contain an adapter alone, so there is nothing to merge; open it without merged:", path=path)
        return ModelSource("adapter", str(path), dtype=dtype, device=device)
    if is_folder:
        return ModelSource("folder", str(path), dtype=dtype, device=device)
    if is_file and path.suffix.lower() == ".gguf":
        return ModelSource("gguf", str(path), dtype=dtype, device=device)
    if is_file:
        raise SourceError("{path} is neither a folder nor a .gguf file", path=path)
    raise SourceError("'{text}' does not exist; write demo, a path to a folder or a .gguf file, or hub:org/name", text=text)


def converted_folder(gguf: Path) -> Path:
    """Return the cache folder of a GGUF file's dequantised safetensors, whether or not it exists yet; it is named by the file's content and
    the version of the conversion."""
    if not gguf.is_file():  # false for pipes too
        raise SourceError("{gguf} does not exist", gguf=gguf)
    with gguf.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise SourceError("{gguf} is not a GGUF file: it does not begin with the letters GGUF", gguf=gguf)
    return cache_folder() / "converted" / f"{file_digest(gguf)[:24]}-{READING}"


def base_of_adapter(adapter: Path) -> Path:
    """Return the folder of an adapter's base model: a local folder, or a Hub model in the local cache at the adapter's revision.

    Raises:
        SourceError: the adapter cannot be merged, or the base model is not on this machine.
    """
    values = adapter_values(adapter)
    named, revision = str(values.get("base_model_name_or_path") or ""), values.get("revision")
    for place in (adapter / named, Path(named)):
        if named and (place / "config.json").is_file():
            return real_path(place)
    match = HUB_ID.fullmatch(f"hub:{named}")
    try:
        from huggingface_hub import snapshot_download

        return (
            Path(snapshot_download(match[1], revision=revision or match[2], allow_patterns=[*_FETCHED], local_files_only=True))
            if match
            else Path(named or "?").resolve(True)
        )
    except Exception as error:  # not in the cache, or not a valid name
        raise SourceError(
            "the adapter in {adapter} is for '{named}', which is not on this machine; download that model, or set "
            "base_model_name_or_path in adapter_config.json to the path of its folder",
            adapter=adapter,
            named=f"{named}@{revision}"[:200] if revision else named[:200],
        ) from error


def merged_folder(adapter: Path, base: Path) -> Path:
    """Return the cache folder of a merged model, whether or not it exists yet; it is named by the contents of adapter and base, their
    tokenizers included, and the version of the merge."""
    for name in ("adapter_config.json", WEIGHTS):
        if not (adapter / name).is_file():
            raise SourceError("{adapter} does not contain {file_name}", adapter=adapter, file_name=name)
    own = _digests(adapter, adapter / "adapter_config.json", adapter / WEIGHTS)
    below = _digests(base, base / "config.json", *weight_files(base))
    return cache_folder() / "converted" / f"merged-{content_key(MERGING, own, below)[:24]}"


def _digests(folder: Path, *files: Path) -> list[tuple[str, str]]:
    """Return the names and the digests of files, and of the tokenizer files in the same folder."""
    companions = sorted({path for pattern in COMPANIONS for path in folder.glob(pattern)} - {*files})
    try:
        for file in companions:
            require_regular(file, LARGE)
    except ForeignError as error:
        raise SourceError("{path} cannot be read: {error}", path=file, error=error) from error
    return [(file.name, file_digest(file)) for file in (*files, *companions)]


def lies_within(path: Path, folder: Path) -> bool:
    """Return whether a file of a model folder, with links resolved, is in that folder.

    The files of a Hub snapshot (models--org--name/snapshots/revision) are links to the cache's blobs: the repository's own, and those
    shared by several repositories. Both count as inside.
    """
    home = real_path(folder)
    repository = home.parent.parent
    roots = [home]
    if home.parent.name == "snapshots" and repository.name.startswith("models--"):
        roots += [repository / "blobs", repository.parent / "blobs"]
    end = real_path(path)
    return any(end.is_relative_to(root) for root in roots)


def needs_download(where: str) -> bool:
    """Return whether a source names a Hub model that is not in the local cache."""
    from huggingface_hub import snapshot_download

    match = HUB_ID.fullmatch(where.strip())
    if match is None:
        return False
    try:
        snapshot_download(match[1], revision=match[2], allow_patterns=[*_FETCHED], local_files_only=True)
    except Exception:  # not in the cache, or not a valid name
        return True
    return False


def download(source: ModelSource) -> Path:
    """Download a Hub model's safetensors, config and tokenizer (or find them in the local Hub cache); return the folder.

    Raises:
        SourceError: there is no connection and no local copy, or no such model.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = [*_FETCHED, *(["*.py"] if source.trust_remote_code else [])]
    try:
        return Path(snapshot_download(source.location, revision=source.revision, allow_patterns=patterns))
    except LocalEntryNotFoundError as error:
        how = Message("HF_HUB_OFFLINE is set") if os.environ.get("HF_HUB_OFFLINE") else Message("the Hub cannot be reached")
        raise SourceError(
            "hub:{location} is not on this machine and {how}; open a local folder, or connect to the internet",
            location=source.location,
            how=how,
        ) from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise SourceError("hub:{location} cannot be downloaded: {reason}", location=source.location, reason=reason_of(error)) from error
