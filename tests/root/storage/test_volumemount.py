"""Network file systems as local volumes: the request reaches the kernel's client where there is one.

`test_fileservers.py` has servers, in the VM. Here a port that nobody listens on shows that the kernel understood
device, address and options, and went to look for the server; where the kernel has no such client it says so.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

from hafen.errors import System
from hafen.spec.volumeoptions import LocalOptions
from hafen.storage import volumemount
from hafen.storage.volumes import is_mounted

_NFS = "addr=localhost,vers=4.2,clientaddr=127.0.0.1,port=1,soft,timeo=1,retrans=0"


@pytest.mark.parametrize(
    ("kind", "device", "words", "told"),
    [
        ("nfs", ":/export", _NFS, f"mount :/export:{{}}, data: {_NFS.replace('localhost', '127.0.0.1')}"),
        (
            "cifs", "//localhost/share", "username=a,password=secret,port=1",
            "mount //127.0.0.1/share:{}, data: username=a,password=********,port=1",
        ),
    ],
    ids=["nfs", "cifs"],
)  # fmt: skip
def test_the_kernel_goes_and_looks(tmp_path: Path, kind: str, device: str, words: str, told: str) -> None:
    if shutil.which("modprobe"):
        subprocess.run(["modprobe", kind], capture_output=True, check=False)
    known = f"\t{kind}\n" in Path("/proc/filesystems").read_text()
    with pytest.raises(System) as refused:
        volumemount.mount(LocalOptions(kind, device, words), str(tmp_path))
    said, _, reason = refused.value.message.rpartition(": ")
    assert said == "failed to mount local volume: " + told.format(tmp_path)
    looked = ("connection refused", "connection timed out", "host is down", "network is unreachable")
    assert reason in (looked if known else ("no such device",))
    assert not is_mounted(str(tmp_path))
