"""Signals while ``wit`` is imported, in the midst of a command, and after it has ended."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

EARLY = """
import os, sys
class Interrupting:
    def find_spec(self, name, *_):
        if name == "wit_builder.cli":
            os.kill(os.getpid(), int(sys.argv[1]))
sys.meta_path.insert(0, Interrupting())
from wit_builder.__main__ import main
main()
"""

LATE = """
import os, sys
class WhilePythonEnds:
    def __del__(self, kill=os.kill, process=os.getpid(), number=int(sys.argv[1])):
        kill(process, number)
while_python_ends = WhilePythonEnds()
from wit_builder.__main__ import main
sys.argv = ["wit", *sys.argv[2:]]
main()
"""

MIDST = """
import os, sys
from wit_builder import cli
class Stopping:
    def __del__(self):
        os.kill(os.getpid(), int(sys.argv[1]))
def strike(arguments):
    exec("os.kill(os.getpid(), int(sys.argv[1]))")
def lose(arguments):
    Stopping()
    cli.interrupts.check()
def strike_twice(arguments):
    try:
        strike(arguments)
    finally:
        strike(arguments)
cli.app = lambda arguments, **_: globals()[sys.argv[2]](arguments)
cli.main()
"""

ALONE = "from wit_builder.cli import main; import sys; main(sys.argv[2:])"

SAID = "wit: interrupted -> start the same command again to go on\n"
SIGNALS = [signal.SIGINT, signal.SIGTERM]


def ran(script: str, number: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script, str(number), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_much_is_imported(number: int) -> None:
    """The same line and status as later, and no traceback of an import."""
    done = ran(EARLY, number)
    assert (done.returncode, done.stderr) == (130, SAID)


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("how", ["strike", "lose", "strike_twice"])
def test_a_signal_in_the_midst(number: int, how: str, tmp_path: Path) -> None:
    """Be it below ``exec``, in a destructor, or a second one in the wake of the first."""
    (tmp_path / "midst.py").write_text(MIDST)
    command = [sys.executable, "-m", "midst", str(int(number)), how]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, SAID)


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(("arguments", "status"), [(["--version"], 0), (["verify", "none"], 1)])
def test_a_signal_after_the_end_changes_nothing(
    number: int, arguments: list[str], status: int
) -> None:
    """All is printed, and the status is the command's own."""
    alone, done = ran(ALONE, 0, *arguments), ran(LATE, number, *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (status, alone.stdout, alone.stderr)
