"""The layer contract (.importlinter) holds: data flows one way, `ctypes` stays in kernel/."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src/hafen"


def test_import_contracts() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    run = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_ctypes_only_in_kernel() -> None:
    users = {
        str(path.relative_to(SOURCE))
        for path in SOURCE.rglob("*.py")
        if re.search(r"^\s*(import ctypes|from ctypes)", path.read_text(), re.MULTILINE)
        and path.relative_to(SOURCE).parts[0] != "kernel"
    }
    assert not users


def test_package_initialisers_hold_no_code() -> None:
    assert (SOURCE / "__init__.py").read_text() == "", "importing a lean module must not load the rest"
    for path in SOURCE.rglob("__init__.py"):
        code = [
            line
            for line in re.sub(r'"""[\s\S]*?"""', "", path.read_text()).splitlines()
            if line.strip() and not line.startswith(("from ", "import ", "#", "__all__"))
        ]
        assert not code, f"{path}: {code}"
