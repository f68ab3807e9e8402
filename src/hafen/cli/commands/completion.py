"""Shell completion: `__complete`, which answers as cobra's programs do, and the scripts that ask it."""

import sys

from hafen.cli import catalog
from hafen.cli.command import PROGRAM, Call, Command
from hafen.cli.flags import HIDDEN, Flag, parse_definitions
from hafen.client import containers, images, networks, volumes
from hafen.client.engine import Engine
from hafen.errors import HafenError

NO_FILES = 4  # cobra's ShellCompDirectiveNoFileComp
FILES = 0  # ShellCompDirectiveDefault: the shell completes file names

_STOPPED = ("created", "exited", "dead")
# What the arguments of a command are: container states ("" any), images, networks, volumes, or files.
_ARGUMENTS = {
    "attach": "container running", "commit": "container", "diff": "container", "exec": "container running",
    "export": "container", "inspect": "container", "kill": "container running", "logs": "container",
    "pause": "container running", "port": "container", "rename": "container", "restart": "container",
    "rm": "container", "start": "container stopped", "stats": "container running", "stop": "container running",
    "top": "container running", "unpause": "container paused", "update": "container", "wait": "container",
    "run": "image", "create": "image", "cp": "container path",
}  # fmt: skip
_LIMITS = {"attach": 1, "commit": 1, "diff": 1, "exec": 1, "export": 1, "logs": 1, "port": 1, "rename": 1, "top": 1,
           "run": 1, "create": 1}  # fmt: skip
_FLAG_VALUES = {
    "--network": "network", "--net": "network", "--volumes-from": "container", "--link": "container",
    "--pull": "words always missing never", "--restart": "words no always on-failure unless-stopped",
    "--type": "words container image network volume", "--signal": "words HUP INT KILL QUIT TERM USR1 USR2",
    "--cgroupns": "words host private", "--log-driver": "words local json-file none",
}  # fmt: skip


def answer(words: list[str], engine: Engine) -> tuple[list[str], int]:
    """(candidates for the last word, directive)."""
    *before, last = words or [""]
    table = catalog.entries()
    before = _without_globals(before)
    canonical, count = catalog.find(before, table)
    if not count:
        if before and before[0] in catalog.GROUPS and len(before) == 1:
            return _described(catalog.members(before[0], table), last), NO_FILES
        if before:
            return [], NO_FILES
        return _described({**catalog.top_level(table), **catalog.GROUPS}, last), NO_FILES
    from hafen.cli.main import SERVERS, load

    if canonical in SERVERS:  # whose flags are not known here
        return [], FILES
    command = load(table[canonical])
    definitions = parse_definitions(command.flags)
    flag, arguments = _open_flag(before[count:], definitions, command.interspersed)
    if flag and flag.kind:
        kind = _FLAG_VALUES.get(f"--{flag.name}", "")
        return (_values(kind, engine, last), NO_FILES) if kind else ([], FILES)
    if last.startswith("-") and (command.interspersed or not arguments):
        return _flag_names(definitions, last), NO_FILES
    return _arguments(canonical, arguments, engine, last)


def _without_globals(words: list[str]) -> list[str]:
    while words and words[0].startswith("-"):
        takes_value = words[0] in ("-H", "--host", "-c", "--context", "--config", "-l", "--log-level")
        words = words[2 if takes_value else 1 :]
    return words


def _open_flag(words: list[str], definitions: dict[str, Flag], interspersed: bool) -> tuple[Flag | None, list[str]]:
    """(the flag that the next word is the value of, the arguments so far)."""
    shorts = {flag.short: flag for flag in definitions.values() if flag.short}
    arguments: list[str] = []
    flag: Flag | None = None
    for word in words:
        if flag is not None and flag.kind:
            flag = None  # this word is its value
        elif word.startswith("--") and (interspersed or not arguments):
            flag = definitions.get(word[2:])
        elif word.startswith("-") and len(word) > 1 and (interspersed or not arguments):
            flag = shorts.get(word[-1])
        else:
            flag = None
            arguments.append(word)
    return flag, arguments


def _arguments(canonical: str, arguments: list[str], engine: Engine, last: str) -> tuple[list[str], int]:
    group, _, name = canonical.rpartition(" ")
    if group in ("image", "network", "volume"):
        if name in ("load", "import", "create", "ls", "prune", "bootstrap"):
            return [], FILES
        if group == "network" and name in ("connect", "disconnect") and arguments:
            return _values("container", engine, last), NO_FILES
        return _values(group, engine, last, taken=arguments), NO_FILES
    if canonical == "inspect":
        return _values("container", engine, last, taken=arguments) + _values("image", engine, last), NO_FILES
    kind = _ARGUMENTS.get(name, "") if group == "container" else ""
    if not kind or len(arguments) >= _LIMITS.get(name, 1 << 30):
        return [], FILES
    if kind == "container path":
        return ([f"{item}:" for item in _values("container", engine, last)] if ":" not in last else []), FILES
    return _values(kind, engine, last, taken=arguments), NO_FILES


