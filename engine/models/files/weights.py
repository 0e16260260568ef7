"""Find a checkpoint's weight files and read their headers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from engine.errors import SourceError, reason_of
from engine.models.library import no_weights
from engine.untrusted import ForeignError, object_in, require_regular


def weight_files(folder: Path) -> list[Path]:
    """Return a checkpoint's safetensors files, each opened once to check that its header and length agree.

    Raises:
        SourceError: there are none, a file named by the index is missing, or a file is truncated or corrupted.
    """
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.exists() or whole.is_symlink():  # transformers prefers it too, where both exist
        files = [whole]
    elif index.exists() or index.is_symlink():
        files = _named_by(index)
    else:
        raise SourceError(no_weights(folder))
    for file in files:
        try:
            require_regular(file)
            with safe_open(file, framework="pt") as opened:
                opened.keys()
        except FileNotFoundError as error:
            raise SourceError("{file} is listed in the index but missing", file=file) from error
        except ForeignError as error:
            raise SourceError("{path} cannot be read: {error}", path=file, error=error) from error
        except (SafetensorError, OSError) as error:
            raise SourceError("{file} is truncated or corrupted: {reason}", file=file, reason=reason_of(error)) from error
    return files


def _named_by(index: Path) -> list[Path]:
    """Return the files named by a weight index; they must be in the same folder."""
    try:
        names = sorted(set(object_in(index)["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise SourceError("{index} is not a valid weight index", index=index) from error
    if strange := [name for name in names if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors")]:
        raise SourceError(
            "{index} lists {strange!r}, which is not a .safetensors file in the same folder", index=index, strange=str(strange[0])[:100]
        )
    return [index.parent / name for name in names]


def headers_in(folder: Path) -> Iterator[tuple[str, Path, Any]]:
    """Yield each tensor's name, its file, and the view that gives its dtype (`get_dtype`) and shape (`get_shape`) from the header.

    Raises:
        SourceError: as `weight_files`, or two files hold a tensor of the same name.
    """
    seen: dict[str, Path] = {}
    for file in weight_files(folder):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118  # a safe_open is no dict
                if name in seen:
                    raise SourceError(
                        "the tensor {tensor} is in both {first_file} and {second_file}; remove one of them",
                        first_file=seen[name].name,
                        second_file=file.name,
                        tensor=name,
                    )
                seen[name] = file
                yield name, file, opened.get_slice(name)
