"""Every `docker image` subcommand and flag, `login`, `search`, `manifest inspect`: as on Docker, with two registries.

What Docker answers is in walk/images/*.txt, recorded from Docker 26.1 with docker 28.2 and docker-registry 2.8; the
same is played here by `docker` and by `hafen` on our engine, with docker-registry and with our own registry at `$REG`.
"""

import concurrent.futures
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.harness.engine import EngineProcess
from tests.harness.registry import RegistryProcess
from tests.harness.transcript import Player, Scenario, load
from tests.harness.upstream import Registry
from tests.harness.walked import commands_typed, flags_of, options

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("docker") is None, reason="no docker command to walk with"),
]

SCENARIOS = load(sorted((Path(__file__).parent / "walk/images").glob("*.txt")))
COMMANDS = ["history", "import", "inspect", "load", "ls", "prune", "pull", "push", "rm", "save", "tag"]
PROGRAMS = {"docker": [shutil.which("docker") or "docker"], "hafen": [sys.executable, "-m", "hafen.cli.main"]}
REGISTRIES = ("docker-registry", "hafen")
LETTERS = {("docker", "docker-registry"): "d", ("hafen", "docker-registry"): "h",
           ("docker", "hafen"): "e", ("hafen", "hafen"): "i"}  # fmt: skip

_PLATFORM = "needs API 1.48, which Docker 26.1 lacks; test_image_platforms.py holds them"
NOT_WALKED = {
    **{(command, "--platform"): _PLATFORM for command in ("history", "inspect", "load", "push", "rm", "save")},
    ("ls", "--tree"): _PLATFORM,
}

Plays = dict[tuple[str, str, int], concurrent.futures.Future[Scenario]]


@pytest.fixture(scope="module")
def plays(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plays]:
    """All scenarios, being played by both programs with both registries. Each of the four has an engine to itself: what
    `rmi` says is gone depends on what others load meanwhile."""
    base = tmp_path_factory.mktemp("walk")
    with Registry(base / "theirs") as theirs, RegistryProcess(base / "ours") as ours, ExitStack() as stack:
        hosts = {"docker-registry": theirs.host, "hafen": f"127.0.0.1:{ours.port}"}
        found: Plays = {}
        for (program, registry), letter in LETTERS.items():
            engine = stack.enter_context(EngineProcess(base / f"engine-{letter}"))
            player = Player(engine.address, PROGRAMS[program], letter, base / letter, hosts[registry])
            pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(1))
            player.bring_image()
            for scenario in SCENARIOS:
                if registry == REGISTRIES[0] or scenario.path.stem == "registry":
                    found[program, registry, scenario.number] = pool.submit(player.play, scenario)
            stack.callback(_checked, engine, pool)
        yield found


def _checked(engine: EngineProcess, pool: concurrent.futures.ThreadPoolExecutor) -> None:
    pool.shutdown(cancel_futures=True)
    assert engine.fsck() == []


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: f"{scenario.path.stem}: {scenario.title}")
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("registry", REGISTRIES)
def test_walk(plays: Plays, scenario: Scenario, program: str, registry: str) -> None:
    if (program, registry, scenario.number) not in plays:
        return  # no registry has to do with it
    played = plays[program, registry, scenario.number].result()
    wrong = [
        f"\n$ {expected.command}\nexpected:\n  " + "\n  ".join(expected.lines) + "\nsaid:\n  " + "\n  ".join(said.lines)
        for expected, said in zip(scenario.steps, played.steps, strict=True)
        if expected.lines != said.lines
    ]
    assert not wrong, "\n".join(wrong)


def test_every_subcommand_and_flag_is_walked() -> None:
    seen: set[tuple[str, str]] = set()
    told = {command: options("image", command) for command in COMMANDS}
    for words in commands_typed(SCENARIOS):
        name = words[1] if words[0] == "image" else words[0]
        command = {"images": "ls", "list": "ls", "rmi": "rm", "remove": "rm"}.get(name, name)
        if command in told:
            seen |= {(command, flag) for flag in flags_of(words[1:], *told[command], to_the_end=True)}
    listed = subprocess.run(["docker", "image", "--help"], capture_output=True, text=True, check=True).stdout
    assert sorted(re.findall(r"^  (\w+)  ", listed, re.MULTILINE)) == sorted([*COMMANDS, "build"])
    wanted = {(command, flag) for command, (names, _) in told.items() for flag in names.values() if flag != "--help"}
    assert not sorted(wanted - seen - NOT_WALKED.keys())
