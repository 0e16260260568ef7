"""Find Chromium for the browser tests, or install it through the system's packages; fail where neither works."""

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find() -> str | None:
    """Return the path of a Chromium on this machine, or None."""
    return os.environ.get("CHROMIUM") or next((path for name in NAMES if (path := shutil.which(name))), None)


def install() -> str:
    """Return the path of a Chromium, installed first where there is none."""
    if found := find():
        return found
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    for packager, steps in {
        "apt-get": (["update"], ["install", "-y", "--no-install-recommends", "chromium", "fonts-noto-cjk"]),
        "dnf": (["install", "-y", "chromium", "google-noto-sans-cjk-fonts"],),
        "pacman": (["-Sy", "--noconfirm", "chromium", "noto-fonts-cjk"],),
        "brew": (["install", "--cask", "chromium"],),
    }.items():
        if shutil.which(packager):
            prefix = [] if packager == "brew" else sudo
            for step in steps:
                subprocess.run([*prefix, packager, *step], check=True, stdout=subprocess.DEVNULL)
            break
    if found := find():
        return found
    sys.exit("the browser tests need Chromium and it could not be installed; install it, or name one in $CHROMIUM")


if __name__ == "__main__":
    install()
