"""Where keys stand in a TOML text."""

from mtactl.toml_lines import find_lines

TEXT = (
    r'''
title = "a # no comment = here"   # a comment [not.a.table]
"quoted.key".'other' = 'c:\'
text = """
[nor.this]
key = 1 \""" still
"""
raw = \
'''.replace("raw = \\\n", "raw = '''\nx = 1\n''''\n")
    + r"""
[table."*.example.com".inner]
list = [ "a]", # ]
  'b',
  [1,
   2], { x = 1, y.z = [
     3 ] },
]
inline = { a = "}", b = { c = true } }

[[items]]
a = 1
[items.sub]
b = 2
[[items]]
a = 3
  [[items.more]]
  c = 4
[items.sub]
b = 5
"""
)


def test_every_kind_of_value():
    """A string or a bracket that is not passed over whole puts all later lines, and so the complaints, elsewhere."""
    lines = find_lines(TEXT)
    first = TEXT.split("\n")

    def at(*key):
        return first[lines[key] - 1].strip()

    assert at("title").startswith("title")
    assert at("quoted.key", "other").startswith('"quoted.key"')
    assert at("text") == 'text = """'
    assert at("raw") == "raw = '''"
    assert ("nor", "this") not in lines
    assert ("x",) not in lines
    assert at("table", "*.example.com", "inner").startswith("[table")
    table = ("table", "*.example.com", "inner")
    assert at(*table, "list").startswith("list")
    assert at(*table, "list", 1) == "'b',"
    assert at(*table, "list", 2) == "[1,"
    assert at(*table, "list", 2, 1).startswith("2]")
    assert at(*table, "list", 3, "y", "z").startswith("2]")
    assert at(*table, "list", 3, "y", "z", 0).startswith("3 ]")
    assert at(*table, "inline", "b", "c").startswith("inline")
    assert at("items", 0, "a") == "a = 1"
    assert at("items", 0, "sub", "b") == "b = 2"
    assert at("items", 1, "a") == "a = 3"
    assert at("items", 1, "more", 0, "c") == "c = 4"
    assert at("items", 1, "sub", "b") == "b = 5"


def test_carriage_returns():
    """Files that were edited on Windows have the same lines."""
    assert find_lines("[a]\r\nb = [\r\n1,\r\n2]\r\n")["a", "b", 1] == 4
