"""`hafen`: find the command, run it, and turn errors into messages and exit codes."""

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from hafen.cli import catalog
from hafen.cli.command import GLOBAL_FLAGS, MANY, PROGRAM, Call, Command
from hafen.cli.flags import BadFlag, Flags, HelpAsked, parse, parse_definitions
from hafen.cli.output import err
from hafen.cli.report import report, system_text
from hafen.client.address import Choice, config_directory, read_config, resolve
from hafen.client.engine import Engine
from hafen.errors import HafenError

FLAG_ERROR = 125
INTERRUPTED = 130
SERVERS = {
    "engine": ("hafen.daemon.main",),
    "registry serve": ("hafen.registryd.main",),
    "registry fsck": ("hafen.registryd.fsck",),
    "registry token": ("hafen.registryd.control", "token"),
    "registry retention": ("hafen.registryd.control", "retention"),
}


def main() -> int:
    """The console script. Ends by SIGPIPE and SIGINT as other programs do."""
    try:
        code = run(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        # Who read our output has gone; a traceback at exit would be the only thing left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + 13
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def run(words: Sequence[str]) -> int:
    usage = f"Usage:  {PROGRAM} [OPTIONS] COMMAND [ARG...]"
    try:
        flags, rest = parse(parse_definitions(GLOBAL_FLAGS), words, interspersed=False)
    except BadFlag as error:
        err(f"{error}\n\n{usage}\n\nRun '{PROGRAM} --help' for more information")
        return FLAG_ERROR
    except HelpAsked:
        rest, flags = ["help"], parse(parse_definitions(GLOBAL_FLAGS), [])[0]
    if flags.on("version"):
        return dispatch(flags, ["version", "--short"])
    if not rest or rest[0] == "help":
        return _help(rest[1:])
    return dispatch(flags, rest)


def dispatch(global_flags: Flags, words: list[str]) -> int:
    table = catalog.entries()
    canonical, count = catalog.find(words, table)
    if not count:
        return _unknown(words)
    path, arguments = " ".join(words[:count]), words[count:]
    if canonical in SERVERS:
        return _serve(canonical, arguments)
    command = load(table[canonical])
    if canonical == "__complete":  # its arguments are somebody else's flags
        no_flags = parse({}, [])[0]
        return _perform(command, path, no_flags, arguments, choice_of(global_flags))
    usage = f"Usage:  {PROGRAM} {path} {command.usage}".rstrip()
    try:
        flags, arguments = parse(
            parse_definitions(command.flags), arguments,
            interspersed=command.interspersed, aliases=command.aliases, validators=command.validators,
        )  # fmt: skip
    except BadFlag as error:
        err(f"{error}\n\n{usage}\n\nRun '{PROGRAM} {path} --help' for more information")
        return FLAG_ERROR
    except HelpAsked as asked:
        from hafen.cli.usage import command_help

        if asked.deprecated:
            err("Flag shorthand -h has been deprecated, use --help")
        sys.stdout.write(command_help(path, canonical, command))
        return 0
    problem = _count_problem(command, len(arguments))
    if problem:
        err(f"{PROGRAM}: '{PROGRAM} {path}' {problem[0]}\n\n{usage}\n")
        err(f"{problem[1]} '{PROGRAM} {path} --help' for more information")
        return 1
    return _perform(command, path, flags, arguments, choice_of(global_flags))


def _perform(command: Command, path: str, flags: Flags, arguments: list[str], choice: Choice) -> int:
    try:
        directory = config_directory(choice, os.environ)
        settings = read_config(directory)
        with connect(choice) as engine:
            return command.run(Call(path, flags, arguments, engine, settings, f"{directory}/config.json"))
    except HafenError as error:
        report(error)
        return 1
    except BrokenPipeError:
        raise
    except OSError as error:
        err(system_text(error))
        return 1


def connect(choice: Choice) -> Engine:
    """The engine that is meant; one at the default place is started when a call finds none."""
    from hafen.cli.absent import start_engine

    return Engine(resolve(choice, os.environ), when_absent=start_engine)


def choice_of(flags: Flags) -> Choice:
    return Choice(
        flags.text("host"), flags.text("context"), flags.text("config"), flags.on("tls"), flags.on("tlsverify"),
        flags.text("tlscacert"), flags.text("tlscert"), flags.text("tlskey"),
    )  # fmt: skip


def load(entry: catalog.Entry) -> Command:
    command = getattr(import_module(f"hafen.cli.commands.{entry.module}"), entry.attribute)
    assert isinstance(command, Command)
    return command


def _count_problem(command: Command, count: int) -> tuple[str, str] | None:
    """What is wrong with the number of arguments, and the word that opens the last line."""
    least, most = command.least, command.most
    if count < least or count > most:
        if most == 0:
            return "accepts no arguments", "Run"
        if least == most:
            return f"requires {least} argument{'s' if least > 1 else ''}", "Run"
        if most == MANY:
            return f"requires at least {least} argument{'s' if least > 1 else ''}", "See"
        if least == 0:
            return f"requires at most {most} argument{'s' if most > 1 else ''}", "Run"
        return f"requires at least {least} and at most {most} arguments", "Run"
    return None


def _help(words: list[str]) -> int:
    from hafen.cli import usage

    if not words:
        sys.stdout.write(usage.root_help())
        return 0
    if words[0] in catalog.GROUPS and len(words) == 1:
        sys.stdout.write(usage.group_help(words[0]))
        return 0
    table = catalog.entries()
    canonical, count = catalog.find(words, table)
    if not count:
        return _unknown(words)
    if canonical in SERVERS:
        return _serve(canonical, ["--help"])
    sys.stdout.write(usage.command_help(" ".join(words[:count]), canonical, load(table[canonical])))
    return 0


def _unknown(words: list[str]) -> int:
    if words[0] in catalog.GROUPS:
        if len(words) == 1 or words[1] in ("--help", "-h"):
            return _help(words[:1])
        known, path, usage = (
            list(catalog.members(words[0], catalog.entries())),
            words[0],
            f"\nUsage:  {PROGRAM} {words[0]}\n",
        )
        if words[1].startswith("-"):
            err(f"unknown flag: {words[1]}\n{usage}\nRun '{PROGRAM} {path} --help' for more information")
            return FLAG_ERROR
        wrong = f"{path} {words[1]}"
    else:
        known, path, usage, wrong = [*catalog.top_level(catalog.entries()), *catalog.GROUPS], "", "", words[0]
    import difflib

    err(f"{PROGRAM}: unknown command: {PROGRAM} {wrong}")
    close = difflib.get_close_matches(wrong.rpartition(" ")[2], known, n=3, cutoff=0.6)
    if close:
        err("\nDid you mean " + ", ".join(f"'{f'{PROGRAM} {path}'.rstrip()} {name}'" for name in close) + "?")
    err(f"{usage}\nRun '{f'{PROGRAM} {path}'.rstrip()} --help' for more information")
    return 1


def _serve(canonical: str, arguments: list[str]) -> int:
    """A server, or what speaks with one in private, replaces this process: the command line never imports it."""
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-I", "-m", *SERVERS[canonical], *arguments])


if __name__ == "__main__":
    sys.exit(main())
