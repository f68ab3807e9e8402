"""Command lines whose events are compared with Docker's, and how events are made comparable.

`python -m tests.root.engine.eventscenarios unix:///var/run/docker.sock` records what a Docker with `busybox:latest`
answers into `peer/events.json`. Every object's name begins with `evt-`: whoever else uses that Docker is not mistaken
for the scenario, and what the scenarios prune carries their label.
"""

import itertools
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

RECORDED = Path(__file__).parent / "peer/events.json"

SCENARIOS: dict[str, list[str]] = {
    "run": ["run --rm --name evt-a --label team=x -v evt-v:/data busybox true", "volume rm evt-v"],
    "run_absent_command": ["run --name evt-a busybox /absent", "rm evt-a"],
    "create_start_rm": ["create --name evt-a busybox true", "start -a evt-a", "wait evt-a", "rm evt-a"],
    "stop_start_restart": [
        "run -d --name evt-a -v evt-v:/data busybox sleep 600", "stop -s KILL evt-a", "start evt-a",
        "restart -s KILL evt-a", "rm -f evt-a", "volume rm evt-v",
    ],
    "stop_by_force": ["run -d --name evt-a busybox sleep 600", "stop -t 0 evt-a", "rm evt-a"],
    "kill": [
        "run -d --name evt-a busybox sleep 600", "kill -s USR1 evt-a", "kill evt-a", "kill evt-a", "rm evt-a",
    ],
    "rm_force": ["run -d --name evt-a -v /anonymous busybox sleep 600", "rm -f -v evt-a"],
    "exec": [
        "run -d --init --name evt-a busybox sleep 600", "exec evt-a true", "exec -i evt-a sh -c 'exit 3'",
        "exec -d evt-a true", "until container exec_die", "exec evt-a /absent", "rm -f evt-a",
    ],
    "oom": ["run --name evt-a -m 8m --memory-swap 8m --net none busybox tail /dev/zero", "rm evt-a"],
    "pause": [
        "run -d --name evt-a --net none busybox sleep 600", "pause evt-a", "pause evt-a", "unpause evt-a",
        "rm -f evt-a",
    ],
    "paused_stop": [
        "run -d --init --name evt-a --net none busybox sleep 600", "exec evt-a true", "pause evt-a", "stop evt-a",
        "rm evt-a",
    ],
    "paused_stop_by_force": [
        "run -d --name evt-a --net none busybox sleep 600", "pause evt-a", "stop -s KILL evt-a", "rm evt-a",
    ],
    "paused_kill": ["run -d --name evt-a --net none busybox sleep 600", "pause evt-a", "kill evt-a", "rm evt-a"],
    "paused_rm": ["run -d --name evt-a --net none busybox sleep 600", "pause evt-a", "rm -f evt-a"],
    "failed_start": ["run --name evt-a -v evt-v:/x busybox /absent", "rm evt-a", "volume rm evt-v"],
    "rename": ["create --name evt-a busybox", "rename evt-a evt-b", "rename evt-b evt-b", "rm evt-b"],
    "update": ["create --name evt-a busybox", "update --cpu-shares 77 evt-a", "rm evt-a"],
    "commit": [
        "create --name evt-a --label team=x busybox", "commit -m said -a me evt-a evt-image:one", "commit evt-a",
        "rm evt-a", "rmi evt-image:one", "image prune -f --filter label=team=x",
    ],
    "copy": [
        "create --name evt-a busybox", "cp evt-a:/etc/passwd -", "cp /etc/hostname evt-a:/tmp/x",
        "export -o /dev/null evt-a", "diff evt-a", "logs evt-a", "rm evt-a",
    ],
    "top": ["run -d --name evt-a --net none busybox sleep 600", "top evt-a", "top evt-a -o pid,comm", "rm -f evt-a"],
    "network": [
        "network create --label team=x evt-n", "run -d --name evt-a --network evt-n busybox sleep 600",
        "network connect bridge evt-a", "network disconnect bridge evt-a", "rm -f evt-a", "network rm evt-n",
    ],
    "network_of_stopped": [
        "network create evt-n", "create --name evt-a busybox", "network connect evt-n evt-a",
        "network disconnect evt-n evt-a", "rm -f evt-a", "network rm evt-n",
    ],
    "volume": [
        "volume create --label team=x -o type=tmpfs -o device=tmpfs evt-v", "volume create evt-v", "volume rm evt-v",
        "run --rm --name evt-a --net none -v evt-v:/a -v evt-w:/b:ro busybox true", "volume rm evt-v evt-w",
    ],
    "image": [
        "create --name evt-a busybox", "export -o $dir/image.tar evt-a", "rm evt-a",
        "import $dir/image.tar evt-image:one", "import $dir/image.tar", "tag evt-image:one evt-image:two",
        "tag evt-image:one evt-image:two", "save -o $dir/image.tar evt-image:one evt-image:two",
        "rmi evt-image:two", "rmi evt-image:one", "load -i $dir/image.tar", "rmi evt-image:one evt-image:two",
    ],
    "prune": [
        "create --name evt-a --label evt=1 --net none busybox", "container prune -f --filter label=evt=1",
        "container prune -f --filter label=evt=1", "network create --label evt=1 evt-n",
        "network prune -f --filter label=evt=1", "volume create --label evt=1 evt-v",
        "volume prune -a -f --filter label=evt=1",
    ],
    "restart_policy": ["run --name evt-a --net none --restart on-failure:1 busybox false", "rm -f evt-a"],
    "auto_remove_stop": ["run -d --rm --name evt-a -v /anonymous busybox sleep 600", "stop -s KILL evt-a"],
    "shared_namespaces": [
        "run -d --name evt-a --net none busybox sleep 600",
        "run --rm --name evt-b --network container:evt-a --volumes-from evt-a busybox true", "rm -f evt-a",
    ],
    "host_network": ["run --rm --name evt-a --network host busybox true"],
    "tmpfs_and_bind": ["run --rm --name evt-a --net none --tmpfs /t -v /tmp:/x busybox true"],
}  # fmt: skip

