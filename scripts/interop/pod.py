"""The little of kubelet that a test needs: a pod's files and environment from its manifest, and its process.

Mount paths move below a folder, and so do the paths in the mounted text; everything else is as the manifest says.
Secrets and ConfigMaps are laid out as kubelet does it: names that are links into a folder which is swapped.
"""

import base64
import os
import pathlib
import signal
import subprocess


class Pod:
    def __init__(self, workload, objects, folder, node="worker-1"):
        """`objects`: (kind, name) -> Secret or ConfigMap."""
        self.spec = workload["spec"]["template"]["spec"]
        self.container = self.spec["containers"][0]
        self.objects = objects
        self.folder = pathlib.Path(folder)
        self.environment = {"PATH": os.environ["PATH"]}
        for variable in self.container.get("env", []):
            self.environment[variable["name"]] = self.value(variable, node)
        volumes = {volume["name"]: volume for volume in self.spec["volumes"]}
        for mount in self.container["volumeMounts"]:
            self.mount(mount, volumes[mount["name"]])

    def value(self, variable, node):
        if "value" in variable:
            return self.moved_path(variable["value"])
        source = variable["valueFrom"]
        if "fieldRef" in source:
            assert source["fieldRef"]["fieldPath"] == "spec.nodeName"
            return node
        reference = source["secretKeyRef"]
        return self.data("Secret", reference["name"])[reference["key"]]

    def data(self, kind, name):
        found = self.objects[kind, name]
        if kind == "ConfigMap":
            return found["data"]
        return {key: base64.b64decode(text).decode() for key, text in found["data"].items()}

    def mount(self, mount, volume):
        to = self.below(mount["mountPath"])
        if "hostPath" in volume:
            to.mkdir(parents=True, exist_ok=True)
            return
        kind, source = ("Secret", volume["secret"]) if "secret" in volume else ("ConfigMap", volume["configMap"])
        name = source.get("secretName") or source.get("name")
        if (kind, name) not in self.objects:
            assert source.get("optional"), f"the pod would wait for ever: there is no {kind} {name}"
            return
        data = self.data(kind, name)
        items = source.get("items") or [{"key": key, "path": key} for key in data]
        files = {item["path"]: data[item["key"]] for item in items}
        (to / "..data").mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            file = to / "..data" / path
            file.write_text(self.moved(text))
            file.chmod(source.get("defaultMode", 0o644) & 0o777)
            (to / path).symlink_to(f"..data/{path}")

    def moved(self, text):
        for mount in self.container["volumeMounts"]:
            text = text.replace(f'"{mount["mountPath"]}', f'"{self.below(mount["mountPath"])}')
        return text

    def below(self, path):
        return self.folder / path.lstrip("/")

    def arguments(self):
        return [self.moved_path(argument) for argument in self.container["args"]]

    def moved_path(self, text):
        mounted = any(text.startswith(mount["mountPath"]) for mount in self.container["volumeMounts"])
        return str(self.below(text)) if mounted else text

    def start(self, binary, arguments=None, **more):
        """The container's process; stdout is a pipe, stderr a file `log` in the pod's folder."""
        return subprocess.Popen(
            [binary, *(arguments or self.arguments())],
            env={**self.environment, **more},
            stdout=subprocess.PIPE,
            stderr=(self.folder / "log").open("a"),
            text=True,
        )

    def log(self):
        return (self.folder / "log").read_text()

    def end(self, process):
        """SIGTERM, and the exit code; KILL when the pod's grace is over."""
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(timeout=self.spec["terminationGracePeriodSeconds"])
        except subprocess.TimeoutExpired:
            process.kill()
            raise
