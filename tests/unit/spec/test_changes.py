"""`--change` of import and commit."""

import pytest

from hafen.errors import InvalidArgument
from hafen.spec import changes
from hafen.spec.wire.image import EmptyObject, HealthConfig, ImageConfig

START = ImageConfig(env=["A=1", "B=2"], labels={"x": "y"}, working_dir="/srv")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('CMD ["sh", "-c", "x"]', ImageConfig(cmd=["sh", "-c", "x"])),
        ("cmd echo hello", ImageConfig(cmd=["/bin/sh", "-c", "echo hello"])),
        ('CMD ["not", json]', ImageConfig(cmd=["/bin/sh", "-c", '["not", json]'])),
        ("CMD", ImageConfig(cmd=[])),
        ('ENTRYPOINT ["/init"]', ImageConfig(entrypoint=["/init"])),
        ('ENV A=b C="d e"', ImageConfig(env=["A=b", "C=d e"])),
        ("ENV A some text", ImageConfig(env=["A=some text"])),
        ("LABEL a=b 'c d'=e", ImageConfig(labels={"a": "b", "c d": "e"})),
        ("EXPOSE 80 53/udp", ImageConfig(exposed_ports={"80/tcp": EmptyObject(), "53/udp": EmptyObject()})),
        ("EXPOSE 8000-8001", ImageConfig(exposed_ports={"8000/tcp": EmptyObject(), "8001/tcp": EmptyObject()})),
        ("USER www:www", ImageConfig(user="www:www")),
        ("WORKDIR a/../b", ImageConfig(working_dir="/b")),
        ('VOLUME ["/a", "/b"]', ImageConfig(volumes={"/a": EmptyObject(), "/b": EmptyObject()})),
        ("VOLUME /a /b", ImageConfig(volumes={"/a": EmptyObject(), "/b": EmptyObject()})),
        ("STOPSIGNAL SIGTERM", ImageConfig(stop_signal="SIGTERM")),
        ("ONBUILD RUN x", ImageConfig(on_build=["RUN x"])),
        (
            "HEALTHCHECK --interval=5s --retries=3 CMD curl x",
            ImageConfig(healthcheck=HealthConfig(test=["CMD-SHELL", "curl x"], interval=5 * 10**9, retries=3)),
        ),
        ("HEALTHCHECK NONE", ImageConfig(healthcheck=HealthConfig(test=["NONE"]))),
    ],
)
def test_each_instruction_changes_its_field(line: str, expected: ImageConfig) -> None:
    assert changes.apply(ImageConfig(), [line]) == expected


def test_instructions_build_on_what_is_there_and_on_each_other() -> None:
    made = changes.apply(START, ["ENV B=3 C=4\n# a comment\nWORKDIR data", "LABEL x=z \\\n  q=r"])
    assert made.env == ["A=1", "B=3", "C=4"]
    assert made.working_dir == "/srv/data"
    assert made.labels == {"x": "z", "q": "r"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("FOO x", "FOO is not a valid change command"),
        ("RUN true", "RUN is not a valid change command"),
        ("ENV", "ENV requires at least one argument"),
        ("ENV A", "ENV must have two arguments"),
        ("EXPOSE 99999", "Invalid containerPort: 99999"),
        ("ENV A=${B^}", 'failed to process "${B^}": unsupported modifier (^) in substitution'),
        ("ENV A=${B", 'failed to process "${B": unsupported modifier () in substitution'),
        ("ENV A=${B:-x", 'failed to process "${B:-x": unexpected end of statement while looking for matching }'),
        ("ENV A=${}", 'failed to process "${}": syntax error: bad substitution'),
        ("ENV A=${B:?missing}", 'failed to process "${B:?missing}": B: missing'),
        ("ENV A=${B?}", 'failed to process "${B?}": B: not allowed to be unset'),
        ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("HEALTHCHECK --interval=soon CMD x", 'time: invalid duration "soon"'),
        ("HEALTHCHECK --interval=0.5ms CMD x", 'Interval "interval" cannot be less than 1ms'),
        ("HEALTHCHECK --timeout=1s --timeout=2s CMD x", "duplicate flag specified: timeout"),
        ("HEALTHCHECK --timeout CMD x", "missing a value on flag: timeout"),
        ("HEALTHCHECK --retries=-1 CMD x", "--retries cannot be negative (-1)"),
        ("HEALTHCHECK --often=1 CMD x", "unknown flag: often"),
        ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
        ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
    ],
)
def test_what_is_no_change_is_refused(line: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        changes.apply(ImageConfig(), [line])
    assert caught.value.message == message
