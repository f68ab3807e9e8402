import pytest

from hafen.spec.evaluate import Row, render
from hafen.spec.template import TemplateError

DATA: dict[str, object] = {
    "Name": "/db",
    "Id": "0123456789",
    "N": 3,
    "Zero": 0,
    "F": 1.5,
    "Big": 1e9,
    "On": True,
    "Off": False,
    "Null": None,
    "List": ["a", "b"],
    "Empty": [],
    "Labels": {"x.y": "1", "z": "2"},
    "Deep": {"Sub": {"Leaf": "l"}},
    "Items": [{"P": 1}, {"P": 2}],
}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("", ""),
        ("plain", "plain"),
        ("{{.Name}}", "/db"),
        ("{{ .Name }}x", "/dbx"),
        ("{{.ID}}", "0123456789"),
        ("{{.Deep.Sub.Leaf}}", "l"),
        ("{{.N}} {{.F}} {{.Big}} {{.On}}", "3 1.5 1000000000 true"),
        ("{{.List}} {{.Labels}}", "[a b] map[x.y:1 z:2]"),
        ("{{.Null}}", "[]"),
        ("{{.Labels.nosuch}}", "<no value>"),
        ('{{index .Labels "x.y"}}', "1"),
        ('{{index .Labels "nosuch"}}', ""),
        ("{{index .List 1}}", "b"),
        ("{{(index .Items 1).P}}", "2"),
        ('{{join .List ","}}', "a,b"),
        ('{{join .List "-" | upper}}', "A-B"),
        ("{{.Name | len}}", "3"),
        ("{{json .List}}", '["a","b"]'),
        ("{{json .Deep}}", '{"Sub":{"Leaf":"l"}}'),
        ("{{if .On}}y{{else}}n{{end}}{{if .Empty}}y{{else}}n{{end}}", "yn"),
        ("{{if .Zero}}a{{else if .On}}b{{else}}c{{end}}", "b"),
        ("{{if and .On (not .Off)}}y{{end}}", "y"),
        ("{{or .Zero .Empty .Name}}", "/db"),
        ("{{range .List}}<{{.}}>{{end}}", "<a><b>"),
        ("{{range $i, $e := .List}}{{$i}}{{$e}}{{end}}", "0a1b"),
        ("{{range $k, $v := .Labels}}{{$k}}={{$v}};{{end}}", "x.y=1;z=2;"),
        ("{{range .Empty}}x{{else}}none{{end}}", "none"),
        ("{{range .List}}{{.}}{{break}}{{end}}", "a"),
        ('{{range .List}}{{if eq . "a"}}{{continue}}{{end}}{{.}}{{end}}', "b"),
        ("{{with .Deep.Sub}}{{.Leaf}}{{$.Name}}{{end}}", "l/db"),
        ("{{with .Empty}}x{{else}}y{{end}}", "y"),
        ("{{$x := .N}}{{$x}}{{$x = 4}}{{$x}}", "34"),
        ("a  {{- .N -}}  b", "a3b"),
        ("{{/* a comment */}}x", "x"),
        ('{{printf "%s|%5d|%-4s|%q|%v|%%" .Name .N "a" "q" .List}}', '/db|    3|a   |"q"|[a b]|%'),
        ('{{print "a" 1 2 "b"}}', "a1 2b"),
        ('{{println "a" 1}}', "a 1\n"),
        ('{{"lit" | upper}}{{`raw\\n`}}', "LITraw\\n"),
        ('{{eq .N 3}} {{ne .N 3}} {{lt .N 5}} {{ge .N 3}} {{eq .Name "x" "/db"}}', "true false true true true"),
        ("{{slice .Id 2 4}}{{slice .Id 8}}", "2389"),
        ('{{split "a/b" "/"}}{{title "ab cd"}}{{lower "AB"}}{{pad "x" 1 2}}{{truncate "abc" 2}}', "[a b]Ab Cdab x  ab"),
        ("line\n{{.N}}\n", "line\n3\n"),
    ],
)
def test_go_templates(template: str, expected: str) -> None:
    assert render(template, DATA) == expected


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{.Foo}}", 'template: :1:2: executing "" at <.Foo>: map has no entry for key "Foo"'),
        ("{{.Deep.Foo}}", 'template: :1:7: executing "" at <.Deep.Foo>: map has no entry for key "Foo"'),
        ("a\n{{.Foo}}", 'template: :2:2: executing "" at <.Foo>: map has no entry for key "Foo"'),
        ("{{index .List 9}}", "at <index .List 9>: error calling index: index out of range: 9"),
        ("{{nope .N}}", 'function "nope" not defined'),
        ("{{", "template: :1: unclosed action"),
        ("{{.N", "template: :1: unclosed action"),
        ("{{if .On}}", "template: :1: unexpected EOF"),
        ("{{end}}", "unexpected {{end}}"),
        ("{{.N ^}}", "unexpected '^' in command"),
        ("{{(.N}}", "unclosed left paren"),
        ("{{$nope}}", 'undefined variable "$nope"'),
        ('{{template "x"}}', "is not supported"),
        ("{{}}", "missing value for command"),
        ("{{.Name.Sub}}", "can't evaluate field Sub in type string"),
        ("{{.N 1}}", "has arguments"),
    ],
)
def test_mistakes(template: str, message: str) -> None:
    with pytest.raises(TemplateError) as caught:
        render(template, DATA)
    assert message in caught.value.message


def test_rows_have_functions_and_a_go_type() -> None:
    row = Row("*formatter.X", {"ID": "a<b", "Label": lambda name: f"[{name}]"})
    assert render('{{.ID}}{{.Label "x"}}', row) == "a<b[x]"
    assert render("{{json .}}", row) == '{"ID":"a\\u003cb"}'
    with pytest.raises(TemplateError, match=r"can't evaluate field Foo in type \*formatter.X"):
        render("{{.Foo}}", row)
