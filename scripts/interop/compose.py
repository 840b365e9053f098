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

    def operator(line):
        process = compose.start("operator", shlex.split(line))
        code = process.wait(60)
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


main(sys.argv[1])
