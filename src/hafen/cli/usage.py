"""The help texts, laid out as cobra and pflag lay them out."""

from hafen.cli import catalog
from hafen.cli.command import GLOBAL_FLAGS, PROGRAM, Command
from hafen.cli.flags import HIDDEN, Flag, parse_definitions
from hafen.cli.terminal import size

_TEMPLATES = """'TEMPLATE':         Print output using the given Go template.
Refer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates"""
FORMAT = f"""Format output using a custom template:
'json':             Print in JSON format
{_TEMPLATES}"""
TABLE_FORMAT = f"""Format output using a custom template:
'table':            Print output in table format with column headers (default)
'table TEMPLATE':   Print output in table format using the given Go template
'json':             Print in JSON format
{_TEMPLATES}"""
_LONG_TEXTS = {"@format": FORMAT, "@table": TABLE_FORMAT}


def command_help(path: str, canonical: str, command: Command) -> str:
    lines = [f"Usage:  {PROGRAM} {path} {command.usage}".rstrip(), "", command.description or command.summary]
    names = spellings(canonical)
    if len(names) > 1:
        lines += ["", "Aliases:", "  " + ", ".join(f"{PROGRAM} {name}" for name in names)]
    text = "\n".join(lines) + "\n"
    definitions = parse_definitions(command.flags)
    return text + (f"\nOptions:\n{flag_help(definitions)}" if definitions else "")


def spellings(canonical: str) -> list[str]:
    """All names of one command, the canonical one first."""
    group, _, name = canonical.rpartition(" ")
    names = [canonical]
    names += [f"{group} list"] if group and name == "ls" else []
    names += [f"{group} remove"] if group and name == "rm" else []
    names += ["container ps"] if canonical == "container ls" else []
    names += [short for short, path in catalog.SHORTCUTS.items() if path == canonical]
    if group == "container" and name not in ("ls", "prune", "inspect"):
        names.append(name)
    return names


def group_help(group: str) -> str:
    text = f"Usage:  {PROGRAM} {group} COMMAND\n\n{catalog.GROUPS[group]}\n\nCommands:\n"
    text += _listing(catalog.members(group, catalog.entries()))
    return text + f"\nRun '{PROGRAM} {group} COMMAND --help' for more information on a command.\n"


def root_help() -> str:
    names = catalog.top_level(catalog.entries())
    common = {name: names.pop(name) for name in catalog.COMMON}
    text = f"Usage:  {PROGRAM} [OPTIONS] COMMAND\n\nRuns containers: engine and command line in one\n"
    text += f"\nCommon Commands:\n{_listing(common)}"
    text += f"\nManagement Commands:\n{_listing(dict(sorted(catalog.GROUPS.items())))}"
    text += f"\nCommands:\n{_listing(names)}"
    text += f"\nGlobal Options:\n{flag_help(parse_definitions(GLOBAL_FLAGS))}"
    return text + f"\nRun '{PROGRAM} COMMAND --help' for more information on a command.\n"


def _listing(summaries: dict[str, str]) -> str:
    return "".join(f"  {name:11} {summary}\n" for name, summary in summaries.items())


def flag_help(definitions: dict[str, Flag]) -> str:
    """pflag's FlagUsagesWrapped for the width of the terminal."""
    width = (size(1)[1] or 80) - 1
    left = {flag: _left(flag) for flag in sorted(definitions.values()) if not flag.help.startswith(HIDDEN)}
    column = max((len(text) for text in left.values()), default=0) + 3
    return "".join(
        f"{text:{column}}{_wrap(column, width, _LONG_TEXTS.get(flag.help, flag.help))}\n" for flag, text in left.items()
    )


def _left(flag: Flag) -> str:
    return f"  {f'-{flag.short}, ' if flag.short else '    '}--{flag.name}{' ' + flag.kind if flag.kind else ''}"


def _wrap(indent: int, width: int, text: str) -> str:
    room = width - indent - 5
    if room < 19:
        return text
    lines = []
    while text:
        line, text = _cut(room, text)
        lines.append(line.replace("\n", "\n" + " " * indent))
    return ("\n" + " " * indent).join(lines)


def _cut(room: int, text: str) -> tuple[str, str]:
    """pflag's wrapN: at the last blank before `room`, with five more columns where that saves a line."""
    if room + 5 > len(text):
        return text, ""
    blank = max(text.rfind(mark, 0, room) for mark in " \t\n")
    if blank <= 0:
        return text, ""
    newline = text.rfind("\n", 0, room)
    if 0 < newline < blank:
        return text[:newline], text[newline + 1 :]
    return text[:blank], text[blank + 1 :]
