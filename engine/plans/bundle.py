"""Save a plan with its tensors: one zip of NAME.json and NAME.tensors.safetensors, or two files in the same folder."""

import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from engine.errors import PlanError, reason_of
from engine.plans.files import BROKEN_ZIP, read_json
from engine.plans.tensor_store import pack_tensors, unpack_tensors

TENSORS = ".tensors.safetensors"  # suffix of the tensor file, after the plan's name


def write_bundle(value: Any, marks: Iterable[str], file: Path) -> None:
    """Write a plan's JSON and its tensors (by fingerprint) into one zip, uncompressed because weights hardly compress.

    Raises:
        PlanError: a tensor is not on this machine, or the file cannot be written.
    """
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        tensors = Path(folder, f"{file.stem}{TENSORS}")
        pack_tensors(marks, tensors)
        with zipfile.ZipFile(file, "w") as whole:
            whole.writestr(f"{file.stem}.json", json.dumps(value, indent=1))
            whole.write(tensors, tensors.name)


def read_saved(files: Sequence[Path]) -> Any:
    """Return a plan's JSON from its files: a zip, or a .json with or without its .safetensors. Tensors are copied into the store.

    Raises:
        PlanError: there is no plan or more than one, a file is broken, or a tensor does not match its fingerprint.
    """
    tensors = [file for file in files if file.suffix == ".safetensors"]
    plans = [file for file in files if file not in tensors]
    if len(plans) != 1:
        raise PlanError(
            "{count} plans were chosen; choose a single .json (with its .tensors.safetensors, if any) or a single .zip", count=len(plans)
        )
    value = read_json(plans[0])
    for file in tensors:
        unpack_tensors(file)
    try:
        if zipfile.is_zipfile(plans[0]):
            _unpack(plans[0])
    except BROKEN_ZIP as error:
        raise PlanError("{name} is not a readable zip file: {reason}", name=plans[0].name, reason=reason_of(error)) from error
    return value


def _unpack(file: Path) -> None:
    """Store the tensors of a zip. Members are extracted under a fixed name, because their own names may contain paths."""
    with zipfile.ZipFile(file) as whole, tempfile.TemporaryDirectory() as folder:
        for name in whole.namelist():
            if name.endswith(".safetensors"):
                alone = Path(folder, "plan.safetensors")
                with whole.open(name) as packed, alone.open("wb") as out:
                    shutil.copyfileobj(packed, out)
                unpack_tensors(alone)
