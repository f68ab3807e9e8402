"""The journald driver beside a real systemd-journald, which has a /run of its own in a mount namespace."""

import json
import os
import shutil
import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not shutil.which("journalctl"), reason="needs systemd's journald"),
]
# The kernel's messages are the machine's own journal's. This one is in memory, and goes with the namespace.
SCRIPT = """
mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/journal /run/systemd/journald.conf.d /run/log/journal || exit 1
printf '[Journal]\\nReadKMsg=no\\nAudit=no\\nStorage=volatile\\n' > /run/systemd/journald.conf.d/private.conf
/lib/systemd/systemd-journald & journald=$!
until [ -S /run/systemd/journal/socket ]; do kill -0 $journald || exit 1; sleep 0.02; done
"$PYTHON" -c "$SEND"
journalctl --sync 2>&1 >&2; journalctl -D /run/log/journal -o json --all CONTAINER_NAME=named
kill $journald; wait $journald
exit 0
"""
SEND = """
from hafen.logs.driver import Source
from hafen.logs.drivers import DRIVERS
from hafen.logs.lines import Lines
assert DRIVERS["journald"].available()
source = Source("c" * 64, {"my.label": "v", "large": "v" * 500_000}, name="named", tag="tagged", image_name="busybox")
sender = DRIVERS["journald"].sender(source, {})
sender.open()
lines = Lines()
for line in [*lines.feed(1, b"plain\\n" + b"x" * 20000 + b"\\n", 5), *lines.feed(2, b"two\\xff\\n", 6)]:
    sender.send(line)
sender.close()
"""


def test_what_journald_has_is_what_was_written() -> None:
    environment = {**os.environ, "PYTHON": sys.executable, "SEND": SEND}
    run = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", SCRIPT],
        env=environment, capture_output=True, timeout=30, check=True,
    )  # fmt: skip
    entries = [json.loads(line) for line in run.stdout.splitlines()]
    assert [entry["PRIORITY"] for entry in entries] == ["6", "6", "6", "3"], run.stderr
    assert [entry["MESSAGE"] for entry in entries[:3]] == ["plain", "x" * 16384, "x" * (20000 - 16384)]
    assert bytes(entries[3]["MESSAGE"]) == b"two\xff"
    for entry in entries:
        assert (entry["CONTAINER_ID"], entry["CONTAINER_TAG"]) == ("c" * 12, "tagged")
        assert (entry["IMAGE_NAME"], entry["MY_LABEL"], len(entry["LARGE"])) == ("busybox", "v", 500_000)
    assert [entry.get("CONTAINER_PARTIAL_MESSAGE") for entry in entries] == [None, "true", None, None]
