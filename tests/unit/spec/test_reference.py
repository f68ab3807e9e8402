"""Image references, as github.com/distribution/reference reads them."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hafen.errors import InvalidArgument
from hafen.spec import digest as digests
from hafen.spec import reference

few = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
HEX = "855c066fe84785353259c037c49c0e897796254766159c34e9d1d9b10069ec4d"


@pytest.mark.parametrize(
    ("text", "whole", "familiar"),
    [
        ("debian", "docker.io/library/debian", "debian"),
        ("debian:12", "docker.io/library/debian:12", "debian:12"),
        ("a/b", "docker.io/a/b", "a/b"),
        ("library/debian", "docker.io/library/debian", "debian"),
        ("docker.io/debian", "docker.io/library/debian", "debian"),
        ("index.docker.io/a/b:x", "docker.io/a/b:x", "a/b:x"),
        ("localhost/a", "localhost/a", "localhost/a"),
        ("localhost:5000/a:1", "localhost:5000/a:1", "localhost:5000/a:1"),
        ("[::1]:5000/a", "[::1]:5000/a", "[::1]:5000/a"),
        ("ghcr.io/a/b/c", "ghcr.io/a/b/c", "ghcr.io/a/b/c"),
        ("Host/path", "Host/path", "Host/path"),
        ("a__b---c.d_e", "docker.io/library/a__b---c.d_e", "a__b---c.d_e"),
        (f"a:1@sha256:{HEX}", f"docker.io/library/a:1@sha256:{HEX}", f"a:1@sha256:{HEX}"),
    ],
)
def test_names_are_normalised_and_shortened(text: str, whole: str, familiar: str) -> None:
    parsed = reference.parse(text)
    assert (str(parsed), parsed.familiar) == (whole, familiar)
    assert reference.parse(whole) == parsed
    assert reference.parse(familiar) == parsed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid reference format"),
        (":a", "invalid reference format"),
        ("a:b c", "invalid reference format"),
        ("a..b", "invalid reference format"),
        ("a//b", "invalid reference format"),
        ("-a", "invalid reference format"),
        ("a:" + "x" * 129, "invalid reference format"),
        ("https://a/b", "invalid reference format"),
        ("Foo:x", "invalid reference format: repository name (library/Foo) must be lowercase"),
        ("a@sha256:12", "invalid reference format"),
        (f"a@sha256:{HEX[:-1]}", "invalid checksum digest length"),
        (f"a@md5:{HEX[:32]}", "unsupported digest algorithm"),
        (HEX, f"invalid repository name ({HEX}), cannot specify 64-byte hexadecimal strings"),
        ("a" * 256, "repository name must not be more than 255 characters"),
    ],
)
def test_what_is_no_reference_is_refused_with_dockers_text(text: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        reference.parse(text)
    assert caught.value.message == message


component = st.from_regex(r"[a-z0-9]{1,8}((\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}", fullmatch=True)
tags = st.none() | st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)
domains = st.sampled_from(["docker.io", "localhost", "localhost:5000", "ghcr.io", "a.b-c.d:443"])


@few
@given(domains, st.lists(component, min_size=2, max_size=4), tags, st.booleans())
def test_what_is_written_is_read_back(domain: str, path: list[str], tag: str | None, digest: bool) -> None:
    made = reference.Reference(domain, "/".join(path), tag, f"sha256:{HEX}" if digest else None)
    assert reference.parse(str(made)) == made
    if domain != "docker.io" or "." not in path[0]:  # else the short name reads as a domain's, with Docker as well
        assert reference.parse(made.familiar) == made


@few
@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parsed = reference.parse(text)
    except InvalidArgument:
        return
    assert reference.parse(str(parsed)) == parsed


def test_a_tag_is_added_only_where_none_is() -> None:
    assert reference.parse("a").with_default_tag().tag == "latest"
    assert reference.parse("a:b").with_default_tag().tag == "b"
    assert reference.parse(f"a@sha256:{HEX}").with_default_tag().tag is None


def test_a_tag_is_never_a_digest() -> None:
    with pytest.raises(InvalidArgument, match="cannot import digest reference"):
        reference.parse_repository(f"a@sha256:{HEX}")


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("busybox", "busybox:1", True),
        ("busybox:*", "busybox:1", True),
        ("busy*", "busybox:1", True),
        ("*", "busybox:1", True),
        ("*", "a/b:1", False),
        ("a/*", "a/b:1", True),
        ("a/?:[0-9]", "a/b:1", True),
        ("other", "busybox:1", False),
    ],
)
def test_the_reference_filter_matches_as_a_path(pattern: str, name: str, expected: bool) -> None:
    assert reference.matches(pattern, reference.parse(name)) is expected


def test_digests_are_computed_and_checked() -> None:
    empty = digests.of(b"")
    assert empty == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert digests.parse(empty) == empty
    for bad in ("", "sha256:", "sha256:xyz", "md5:" + "a" * 32, "sha256:" + "A" * 64, empty + "0"):
        with pytest.raises(InvalidArgument):
            digests.parse(bad)


def test_chain_ids_are_those_of_the_specification() -> None:
    first, second = digests.of(b"1"), digests.of(b"2")
    assert digests.chain_ids([]) == []
    assert digests.chain_ids([first, second]) == [first, digests.of(f"{first} {second}".encode())]


@few
@given(st.binary(max_size=200))
def test_a_digest_names_its_bytes(data: bytes) -> None:
    hasher = digests.new()
    hasher.update(data[:7])
    hasher.update(data[7:])
    assert digests.finish(hasher) == digests.of(data) == digests.parse(digests.of(data))


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("*", "debian", True), ("deb*", "debian:12", True), ("*a*:1*", "debian:12", True), ("*/*", "a/b", True),
        ("a*", "a/b", False), ("docker.io/*", "debian", False), ("*/*/debian:*", "debian:12", True),
        ("a**c", "abc", True), ("*abc", "ababc", True), ("*ab*ab", "abab", True), ("*ab*ab", "abxx", False),
        ("[a-c]*", "debian", False), ("d?b*[m-o]", "debian", True), ("\\*", "debian", False), ("", "debian", False),
    ],
)  # fmt: skip
def test_patterns(pattern: str, name: str, expected: bool) -> None:
    assert reference.matches(pattern, reference.parse(name).with_default_tag()) is expected


def test_a_pattern_of_many_stars_takes_no_time() -> None:
    name = reference.parse("a" * 200)
    assert not reference.matches("*a" * 100 + "*b", name)
    assert not reference.matches("*a" * 100 + "b", name)
    assert reference.matches("*a" * 100, name)
