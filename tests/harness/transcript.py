"""Transcripts: what is typed and what it says, played against an engine or recorded from one.

    ## A title opens a scenario; it has a directory and a name `$N` of its own.
    $ docker run --name $N walkbox sh -c 'echo out; echo err >&2; exit 3'
    > out
    ! err
    = 3

`$` is a command line for sh (a `\\` at its end goes on in the next line), `>` its standard output, `!` its standard
error, `=` its exit code where it is not 0. Other lines are for people. What no two engines say alike (identifiers,
times, addresses, directories) stands as `<id>`, `<time>`, `<ip>`, `<volumes>`. What a scenario makes begins with `$N`
and is removed after it.

Record: python -m tests.harness.transcript unix:///run/docker.sock tests/root/cli/walk/*.txt
An engine whose root directory is another than ours: HAFEN_PEER_ROOT names it. One in another network namespace does not
reach our `$REG`: record with `ip netns exec`.
"""

import concurrent.futures
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.parse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.harness.engine import busybox_tar
from tests.harness.upstream import Registry

IMAGE = "walkbox"
SECONDS = 30  # for one command line

# For the command lines: `box NAME` is the tar of a small file of that name; `await TEXT COMMAND...` repeats a command
# until it says TEXT; `typed 'prompt=keys'... COMMAND` runs one at a terminal and types keys where a prompt appears;
# `table` makes columns one space wide; `layers` brings what is said of several layers at once into an order.
PRELUDE = r"""
await() {
  text=$1; shift; tries=0
  until "$@" 2>&1 | grep -q -e "$text"; do
    tries=$((tries + 1)); [ $tries -lt 400 ] || { echo "never said: $text" >&2; return 99; }; sleep 0.05
  done
}
typed() { "$PYTHON" -I "$TYPED" "$@"; }
table() { tr -s ' '; }
layers() { grep -v 'Verifying Checksum' | sed -E 's/^[0-9a-f]{12}:/layer:/; s/ size: [0-9]+$//' | LC_ALL=C sort; }
box() { printf '%s\n' "$1 $N" > "$1"; tar --mtime=@0 --owner=0 --group=0 --mode=0644 -cf - "$1"; rm "$1"; }
"""

