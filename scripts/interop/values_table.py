#!/usr/bin/env python3
"""The value table of a chart's README.md, made from the "# --" comments of its values.yaml.

    values_table.py CHART            fails, with the difference, unless the README has exactly this table
    values_table.py --write CHART    writes it

It also fails when a value has no description, or a description no value. It never judges whether a description is true.
"""

import difflib
import json
import pathlib
import re
import sys

import yaml

BEGIN = re.compile(r"<!-- values: begin .*-->\n")
END = "<!-- values: end -->"


def descriptions(text):
    """Path of each described value -> its description, by the indentation of values.yaml."""
    found, path, pending = {}, [], None
    for number, line in enumerate(text.splitlines(), 1):
        comment = re.match(r" *# -- (.+)", line)
        entry = re.match(r"( *)([A-Za-z_][\w.-]*):", line)
        if comment:
            if pending:
                raise SystemExit(f"values.yaml:{number}: two descriptions for one value")
            pending = comment.group(1)
        elif entry:
            path = path[: len(entry.group(1)) // 2] + [entry.group(2)]
            if pending:
                found[".".join(path)] = pending
            pending = None
    return found


def rows(value, described, path=()):
    """One row for each described value; what lies below it is its default."""
    name = ".".join(path)
    if name in described:
        shown = json.dumps(value, ensure_ascii=False)
        yield f"| `{name}` | `{shown}` | {described.pop(name)} |"
    elif isinstance(value, dict) and value:
        for key, below in value.items():
            yield from rows(below, described, (*path, key))
    else:
        raise SystemExit(f'values.yaml: {name} has no description (a comment above it that begins with "# -- ")')


def main(arguments):
    write = arguments[:1] == ["--write"]
    chart = pathlib.Path(arguments[-1])
    text = (chart / "values.yaml").read_text()
    described = descriptions(text)
    lines = ["| value | default | meaning |", "|---|---|---|", *rows(yaml.safe_load(text), described)]
    if described:
        raise SystemExit(f"values.yaml: descriptions of no value: {', '.join(described)}")
    table = "\n".join(lines) + "\n"

    readme = chart / "README.md"
    old = readme.read_text()
    begin = BEGIN.search(old)
    if not begin or END not in old:
        raise SystemExit(f"{readme}: the lines around the value table are gone")
    start, end = begin.end(), old.index(END)
    if old[start:end] == table:
        print(f"{readme}: {len(lines) - 2} values, as in values.yaml")
    elif write:
        readme.write_text(old[:start] + table + old[end:])
    else:
        sys.stdout.writelines(
            difflib.unified_diff(
                old[start:end].splitlines(True), table.splitlines(True), str(readme), "values.yaml", n=0
            )
        )
        raise SystemExit(f"{readme}: the value table differs from values.yaml: values_table.py --write {chart}")


main(sys.argv[1:])
