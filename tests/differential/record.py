"""Records what a Docker Engine answers: `python -m tests.differential.record --host unix:///var/run/docker.sock`.

Needs `busybox:latest` there. What it makes is named `diff-*` and removed again. Written to answers.json.
"""

import argparse
import json
from pathlib import Path

from tests.differential.play import SCENARIO, clean, parse, play

ANSWERS = Path(__file__).with_name("answers.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", required=True, help="unix:///path of the engine's socket")
    parser.add_argument("--output", type=Path, default=ANSWERS)
    arguments = parser.parse_args()
    path = arguments.host.removeprefix("unix://")
    clean(path)
    try:
        answers = list(play(parse(SCENARIO.read_text()), path))
    finally:
        clean(path)
    lines = ",\n".join(json.dumps(answer, sort_keys=True) for answer in answers)
    arguments.output.write_text(f"[\n{lines}\n]\n")
    print(f"{len(answers)} answers")


if __name__ == "__main__":
    main()
