"""What the documents say about the tree is true, and nothing names the machine it was written on."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"]


def test_documents_exist() -> None:
    assert all((ROOT / name).stat().st_size > 500 for name in DOCUMENTS)


def test_files_named_in_documents_exist() -> None:
    missing = []
    for document in [*(ROOT / name for name in DOCUMENTS), *(ROOT / "docs").rglob("*.md")]:
        for name in re.findall(r"`((?:src/hafen|tests|bench|docs|tools)/[\w./-]+)`", document.read_text()):
            if not (ROOT / name).exists():
                missing.append(f"{document.name}: {name}")
    assert not missing


def test_invariants_name_tests_that_exist() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    for path, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text):
        assert f"def {name}(" in (ROOT / path).read_text(), f"{path}::{name}"


def test_nothing_names_a_home_of_this_checkout() -> None:
    tracked = subprocess.run(
        ["git", "grep", "-nIF", f"{ROOT}/", "--", "."], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert tracked.stdout == ""
