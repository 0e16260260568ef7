"""The paths that visitors may open on the server's machine."""

from pathlib import Path

import pytest

from engine.errors import LayerscopeError
from tests.families import save_tiny
from ui.page.allowed_paths import AllowedPaths
from ui.page.bench.desk import Desk
from ui.page.bench.shared import texts_of
from ui.page.controls import state_from_query


def test_within_the_roots_anything_may_be_named_and_elsewhere_nothing(tmp_path: Path) -> None:
    roots, secret = tmp_path / "models", tmp_path / "secret"
    for folder in (roots / "one", secret):
        folder.mkdir(parents=True)
    (roots / "link").symlink_to(secret)
    reach = AllowedPaths((roots.resolve(),))
    for where in ("demo", "hub:org/name", str(roots), str(roots / "one"), str(roots / "none")):
        assert reach.holds(where)
    for where in (str(secret), str(roots / ".." / "secret"), str(roots / "link"), "/", "~", "/etc/passwd", "\0", str(tmp_path / "none")):
        assert not reach.holds(where)
        with pytest.raises(LayerscopeError, match="is outside the folders that this server may read"):
            reach.require(where)
    assert all(AllowedPaths().holds(where) for where in ("/etc", "x", "\0"))


def test_a_workbench_opens_and_reads_nothing_elsewhere_and_tells_nothing_of_it(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    desk = Desk(tmp_path / "exports", reach=AllowedPaths(((tmp_path / "models").resolve(),)))
    state = state_from_query("", "demo")
    told = set()
    for where in (str(save_tiny(tmp_path / "there", "llama")), str(tmp_path / "nowhere")):
        with pytest.raises(LayerscopeError) as refused:
            desk.open(where, "auto", texts_of("english", ""), state.settings())
        told.add(str(refused.value).replace(where, "X"))
        with pytest.raises(LayerscopeError, match="is outside the folders"):
            desk.recovering._require_texts(["self", where])
    assert len(told) == 1  # the same words, whether it is there or not
    assert desk.opening is None
