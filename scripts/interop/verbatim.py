#!/usr/bin/env python3
"""verbatim.py RENDERED...: rules and dashboards leave the chart as they are in dashboards/, with all their templates.

Only the beginning of each runbook_url may differ: the value prometheusRule.runbookBaseUrl. It speaks to no cluster.
"""

import pathlib
import sys

import yaml

HERE = pathlib.Path(__file__).resolve().parents[2] / "dashboards"


def without_base(groups):
    for rule in (rule for group in groups for rule in group["rules"]):
        rule["annotations"]["runbook_url"] = rule["annotations"]["runbook_url"].rsplit("/", 1)[1]
    return groups


def main(files):
    manifests = [found for file in files for found in yaml.safe_load_all(open(file)) if found]
    wanted = [group for file in sorted(HERE.glob("rules/*.yaml")) for group in yaml.safe_load(file.read_text())["groups"]]
    rules = [found for found in manifests if found["kind"] == "PrometheusRule"]
    for found in rules:
        if without_base(found["spec"]["groups"]) != without_base(wanted):
            raise SystemExit("the rendered PrometheusRule is not what dashboards/rules says")
    boards = 0
    for found in manifests:
        if found["kind"] == "ConfigMap" and "-dashboard-" in found["metadata"]["name"]:
            for name, text in found["data"].items():
                boards += 1
                if text.rstrip("\n") != (HERE / name).read_text().rstrip("\n"):
                    raise SystemExit(f"the rendered {name} is not dashboards/{name}")
    if not rules or boards != len(list(HERE.glob("*.json"))):
        raise SystemExit(f"{len(rules)} PrometheusRules and {boards} dashboards were rendered")
    print(f"{sum(len(group['rules']) for group in wanted)} alerts and {boards} dashboards are rendered word for word")


main(sys.argv[1:])
