"""cc2dataset's own extraction of a WAT, to run beside ours.

Its package, and what that needs here (pysimdjson, loguru), are downloaded into ``DATA/peers/`` and
imported from there: they are no part of our environment. Its main module imports Spark, too, of
which ``process_wat`` uses nothing; an empty module stands in for it.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PACKAGES = ("cc2dataset==1.5.0", "pysimdjson==7.0.2", "loguru==0.7.3")

Pair = tuple[str, str, str, str, str]
"""uid, url, alt, name of the archive, url of the page."""


def process_wat(data: Path) -> Callable[[str, str], Iterator[Pair]]:
    """Return cc2dataset's ``process_wat``: from a place and ``image`` to pairs.

    It is what its Spark workers run, a file a call.

    Args:
        data: the data folder, where the package is downloaded to.
    """
    folder = data / "peers"
    if not (folder / "cc2dataset").exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        command += ["--disable-pip-version-check", "--target", str(folder), *PACKAGES]
        subprocess.run(command, check=True)
    sys.path.append(str(folder.resolve()))
    for name, found in {
        "": "SparkContext",
        ".sql": "SparkSession",
        ".sql.functions": "rand",
    }.items():
        module: Any = types.ModuleType(f"pyspark{name}")
        setattr(module, found, None)
        sys.modules[module.__name__] = module
    importlib.import_module("loguru").logger.disable("cc2dataset")
    function: Callable[[str, str], Iterator[Pair]] = importlib.import_module(
        "cc2dataset.main"
    ).process_wat
    return function
