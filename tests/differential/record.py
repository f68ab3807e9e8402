"""Records what a Docker Engine answers: `python -m tests.differential.record --host unix:///var/run/docker.sock`.

Needs `busybox:latest` there. What it makes is named `diff-*` and removed again. `networks.txt` and the like as
arguments record these scenarios alone.
"""

import argparse
import json
from pathlib import Path

from tests.differential.play import SCENARIOS, clean, parse, play


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", required=True, help="unix:///path of the engine's socket")
    parser.add_argument("scenarios", nargs="*", default=[path.name for path in SCENARIOS])
    arguments = parser.parse_args()
    for scenario, answers in SCENARIOS.items():
        if scenario.name in arguments.scenarios:
            record(scenario, answers, arguments.host.removeprefix("unix://"))


def record(scenario: Path, recorded: Path, socket: str) -> None:
    clean(socket)
    try:
        answers = list(play(parse(scenario.read_text()), socket))
    finally:
        clean(socket)
    lines = ",\n".join(json.dumps(answer, sort_keys=True) for answer in answers)
    recorded.write_text(f"[\n{lines}\n]\n")
    print(f"{scenario.name}: {len(answers)} answers")


if __name__ == "__main__":
    main()
