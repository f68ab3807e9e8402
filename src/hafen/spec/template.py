"""The subset of Go's text/template that `--format` and log tags use: parsed here, evaluated in `evaluate`; pure.

{{.Field.Sub}}  {{"literal"}}  {{$x := pipeline}}  {{a | b}}  (parentheses)  {{- trim -}}  {{/* comment */}}
{{if p}} {{else if p}} {{else}} {{end}}   {{range $i, $e := p}} {{break}} {{continue}} {{end}}   {{with p}} {{end}}
"""

import re
from typing import NamedTuple

from hafen.errors import InvalidArgument


class TemplateError(InvalidArgument):
    """The template cannot be parsed or evaluated; the text is Go's."""


class Text(NamedTuple):
    text: str


class Literal(NamedTuple):
    value: object
    source: str
    at: int


class Fields(NamedTuple):
    """`.a.b` on the dot, on a variable, or on what a pipeline in parentheses gives."""

    base: "str | Pipeline"  # "" the dot, "$x" a variable
    names: tuple[str, ...]
    source: str
    at: int


class Function(NamedTuple):
    """`source` is the whole command that it is called by."""

    name: str
    source: str
    at: int


Operand = Literal | Fields | Function


class Pipeline(NamedTuple):
    """`commands` are operand lists; `declared` the variables that take the result, `assign` with `=`."""

    commands: tuple[tuple[Operand, ...], ...]
    declared: tuple[str, ...]
    assign: bool


class Output(NamedTuple):
    pipeline: Pipeline


class Branch(NamedTuple):
    """`word` is if, with or range."""

    word: str
    pipeline: Pipeline
    body: "tuple[Node, ...]"
    otherwise: "tuple[Node, ...]"


class Jump(NamedTuple):
    word: str


Node = Text | Output | Branch | Jump

_TOKEN = re.compile(
    r"""\s+|(?P<string>"(?:[^"\\\n]|\\.)*"|`[^`]*`)|(?P<char>'(?:[^'\\\n]|\\.)')
    |(?P<number>[+-]?(?:0[xX][0-9a-fA-F]+|\d+(?:\.\d+)?(?:[eE][+-]?\d+)?))
    |(?P<variable>\$\w*)|(?P<field>\.\w+)|(?P<dot>\.)|(?P<word>\w+)|(?P<punctuation>:=|[=|(),])""",
    re.VERBOSE,
)
_KEYWORDS = frozenset(("if", "else", "end", "range", "with", "break", "continue", "template", "define", "block"))


class _Token(NamedTuple):
    kind: str
    text: str
    at: int
    spaced: bool  # white space before it: `.a .b` are two operands, `.a.b` is one


