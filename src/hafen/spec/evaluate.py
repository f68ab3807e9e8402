"""Evaluate a parsed `--format` template on decoded JSON or on a table row; pure."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from hafen.spec.template import (
    Branch,
    Fields,
    Function,
    Literal,
    Node,
    Operand,
    Output,
    Pipeline,
    TemplateError,
    Text,
    parse,
)

NO_VALUE = type("NoValue", (), {"__repr__": lambda self: "<no value>"})()


# Fields whose keys are the user's: Go has maps there, and a key that is not in a map is no error.
MAPS = frozenset(
    ("Labels", "Annotations", "Sysctls", "Options", "Tmpfs", "StorageOpt", "Networks", "Ports", "Volumes", "DriverOpts",
     "ExposedPorts", "PortBindings", "Containers", "Attributes", "Runtimes", "Details")
)  # fmt: skip


class Row(dict[str, object]):
    """What a table's template can name: texts, and functions of one argument (`.Label "x"`).

    `go_type` is the name that Docker's message about an unknown field shows.
    """

    def __init__(self, go_type: str, fields: Mapping[str, object]) -> None:
        super().__init__(fields)
        self.go_type = go_type


def render(template: str, data: object, *, strict: bool = True) -> str:
    """One template on one value. `strict`: a field that is not there is an error, not `<no value>`."""
    return Template(template, strict=strict).render(data)


class Template:
    """A parsed template, to be evaluated on several values."""

    def __init__(self, text: str, *, strict: bool = True) -> None:
        self._nodes = parse(text)
        self._text = text
        self._strict = strict

    def render(self, data: object) -> str:
        return "".join(_Run(self._text, data, self._strict).nodes(self._nodes, data))


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


class _Run:
    def __init__(self, text: str, data: object, strict: bool) -> None:
        self._text = text
        self._strict = strict
        self._variables: list[dict[str, object]] = [{"$": data}]

    def nodes(self, nodes: Sequence[Node], dot: object) -> Iterator[str]:
        for node in nodes:
            if isinstance(node, Text):
                yield node.text
            elif isinstance(node, Output):
                value = self._pipeline(node.pipeline, dot)
                if not node.pipeline.declared:
                    # JSON does not tell Go's nil slices from nil pointers; what is null in Docker's answers are slices
                    yield "[]" if value is None else go_text(value)
            elif isinstance(node, Branch):
                yield from self._branch(node, dot)
            else:
                raise _Break if node.word == "break" else _Continue

    def _branch(self, node: Branch, dot: object) -> Iterator[str]:
        self._variables.append({})
        try:
            if node.word == "range":
                yield from self._range(node, dot)
                return
            value = self._pipeline(node.pipeline, dot)
            if truth(value):
                yield from self.nodes(node.body, value if node.word == "with" else dot)
            else:
                yield from self.nodes(node.otherwise, dot)
        finally:
            self._variables.pop()

    def _range(self, node: Branch, dot: object) -> Iterator[str]:
        value = self._pipeline(node.pipeline._replace(declared=()), dot)
        items: Sequence[tuple[object, object]]
        if isinstance(value, Mapping):
            items = sorted(value.items(), key=lambda item: str(item[0]))
        elif isinstance(value, list | tuple):
            items = list(enumerate(value))
        elif isinstance(value, int) and not isinstance(value, bool):
            items = [(i, i) for i in range(value)]
        elif value is None or value is NO_VALUE:
            items = []
        else:
            raise TemplateError(f'template: :1: executing "" : range can\'t iterate over {go_text(value)}')
        if not items:
            yield from self.nodes(node.otherwise, dot)
        declared = node.pipeline.declared
        for key, item in items:
            if declared:
                self._variables[-1][declared[-1]] = item
                if len(declared) > 1:
                    self._variables[-1][declared[0]] = key
            try:
                yield from self.nodes(node.body, item)
            except _Break:
                return
            except _Continue:
                continue

    def _pipeline(self, pipeline: Pipeline, dot: object) -> object:
        value: object = None
        for number, command in enumerate(pipeline.commands):
            value = self._command(command, dot, [value] if number else [])
        for name in pipeline.declared:
            scope = self._variables[-1]
            if pipeline.assign:
                scope = next((s for s in reversed(self._variables) if name in s), scope)
            scope[name] = value
        return value

    def _command(self, command: Sequence[Operand], dot: object, final: list[object]) -> object:
        head = command[0]
        if isinstance(head, Function):
            return self._call(head, command[1:], dot, final)
        value = self._operand(head, dot)
        arguments = [self._operand(operand, dot) for operand in command[1:]] + final
        if callable(value):
            return value(*[go_text(argument) for argument in arguments])
        if arguments:
            raise self._error(head, head.source, f"{head.source.rpartition('.')[2]} is not a method but has arguments")
        return value

    def _call(self, head: Function, operands: Sequence[Operand], dot: object, final: list[object]) -> object:
        if head.name in ("and", "or"):
            value: object = None
            for operand in operands:
                value = self._operand(operand, dot)
                if truth(value) is (head.name == "or"):
                    return value
            return final[0] if final else value
        function = FUNCTIONS.get(head.name)
        if function is None:
            raise TemplateError(f'template: :1: function "{head.name}" not defined')
        arguments = [self._operand(operand, dot) for operand in operands] + final
        try:
            return function(*arguments)
        except TemplateError as error:
            raise self._error(head, head.source, f"error calling {head.name}: {error}") from None
        except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
            raise self._error(head, head.source, f"wrong arguments for {head.name}: {error}") from None

    def _operand(self, operand: Operand, dot: object) -> object:
        if isinstance(operand, Literal):
            return operand.value
        if isinstance(operand, Function):
            return self._call(operand, (), dot, [])
        if isinstance(operand.base, Pipeline):
            value = self._pipeline(operand.base, dot)
        elif operand.base:
            scope = next((s for s in reversed(self._variables) if operand.base in s), None)
            if scope is None:
                raise TemplateError(f'template: :1: undefined variable "{operand.base}"')
            value = scope[operand.base]
        else:
            value = dot
        parent = ""
        for name in operand.names:
            value = self._field(value, name, operand, parent in MAPS)
            parent = name
        return value

    def _field(self, value: object, name: str, operand: Fields, free_names: bool) -> object:
        if callable(value):
            value = value()
        if isinstance(value, Row):
            if name not in value:
                raise self._error(operand, operand.source, f"can't evaluate field {name} in type {value.go_type}")
            return value[name]
        if isinstance(value, Mapping):
            if name in value:
                return value[name]
            folded = [key for key in value if isinstance(key, str) and key.lower() == name.lower()]
            if len(folded) == 1 and name[0].isupper():
                return value[folded[0]]  # Go's field is `ID` where JSON has `Id`
            if self._strict and not free_names:
                raise self._error(operand, operand.source, f'map has no entry for key "{name}"', name)
            return NO_VALUE
        if value is None or value is NO_VALUE:
            if self._strict:
                raise self._error(operand, operand.source, f'nil data; no entry for key "{name}"')
            return NO_VALUE
        kind = "string" if isinstance(value, str) else "int" if isinstance(value, int) else "[]interface {}"
        raise self._error(operand, operand.source, f"can't evaluate field {name} in type {kind}")

    def _error(self, node: Operand, source: str, problem: str, field: str = "") -> TemplateError:
        """Go points at the start of the command, or at the one field of several that is not there."""
        at = node.at + max(node.source.find(f".{field}"), 0) if field and isinstance(node, Fields) else node.at
        line = self._text.count("\n", 0, at) + 1
        column = at - (self._text.rfind("\n", 0, at) + 1)
        return TemplateError(f'template: :{line}:{column}: executing "" at <{source}>: {problem}')


def truth(value: object) -> bool:
    """Go: empty values of any kind are false."""
    return bool(value) and value is not NO_VALUE


def go_text(value: object) -> str:
    """As Go's `%v` prints it."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None or value is NO_VALUE:
        return "<no value>"
    if isinstance(value, Mapping):
        pairs = sorted((go_text(key), _inner(item)) for key, item in value.items())
        return f"map[{' '.join(f'{key}:{item}' for key, item in pairs)}]"
    if isinstance(value, list | tuple):
        return f"[{' '.join(map(_inner, value))}]"
    if isinstance(value, float):
        return f"{value:g}" if abs(value) < 1e21 and not value.is_integer() else f"{value:.0f}"
    if callable(value):
        return go_text(value())
    return str(value)


