"""Terminal commands around the page: app serves it to this machine or to others, doctor checks the installation."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from engine.errors import LayerscopeError
from engine.untrusted import ForeignError, real_path, text_in
from ui.terminal.derived_options import command
from ui.terminal.options import Exports, JsonOutput, ModelOption

app = typer.Typer()


@app.command("app")
def open_app(
    model: ModelOption = "demo",
    host: Annotated[str, typer.Option(help="the address to listen at; 127.0.0.1 is this machine only")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="the port to listen at")] = 7860,
    exports: Exports = Path("exports"),
    auth: Annotated[str | None, typer.Option(metavar="USER:FILE", help="require this user name and the password in the file")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="allow other machines without a password")] = False,
    roots: Annotated[
        list[Path] | None,
        typer.Option("--models", metavar="DIR", help="a folder from which visitors may open models and texts"),
    ] = None,
    names: Annotated[
        list[str] | None, typer.Option("--name", metavar="HOST", help="another host name of this machine, such as a proxy's")
    ] = None,
    browser: Annotated[
        bool | None, typer.Option("--browser/--no-browser", help="open a browser window; default: if there is a screen")
    ] = None,
) -> None:
    """Open the page."""
    if not 0 <= port <= 65_535:
        raise LayerscopeError(f"there is no port {port}; choose one between 1 and 65535, or 0 for any that is free")
    from ui.page.allowed_paths import AllowedPaths
    from ui.page.app import Server, serve
    from ui.page.guard import is_loopback

    asked = _credentials(auth)
    if not is_loopback(host):
        if asked is None and not insecure:
            raise LayerscopeError(
                f"{host} is reachable from other machines; require a password with --auth USER:FILE, or allow everyone with --insecure"
            )
        sys.stderr.write(
            "layerscope: warning: other machines can reach this page, unencrypted"
            f"{', without a password' if asked is None else ''}; its visitors share this machine's memory and disk\n"
        )
    bounded = None if is_loopback(host) and not roots else tuple(real_path(path) for path in (*(roots or ()), exports))
    serve(model, Server(host, port, tuple(names or ()), asked, AllowedPaths(bounded)), exports, browser)


def _credentials(auth: str | None) -> tuple[str, str] | None:
    """Return the user name and the password that --auth gives.

    Raises:
        LayerscopeError: it is not USER:FILE, or the file has no readable password.
    """
    if auth is None:
        return None
    user, _, file = auth.partition(":")
    if not user or not file:
        raise LayerscopeError("--auth needs USER:FILE: a user name and a file with the password")
    try:
        password = text_in(Path(file).expanduser(), most=4096).strip()
    except (OSError, ForeignError) as error:
        raise LayerscopeError(f"the password cannot be read from {file}: {getattr(error, 'strerror', None) or error}") from error
    if not password:
        raise LayerscopeError(f"{file} contains no password")
    return user, password


@command(app)
def doctor(
    output: JsonOutput,
    exports: Exports = Path("exports"),
    clear: Annotated[bool, typer.Option("--clear", help="delete the findings that are safe to delete")] = False,
) -> None:
    """See how this machine stands: versions, cache, exports, what is broken and how to mend it. Exits 1 when something is."""
    from dataclasses import asdict

    from engine.export import doctor as house

    health = house.examine(exports)
    cleared = house.clear(health) if clear else []
    if cleared:
        health = house.examine(exports)
    facts = asdict(health)
    facts["findings"] = [{**finding, "clear": [str(path) for path in finding["clear"]]} for finding in facts["findings"]]
    output.write({**facts, "cleared": [str(path) for path in cleared]})
    for finding in health.findings:
        sys.stderr.write(f"{finding.what}: {finding.mend}\n")
    if health.findings:
        raise typer.Exit(1)
