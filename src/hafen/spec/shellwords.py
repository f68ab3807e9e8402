"""Words of Dockerfile instructions: taken apart, and what `$name`, quotes and backslashes in them mean; pure.

As BuildKit's `parser/line_parsers.go` and `shell/lex.go`. A Dockerfile is no shell: what is unknown is empty, words are
not split again, and there are no commands in them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from hafen.errors import InvalidArgument

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]+|[@*#?\-$!0]")


def split(text: str) -> list[str]:
    """The words, with the quotes and backslashes that hold them together."""
    words: list[str] = []
    word, quote, index = "", "", 0
    while index < len(text):
        character = text[index]
        index += 1
        if character == "\\" and quote != "'":
            word += text[index - 1 : index + 1] if index < len(text) else ""  # one at the very end is nothing
            index += 1
        elif not quote and character.isspace():
            words += [word] if word else []
            word = ""
        else:
            word += character
            if quote == character:
                quote = ""
            elif not quote and character in "'\"":
                quote = character
    return [*words, word] if word else words


def expand(word: str, variables: Mapping[str, str]) -> str:
    """What the word means, without its quotes; InvalidArgument where they do not match."""
    try:
        return _Expansion(word, variables).read()
    except InvalidArgument as error:
        quoted = word.replace("\\", "\\\\").replace('"', '\\"')
        raise InvalidArgument(f'failed to process "{quoted}": {error.message}') from None


@dataclass(slots=True)
class _Expansion:
    text: str
    variables: Mapping[str, str]
    index: int = field(default=0, init=False)

    def read(self, end: str = "") -> str:
        """As far as `end`, or all of it."""
        found = ""
        while self.index < len(self.text):
            character = self._take()
            if character == end:
                return found
            if character == "'":
                found += self._single_quoted()
            elif character == '"':
                found += self._double_quoted()
            elif character == "$":
                found += self._variable()
            elif character != "\\":
                found += character
            elif self.index < len(self.text):
                found += self._take()
        if end:
            raise InvalidArgument(f"unexpected end of statement while looking for matching {end}")
        return found

    def _take(self) -> str:
        self.index += 1
        return self.text[self.index - 1]

    def _single_quoted(self) -> str:
        inside, quote, _ = self.text[self.index :].partition("'")
        if not quote:
            raise InvalidArgument("unexpected end of statement while looking for matching single-quote")
        self.index += len(inside) + 1
        return inside

    def _double_quoted(self) -> str:
        found = ""
        while self.index < len(self.text):
            character = self._take()
            if character == '"':
                return found
            if character == "$":
                found += self._variable()
            elif character == "\\" and self.text[self.index : self.index + 1] in ('"', "$", "\\"):
                found += self._take()
            else:
                found += character
        raise InvalidArgument("unexpected end of statement while looking for matching double-quote")

    def _variable(self) -> str:
        """After a dollar: `name`, or `{name}` with `-`, `+` or `?` and a word, or with a colon before them."""
        braced = self.text.startswith("{", self.index)
        name = _NAME.match(self.text, self.index + braced)
        if not braced:
            self.index = name.end() if name else self.index
            return self.variables.get(name[0], "") if name else "$"
        if name is None:
            raise InvalidArgument("syntax error: bad substitution")
        self.index = name.end()
        value = self.variables.get(name[0])
        if self.text.startswith("}", self.index):
            self.index += 1
            return value or ""
        modifier = self.text[self.index : self.index + 2].removeprefix(":")[:1]
        if modifier not in tuple("-+?"):
            raise InvalidArgument(f"unsupported modifier ({modifier}) in substitution")
        colon = self.text[self.index] == ":"
        self.index += 1 + colon
        other = self.read("}")
        is_set = bool(value) if colon else value is not None
        if modifier == "?" and not is_set:
            raise InvalidArgument(f"{name[0]}: {other or 'not allowed to be unset'}")
        return other if (modifier == "+") == is_set and modifier != "?" else value or ""
