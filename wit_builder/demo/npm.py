"""Packages of npm that are used as data: what it takes to ask npm and Node.js for them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from wit_builder.errors import DemoError


def tool(name: str, package: str, purpose: str) -> str:
    """Return the place of ``npm`` or ``node``.

    Raises:
        DemoError: it is not installed.
    """
    found = shutil.which(name)
    if found is None:
        raise DemoError(
            f"{purpose}, and {name} is not there",
            where=package,
            fix="install Node.js (18 or newer, with npm), then run this again",
        )
    return found


def run(command: list[str], package: str, folder: str) -> str:
    """Return what a command wrote that was run in a folder.

    Raises:
        DemoError: it failed; the first error it named.
    """
    done = subprocess.run(
        command,
        capture_output=True,
        encoding="utf-8",
        check=False,
        cwd=folder,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode == 0:
        return done.stdout
    said = [line.strip() for line in done.stderr.splitlines() if "rror" in line]
    raise DemoError(
        f"{Path(command[0]).name} failed: {(said or [f'exit code {done.returncode}'])[0]}",
        where=package,
        fix="go online and run this again",
    )