Shown = dict[str, object]
_HEX = re.compile(r"(?:sha256:)?\b[0-9a-f]{64}\b")


def comparable(lines: list[str]) -> list[Shown]:
    """The scenario's events in order, without what differs from run to run: ids, times, sizes."""
    events = [cast(Shown, json.loads(line)) for line in lines]
    own: set[str] = set()
    for event in events:
        own.update(_own(event, own))
    mine = [event for event in events if event["Action"] == "prune" or any(one in json.dumps(event) for one in own)]
    return _settled([_plain(event, cast(Shown, event["Actor"])) for event in mine])


def _own(event: Shown, known: set[str]) -> list[str]:
    """Ids and names that the event shows to be the scenario's: containers, their volumes, networks, images."""
    text = json.dumps(event)
    if "evt-" not in text and not any(one in text for one in known):
        return []
    identity = cast(str, cast(Shown, event["Actor"])["ID"])
    if event["Type"] == "network" and "evt-" not in text:
        return []  # a network of everybody's
    if event["Type"] == "image":
        return _HEX.findall(text)
    return [identity]


def _settled(events: list[Shown]) -> list[Shown]:
    """In one order what Docker tells in any: `stop` beside `die`, the volumes of one container.

    And what is told differently on purpose: a network's `disconnect` once where Docker says it twice; an anonymous
    volume is destroyed after its container, so that a crash between leaves none without its volume.
    """

    def kind(event: Shown) -> str:
        what = cast(str, event["event"])
        ends = {"container die": "end", "container stop": "end", "container destroy": "gone", "volume destroy": "gone"}
        return ends.get(what, what)

    def place(event: Shown) -> str:
        return json.dumps(event, sort_keys=True)

    found: list[Shown] = []
    for what, group in itertools.groupby(events, kind):
        members = list(group)
        if what.startswith(("volume", "end", "gone")):
            members.sort(key=place)
        found += members[:1] if what == "network disconnect" and members[1:] == members[:-1] else members
    return found


def _plain(event: Shown, actor: Shown) -> Shown:
    attributes = dict(cast(dict[str, str], actor["Attributes"]))
    for name in ("reclaimed", "execDuration"):
        if name in attributes:
            attributes[name] = "<number>"
    return {
        "event": f"{event['Type']} {event['Action']}",
        "actor": _HEX.sub("<id>", cast(str, actor["ID"])),
        "attributes": {name: _HEX.sub("<id>", value) for name, value in sorted(attributes.items())},
        "scope": event["scope"],
    }


def perform(name: str, docker: Callable[[list[str]], str]) -> Callable[[], list[Shown]]:
    """Runs the scenario's commands (some fail on purpose); what is returned reads its events up to now.

    `until <event>` is no command: it waits until that is the newest event. `$dir` is a directory of the scenario's own.
    """
    since = time.time()

    def read() -> list[Shown]:
        until = f"{time.time():.9f}"
        return comparable(
            docker(
                ["events", "--since", f"{since:.9f}", "--until", until, "--format", "{{json .}}"],
            ).splitlines()
        )

    with tempfile.TemporaryDirectory(prefix="hafen-events-") as folder:
        for line in SCENARIOS[name]:
            command, _, rest = line.partition(" ")
            if command != "until":
                docker(shlex.split(line.replace("$dir", folder)))
                continue
            deadline = time.monotonic() + 5
            while read()[-1]["event"] != rest:
                assert time.monotonic() < deadline
    return read


def _record(address: str) -> None:
    def docker(arguments: list[str]) -> str:
        environment = {**os.environ, "DOCKER_HOST": address}
        done = subprocess.run(["docker", *arguments], env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"  {' '.join(arguments)} -> {done.returncode} {done.stderr.strip()}")
        return done.stdout

    found = {}
    for name in sys.argv[2:] or SCENARIOS:
        print(name)
        read = perform(name, docker)
        time.sleep(1)  # what Docker tells after its answer
        found[name] = read()
    known = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    RECORDED.write_text(json.dumps({**known, **found}, indent=1) + "\n")


if __name__ == "__main__":
    _record(sys.argv[1])
