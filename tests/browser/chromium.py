"""Find Chromium for the browser tests, or install it through the system's packages; fail where neither works."""

import os
import shutil
import subprocess
import sys

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find() -> str | None:
    """Return the path of a Chromium on this machine, or None."""
    return os.environ.get("CHROMIUM") or next((path for name in NAMES if (path := shutil.which(name))), None)


def install() -> str:
    """Return the path of a Chromium, installed first where there is none."""
    if found := find():
        return found
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    apt = ["install", "-y", "--no-install-recommends", "fonts-noto-cjk"]
    for packager, steps in {  # each step is a choice of commands; the first that works will do
        "apt-get": ([["update"]], [[*apt, "chromium-headless-shell"], [*apt, "chromium"]]),
        "dnf": ([["install", "-y", "chromium", "google-noto-sans-cjk-fonts"]],),
        "pacman": ([["-Sy", "--noconfirm", "chromium", "noto-fonts-cjk"]],),
        "brew": ([["install", "--cask", "chromium"]],),
    }.items():
        if shutil.which(packager):
            prefix = [] if packager == "brew" else sudo
            for choice in steps:
                for command in choice:
                    if subprocess.run([*prefix, packager, *command], stdout=subprocess.DEVNULL).returncode == 0:
                        break
            break
    if found := find():
        return found
    sys.exit("the browser tests need Chromium and it could not be installed; install it, or name one in $CHROMIUM")


if __name__ == "__main__":
    install()
