"""`NamedTuple` for the lean processes: typing's, at a tenth of what defining one costs.

typing.NamedTuple compiles a constructor for each class, 0.1 ms; the lean processes define a hundred classes and are to
start in 40 ms. Type checkers see typing's; at run time it is the same but for speed: constructing by keyword is slower.
"""

from operator import itemgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import NamedTuple as NamedTuple
else:
    _GETTERS = [property(itemgetter(index)) for index in range(64)]

    class _Definition(type):
        """Gives the classes right below NamedTuple their fields; further down they are inherited."""

        def __new__(mcs, name, bases, body):
            if bases == (tuple,) or bases[0]._fields:
                return super().__new__(mcs, name, bases, body)
            fields = tuple(body.get("__annotations__", ()))
            defaults = {field: body[field] for field in fields if field in body}
            if list(defaults) != list(fields[len(fields) - len(defaults) :]):
                raise TypeError(f"{name}: a field without default follows one with a default")
            body.update(zip(fields, _GETTERS[: len(fields)], strict=True))
            body.update(__slots__=(), __match_args__=fields, _fields=fields, _field_defaults=defaults)
            return super().__new__(mcs, name, bases, body)

    class NamedTuple(tuple, metaclass=_Definition):
        __slots__ = ()
        _fields = ()
        _field_defaults = {}  # noqa: RUF012 - never changed

        def __new__(cls, *values, **named):
            if named or len(values) != len(cls._fields):
                values = _complete(cls, values, named)
            return tuple.__new__(cls, values)

        @classmethod
        def _make(cls, values):
            return cls(*values)

        def _replace(self, **changes):
            changed = [changes.pop(field, value) for field, value in zip(self._fields, self, strict=True)]
            if changes:
                raise ValueError(f"Got unexpected field names: {list(changes)!r}")
            return tuple.__new__(type(self), changed)

        def _asdict(self):
            return dict(zip(self._fields, self, strict=True))

        def __repr__(self):
            shown = ", ".join(f"{field}={value!r}" for field, value in zip(self._fields, self, strict=True))
            return f"{type(self).__name__}({shown})"

        def __getnewargs__(self):
            return tuple(self)

    def _complete(cls, values, named):
        """All values in order; TypeError as a function with these parameters would raise it."""
        fields = cls._fields
        if len(values) > len(fields):
            raise TypeError(f"{cls.__name__}() takes {len(fields)} arguments but {len(values)} were given")
        given = dict(zip(fields, values, strict=False))
        for field in named:
            if field not in fields:
                raise TypeError(f"{cls.__name__}() got an unexpected keyword argument {field!r}")
            if field in given:
                raise TypeError(f"{cls.__name__}() got multiple values for argument {field!r}")
        given = {**cls._field_defaults, **given, **named}
        missing = [field for field in fields if field not in given]
        if missing:
            raise TypeError(f"{cls.__name__}() missing arguments: {', '.join(missing)}")
        return [given[field] for field in fields]
