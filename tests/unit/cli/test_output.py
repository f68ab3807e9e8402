import pytest

from hafen.cli.commands.copy import split_container
from hafen.cli.commands.listing import display_ports, go_time, natural
from hafen.cli.commands.run import start_failure
from hafen.cli.output import binary_size, ellipsis, human_size, short_id, table
from hafen.cli.progress import bar
from hafen.cli.terminal import parse_detach_keys
from hafen.errors import InvalidArgument


def test_sizes() -> None:
    assert [human_size(size, 3) for size in (0, 999, 1000, 1_984_000, 10**9)] == ["0B", "999B", "1kB", "1.98MB", "1GB"]
    assert human_size(1_984_123) == "1.984MB"
    assert binary_size(64 << 20) == "64MiB"


def test_tables_align_and_leave_the_last_column_alone() -> None:
    assert (
        table(["A", "LONG HEADER", "C"], [["x", "y", "z"]]) == "A         LONG HEADER   C\nx         y             z\n"
    )
    assert table(["ONE"], []) == "ONE\n"


def test_ports() -> None:
    def port(private: int, public: int = 0, ip: str = "0.0.0.0", kind: str = "tcp") -> dict[str, object]:
        found: dict[str, object] = {"PrivatePort": private, "Type": kind}
        return found | ({"PublicPort": public, "IP": ip} if public else {})

    assert display_ports([port(80, 8080), port(80, 8080, "::")]) == "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"
    assert display_ports([port(1), port(2), port(4), port(2, kind="udp")]) == "1-2/tcp, 2/udp, 4/tcp"
    assert display_ports([port(9, 9), port(10, 10)]) == "0.0.0.0:9-10->9-10/tcp"


def test_small_things() -> None:
    assert ellipsis("abcdef", 4) == "abc…"
    assert short_id("sha256:" + "a" * 64) == "a" * 12
    assert go_time("2026-11-20T18:54:02.5Z") == "2026-11-20 18:54:02.5 +0000 UTC"
    assert sorted(["n10", "n2", "n"], key=natural) == ["n", "n2", "n10"]
    assert bar({"current": 5, "total": 10}).startswith("[" + "=" * 25 + ">")
    assert bar({"current": 2_000_000}) == "2MB"


def test_detach_keys() -> None:
    assert parse_detach_keys("") == b"\x10\x11"
    assert parse_detach_keys("ctrl-a,b,ctrl-]") == b"\x01b\x1d"
    with pytest.raises(InvalidArgument, match="ctrl-1"):
        parse_detach_keys("ctrl-1")


def test_exit_codes_of_a_container_that_did_not_start() -> None:
    prefix = "Error response from daemon: ...: unable to start container process: "
    assert start_failure(prefix + 'exec: "x": executable file not found in $PATH: unknown') == 127
    assert start_failure(prefix + 'exec: "/x": stat /x: no such file or directory: unknown') == 127
    assert start_failure(prefix + 'exec: "/x": permission denied: unknown') == 126
    assert start_failure(prefix + 'exec: "/x": is a directory: unknown') == 126
    assert start_failure("Error response from daemon: invalid mode: no such file") == 125


def test_container_paths() -> None:
    assert split_container("c:/x:y") == ("c", "/x:y")
    assert split_container("./c:x") == ("", "./c:x")
    assert split_container("/c:x") == ("", "/c:x")
    assert split_container("a/b:x") == ("", "a/b:x")
    assert split_container("-") == ("", "-")
