import pytest

from hafen.cli.flags import BadFlag, Flags, HelpAsked, as_map, parse, parse_definitions

DEFINITIONS = parse_definitions("""
-i, --interactive       Keep STDIN open
-t, --tty               Terminal
-e, --env list          Variables
    --name string       Name
    --rm                Remove
    --cpus decimal      Processors
-m, --memory bytes      Memory
    --retries int       Count
    --interval duration  Time between
    --weight uint16     Weight
    --subnet strings    Networks
-f, --filter filter     Filter
""")


def given(*words: str, interspersed: bool = True) -> tuple[Flags, list[str]]:
    return parse(DEFINITIONS, words, interspersed=interspersed, aliases={"called": "name"})


def test_short_flags_join_and_take_values() -> None:
    flags, rest = given("-it", "-eA=b", "-e", "C", "-e=D", "-m1k", "image")
    assert (flags.on("interactive"), flags.on("tty")) == (True, True)
    assert flags.values("env") == ["A=b", "C", "D"]
    assert flags.number("memory") == 1024
    assert rest == ["image"]


def test_flags_end_at_the_image() -> None:
    flags, rest = given("--rm", "image", "--name", "x", interspersed=False)
    assert flags.on("rm")
    assert not flags.changed("name")
    assert rest == ["image", "--name", "x"]


def test_flags_go_between_arguments_elsewhere() -> None:
    flags, rest = given("a", "--name", "x", "b", "--", "--rm")
    assert flags.text("name") == "x"
    assert rest == ["a", "b", "--rm"]


def test_switches_can_be_off_and_names_have_aliases() -> None:
    flags, _ = given("--rm=false", "--called=y")
    assert flags.changed("rm")
    assert not flags.on("rm", True)
    assert flags.text("name") == "y"


def test_values_by_kind() -> None:
    flags, _ = given("--cpus", "1.5", "--interval=1m30s", "--retries", "0x10", "--subnet", "a,b", "-m", "1k")
    assert flags.number("cpus") == 1_500_000_000
    assert flags.number("interval") == 90_000_000_000
    assert flags.number("retries") == 16
    assert flags.values("subnet") == ["a", "b"]
    assert flags.number("memory") == 1024


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--nope"], "unknown flag: --nope"),
        (["-ix"], "unknown shorthand flag: 'x' in -x"),
        (["--name"], "flag needs an argument: --name"),
        (["-ie"], "flag needs an argument: 'e' in -e"),
        (["--rm=x"], 'invalid argument "x" for "--rm" flag: strconv.ParseBool: parsing "x": invalid syntax'),
        (["-m", "x"], 'invalid argument "x" for "-m, --memory" flag: invalid size: \'x\''),
        (
            ["--retries", "x"],
            'invalid argument "x" for "--retries" flag: strconv.ParseInt: parsing "x": invalid syntax',
        ),
        (["--interval", "3"], 'invalid argument "3" for "--interval" flag: time: missing unit in duration "3"'),
        (["--cpus", "x"], 'invalid argument "x" for "--cpus" flag: failed to parse x as a rational number'),
        (["-f", "x"], 'invalid argument "x" for "-f, --filter" flag: bad format of filter (expected name=value)'),
    ],
)
def test_mistakes_are_told_as_docker_tells_them(words: list[str], message: str) -> None:
    with pytest.raises(BadFlag) as caught:
        given(*words)
    assert caught.value.message == message


@pytest.mark.parametrize("word", ["--help", "-h"])
def test_help(word: str) -> None:
    with pytest.raises(HelpAsked):
        given("x", word)


def test_maps() -> None:
    assert as_map(["a=b=c", "d"]) == {"a": "b=c", "d": ""}
