#!/usr/bin/env python3
"""schema.py CHART: values.schema.json knows each value of values.yaml, nothing else, and is closed everywhere.

An object without `additionalProperties` lets a misspelt value pass without effect. Only maps whose keys belong to the
user (labels, annotations, quantities) and whole objects of Kubernetes (tolerations, volumes) are left to the cluster.
"""

import json
import pathlib
import sys

import yaml


def closed(schema, path=""):
    """Paths of objects with properties that let others pass."""
    if isinstance(schema, dict):
        if "properties" in schema and "type" in schema and schema.get("additionalProperties") is not False:
            yield path or "the root"
        for key, below in schema.items():
            yield from closed(below, f"{path}/{key}")
    elif isinstance(schema, list):
        for index, below in enumerate(schema):
            yield from closed(below, f"{path}/{index}")


def differences(schema, value, path=""):
    """Values without a schema, and schemas without a value."""
    if "properties" not in schema or not isinstance(value, dict) or "$ref" in schema:
        return
    known, present = set(schema["properties"]) - {"global"}, set(value)
    if path.endswith("resources"):
        known &= present
    for key in sorted(known ^ present):
        yield f"{path}.{key}".strip(".") + (" has no value" if key in known else " has no schema")
    for key in sorted(known & present):
        yield from differences(schema["properties"][key], value[key], f"{path}.{key}")


chart = pathlib.Path(sys.argv[1])
schema = json.loads((chart / "values.schema.json").read_text())
values = yaml.safe_load((chart / "values.yaml").read_text())
faults = [f"open: {path}" for path in closed(schema)] + list(differences(schema, values))
for fault in faults:
    print(f"{chart}/values.schema.json: {fault}")
if not faults:
    print(f"{chart}/values.schema.json: closed, and the same keys as values.yaml")
sys.exit(bool(faults))
