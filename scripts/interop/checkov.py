#!/usr/bin/env python3
"""checkov.py CHECKOV FOLDER: checkov finds nothing in the manifests in FOLDER that is not excused below.

Each excuse has a reason, holds for one kind of object, and must be needed: one that excuses nothing is a fault.
"""

import json
import subprocess
import sys

EXCUSES = {
    ("CKV_K8S_8", "DaemonSet"): "the agent opens no port to be asked; it ends by itself when it cannot go on",
    ("CKV_K8S_9", "DaemonSet"): "nobody sends requests to an agent",
    ("CKV_K8S_11", "Deployment"): "a CPU limit throttles a replica that has work while the node is idle",
    ("CKV_K8S_11", "DaemonSet"): "as for the controller",
    ("CKV_K8S_11", "Job"): "as for the controller",
    ("CKV_K8S_15", "Deployment"): "released tags never change; image.digest makes sure where that matters",
    ("CKV_K8S_15", "DaemonSet"): "as for the controller",
    ("CKV_K8S_15", "Job"): "as for the controller",
    ("CKV_K8S_43", "Deployment"): "the digest is the installer's to set: image.digest",
    ("CKV_K8S_43", "DaemonSet"): "as for the controller",
    ("CKV_K8S_43", "Job"): "as for the controller",
    ("CKV_K8S_35", "Deployment"): "URLs with passwords go over the configuration by environment; keys are files",
    ("CKV_K8S_35", "Job"): "as for the controller",
    ("CKV_K8S_23", "DaemonSet"): "the folder on the node belongs to root unless the installer prepares it (runAsId)",
    ("CKV_K8S_40", "DaemonSet"): "as above",
    # What an installer may switch off.
    ("CKV_K8S_13", "Deployment"): "no limit is the choice of who removes it; the default has one",
    ("CKV_K8S_13", "DaemonSet"): "as for the controller",
}


def main(checkov, folder):
    command = [checkov, "-d", folder, "--framework", "kubernetes", "--compact", "--skip-download", "-o", "json"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        report = json.loads(ran.stdout)
        results, summary = report["results"], report["summary"]
    except (ValueError, KeyError, TypeError):
        sys.exit(f"checkov did not report:\n{ran.stdout[-2000:]}{ran.stderr[-2000:]}")
    unused = dict(EXCUSES)
    faults = [f"parsing error: {error}" for error in results.get("parsing_errors", [])]
    for failed in results["failed_checks"]:
        excuse = (failed["check_id"], failed["resource"].split(".")[0])
        if excuse in EXCUSES:
            unused.pop(excuse, None)
        else:
            faults.append(f"{failed['check_id']} {failed['check_name']}: {failed['resource']} ({failed['file_path']})")
    faults += [f"no longer needed: the excuse for {check} of a {kind}" for check, kind in unused]
    if not summary["passed"]:
        faults.append("checkov checked nothing")
    done = f"checkov: {summary['passed']} checks passed, {len(EXCUSES)} kinds of failure excused with a reason"
    print("\n".join(sorted(set(faults))) if faults else done)
    sys.exit(bool(faults))


main(*sys.argv[1:])
