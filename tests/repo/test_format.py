"""The formatter and the linter have nothing to say."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CODE = ["src", "tests", "bench"]


def test_formatted() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "ruff", "format", "--diff", *CODE], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_linted() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "ruff", "check", *CODE], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
