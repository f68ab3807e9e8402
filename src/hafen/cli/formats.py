"""The table, `--format` and `-q` forms that every listing has."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence

from hafen.cli.output import out, table
from hafen.errors import InvalidArgument
from hafen.spec.evaluate import Row, Template, to_json
from hafen.spec.template import TemplateError


def show(
    rows: Iterable[Row],
    columns: Mapping[str, str],
    default: Sequence[str],
    form: str,
    *,
    quiet: str = "",
    beforehand: bool = False,
) -> None:
    """Print rows as `form` says. `columns` are the headers by field, `default` the fields of the plain table.

    `quiet` names the one field that `-q` prints. `beforehand`: the command looks at its template before it asks, as
    docker's `ps` does, and has other words for what is wrong with it.
    """
    if quiet and form in ("", "table"):
        for row in rows:
            out(str(row[quiet]))
        return
    if form == "json":
        for row in rows:
            out(to_json(row))
        return
    if form in ("", "table"):
        _table(rows, columns, default)
        return
    template = unescape(form)
    try:
        if template.startswith("table"):
            _template_table(rows, columns, template.removeprefix("table").strip(), beforehand)
            return
        parsed = Template(template)
    except TemplateError as error:
        raise parse_failure(error, beforehand) from None
    for row in rows:
        out(evaluated(parsed, row, beforehand))


def evaluated(template: Template, data: object, beforehand: bool) -> str:
    try:
        return template.render(data)
    except TemplateError as error:
        if not beforehand or "not defined" in error.message:
            raise parse_failure(error, beforehand) from None
        raise InvalidArgument(f"failed to execute template: {error}") from None


def parse_failure(error: TemplateError, beforehand: bool) -> InvalidArgument:
    return InvalidArgument(f"{'failed to parse template' if beforehand else 'template parsing error'}: {error}")


def unescape(form: str) -> str:
    r"""A shell hands `\t` and `\n` on as two characters."""
    return form.replace("\\t", "\t").replace("\\n", "\n")


def _table(rows: Iterable[Row], columns: Mapping[str, str], default: Sequence[str]) -> None:
    lines = [[_cell(row[name]) for name in default] for row in rows]
    sys.stdout.write(table([columns[name] for name in default], lines))


def _template_table(rows: Iterable[Row], columns: Mapping[str, str], text: str, beforehand: bool) -> None:
    """The header is the template itself evaluated on the names of the columns, as docker makes it."""
    template = Template(text)
    lines = [evaluated(template, row, beforehand) for row in rows]
    names: dict[str, object] = dict(columns)
    names["Label"] = _label_header
    header = evaluated(template, Row("formatter.SubHeaderContext", names), beforehand)
    cells = [line.split("\t") for line in [header, *lines]]
    sys.stdout.write(table(cells[0], cells[1:]))


def _label_header(name: str) -> str:
    """docker: the last part of the label's name, with blanks for dots and dashes."""
    return name.rpartition(".")[2].replace("-", " ").replace("_", " ")


def _cell(value: object) -> str:
    return str(value() if callable(value) else value)


Field = Callable[[str], str]


def label_of(labels: Mapping[str, str] | None) -> Field:
    return lambda name: (labels or {}).get(name, "")


def label_text(labels: Mapping[str, str] | None) -> str:
    return ",".join(f"{name}={value}" for name, value in sorted((labels or {}).items()))
