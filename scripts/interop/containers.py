"""What `docker compose up` does with compose.yaml, as far as that can be had without Docker.

Containers of our images are real ones: crun starts them from the images' files and configuration, as their user, without
capabilities, on a read-only root. PostgreSQL and RabbitMQ are Debian's instead of their images, with the files, variables
and users that the images would have. All share one network, without a way out of it, in which a name server says that
every service is on loopback; and everything ends with the process that runs this.

Every key of compose.yaml is either obeyed here or named as one that only Docker needs; any other is a fault.
"""

import glob
import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import time

import names

OBEYED = {
    "image", "user", "entrypoint", "command", "environment", "volumes", "depends_on", "healthcheck", "profiles", "read_only",
    "cap_drop", "cap_add", "security_opt", "network_mode",
}  # fmt: skip
ONLY_DOCKER = {"build", "ports", "restart", "stop_grace_period", "hostname"}
PATIENCE_S = 120
DOCKER_USER = 999


class Compose:
    def __init__(self, tree, root, images, work, version):
        self.tree, self.root, self.images, self.work, self.version = tree, root, images, work, version
        self.services = tree["services"]
        self.running, self.ended = {}, {}
        for name, service in self.services.items():
            unknown = service.keys() - OBEYED - ONLY_DOCKER
            assert not unknown, f"{name}: this check does not know {unknown}"
            for volume in service.get("volumes", []):
                source = volume.split(":")[0]
                declared = source in tree["volumes"] or (root / source).exists()
                assert declared, f"{name}: there is no volume and no file {source}"
        for name in tree["volumes"]:
            (work / "volumes" / name).mkdir(parents=True)
        (work / "logs").mkdir()
        (work / "hosts").write_text("127.0.0.1 localhost\n")
        (work / "resolv.conf").write_text(f"nameserver {names.ADDRESS}\n")
        names.serve(set(self.services))
        (work / "passwd").write_text(
            f"root:x:0:0::/root:/bin/sh\npostgres:x:{DOCKER_USER}:{DOCKER_USER}::/:/bin/sh\n"
            f"nobody:x:65534:65534::/:/bin/sh\n"
        )

    def up(self):
        """Starts what has no profile, in the order of depends_on; returns when each one-shot has ended."""
        for name, service in self.services.items():
            if "profiles" not in service:
                self.ensure(name)
        for name in list(self.running):
            if self.one_shot(name):
                self.completed(name)

    def one_shot(self, name):
        return "restart" not in self.services[name]

    def ensure(self, name):
        if name in self.running or name in self.ended:
            return
        service = self.services[name]
        mode = service.get("network_mode", "")
        if mode.startswith("service:"):
            self.ensure(mode.removeprefix("service:"))
        for other, how in service.get("depends_on", {}).items():
            self.ensure(other)
            {
                "service_started": lambda _: None,
                "service_healthy": self.healthy,
                "service_completed_successfully": self.completed,
            }[how["condition"]](other)
        self.running[name] = self.start(name)

    def start(self, name, command=None):
        image = self.services[name]["image"]
        if image.startswith("trustfleet-"):
            return self.container(name, command)
        return {"postgres": self.postgres, "rabbitmq": self.rabbitmq}[image.rsplit("/", 1)[1].split(":")[0]](name)

    def completed(self, name):
        if name in self.ended:
            return
        end = time.monotonic() + PATIENCE_S
        while (code := self.running[name].poll()) is None:
            for other, process in self.running.items():
                died = process.poll() is not None and not self.one_shot(other)
                assert not died, f"{other} has ended while {name} was waited for: {self.log(other)}"
            assert time.monotonic() < end, f"{name} does not end: {self.log(name)}"
            time.sleep(0.1)
        assert code == 0, f"{name} ended with {code}: {self.log(name)}"
        self.ended[name] = self.running.pop(name)

    def healthy(self, name):
        test = self.services[name]["healthcheck"]["test"]
        assert test[0] == "CMD", test
        end = time.monotonic() + PATIENCE_S
        while self.host_command(name, test[1:]).wait() != 0:
            assert self.running[name].poll() is None, f"{name} has ended: {self.log(name)}"
            assert time.monotonic() < end, f"{name} does not get healthy: {self.log(name)}"
            time.sleep(0.5)

    def log(self, name):
        return (self.work / "logs" / name).read_text()[-3000:]

    def stop(self, *names):
        """SIGTERM, as Docker does it; the exit codes."""
        for name in names:
            self.running[name].send_signal(signal.SIGTERM)
        return [self.running.pop(name).wait(PATIENCE_S) for name in names]

    def volumes(self, name):
        """(source, target, read-only) of each; sources are ours."""
        for volume in self.services[name].get("volumes", []):
            source, target, *options = volume.split(":")
            named = self.work / "volumes" / source
            yield (named if source in self.tree["volumes"] else self.root / source), target, "ro" in options

    # Our images, by crun.

    def container(self, name, command):
        service = self.services[name]
        image, version = service["image"].removeprefix("trustfleet-").split(":")
        assert version == self.version, f"{name} names version {version}, this is {self.version}"
        assert service["build"]["target"] == image, f"{name} builds {service['build']['target']} and runs {image}"
        assert service["read_only"] and service["cap_drop"] == ["ALL"], f"{name} may do more than it needs"
        files = self.images / image
        config = json.loads((self.images / f"{image}.json").read_text())["OCIv1"]["config"]
        arguments = service.get("entrypoint") or config["Entrypoint"]
        # As in Docker, an entry point of one's own leaves the image's command away.
        default = [] if "entrypoint" in service else config["Cmd"]
        arguments = [*arguments, *(command or service.get("command") or default)]
        uid, gid = map(int, service.get("user", config["User"]).split(":"))
        environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        environment |= dict(entry.split("=", 1) for entry in config.get("Env") or [])
        environment |= service.get("environment", {})
        mounts = [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            *(
                {"destination": f"/etc/{file}", "source": str(self.work / file), "options": ["bind", "ro"]}
                for file in ("hosts", "resolv.conf")
            ),
        ]
        for source, target, read_only in self.volumes(name):
            self.fill(source, files / target.lstrip("/"))
            options = ["rbind", "ro" if read_only else "rw"]
            mounts.append({"destination": target, "source": str(source), "options": options})
        capabilities = [f"CAP_{capability}" for capability in service.get("cap_add", [])]
        bundle = self.work / "bundles" / f"{name}-{time.monotonic_ns()}"
        bundle.mkdir(parents=True)
        (bundle / "config.json").write_text(
            json.dumps(
                {
                    "ociVersion": "1.0.2",
                    "process": {
                        "user": {"uid": uid, "gid": gid},
                        "args": arguments,
                        "env": [f"{key}={value}" for key, value in environment.items()],
                        "cwd": "/",
                        "noNewPrivileges": service["security_opt"] == ["no-new-privileges:true"],
                        "capabilities": {kind: capabilities for kind in ("bounding", "effective", "permitted")},
                    },
                    "root": {"path": str(files), "readonly": True},
                    "mounts": mounts,
                    "linux": {"namespaces": [{"type": kind} for kind in ("mount", "pid", "ipc", "uts")]},
                }
            )
        )
        crun = ["crun", "--root", str(self.work / "crun"), "--cgroup-manager=disabled", "run", "--bundle", str(bundle)]
        return self.process(name, [*crun, bundle.name])

    def fill(self, volume, folder):
        """A named volume that is new gets owner and mode of the image's folder, as in Docker."""
        if volume.parent == self.work / "volumes" and not any(volume.iterdir()) and folder.is_dir():
            status = folder.stat()
            if status.st_uid:
                os.chown(volume, status.st_uid, status.st_gid)
                volume.chmod(status.st_mode & 0o7777)

    def process(self, name, command, **more):
        with (self.work / "logs" / name).open("ab") as output:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, **more)

    # Debian's servers, as their images would run them.

    def host(self, name, script, environment):
        """A shell script as the image's user, with the volumes below /run where compose.yaml puts them."""
        mounts = [f"mount --bind {self.work / 'passwd'} /etc/passwd"]
        for source, target, _ in self.volumes(name):
            if target.startswith("/run/"):
                mounts.append(f"mkdir -p {target} && mount --bind {source} {target}")
        user = f"setpriv --reuid={DOCKER_USER} --regid={DOCKER_USER} --clear-groups"
        inner = " && ".join([*mounts, f"exec {user} sh -c {shlex.quote(script)}"])
        return ["unshare", "--mount", "sh", "-c", inner], {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **environment}

    def host_process(self, name, script, environment):
        command, environment = self.host(name, script, environment)
        return self.process(name, command, env=environment)

    def host_command(self, name, command):
        programs, environment = self.hosts[name]
        found = shutil.which(command[0], path=f"{programs}:{os.environ['PATH']}")
        return self.host_process(name, shlex.join([found, *command[1:]]), environment)

    hosts = {}

    def volume_at(self, name, target):
        return next(source for source, at, _ in self.volumes(name) if at == target)

    def postgres(self, name):
        programs = sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1]
        data = self.volume_at(name, "/var/lib/postgresql/data")
        environment = self.services[name]["environment"]
        assert environment.keys() == {"POSTGRES_PASSWORD_FILE"}, environment
        self.hosts[name] = (programs, {})
        sockets = self.work / "sockets"
        for folder in (data, sockets):
            folder.mkdir(exist_ok=True)
            os.chown(folder, DOCKER_USER, DOCKER_USER)
        start = f"{programs}/postgres -D {data} -k {sockets} -c listen_addresses"
        scripts = [source for source, at, _ in self.volumes(name) if at.startswith("/docker-entrypoint-initdb.d/")]
        assert len(scripts) == 1 and scripts[0].suffix == ".sql", scripts
        script = f"""set -e
            {programs}/initdb --no-sync -D {data} -U postgres --auth-local=trust --auth-host=scram-sha-256 \
                --pwfile={environment['POSTGRES_PASSWORD_FILE']}
            {programs}/pg_ctl -D {data} -w -o "-k {sockets} -c listen_addresses=''" start
            psql -h {sockets} -U postgres -d postgres -v ON_ERROR_STOP=1 --no-psqlrc -f {scripts[0]}
            {programs}/pg_ctl -D {data} -w stop
            exec {start}=0.0.0.0"""
        return self.host_process(name, script, {})

    def rabbitmq(self, name):
        programs = sorted(glob.glob("/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin"))[-1]
        data = self.volume_at(name, "/var/lib/rabbitmq")
        os.chown(data, DOCKER_USER, DOCKER_USER)
        environment = {
            **self.services[name]["environment"],
            "HOME": str(data),
            "RABBITMQ_NODENAME": "rabbit@localhost",
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.volume_at(name, "/etc/rabbitmq/enabled_plugins")),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{data}/advanced.config",
        }
        for variable in ("MNESIA_BASE", "LOG_BASE", "PID_FILE", "GENERATED_CONFIG_DIR", "SCHEMA_DIR"):
            environment[f"RABBITMQ_{variable}"] = f"{data}/{variable.lower()}"
        self.hosts[name] = (programs, environment)
        return self.host_process(name, f"exec {programs}/rabbitmq-server", environment)
