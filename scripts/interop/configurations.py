#!/usr/bin/env python3
"""configurations.py TRUSTFLEET AGENT FILE...: the real programs take the configurations in rendered manifests.

The controller has no verb that only checks. So `migrate` reads the file, with a database that nobody answers for: a
wrong configuration and an absent database are different errors. The same file with one unknown key must be refused, or
this check would prove nothing. And each key of the operator guide (which a test holds to the programs) is set by the chart
in some way.
"""

import pathlib
import re
import subprocess
import sys
import tempfile
import tomllib

import yaml

from pod import Pod

# In plain text, so that no roots are needed that only a cluster has.
NOWHERE = "postgres://trustfleet_owner@127.0.0.1:1/trustfleet?sslmode=disable"
URLS = {"API_URL": NOWHERE, "SYSTEM_URL": NOWHERE, "OWNER_URL": NOWHERE, "URL": "amqp://u:p@127.0.0.1:1/%2f",
        "LOG_URL": "amqp://u:p@127.0.0.1:1/%2f", "MANAGEMENT_URL": "http://u:p@127.0.0.1:1"}


GUIDE = pathlib.Path(__file__).resolve().parent.parent.parent / "docs/operator-guide.md"
# The chart hands the join token over as a file. A pod sees no token of its node, and what reads its keys has no passphrase.
# A certificate for https CAs is one agent's own, not that of a set of them; so is a serial number or a factory identity.
NOT_BY_CHART = {"join_token", "keys.passphrase_file", "keys.pkcs11_module", "keys.pkcs11_token", "keys.pkcs11_pin_file",
                "ca_tls.cert_file", "ca_tls.key_file", "announce", "announce.tenant", "announce.controller_key",
                "factory_identity", "factory_identity.certificate_file", "factory_identity.key_file", "factory_identity.ca_file",
                "announce.serial", "announce.certificate_file", "announce.key_file"}


class AnySecret(dict):
    """Every Secret exists, with whatever key is asked for."""

    def __contains__(self, key):
        return key[0] == "Secret" or super().__contains__(key)

    def __missing__(self, key):
        return {"data": AnyKey()}


class AnyKey(dict):
    def __missing__(self, key):
        return ""

    def items(self):
        return []


class CheckedPod(Pod):
    def data(self, kind, name):
        return AnyKey() if kind == "Secret" else super().data(kind, name)

    def value(self, variable, node):
        if "secretKeyRef" in variable.get("valueFrom", {}):
            return URLS[variable["name"].rsplit("__", 1)[1]]
        return super().value(variable, node)


def run(pod, binary, arguments, **more):
    done = subprocess.run(
        [binary, *arguments], env={**pod.environment, **more}, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout + done.stderr


def controller(pod, binary):
    config = pod.arguments()[-1]
    arguments = ["migrate", "--config", config]
    code, said = run(pod, binary, arguments, TRUSTFLEET__DATABASE__OWNER_URL=NOWHERE)
    if code == 0 or "owner cannot be connected" not in said:
        yield f"refused: {said.strip()[-500:]}"
    with open(config, "a") as file:
        file.write("\ncolour = 1\n")
    code, said = run(pod, binary, arguments, TRUSTFLEET__DATABASE__OWNER_URL=NOWHERE)
    if code == 0 or "the configuration is wrong" not in said or "colour" not in said:
        yield f"an unknown key was not refused: {said.strip()[-500:]}"


def agent(pod, binary):
    config = pod.arguments()[-1]
    code, said = run(pod, binary, ["status", "--config", config])
    if code != 0:
        yield f"refused: {said.strip()[-500:]}"
    with open(config, "a") as file:
        file.write("\ncolour = 1\n")
    code, said = run(pod, binary, ["status", "--config", config])
    if code == 0 or "colour" not in said:
        yield f"an unknown key was not refused: {said.strip()[-500:]}"


def guide_keys(title):
    section = re.search(rf"^## {title}$(.*?)^## ", GUIDE.read_text(), re.M | re.S).group(1)
    rows = re.findall(r"^\| (`.*?) \|", section, re.M)
    return {key for row in rows for key in re.findall(r"`([a-z0-9_.]+)`", row)}


def rendered_keys(pod):
    tree = tomllib.loads(pathlib.Path(pod.arguments()[-1]).read_text())
    for name, below in tree.items():
        if isinstance(below, list) and below and isinstance(below[0], dict):
            # An array of tables: its own name, and the keys of each.
            yield name
            below = {key: None for table in below for key in table}
        yield from ([f"{name}.{key}" for key in below] if isinstance(below, dict) else [name])
    for variable in pod.environment:
        if variable.startswith("TRUSTFLEET__"):
            yield variable.removeprefix("TRUSTFLEET__").lower().replace("__", ".")
        elif variable.startswith("TRUSTFLEET_AGENT_"):
            yield variable.removeprefix("TRUSTFLEET_AGENT_").lower()


def main(trustfleet, trustfleet_agent, *files):
    faults, count, keys = [], 0, {"agent": set(), "controller": set()}
    for file in map(pathlib.Path, files):
        documents = [d for d in yaml.safe_load_all(file.read_text()) if d]
        objects = AnySecret({(d["kind"], d["metadata"]["name"]): d for d in documents if d["kind"] == "ConfigMap"})
        objects["ConfigMap", "pgbouncer"] = objects["ConfigMap", "roots"] = {"data": AnyKey()}
        for document in documents:
            if document["kind"] not in ("Deployment", "DaemonSet", "Job"):
                continue
            for node in ["worker-1", "worker-2.example.internal"]:
                with tempfile.TemporaryDirectory() as folder:
                    kind = document["kind"]
                    pod = CheckedPod(document, objects, folder, node)
                    keys["agent" if kind == "DaemonSet" else "controller"].update(rendered_keys(pod))
                    found = agent(pod, trustfleet_agent) if kind == "DaemonSet" else controller(pod, trustfleet)
                    faults += [f"{file.name}: {kind}: {fault}" for fault in found]
                    count += 1
    for program, rendered in keys.items():
        missing = guide_keys(f"The {program}'s configuration") - rendered - NOT_BY_CHART
        faults += [f"no value of the chart sets {key} of the {program}" for key in sorted(missing)]
    print("\n".join(faults) if faults else f"{count} rendered configurations were taken, and refused with one key more")
    sys.exit(bool(faults))


main(*sys.argv[1:])
