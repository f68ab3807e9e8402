"""`hafen-runtime` and `python -m hafen.runtime`: the entry that conformance suites and foreign engines use."""

import sys

from hafen.runtime import cli


def main() -> None:
    sys.exit(cli.main())


if __name__ == "__main__":
    main()