def parse(text: str) -> tuple[Node, ...]:
    """The template's nodes, or TemplateError."""
    parser = _Parser(text)
    nodes, ending = parser.block()
    if ending:
        raise TemplateError(f"template: :{parser.line()}: unexpected {{{{{ending}}}}}")
    return nodes


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0
        self._trim = False
        self._tokens: list[_Token] = []
        self._index = 0

    def line(self, at: int | None = None) -> int:
        return self._text.count("\n", 0, self._position if at is None else at) + 1

    def block(self) -> tuple[tuple[Node, ...], str]:
        """Nodes up to the end of the text, or to `end`, `else`, `else if`, ..., which it returns."""
        nodes: list[Node] = []
        while True:
            start = self._text.find("{{", self._position)
            piece = self._text[self._position : start if start >= 0 else len(self._text)]
            if self._trim:
                piece = piece.lstrip()
            if start >= 0 and self._text[start + 2 : start + 3] == "-" and self._text[start + 3 : start + 4].isspace():
                piece = piece.rstrip()
            if piece:
                nodes.append(Text(piece))
            if start < 0:
                self._position = len(self._text)
                return tuple(nodes), ""
            if not self._action(start):
                continue
            word = self._peek().text if self._peek().kind == "word" else ""
            if word in ("end", "else"):
                self._index += 1
                return tuple(nodes), word
            nodes.append(self._node(word))

    def _action(self, start: int) -> bool:
        """Read the tokens of one action; False for a comment."""
        position = start + 2
        if self._text[position : position + 1] == "-" and self._text[position + 1 : position + 2].isspace():
            position += 1
        comment = re.compile(r"\s*/\*.*?\*/\s*(-?)}}", re.DOTALL).match(self._text, position)
        if comment:
            self._position, self._trim = comment.end(), bool(comment[1])
            return False
        self._tokens, self._index, spaced = [], 0, False
        while True:
            match = re.compile(r"(\s-)?}}").match(self._text, position)
            if match:
                self._position, self._trim = match.end(), bool(match[1])
                self._tokens.append(_Token("end", "", match.start(), True))
                return True
            token = _TOKEN.match(self._text, position)
            if token is None:
                rest = self._text[position : position + 1]
                problem = "unclosed action" if not rest else f"unexpected {rest!r} in command"
                raise TemplateError(f"template: :{self.line(start)}: {problem}")
            if token.lastgroup:
                self._tokens.append(_Token(token.lastgroup, token[0], position, spaced))
            spaced = not token.lastgroup
            position = token.end()

    def _node(self, word: str) -> Node:
        if word in ("if", "with", "range"):
            self._index += 1
            return self._branch(word)
        if word in ("break", "continue"):
            self._index += 1
            self._close()
            return Jump(word)
        if word in _KEYWORDS:
            raise TemplateError(f"template: :{self.line()}: {{{{{word}}}}} is not supported")
        output = Output(self._pipeline())
        self._close()
        return output

    def _branch(self, word: str) -> Branch:
        pipeline = self._pipeline()
        self._close()
        body, ending = self.block()
        otherwise: tuple[Node, ...] = ()
        if ending == "else":
            if self._peek().text in ("if", "with"):
                inner = self._peek().text
                self._index += 1
                return Branch(word, pipeline, body, (self._branch(inner),))  # its `end` is ours too
            self._close()
            otherwise, ending = self.block()
        if ending != "end":
            raise TemplateError(f"template: :{self.line()}: unexpected EOF")
        self._close()
        return Branch(word, pipeline, body, otherwise)

    def _pipeline(self) -> Pipeline:
        declared, assign = self._declaration()
        commands = [self._command()]
        while self._peek().text == "|" and self._peek().kind == "punctuation":
            self._index += 1
            commands.append(self._command())
        return Pipeline(tuple(commands), declared, assign)

    def _declaration(self) -> tuple[tuple[str, ...], bool]:
        names, index = [], self._index
        while self._tokens[index].kind == "variable":
            names.append(self._tokens[index].text)
            index += 1
            if self._tokens[index].text in (":=", "=") and self._tokens[index].kind == "punctuation":
                self._index = index + 1
                return tuple(names), self._tokens[index].text == "="
            if self._tokens[index].text != ",":
                break
            index += 1
        return (), False

    def _command(self) -> tuple[Operand, ...]:
        operands: list[Operand] = []
        while (token := self._peek()).kind != "end" and not (token.kind == "punctuation" and token.text in "|),"):
            operands.append(self._operand())
        if not operands:
            raise TemplateError(f"template: :{self.line()}: missing value for command")
        if isinstance(operands[0], Function):
            last = self._tokens[self._index - 1]
            source = self._text[operands[0].at : last.at + len(last.text)]
            operands[0] = operands[0]._replace(source=source)
        return tuple(operands)

    def _operand(self) -> Operand:
        token = self._peek()
        self._index += 1
        if token.kind in ("string", "char", "number"):
            return Literal(_literal(token), token.text, token.at)
        if token.kind == "field":
            return self._chain("", (token.text[1:],), token)
        if token.kind == "dot":
            return Fields("", (), ".", token.at)
        if token.kind == "variable":
            return self._chain(token.text, (), token)
        if token.kind == "word":
            if token.text in ("true", "false", "nil"):
                return Literal({"true": True, "false": False}.get(token.text), token.text, token.at)
            return Function(token.text, token.text, token.at)
        if token.text == "(":
            inner = self._pipeline()
            if self._peek().text != ")":
                raise TemplateError(f"template: :{self.line()}: unclosed left paren")
            self._index += 1
            return self._chain(inner, (), token)
        raise TemplateError(f"template: :{self.line()}: unexpected {token.text!r} in operand")

    def _chain(self, base: "str | Pipeline", names: tuple[str, ...], start: _Token) -> Fields:
        while self._peek().kind == "field" and not self._peek().spaced:
            names += (self._peek().text[1:],)
            self._index += 1
        last = self._tokens[self._index - 1]
        return Fields(base, names, self._text[start.at : last.at + len(last.text)], start.at)

    def _peek(self) -> _Token:
        return self._tokens[self._index]

    def _close(self) -> None:
        if self._peek().kind != "end":
            raise TemplateError(f"template: :{self.line()}: unexpected {self._peek().text!r} in command")


def _literal(token: _Token) -> object:
    if token.kind == "number":
        return int(token.text, 0) if re.fullmatch(r"[+-]?(0[xX][0-9a-fA-F]+|\d+)", token.text) else float(token.text)
    if token.text[0] == "`":
        return token.text[1:-1]
    body = re.sub(r"\\(n|t|r|\\|\"|'|a|b|f|v|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4})", _escape, token.text[1:-1])
    return ord(body) if token.kind == "char" else body


_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


def _escape(match: re.Match[str]) -> str:
    code = match[1]
    return chr(int(code[1:], 16)) if code[0] in "xu" and len(code) > 1 else _ESCAPES.get(code, code)
