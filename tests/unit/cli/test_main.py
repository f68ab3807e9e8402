"""The command line as a whole, without an engine."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from hafen.cli import catalog, main, usage
from hafen.cli.command import Command
from hafen.cli.commands.completion import answer
from hafen.cli.flags import parse_definitions
from hafen.client.address import Endpoint
from hafen.client.engine import Engine

TABLE = catalog.entries()
SRC = Path(main.__file__).parents[2]


@pytest.mark.parametrize("path", [path for path in TABLE if path not in main.SERVERS])
def test_every_command_is_there_and_has_its_help(path: str) -> None:
    command = main.load(TABLE[path])
    assert isinstance(command, Command)
    parse_definitions(command.flags)
    text = usage.command_help(path, path, command)
    assert text.startswith(f"Usage:  hafen {path}")
    assert all(len(line) < 120 for line in text.splitlines())


@pytest.mark.parametrize("path", main.SERVERS)
def test_programs_of_their_own_are_completed_with_files(path: str) -> None:
    code, out, err = hafen("__complete", *path.split(), "--root", "")
    assert (code, out, err) == (0, ":0\n", "")


@pytest.mark.parametrize(
    ("words", "path"),
    [
        (["ps"], "container ls"), (["container", "ps"], "container ls"), (["container", "list"], "container ls"),
        (["rmi"], "image rm"), (["image", "remove"], "image rm"), (["run"], "container run"), (["inspect"], "inspect"),
        (["container", "inspect"], "container inspect"), (["events"], "system events"),
        (["network", "ls"], "network ls"),
    ],
)  # fmt: skip
def test_names(words: list[str], path: str) -> None:
    assert catalog.find(words, TABLE) == (path, len(words))


@pytest.mark.parametrize("words", [["nope"], ["ls"], ["prune"], ["container", "nope"], ["image", "ps"], ["list"]])
def test_what_is_no_command(words: list[str]) -> None:
    assert catalog.find(words, TABLE) == ("", 0)


def hafen(*words: str, host: str = "unix:///nosuch/socket") -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-SIc", f"import sys; sys.path.insert(0, {str(SRC)!r}); from hafen.cli.main import main; "
         "sys.exit(main())", "-H", host, *words],
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_mistakes_have_dockers_exit_codes_and_close_matches() -> None:
    assert hafen("runn")[0] == 1
    assert "Did you mean 'hafen run'?" in hafen("runn")[2]
    assert "Did you mean 'hafen network create'?" in hafen("network", "creat")[2]
    assert hafen("run", "--nope")[0] == 125
    assert hafen("rm") == (
        1, "", "hafen: 'hafen rm' requires at least 1 argument\n\n"
        "Usage:  hafen rm [OPTIONS] CONTAINER [CONTAINER...]\n\n"
        "See 'hafen rm --help' for more information\n",
    )  # fmt: skip
    assert hafen("build", ".") == (1, "", "'hafen build' is not implemented yet\n")


def test_an_engine_that_is_away_is_told_with_what_to_do() -> None:
    code, out, err = hafen("ps")
    assert (code, out) == (1, "")
    assert err.startswith("Cannot connect to the engine at unix:///nosuch/socket")
    assert len(err.splitlines()) == 2


def test_version_without_an_engine_shows_the_client() -> None:
    code, out, _ = hafen("version")
    assert code == 1
    assert out.startswith("Client:\n Version:")
    assert hafen("--version")[1].startswith("Hafen version ")


def test_help() -> None:
    for words in ([], ["--help"], ["help"], ["help", "run"], ["run", "--help"], ["container"], ["container", "--help"]):
        code, out, _ = hafen(*words)
        assert code == 0
        assert out.startswith("Usage:  hafen")
    assert "deprecated" in hafen("ps", "-h")[2]


def test_completion_of_commands_and_flags() -> None:
    engine = Engine(Endpoint("unix", "/nosuch/socket"))
    assert answer(["vers"], engine) == (["version\tShow the version information"], 4)
    assert [item.split("\t")[0] for item in answer(["container", "re"], engine)[0]] == ["rename", "restart"]
    assert answer(["run", "--na"], engine)[0] == ["--name\tAssign a name to the container"]
    assert answer(["run", "--pull", "a"], engine) == (["always"], 4)
    assert answer(["run", "--pull=x", "image", "--na"], engine) == ([], 0)
    assert answer(["-H", "x", "rm", ""], engine) == ([], 4)
    assert answer(["load", "-i", ""], engine) == ([], 0)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    code, out, _ = hafen("completion", shell)
    assert code == 0
    assert "__complete" in out


# What `hafen version` must not pay for: each costs milliseconds, and the whole command has 80.
HEAVY = (
    "argparse", "asyncio", "dataclasses", "logging", "subprocess", "threading", "ssl", "urllib", "inspect", "msgspec",
    "tempfile", "shutil", "pathlib", "hashlib", "datetime", "hafen.spec.evaluate", "hafen.cli.runflags",
)  # fmt: skip


def test_version_loads_little() -> None:
    code = (
        f"import sys, json; sys.path.insert(0, {str(SRC)!r}); from hafen.cli.main import run; "
        "run(['-H', 'unix:///nosuch/socket', 'version']); print(json.dumps(list(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-SIc", code], capture_output=True, text=True, check=True)
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert not [name for name in HEAVY if name in loaded]


def test_modules_of_commands_import_alone() -> None:
    for entry in TABLE.values():
        if entry.attribute != "ENGINE":
            importlib.import_module(f"hafen.cli.commands.{entry.module}")
