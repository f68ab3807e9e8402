"""What the lean processes and the command line import: measured by module list, not by clock."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

LEAN_BANNED = {
    "asyncio", "logging", "argparse", "subprocess", "threading", "concurrent", "multiprocessing",
    "dataclasses", "inspect", "pathlib", "tempfile", "shutil", "ssl", "sqlite3", "msgspec", "h11",
    "traceback",  # with linecache and tokenize; sys.excepthook prints one as well
}  # fmt: skip
CLI_BANNED = {
    "asyncio",
    "logging",
    "ssl",
    "sqlite3",
    "msgspec",
    "h11",
    "concurrent",
    "multiprocessing",
    "inspect",
    "email",
    "http",
}


def loaded(*statements: str, site: bool = False) -> set[str]:
    """Top-level modules that an isolated interpreter has loaded after these imports and did not have before."""
    flags = "-I" if site else "-SI"
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r}); before = set(sys.modules)\n"
        + "\n".join(statements)
        + "\nprint('\\n'.join(set(sys.modules) - before))"
    )
    run = subprocess.run([sys.executable, flags, "-c", program], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in run.stdout.split()}


def test_lean_set() -> None:
    names = loaded("import hafen.shim.zygote, hafen.shim.main, hafen.runtime.parent, hafen.runtime.join")
    assert not names & LEAN_BANNED


def test_every_lean_module_is_lean() -> None:
    for package in ("kernel", "runtime", "shim", "logs"):
        for path in sorted((ROOT / "src/hafen" / package).glob("*.py")):
            if path.stem in {"__init__", "__main__"}:
                continue
            names = loaded(f"import hafen.{package}.{path.stem}")
            assert not names & LEAN_BANNED, f"hafen.{package}.{path.stem} imports {names & LEAN_BANNED}"


def test_command_line_is_light() -> None:
    names = loaded("import hafen.cli.main")
    assert not names & CLI_BANNED
