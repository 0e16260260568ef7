import hashlib
import os
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest

from engine import cache
from engine.cache import Definition, Key, cache_folder, content_key, file_digest, load_result, save_result, write_whole

pytestmark = pytest.mark.usefixtures("fresh_cache")
KEY = Key("model", "cpu", "float32", "texts", "kind 1")


def test_the_folder_is_the_environments_or_the_platforms(fresh_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == fresh_cache
    monkeypatch.delenv("LAYERSCOPE_CACHE")
    assert cache_folder().name == "layerscope"


def test_a_key_depends_on_every_part_and_on_nothing_else() -> None:
    assert content_key("a", [1, 0.5], {"x": 1, "y": 2}) == content_key("a", (1, 0.5), {"y": 2, "x": 1})
    parts = (("a", "b"), ("b", "a"), ("ab",), ("a",), ("a", ["b"]), (1,), ("1",))
    assert len({content_key(*some) for some in parts}) == len(parts)
    assert content_key() == hashlib.sha256(b"[]").hexdigest()


def test_a_measurements_key_depends_on_each_of_its_parts() -> None:
    others = [replace(KEY, **{part.name: 1 if part.name == "schema" else "other"}) for part in fields(Key)]
    assert len({key.digest for key in (KEY, *others)}) == len(fields(Key)) + 1
    assert {part.name for part in fields(Key)} == {"model", "device", "dtype", "texts", "definition", "schema"}


def test_a_definition_names_its_version_and_those_of_what_it_uses() -> None:
    used = Definition("evaluation", 3)
    assert str(Definition("cost", 1, (used, Definition("score", 2)))) == "cost 1 (evaluation 3, score 2)"
    assert str(Definition("cost", 1, (replace(used, version=4),))) != str(Definition("cost", 1, (used,)))


def test_a_result_comes_back_and_others_do_not() -> None:
    save_result("kind", "key", {"value": [1, None, 0.1]})
    assert load_result("kind", "key") == {"value": [1, None, 0.1]}
    assert load_result("kind", "other") is None
    assert load_result("other", "key") is None


def test_a_result_cut_off_by_a_crash_counts_as_none(fresh_cache: Path) -> None:
    save_result("kind", "key", [1, 2, 3])
    (fresh_cache / "kind" / "key.json").write_text("[1, 2")
    assert load_result("kind", "key") is None
    (fresh_cache / "kind" / "key.json").write_bytes(b"\xff\xfe")
    assert load_result("kind", "key") is None


@pytest.mark.parametrize("strange", [os.mkfifo, lambda path: path.symlink_to(path.name), lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_is_no_result_and_gives_way_to_one(strange: Callable[[Path], None], fresh_cache: Path) -> None:
    (fresh_cache / "kind").mkdir(parents=True)
    strange(fresh_cache / "kind" / "key.json")
    assert load_result("kind", "key") is None
    save_result("kind", "key", [1, 2, 3])
    assert load_result("kind", "key") == [1, 2, 3]


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    write_whole(path, "first")
    reader = path.open(encoding="utf-8")
    write_whole(path, "second")
    with reader:
        assert reader.read() == "first"
    assert path.read_text(encoding="utf-8") == "second"
    assert list(path.parent.iterdir()) == [path]


# --- Digests ---


def test_a_digest_is_the_files_sha_256_and_follows_its_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    assert file_digest(path) == hashlib.sha256(b"one").hexdigest()
    path.write_bytes(b"two")  # of the same size
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
    assert file_digest(path) == hashlib.sha256(b"two").hexdigest()


def test_an_unchanged_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    first = file_digest(path)
    monkeypatch.setattr(cache.hashlib, "file_digest", None)
    assert file_digest(path) == first
