"""mypy strict accepts the source and the tests, and every ignore names its code."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_types() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "src/hafen", "tests", "bench"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_every_ignore_names_its_code_and_its_reason() -> None:
    bare = []
    for path in [*(ROOT / "src").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            ignore = re.search(r"#\s*type:\s*ignore(\[[\w,-]+\])?(.*)$", line)
            if ignore and not (ignore[1] and ignore[2].strip(" -#")):
                bare.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert not bare, "write `# type: ignore[code]  # reason`:\n" + "\n".join(bare)
