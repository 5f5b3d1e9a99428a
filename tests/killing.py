"""A command line that is killed in the middle of a stage."""

from __future__ import annotations

import json
import subprocess


def killed_in(process: subprocess.Popen[str], stage: str, delay_s: float) -> bool:
    """SIGKILL a ``--json`` run a moment after a stage began; return whether that was in time."""
    with process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("{") and json.loads(line)["stage"] == stage:
                break
        try:
            process.communicate(timeout=delay_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return True
    return False
