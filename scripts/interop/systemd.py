#!/usr/bin/env python3
"""systemd.py TRUSTFLEET AGENT: the units of docs/deploy under systemd's own tools, and their configurations under the programs.

There is no systemd that runs here, so the sandbox itself is not tried. What is: every line is known and every path is
there (`verify`), the exposure stays below a bound (`security`), the programs make no system call that the units' filters
forbid (strace, while they start and talk), and they take the configurations as the units hand them over.
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile

DEPLOY = pathlib.Path(__file__).resolve().parent.parent.parent / "docs/deploy"
TRUSTFLEET, AGENT = sys.argv[1:]
PROGRAMS = {"/usr/local/bin/trustfleet-agent": AGENT, "/usr/local/bin/trustfleet": TRUSTFLEET}
# systemd-analyze counts in tenths: 1.5 of 10.
EXPOSURE_MAX = "15"
NOWHERE = "postgres://trustfleet_owner@127.0.0.1:1/trustfleet"


def run(*command, **more):
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **more)
    return done.returncode, done.stdout + done.stderr


def units():
    found = sorted(DEPLOY.glob("*.service"))
    check(len(found) == 3, "there are three units", str(found))
    return found


def settings(unit, key):
    return re.findall(rf"^{key}=(.*)$", unit.read_text(), re.M)


def verify(work):
    for unit in units():
        text = unit.read_text()
        for installed, built in PROGRAMS.items():
            text = re.sub(rf"{installed}(?= )", str(pathlib.Path(built).resolve()), text)
        copy = work / unit.name
        copy.write_text(text)
        code, said = run("systemd-analyze", "verify", "--man=no", str(copy))
        # It reads the machine's own units as well, and tells their faults too.
        ours = [line for line in said.splitlines() if not re.match(r"/(usr/)?lib/systemd/", line)]
        check(code == 0 and not "".join(ours).strip(), f"{unit.name} has no fault", said)
        copy.write_text(text.replace("NoNewPrivileges", "NoNewPrivilege"))
        code, said = run("systemd-analyze", "verify", "--man=no", str(copy))
        check("NoNewPrivilege" in said, None, f"a misspelt line of {unit.name} was not noticed")
        code, said = run("systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE_MAX}", str(unit))
        level = re.search(r"exposure level for .*: ([0-9.]+)", said)
        check(code == 0 and level, f"its exposure is {level and level.group(1)} of 10", said)


def allowed_calls(unit):
    """The system calls that the unit's filter lets through."""
    allowed = set()
    for line in settings(unit, "SystemCallFilter"):
        names = {name for group in line.lstrip("~").split() for name in calls_of(group)}
        allowed = allowed - names if line.startswith("~") else allowed | names
    return allowed


def calls_of(group):
    if not group.startswith("@"):
        return {group}
    code, said = run("systemd-analyze", "syscall-filter", group)
    check(code == 0, None, said)
    found = set()
    for line in said.splitlines()[1:]:
        word = line.strip()
        if word and not word.startswith("#"):
            found |= calls_of(word)
    return found


def made_calls(log):
    return set(re.findall(r"^(?:\d+ +)?([a-z_0-9]+)\(", log.read_text(), re.M))


def calls(work):
    """The demonstration with both programs under strace: joining, enrolment, renewal, the end."""
    shims = work / "bin"
    shims.mkdir()
    for program, real in (("trustfleet", TRUSTFLEET), ("trustfleet-agent", AGENT)):
        real = pathlib.Path(real).resolve()
        shim = shims / program
        shim.write_text(f'#!/bin/sh\nexec strace -D -f -qq -o {work}/{program}.$$.strace {real} "$@"\n')
        shim.chmod(0o755)
    lab = pathlib.Path(TRUSTFLEET).resolve().parent / "trustfleet-lab"
    os.link(lab, shims / "trustfleet-lab") if same_device(lab, shims) else run("cp", str(lab), str(shims))
    code, said = run_long(str(shims / "trustfleet-lab"), "demo", "--exit", "--tls")
    check(code == 0, "the demonstration runs, encrypted, with both programs under strace", said[-3000:])
    for program, unit in (("trustfleet", "trustfleet-controller"), ("trustfleet-agent", "trustfleet-agent")):
        made = set().union(*(made_calls(log) for log in work.glob(f"{program}.*.strace")))
        check(len(made) > 30, f"{program} makes {len(made)} different system calls")
        forbidden = made - allowed_calls(DEPLOY / f"{unit}.service")
        check(not forbidden, f"all of them are allowed by {unit}.service", str(sorted(forbidden)))


def same_device(one, other):
    return one.stat().st_dev == other.stat().st_dev


def run_long(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    return done.returncode, done.stdout + done.stderr


def configurations(work):
    ca = work / "ca.pem"
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", str(work / "ca.key")]
    run("openssl", "req", "-x509", *key, "-subj", "/CN=roots", "-days", "1", "-out", str(ca))
    unit = DEPLOY / "trustfleet-controller.service"
    environment = dict(os.environ, TRUSTFLEET__DATABASE__OWNER_URL=NOWHERE, TRUSTFLEET__DATABASE__TLS_CA_FILE=str(ca))
    for line in settings(unit, "Environment"):
        name, value = line.split("=", 1)
        environment[name] = value.replace("%d", "/run/credentials/trustfleet-controller.service")
    handed = {line.split(":")[0] for line in settings(unit, "LoadCredential")}
    named = {value.rsplit("/", 1)[1] for name, value in environment.items() if name.startswith("TRUSTFLEET__KEYS__")}
    check(named | {"controller.toml"} == handed, "every credential is used, and every key is a credential")
    code, said = run(TRUSTFLEET, "migrate", "--config", str(DEPLOY / "controller.toml"), env=environment)
    check("owner cannot be connected" in said, "the controller takes controller.toml as the unit hands it over", said)
    copy = work / "agent.toml"
    state = settings(DEPLOY / "trustfleet-agent.service", "StateDirectory")[0]
    text = (DEPLOY / "agent.toml").read_text()
    check(f'"/var/lib/{state}"' in text, "the agent's state is where the unit lets it write")
    copy.write_text(text.replace(f"/var/lib/{state}", str(work / "state")))
    code, said = run(AGENT, "status", "--config", str(copy))
    check(code == 0, "the agent takes agent.toml", said)


def check(good, what, said=""):
    if not good:
        raise SystemExit(f"not so: {what or ''} {said}")
    if what:
        print(what)


with tempfile.TemporaryDirectory() as folder:
    os.chmod(folder, 0o755)
    for part in (verify, configurations, calls):
        part(pathlib.Path(folder))
