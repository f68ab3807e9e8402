"""The kernel's and the runtime's root tests on another kernel: Debian's, with cgroup v2 alone and AppArmor."""

import re

import pytest

from tests.vm.machine import ROOT, Machine, Unavailable

pytestmark = [pytest.mark.root, pytest.mark.slow]

FOLDERS = ("tests/root/kernel", "tests/root/runtime")
FILES = " ".join(f"tests/root/storage/test_{name}.py" for name in ("volumequota", "volumemount", "fileservers"))
PROBE = 'test "$(cat /sys/fs/cgroup/cgroup.controllers)" && ! grep -q "cgroup cgroup " /proc/mounts'


@pytest.mark.timeout(660)
def test_root_tests_pass_on_cgroup_v2() -> None:
    try:
        machine = Machine.build(ROOT / ".cache/vm")
    except Unavailable as reason:
        pytest.skip(str(reason))
    folders = " ".join(folder for folder in FOLDERS if any((ROOT / folder).glob("test_*.py")))
    options = "-q -p no:cacheprovider -m root --tb=short --durations=10 -rs"
    pytest_command = f".venv/bin/python -m pytest {options} {folders} {FILES}"
    status, output = machine.run(f"{PROBE} && {pytest_command}", seconds=600)
    print(output)
    assert status == 0, output
    assert re.search(r"\d+ passed", output)
    assert "file servers are the whole machine's" not in output, "what this machine is for was skipped"