def _inner(value: object) -> str:
    return "<nil>" if value is None else go_text(value)


def to_json(value: object) -> str:
    if isinstance(value, Row):
        value = {name: item for name, item in sorted(value.items()) if not callable(item)}
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        for mark in "<>&":  # Go's json.Marshal, which rows go through, makes text safe for HTML
            text = text.replace(mark, f"\\u{ord(mark):04x}")
        return text
    return json.dumps(None if value is NO_VALUE else value, ensure_ascii=False, separators=(",", ":"))


def _index(value: object, *keys: object) -> object:
    for key in keys:
        if isinstance(value, Mapping):
            value = value.get(key, "" if all(isinstance(item, str) for item in value.values()) else None)
        elif isinstance(value, list | tuple | str) and isinstance(key, int):
            if not 0 <= key < len(value):
                raise TemplateError(f"index out of range: {key}")
            value = ord(value[key]) if isinstance(value, str) else value[key]
        elif value is None or value is NO_VALUE:
            raise TemplateError("index of untyped nil")
        else:
            raise TemplateError(f"can't index item of type {type(value).__name__}")
    return value


def _slice(value: Sequence[object], *bounds: int) -> Sequence[object]:
    low, high = (*bounds, *((0, len(value))[len(bounds) :]))[:2] if len(bounds) < 2 else bounds[:2]
    if not 0 <= low <= high <= len(value):
        raise TemplateError(f"index out of range: {high if high > len(value) else low}")
    return value[low:high]