def _values(kind: str, engine: Engine, start: str, taken: list[str] | None = None) -> list[str]:
    """Names that the engine knows; none where it cannot be asked: completion never starts it nor complains."""
    what, _, rest = kind.partition(" ")
    try:
        if what == "words":
            found = rest.split()
        elif what == "container":
            found = [
                name.lstrip("/")
                for item in containers.listing(engine, all_states=True)
                if _has_state(item["State"], rest)
                for name in item["Names"]
            ]  # fmt: skip
        elif what == "image":
            found = [tag for item in images.listing(engine) for tag in item.get("RepoTags") or []]
            found += [tag.removesuffix(":latest") for tag in found if tag.endswith(":latest")]
        elif what == "network":
            found = [item["Name"] for item in networks.listing(engine)]
        else:
            found = [item["Name"] for item in volumes.listing(engine)]
    except HafenError:
        return []
    return sorted(name for name in found if name.startswith(start) and name not in (taken or []))


def _has_state(state: str, wanted: str) -> bool:
    return not wanted or wanted == state or (wanted == "stopped" and state in _STOPPED)


def _described(names: dict[str, str], start: str) -> list[str]:
    return [f"{name}\t{text}" for name, text in sorted(names.items()) if name.startswith(start)]


def _flag_names(definitions: dict[str, Flag], start: str) -> list[str]:
    names = {f"--{flag.name}": flag.help for flag in definitions.values() if not flag.help.startswith(HIDDEN)}
    names["--help"] = "Print usage"
    if not start.startswith("--"):
        names.update({f"-{flag.short}": flag.help for flag in definitions.values() if flag.short})
    return _described({name: "" if text.startswith("@") else text for name, text in names.items()}, start)


def _complete(call: Call) -> int:
    with Engine(call.engine.endpoint) as engine:  # which starts nothing, unlike the one that commands get
        candidates, directive = answer(call.arguments, engine)
    sys.stdout.write("".join(f"{item.rstrip()}\n" for item in candidates) + f":{directive}\n")
    return 0


_BASH = """# bash completion for {name}
_{name}() {{
    local line directive answer words=("${{COMP_WORDS[@]:1:COMP_CWORD}}")
    # Bash cuts words at colons; the program wants them whole.
    if declare -F _get_comp_words_by_ref >/dev/null; then
        local cur prev cword whole=()
        _get_comp_words_by_ref -n "=:" -w whole -i cword
        words=("${{whole[@]:1:cword}}")
    fi
    answer=$("${{COMP_WORDS[0]}}" __complete "${{words[@]}}" 2>/dev/null) || return
    directive=${{answer##*:}}
    COMPREPLY=()
    while IFS= read -r line; do
        case $line in :[0-9]*) continue ;; esac
        line=${{line%%$'\\t'*}}
        [ -n "$line" ] && COMPREPLY+=("$line")
    done <<<"$answer"
    if [ "${{#COMPREPLY[@]}}" = 0 ] && [ "$directive" != 4 ]; then
        compopt -o default 2>/dev/null
    fi
    case ${{COMPREPLY[0]-}} in *:) compopt -o nospace 2>/dev/null ;; esac
    declare -F __ltrim_colon_completions >/dev/null && __ltrim_colon_completions "${{words[-1]-}}"
}}
complete -F _{name} {name}
"""
_ZSH = """#compdef {name}
_{name}() {{
    local -a described
    local line answer directive
    answer=$("${{words[1]}}" __complete "${{(@)words[2,CURRENT]}}" 2>/dev/null) || return
    directive=${{answer##*:}}
    while IFS= read -r line; do
        [[ $line == :<-> ]] && continue
        [[ -z $line ]] && continue
        if [[ $line == *$'\\t'* ]]; then
            described+=("${{${{line%%$'\\t'*}}//:/\\\\:}}:${{line#*$'\\t'}}")
        else
            described+=("${{line//:/\\\\:}}")
        fi
    done <<<"$answer"
    if (( ${{#described}} )); then
        _describe '{name}' described
    elif [[ $directive != 4 ]]; then
        _files
    fi
}}
if [ "$funcstack[1]" = "_{name}" ]; then _{name}; else compdef _{name} {name}; fi
"""
_FISH = """# fish completion for {name}
function __{name}_answer
    set -l words (commandline -opc) (commandline -ct)
    $words[1] __complete $words[2..-1] 2>/dev/null
end
function __{name}_candidates
    __{name}_answer | string match -rv '^:[0-9]+$'
end
function __{name}_files
    test (__{name}_answer | tail -n 1) = ':0'
end
complete -c {name} -e
complete -c {name} -f -a '(__{name}_candidates)'
complete -c {name} -n __{name}_files -F
"""


def _script(text: str) -> Command:
    def show(call: Call) -> int:
        sys.stdout.write(text.format(name=PROGRAM))
        return 0

    return Command(show, "", "Generate the autocompletion script", most=0)


BASH, ZSH, FISH = _script(_BASH), _script(_ZSH), _script(_FISH)
COMPLETE = Command(_complete, "[WORD...]", "-", interspersed=False)
