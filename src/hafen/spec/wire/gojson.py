"""JSON as Go's encoding/json reads and writes it, for structs that mirror the Engine API.

Writing. A field declared with a plain default is Go's `omitempty`: absent while it holds that default. A field declared
with `shown(factory)` is always written, so that a client sees `null`, `[]`, `{}`, `""`, `0` or `false` where Docker
writes them.

Reading. `decode` matches keys without regard to case, ignores unknown keys, treats `null` as absent, refuses values of
the wrong type with the text of Go's decoder, and integers outside their width. `restore` is for what `encode` wrote.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from typing import Annotated, Final, TypeVar, cast, get_args, get_origin

import msgspec

from hafen.errors import InvalidArgument

T = TypeVar("T")

null: Final = type(None)  # a factory: `shown(null)` is written as `null` while unset


def shown(factory: Callable[[], T], name: str | None = None) -> T:
    """A field that is written even while it holds its default; `name` where the JSON name is not plain Pascal case.

    `shown(str)` is `""`, `shown(null)` `null`, `shown(list[str])` `[]`.
    """
    # msgspec omits a default only where it can compare it: a constant, or exactly `list`, `dict`, `set` as the factory
    return msgspec.field(default_factory=factory, name=name)


def unless_empty(factory: Callable[[], T], name: str | None = None) -> T:
    """An `omitempty` list or dict: `unless_empty(list[str])`."""
    return msgspec.field(default_factory=cast(Callable[[], T], get_origin(factory)), name=name)


def named(name: str, default: T) -> T:
    """An `omitempty` field whose JSON name is not plain Pascal case."""
    return msgspec.field(default=default, name=name)


class Wire(msgspec.Struct, frozen=True, omit_defaults=True, rename="pascal"):
    """Base of every struct of the Engine API."""


StrSlice = Annotated[list[str], msgspec.Meta(extra_json_schema={"strslice": True})]
UInt16 = Annotated[int, msgspec.Meta(title="uint16", ge=0, le=(1 << 16) - 1)]
UInt32 = Annotated[int, msgspec.Meta(title="uint32", ge=0, le=(1 << 32) - 1)]
UInt64 = Annotated[int, msgspec.Meta(title="uint64")]  # msgspec takes no bound above 2^63
_WIDTHS: Final = {
    "int64": (-(1 << 63), (1 << 63) - 1),
    "uint16": (0, (1 << 16) - 1),
    "uint32": (0, (1 << 32) - 1),
    "uint64": (0, (1 << 64) - 1),
}

Reader = Callable[[object, str], object]  # (decoded JSON, Go path of the field) -> value of the field


def encode(value: object) -> bytes:
    """The JSON text of a struct, or of a list or dict of structs."""
    return msgspec.json.encode(value, enc_hook=str)  # digests are text, which msgspec does not see of a subclass


def restore(text: bytes, cls: type[T]) -> T:
    """The value that `encode` wrote as `text`; msgspec.DecodeError where it is something else."""
    return msgspec.json.decode(text, type=cls)


def decode(body: bytes, cls: type[T]) -> T:
    """A client's JSON as `cls`; InvalidArgument with the text of Docker's decoder where it does not fit."""
    return read(parse(body), cls)


def parse(body: bytes) -> object:
    """A client's JSON text as plain values; InvalidArgument where it is not one JSON value."""
    if not body.strip(b" \t\r\n"):
        raise InvalidArgument("invalid JSON: got EOF while reading request body")
    try:
        return cast(object, msgspec.json.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        text = str(error)
        if "trailing characters" in text:
            raise InvalidArgument("unexpected content after JSON") from error
        if "truncated" in text:
            raise InvalidArgument("invalid JSON: unexpected EOF") from error
        raise InvalidArgument(f"invalid JSON: {text}") from error
    except RecursionError as error:
        raise InvalidArgument("invalid JSON: exceeded max depth") from error


def read(value: object, cls: type[T]) -> T:
    """Plain decoded JSON as `cls`; InvalidArgument where a type is wrong."""
    if value is None:
        value = {}  # Go leaves the zero value
    return cast(T, _reader(cls)(value, ""))


_READERS: dict[object, Reader] = {}


def _reader(annotation: object) -> Reader:
    """The reader of a type, made once."""
    found = _READERS.get(annotation)
    if found is None:
        found = _READERS[annotation] = _make_reader(annotation)
    return found


def _make_reader(annotation: object) -> Reader:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _annotated_reader(args[0], args[1])
    if origin in (types.UnionType, typing.Union):
        return _reader(next(arg for arg in args if arg is not type(None)))
    if origin is list:
        return _list_reader(args[0])
    if origin is dict:
        return _dict_reader(args[1])
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return _struct_reader(annotation)
    if annotation is object:
        return lambda value, path: value
    return {str: _read_string, int: _integer_reader("int64"), bool: _read_bool, float: _read_float}[
        cast(type, annotation)
    ]


def _annotated_reader(inner: object, meta: object) -> Reader:
    if isinstance(meta, msgspec.Meta):
        if meta.extra_json_schema:
            return _words_reader(_list_reader(str))
        if meta.title in _WIDTHS:
            return _integer_reader(meta.title)
    return _reader(inner)


def _struct_reader(cls: type[msgspec.Struct]) -> Reader:
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = {
        field.encode_name.casefold(): (field.name, field.encode_name, _reader(hints[field.name]))
        for field in msgspec.structs.fields(cls)
    }
    owner = cls.__name__

    def read_struct(value: object, path: str) -> object:
        if not isinstance(value, dict):
            raise _wrong(value, path, owner)
        found: dict[str, object] = {}
        for key, item in value.items():
            known = fields.get(key.casefold())
            if known is None or item is None:
                continue
            name, shown_name, read_field = known
            found[name] = read_field(item, f"{path or owner}.{shown_name}")
        return cls(**found)

    return read_struct


def _list_reader(item_type: object) -> Reader:
    def read_list(value: object, path: str) -> object:
        if not isinstance(value, list):
            raise _wrong(value, path, _go_name(list, item_type))
        read_item = _reader(item_type)
        zero = _zero(item_type)
        return [zero() if item is None else read_item(item, path) for item in value]

    return read_list


def _dict_reader(item_type: object) -> Reader:
    def read_dict(value: object, path: str) -> object:
        if not isinstance(value, dict):
            raise _wrong(value, path, _go_name(dict, item_type))
        read_item = _reader(item_type)
        zero = _zero(item_type)
        return {str(key): zero() if item is None else read_item(item, path) for key, item in value.items()}

    return read_dict


def _zero(annotation: object) -> Callable[[], object]:
    """What Go puts for a `null` inside a list or map: nil where the type has it, else the zero value."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _zero(get_args(annotation)[0])
    if origin in (types.UnionType, typing.Union) or annotation is object:
        return null
    return cast(Callable[[], object], origin or annotation)


def _words_reader(read_list: Reader) -> Reader:
    def read_words(value: object, path: str) -> object:
        if isinstance(value, str):
            return [value]
        if not isinstance(value, list):
            raise _wrong(value, path, "string")
        return read_list(value, path)

    return read_words


def _integer_reader(width: str) -> Reader:
    low, high = _WIDTHS[width]

    def read_integer(value: object, path: str) -> object:
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        raise _wrong(value, path, width, exact=True)

    return read_integer


def _read_string(value: object, path: str) -> object:
    if isinstance(value, str):
        return value
    raise _wrong(value, path, "string")


def _read_bool(value: object, path: str) -> object:
    if isinstance(value, bool):
        return value
    raise _wrong(value, path, "bool")


def _read_float(value: object, path: str) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise _wrong(value, path, "float64")


def _wrong(value: object, path: str, wanted: str, exact: bool = False) -> InvalidArgument:
    """Go's UnmarshalTypeError; numbers are quoted only where a number was wanted."""
    if isinstance(value, bool):
        kind = "bool"
    elif isinstance(value, int | float):
        kind = f"number {value}" if exact else "number"
    else:
        kind = "string" if isinstance(value, str) else "array" if isinstance(value, list) else "object"
    where = f"struct field {path}" if path else "value"
    return InvalidArgument(f"invalid JSON: json: cannot unmarshal {kind} into Go {where} of type {wanted}")


def _go_name(container: type, item: object) -> str:
    inner = {str: "string", int: "int64", bool: "bool", float: "float64"}.get(cast(type, item), "")
    if not inner:
        inner = item.__name__ if isinstance(item, type) else "interface {}"
    return f"[]{inner}" if container is list else f"map[string]{inner}"