_IDENTIFIERS = [
    (re.compile(r"\b[0-9a-f]{64}\b"), "<id>"),
    (re.compile(r"\b[0-9a-f]{12}\b"), "<short>"),  # also the rare one of digits alone
]
_PLACEHOLDERS = [
    (re.compile("\\bSRun '"), "Run '"),  # a slip of docker 28.2
    (re.compile(r"(manifest unknown: manifest unknown|name not known to registry): .*"), r"\1"),  # ours says which
    (re.compile("runc create failed: "), ""),  # the name of the runtime, where it says what it refused
    (re.compile(r"/[^\s'\":,]*/volumes(?=/[\w.$-]+/_data)"), "<volumes>"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?( [+-]\d{4} UTC|Z|[+-]\d\d:\d\d)"), "<time>"),
    (re.compile(r"\b(Less than a second|About a minute|\d+ (seconds?|minutes?))\b"), "<age>"),
    (re.compile(r"\b172\.\d+\.\d+\.\d+\b"), "<ip>"),
    (re.compile(r"\b([0-9a-f]{2}:){5}[0-9a-f]{2}\b"), "<mac>"),
    (re.compile(r"(?<=:)(3[2-9]|[45]\d|60)\d{3}\b"), "<port>"),
]


@dataclass(frozen=True, slots=True)
class Step:
    """A command line and what it says; `lines` are as they stand in the transcript."""

    line: int
    command: str
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scenario:
    path: Path
    title: str
    number: int  # makes names, ports and subnets its own
    steps: tuple[Step, ...]


def load(paths: list[Path]) -> list[Scenario]:
    """Every scenario of the files, in order."""
    found: list[Scenario] = []
    for path in paths:
        title, steps = "", list[Step]()
        for number, text in enumerate([*path.read_text().splitlines(), "## "], 1):
            if text.startswith("## "):
                if title:
                    found.append(Scenario(path, title, len(found), tuple(steps)))
                title, steps = text[3:], []
            elif text.startswith("$ "):
                steps.append(Step(number, text[2:]))
            elif steps and steps[-1].command.endswith("\\"):
                steps[-1] = Step(number, steps[-1].command[:-1] + text.lstrip())
            elif steps and text[:1] in (">", "!", "="):
                steps[-1] = replace(steps[-1], lines=(*steps[-1].lines, text))
    return found


class Player:
    """Plays scenarios with one program against one engine. `letter` keeps its names apart from other players';
    `registry` is the host and port that they know as `$REG`."""

    def __init__(self, address: str, program: list[str], letter: str, directory: Path, registry: str = "") -> None:
        self.address = address
        self.registry = registry
        self.letter = letter
        self.directory = directory
        programs = directory / "bin"
        programs.mkdir(parents=True)
        (programs / "docker").write_text("#!/bin/sh\nexec " + " ".join(program) + ' "$@"\n')
        (programs / "docker").chmod(0o755)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("DOCKER_", "HAFEN_"))},
            "PATH": f"{programs}:{os.environ['PATH']}",
            "DOCKER_HOST": address,
            "TZ": "UTC",
            "PYTHON": sys.executable,
            "TYPED": str(Path(__file__).parent / "terminal.py"),
        }

    def play(self, scenario: Scenario) -> Scenario:
        """The scenario with what was said now."""
        here = self.directory / str(scenario.number)
        here.mkdir()
        names = {
            "N": f"walk{self.letter}{scenario.number:03}",
            "PORT": str(20_000 + 1000 * (ord(self.letter) - ord("a")) // 2 + scenario.number),
            "NET6": f"fd00:{ord(self.letter):x}:{scenario.number:x}",
            "NET": f"10.{ord(self.letter)}.{scenario.number % 256}",
            **({"REG": self.registry} if self.registry else {}),
        }
        environment = {**self.environment, **names, "DOCKER_CONFIG": str(here / ".docker"), "PWD": str(here)}
        try:
            steps = tuple(replace(step, lines=self._say(step, here, environment, names)) for step in scenario.steps)
        finally:
            self._remove(names["N"])
        return replace(scenario, steps=steps)

    def _say(self, step: Step, here: Path, environment: dict[str, str], names: dict[str, str]) -> tuple[str, ...]:
        run = subprocess.Popen(
            ["sh", "-c", PRELUDE + step.command], cwd=here, env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        try:
            output, errors = run.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            output, errors = run.communicate()
            errors += f"(went on for {SECONDS} s)".encode()
        said: list[str] = []
        for mark, raw in ((">", output), ("!", errors)):
            text = raw.decode(errors="backslashreplace").replace("\r", "^M").replace("\0", "^@")
            text = text.replace(str(here.resolve()), "$PWD").replace(str(here), "$PWD").replace("hafen", "docker")
            for pattern, placeholder in _IDENTIFIERS:  # first: their digits may hold a name or a port
                text = pattern.sub(placeholder, text)
            for name, value in names.items():
                text = re.sub(
                    rf"(?<!\d){re.escape(value)}(?!\d)" if value.isdigit() else re.escape(value), f"${name}", text
                )
            for pattern, placeholder in _PLACEHOLDERS:
                text = pattern.sub(placeholder, text)
            said += [f"{mark} {line}".rstrip() for line in text.removesuffix("\n").split("\n") if text]
        return (*said, *([f"= {run.returncode}"] if run.returncode else []))

    def _remove(self, name: str) -> None:
        """What the scenario made; who is still running is killed."""
        chosen = urllib.parse.quote(json.dumps({"name": [name]}))
        for container in self._call("GET", f"/containers/json?all=1&filters={chosen}"):
            self._call("DELETE", f"/containers/{container['Id']}?force=1&v=1")
        for network in self._call("GET", f"/networks?filters={chosen}"):
            self._call("DELETE", f"/networks/{network['Id']}")
        for volume in self._call("GET", f"/volumes?filters={chosen}")["Volumes"] or []:
            self._call("DELETE", f"/volumes/{volume['Name']}")
        for image in self._call("GET", "/images/json"):
            for named in (*(image["RepoTags"] or ()), *(image["RepoDigests"] or ())):
                if name in named:
                    self._call("DELETE", f"/images/{named}?force=1")

    def _call(self, method: str, path: str, body: bytes | None = None) -> Any:
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(self.address.removeprefix("unix://"))
        try:
            connection.request(method, "/v1.44" + path, body)
            answer = connection.getresponse().read()
        finally:
            connection.close()
        return json.loads(answer) if method == "GET" else None

    def bring_image(self) -> None:
        query = urllib.parse.urlencode({"fromSrc": "-", "repo": IMAGE, "tag": "latest", "changes": 'CMD ["sh"]'})
        self._call("POST", f"/images/create?{query}", busybox_tar())

    def take_image_away(self) -> None:
        self._call("DELETE", f"/images/{IMAGE}")


def write(scenarios: list[Scenario]) -> None:
    """Puts what the scenarios say now into their files; what is for people stays."""
    said = {(scenario.path, step.line): step.lines for scenario in scenarios for step in scenario.steps}
    for path in {scenario.path for scenario in scenarios}:
        text: list[str] = []
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if line[:1] not in (">", "!", "="):
                text.append(line)
            text += said.get((path, number), ())
        path.write_text("\n".join(text) + "\n")


def _record(address: str, paths: list[Path]) -> None:
    root = Path(os.environ.get("HAFEN_PEER_ROOT", "/"))
    with contextlib.ExitStack() as undo:
        folder = undo.enter_context(tempfile.TemporaryDirectory(prefix="hafen-record-", dir=root / "tmp"))
        here = Path("/tmp", Path(folder).name)  # the engine finds the directory by this name, and so do we
        if root != Path("/"):
            here.symlink_to(folder)
            undo.callback(here.unlink)
        registry = undo.enter_context(Registry(Path(folder, "registry")))
        player = Player(address, [shutil.which("docker") or "docker"], "p", here, registry.host)
        player.bring_image()
        try:
            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                write(list(pool.map(player.play, load(paths))))
        finally:
            player.take_image_away()


if __name__ == "__main__":
    _record(sys.argv[1], [Path(name).resolve() for name in sys.argv[2:]])
