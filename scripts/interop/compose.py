#!/usr/bin/env python3
"""compose.py IMAGES: compose.yaml comes up, does what the operator guide says, and comes up again. As root.

IMAGES is the folder that images.sh fills. See containers.py for what is real and what stands for something else.
"""

import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
import tomllib
import urllib.request

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
# Only the first process of a namespace can be the end of all others: this program starts itself there.
INSIDE = "TRUSTFLEET_INTEROP_INSIDE"
NAMESPACES = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]


def main(images):
    if INSIDE not in os.environ:
        with tempfile.TemporaryDirectory(prefix="trustfleet-compose-") as folder:
            os.chmod(folder, 0o755)
            command = [*NAMESPACES, sys.executable, __file__, images]
            sys.exit(subprocess.run(command, env={**os.environ, INSIDE: folder}, check=False).returncode)
    inside(pathlib.Path(images).resolve(), pathlib.Path(os.environ[INSIDE]))


def inside(images, work):
    # /run of our own, to mount volumes in; a /sys/fs/cgroup that crun takes wherever we are.
    for command in (
        "ip link set lo up",
        "mount -t tmpfs -o mode=755 tmpfs /run",
        "mount -t cgroup2 cgroup2 /sys/fs/cgroup",
    ):
        subprocess.run(command.split(), check=True)
    from containers import Compose

    tree = yaml.safe_load((ROOT / "compose.yaml").read_text())
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    compose = Compose(tree, ROOT, images, work, version)
    subprocess.run(["mount", "--bind", str(work / "hosts"), "/etc/hosts"], check=True)
    compose.up()
    print(f"{len(compose.ended)} one-shot services have ended well, {len(compose.running)} others run")

    for path in ("/healthz", "/readyz", "/metrics"):
        with urllib.request.urlopen(f"http://127.0.0.1:8080{path}", timeout=10) as answer:
            assert answer.status == 200, f"{path}: {answer.status}"
    print("the controller is alive and ready")
    seen = sorted(bounds())
    programs = ["trustfleet", "trustfleet-agent", "trustfleet-agent", "trustfleet-lab"]
    assert [program for program, _ in seen] == programs, seen
    wanted = {"Uid": "65532", "Gid": "65532", "CapEff": "0000000000000000", "NoNewPrivs": "1"}
    assert all(status == wanted for _, status in seen), seen
    print("they run as user 65532, without any capability, on read-only roots")

    def operator(line):
        process = compose.start("operator", shlex.split(line))
        code = process.wait(120)
        assert code == 0, f"operator {line} ended with {code}: {compose.log('operator')}"
        return compose.log("operator")

    listed = operator("agent list")
    assert "ap-1" in listed and "ap-2" in listed, listed
    print("two agents from their image have joined by one-time tokens")

    guide = (ROOT / "docs/operator-guide.md").read_text()
    lines = re.findall(r"^docker compose run --rm operator (.*)$", guide, re.M)
    assert any("enroll" in line for line in lines), "the operator guide enrols no device"
    for line in lines:
        said = operator(line)
    assert "active" in said, said
    print(f"the {len(lines)} commands of the operator guide enrol a device at the lab CA")

    one_shots = list(compose.ended)
    compose.ended.clear()
    for name in one_shots:
        compose.running[name] = compose.start(name)
        compose.completed(name)
    print("the one-shot services find nothing to do when they are run again")

    codes = compose.stop("agent-1", "agent-2", "controller", "ca")
    assert codes == [0, 0, 0, 0], f"exit codes {codes}: {compose.log('controller')}"
    print("controller, agents and lab CA end in order at SIGTERM (exit codes 0)")
    compose.stop("postgres", "rabbitmq")


def bounds():
    """Program and rights of each of our processes."""
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            program = process.joinpath("exe").readlink()
            lines = process.joinpath("status").read_text().splitlines()
        except OSError:
            continue
        if program.name.startswith("trustfleet"):
            status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
            yield program.name, {key: status[key].split()[0] for key in ("Uid", "Gid", "CapEff", "NoNewPrivs")}


main(sys.argv[1])