_VERB = re.compile(r"%([-+# 0]*\d*(?:\.\d+)?)([a-zA-Z%])")


def go_printf(pattern: str, *arguments: object) -> str:
    """Go's Sprintf for the verbs that formats use: v s d q x X f g e t c T."""
    rest = list(arguments)

    def one(match: re.Match[str]) -> str:
        flags, verb = match[1], match[2]
        if verb == "%":
            return "%"
        if not rest:
            return f"%!{verb}(MISSING)"
        value = rest.pop(0)
        if verb in "dxXc" and isinstance(value, int):
            return ("%" + flags + verb) % value
        if verb in "fge" and isinstance(value, int | float):
            return ("%" + flags + verb) % value
        if verb == "q":
            return ("%" + flags + "s") % json.dumps(go_text(value), ensure_ascii=False)
        if verb in "xX":
            return ("%" + flags + "s") % go_text(value).encode().hex()
        if verb == "d":
            return f"%!d(string={go_text(value)})"
        return ("%" + flags.replace("#", "").replace("+", "") + "s") % go_text(value)

    text = _VERB.sub(one, pattern)
    return text + (f"%!(EXTRA {', '.join(f'string={go_text(item)}' for item in rest)})" if rest else "")


def _equal(first: object, *others: object) -> bool:
    return any(first == other for other in others)


def _print(*values: object) -> str:
    """Go's Sprint puts blanks only between operands neither of which is a string."""
    text = ""
    for number, value in enumerate(values):
        if number and not isinstance(value, str) and not isinstance(values[number - 1], str):
            text += " "
        text += go_text(value)
    return text


def _title(text: str) -> str:
    return re.sub(r"(^|\s)(\w)", lambda match: match[1] + match[2].upper(), text)


def _truncate(text: str, length: int) -> str:
    return text[:length]


def _pad(text: str, before: int, after: int) -> str:
    return " " * before + text + " " * after if text else text


FUNCTIONS: dict[str, Callable[..., object]] = {
    "json": to_json,
    "join": lambda items, separator: separator.join(go_text(item) for item in items),
    "split": lambda text, separator: text.split(separator),
    "upper": lambda text: text.upper(),
    "lower": lambda text: text.lower(),
    "title": _title,
    "pad": _pad,
    "truncate": _truncate,
    "len": lambda value: len(value.encode() if isinstance(value, str) else value),
    "index": _index,
    "slice": _slice,
    "print": _print,
    "println": lambda *values: " ".join(map(go_text, values)) + "\n",
    "printf": go_printf,
    "not": lambda value: not truth(value),
    "eq": _equal,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "html": lambda text: go_text(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"),
    "urlquery": lambda text: re.sub(r"[^\w.~-]", lambda m: "".join(f"%{b:02X}" for b in m[0].encode()), go_text(text)),
}
