#!/usr/bin/env python3
"""manifests.py OLDEST CRD_FOLDER FILE...: rendered manifests are valid, and keep what the chart promises.

Built-in kinds are validated strictly (no unknown field) at version OLDEST and at the newest one that the validator
knows; other kinds are written to CRD_FOLDER for a validator of their own, and a kind that nobody knows is a fault.
"""

import json
import pathlib
import re
import sys

import kubernetes_validate
import yaml

CRDS = {"ServiceMonitor", "PrometheusRule"}
WORKLOADS = {"Deployment", "DaemonSet", "Job"}
# Kubelet mounts a Secret's and a ConfigMap's files; one of them in an environment variable must be meant.
DATABASE_OR_BROKER = re.compile(r"^TRUSTFLEET__(DATABASE|BROKER)__\w*URL$")


def faults_of(document, versions, crd_folder, name):
    kind = document["kind"]
    if kind in CRDS:
        (crd_folder / f"{name}.{kind}.json").write_text(json.dumps(document))
    else:
        for version in versions:
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                path = "/".join(str(part) for part in error.path)
                yield f"Kubernetes {version}: {path}: {error.message}"
            except kubernetes_validate.SchemaNotFoundError:
                yield f"Kubernetes {version} knows no {document['apiVersion']} {kind}"
    if "namespace" not in document["metadata"]:
        yield "has no namespace"
    if kind in WORKLOADS:
        yield from pod_faults(kind, document["spec"])


def pod_faults(kind, spec):
    template = spec["template"]
    pod = template["spec"]
    if kind != "Job":
        wanted = spec["selector"]["matchLabels"].items()
        if not wanted <= template["metadata"]["labels"].items():
            yield "its selector does not select its pods"
    if pod.get("automountServiceAccountToken") is not False:
        yield "mounts the ServiceAccount's token"
    names = [volume["name"] for volume in pod.get("volumes", [])]
    if len(names) != len(set(names)):
        yield "two volumes have one name"
    container = pod["containers"][0]
    for mount in container.get("volumeMounts", []):
        if mount["name"] not in names:
            yield f"mounts volume {mount['name']}, which does not exist"
    for variable in container.get("env", []):
        source = variable.get("valueFrom", {})
        if "secretKeyRef" in source and not DATABASE_OR_BROKER.match(variable["name"]):
            yield f"puts a secret into {variable['name']}"
    if kind == "Deployment":
        yield from controller_faults(spec, container)
    if kind == "Job":
        seen = [variable["name"] for variable in container["env"]]
        if seen != ["TRUSTFLEET__DATABASE__OWNER_URL"]:
            yield f"the migration sees {seen}, it needs the owner's URL alone"


def controller_faults(spec, container):
    if spec["replicas"] < 2:
        yield "one replica is not enough"
    for probe in ("startupProbe", "livenessProbe"):
        if container[probe]["httpGet"]["path"] != "/healthz":
            yield f"{probe} must ask the process alone (/healthz): a restart brings no database back"
    if container["readinessProbe"]["httpGet"]["path"] != "/readyz":
        yield "readinessProbe must ask for database and broker (/readyz)"
    if any("OWNER" in variable["name"] for variable in container["env"]):
        yield "a replica sees the owner's URL"


def service_faults(documents):
    """A Service, a PodDisruptionBudget and a ServiceMonitor select something; the Service never a migration."""
    pods = [d["spec"]["template"]["metadata"]["labels"] for d in documents if d["kind"] in WORKLOADS]
    services = [d for d in documents if d["kind"] == "Service"]
    for document in documents:
        spec = document.get("spec", {})
        targets, selector = pods, None
        if document["kind"] == "Service":
            selector = spec["selector"]
        elif document["kind"] in ("PodDisruptionBudget", "ServiceMonitor"):
            selector = spec["selector"]["matchLabels"]
        elif document["kind"] == "NetworkPolicy":
            selector = spec["podSelector"]["matchLabels"]
        if document["kind"] == "ServiceMonitor":
            targets = [service["metadata"]["labels"] for service in services]
        if selector is None:
            continue
        selected = [labels for labels in targets if selector.items() <= labels.items()]
        if not selected:
            yield f"{document['kind']} selects nothing"
        if document["kind"] == "Service" and any(l["app.kubernetes.io/component"] == "migration" for l in selected):
            yield "the Service sends requests to a migration"


def main(oldest, crd_folder, *files):
    newest = kubernetes_validate.latest_version()
    versions = [oldest, newest]
    faults, count = [], 0
    for file in map(pathlib.Path, files):
        documents = [d for d in yaml.safe_load_all(file.read_text()) if d]
        count += len(documents)
        for number, document in enumerate(documents):
            where = f"{file.name}: {document['kind']} {document['metadata']['name']}"
            name = f"{file.stem}-{number}"
            faults += [f"{where}: {f}" for f in faults_of(document, versions, pathlib.Path(crd_folder), name)]
        faults += [f"{file.name}: {fault}" for fault in service_faults(documents)]
    print("\n".join(faults) if faults else f"{count} manifests are valid at Kubernetes {oldest} and {newest}, strictly")
    sys.exit(bool(faults))


main(*sys.argv[1:])
