"""Which model and text paths visitors may open: any path on a local page, only the offered folders on a public one."""

from dataclasses import dataclass
from pathlib import Path

from engine.errors import LayerscopeError
from engine.untrusted import real_path


@dataclass(frozen=True, slots=True)
class AllowedPaths:
    """The folders that models and texts may be read from. `roots` is None where the page serves this machine alone: then any path is
    allowed."""

    roots: tuple[Path, ...] | None = None

    def holds(self, where: str) -> bool:
        """Return whether this model or text may be read. A path outside the folders gives False whether or not it exists, so visitors
        cannot probe for files."""
        if self.roots is None or where in ("", "demo") or where.startswith("hub:"):
            return True
        try:
            path = real_path(where)
        except (OSError, ValueError):
            return False
        return any(path.is_relative_to(root) for root in self.roots)

    def require(self, where: str) -> None:
        """Check that this path may be read.

        Raises:
            LayerscopeError: the path is outside the allowed folders.
        """
        if not self.holds(where):
            raise LayerscopeError("'{where}' is outside the folders that this server may read", where=where[:200])
