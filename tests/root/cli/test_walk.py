"""Every subcommand and flag of `docker container`, `network` and `volume` says on our engine what it says on Docker.

What is typed and what Docker answers is in walk/*.txt, recorded from Docker 26.1 with docker 28.2; here the same is
played by `docker` and by `hafen` on our engine. `tests/harness/transcript.py` tells the form, and how to record again.
"""

import concurrent.futures
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hafen.kernel.cgroup import open_hierarchy
from tests.harness.engine import EngineProcess
from tests.harness.transcript import Player, Scenario, load
from tests.harness.walked import commands_typed, flags_of, options

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("docker") is None, reason="no docker command to walk with"),
]

PAGES = sorted((Path(__file__).parent / "walk").glob("*.txt"))
SCENARIOS = load(PAGES)
GROUPS = {
    "container": [
    "attach", "commit", "cp", "create", "diff", "exec", "export", "inspect", "kill", "logs", "ls", "pause", "port",
    "prune", "rename", "restart", "rm", "run", "start", "stats", "stop", "top", "unpause", "update", "wait",
    ],
    "network": ["connect", "create", "disconnect", "inspect", "ls", "prune", "rm"],
    "volume": ["create", "inspect", "ls", "prune", "rm", "update"],
}  # fmt: skip

# Flags that no scenario can show, by reason.
NOT_WALKED = {
    "--gw-priority": "Docker 26.1 has it not; tests/root/network/test_options.py",
    "--ipv4": "Docker 26.1 has it not; tests/root/network/test_options.py",
    "--gpus": "needs a GPU; test_requests.py holds the request",
    "--help": "the text is ours: there are examples in it",
    "--use-api-socket": "experimental in docker 28.2, which names the place of the engine's socket",
}

Plays = dict[tuple[str, int], concurrent.futures.Future[Scenario]]


@pytest.fixture(scope="module")
def plays(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plays]:
    """All scenarios, being played by both programs: most of their time is waiting, so a few go on at once."""
    base = tmp_path_factory.mktemp("walk")
    programs = {
        "docker": [shutil.which("docker") or "docker"],
        "hafen": [sys.executable, "-m", "hafen.cli.main"],
    }
    with EngineProcess(base / "engine") as engine, concurrent.futures.ThreadPoolExecutor(4) as pool:
        players = {name: Player(engine.address, command, name[0], base / name) for name, command in programs.items()}
        players["docker"].bring_image()
        yield {
            (name, scenario.number): pool.submit(player.play, scenario)
            for scenario in SCENARIOS
            for name, player in players.items()
        }
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: f"{scenario.path.stem}: {scenario.title}")
@pytest.mark.parametrize("program", ["docker", "hafen"])
def test_walk(plays: Plays, scenario: Scenario, program: str) -> None:
    if "(cgroup v1)" in scenario.title and open_hierarchy().version != 1:
        pytest.skip("the files of cgroup v2 have other names")
    played = plays[program, scenario.number].result()
    wrong = [
        f"\n$ {expected.command}\nexpected:\n  " + "\n  ".join(expected.lines) + "\nsaid:\n  " + "\n  ".join(said.lines)
        for expected, said in zip(scenario.steps, played.steps, strict=True)
        if expected.lines != said.lines
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("group", GROUPS)
def test_every_subcommand_and_flag_is_walked(group: str) -> None:
    seen: set[tuple[str, str]] = set()  # (subcommand, flag), and ("", words) for the ways to say it
    commands = GROUPS[group]
    told = {command: options(group, command) for command in commands}
    for words in commands_typed(SCENARIOS):
        grouped = words[:1] == [group]
        name, rest = (words[1:2], words[2:]) if grouped else (words[:1], words[1:])
        command = {"list": "ls", "ps": "ls", "remove": "rm"}.get(name[0], name[0]) if name else ""
        if command in told and (grouped or group == "container"):
            seen.add(("", f"{group} {command}" if grouped else command))
            to_the_end = command not in ("run", "create", "exec") or group != "container"
            seen |= {(command, flag) for flag in flags_of(rest, *told[command], to_the_end)}
    listed = subprocess.run(["docker", group, "--help"], capture_output=True, text=True, check=True).stdout
    assert sorted(re.findall(r"^  (\w+)  ", listed, re.MULTILINE)) == sorted(commands)
    wanted = {(command, flag) for command, (names, _) in told.items() for flag in names.values()}
    wanted |= {("", f"{group} {command}") for command in commands}
    if group == "container":  # its commands go without the word, too
        wanted |= {("", command) for command in commands if command != "prune"}
    assert not sorted(pair for pair in wanted - seen if pair[1] not in NOT_WALKED)
