#!/usr/bin/env python3
"""release.py HELM KUBECTL TRUSTFLEET AGENT: what the charts render really runs, inside `trustfleet-lab stack`.

There is no cluster: pods are started as plain processes from their manifests (pod.py), against a real PostgreSQL and
RabbitMQ. Secrets are made by the commands of the charts' documentation. What kubelet, the scheduler and the network
add is not shown here.
"""

import json
import os
import pathlib
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import yaml

from pod import Pod

HELM, KUBECTL, TRUSTFLEET, AGENT = (os.path.abspath(path) for path in sys.argv[1:])
ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PATIENCE_S = 60


def main():
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HELM_CACHE_HOME"] = os.environ["HELM_CONFIG_HOME"] = os.environ["HELM_DATA_HOME"] = f"{folder}/helm"
        release = Release(pathlib.Path(folder))
        release.secrets()
        release.migrate()
        replicas = [release.controller(number) for number in (1, 2)]
        try:
            release.first_token(replicas)
            release.agent(replicas)
            release.broker_is_no_reason_to_restart()
            release.tls_to_the_broker()
        finally:
            codes = [pod.end(process) for pod, process, _ in replicas]
        check(codes == [0, 0], f"both replicas end in order at SIGTERM (exit codes {codes})")


class Release:
    def __init__(self, folder):
        self.folder = folder
        self.objects = {}
        broker = urllib.parse.urlsplit(os.environ["TRUSTFLEET_AMQP_URL"])
        agent_url = broker._replace(netloc=f"{broker.hostname}:{broker.port}").geturl()
        self.documents = self.render(
            "trustfleet", f"config.broker.agent_url={agent_url}", "firstToken.existingSecret=trustfleet-first-token"
        )

    def render(self, chart, *settings):
        options = [option for setting in settings for option in ("--set-string", setting)]
        command = [
            HELM,
            "template",
            chart,
            f"{ROOT}/helm/{chart}",
            "-f",
            f"{ROOT}/helm/{chart}/ci/1-required-values.yaml",
        ]
        done = subprocess.run([*command, *options], capture_output=True, text=True, check=True)
        documents = [document for document in yaml.safe_load_all(done.stdout) if document]
        for document in documents:
            if document["kind"] == "ConfigMap":
                self.objects["ConfigMap", document["metadata"]["name"]] = document
        return documents

    def workload(self, kind, documents=None):
        return next(document for document in documents or self.documents if document["kind"] == kind)

    def pod(self, workload, name):
        folder = self.folder / name
        folder.mkdir()
        return Pod(workload, self.objects, folder)

    def secrets(self):
        """The README's own commands, with files as it names them, `--dry-run=client` added."""
        work = self.folder / "work"
        (work / "keys").mkdir(parents=True)
        for file, variable in (
            ("keys/controller-signing.pem", "SIGNING_KEY_FILE"),
            ("keys/broker-token.pem", "BROKER_TOKEN_KEY_FILE"),
            ("keys/kek.key", "KEK_FILE"),
        ):
            (work / file).write_bytes(pathlib.Path(os.environ[f"TRUSTFLEET_{variable}"]).read_bytes())
        for file, variable in (
            ("api-url", "DB_API_URL"),
            ("system-url", "DB_SYSTEM_URL"),
            ("owner-url", "DB_OWNER_URL"),
            ("url", "AMQP_URL"),
        ):
            (work / file).write_text(os.environ[f"TRUSTFLEET_{variable}"])
        readme = (ROOT / "helm/trustfleet/README.md").read_text().replace("\\\n", "")
        first_token = re.search(r"^trustfleet keys first-token .*$", readme, re.M).group()
        path = f"{os.path.dirname(TRUSTFLEET)}:{os.environ['PATH']}"
        subprocess.run(["sh", "-c", first_token], cwd=work, env={**os.environ, "PATH": path}, check=True)
        for command in re.findall(r"^kubectl create secret .*$", readme, re.M):
            self.secret(command, work)
        self.work = work
        check(len(self.objects) >= 5, "the Secrets are made as the README says")

    def secret(self, command, work):
        command = command.split("  #")[0].replace("kubectl", f"{KUBECTL} --kubeconfig=/dev/null", 1)
        done = subprocess.run(
            f"{command} --dry-run=client -o json", shell=True, cwd=work, capture_output=True, text=True, check=True
        )
        made = json.loads(done.stdout)
        self.objects["Secret", made["metadata"]["name"]] = made

    def migrate(self):
        """Two at once, as after a job's pod that was only believed to be dead; then each once more."""
        pods = [self.pod(self.workload("Job"), f"migration-{number}") for number in (1, 2)]
        codes = [process.wait(PATIENCE_S) for process in [pod.start(TRUSTFLEET) for pod in pods]]
        check(codes == [0, 0], f"two migrations at once both succeed (exit codes {codes})", *pods)
        again = [pod.start(TRUSTFLEET).wait(PATIENCE_S) for pod in pods]
        check(again == [0, 0], "and a repeated one finds nothing to do", *pods)

    def controller(self, number):
        pod = self.pod(self.workload("Deployment"), f"controller-{number}")
        # As extraEnv would: both replicas are on one machine here.
        process = pod.start(TRUSTFLEET, TRUSTFLEET__HTTP__LISTEN="127.0.0.1:0")
        line = process.stdout.readline()
        check(line, f"replica {number} starts from the Deployment's files and environment", pod)
        url = json.loads(line)["listening"]
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            path = pod.container[probe]["httpGet"]["path"]
            until(lambda: status(url + path) == 200, f"replica {number} answers its {probe}", pod)
        return pod, process, url

    def cli(self, url, *arguments, token):
        environment = {"PATH": os.environ["PATH"], "TRUSTFLEET_URL": url, "TRUSTFLEET_TOKEN_FILE": str(token)}
        done = subprocess.run([TRUSTFLEET, *arguments], env=environment, capture_output=True, text=True, check=False)
        check(done.returncode == 0, None, said=done.stdout + done.stderr)
        return done.stdout

    def first_token(self, replicas):
        """By the commands of the notes that Helm shows after the installation."""
        token = self.work / "platform.token"
        self.admin = self.work / "acme-admin.token"
        commands = re.findall(r"^    (trustfleet .*)$", self.notes(), re.M)
        check(len(commands) == 2, "the notes tell how to make a first tenant and its admin")
        for command, (_, _, url) in zip(commands, replicas):
            path = f"{os.path.dirname(TRUSTFLEET)}:{os.environ['PATH']}"
            environment = {"PATH": path, "TRUSTFLEET_URL": url}
            done = subprocess.run(
                command, shell=True, cwd=self.work, env=environment, capture_output=True, text=True, check=False
            )
            check(done.returncode == 0, None, said=done.stdout + done.stderr)
        check(True, "the first token from the Secret lets its owner in at both replicas, as the notes say")
        secret = token.read_text()
        check(not any(secret in pod.log() for pod, _, _ in replicas), "and stands in no log")

    def notes(self):
        options = ["-f", f"{ROOT}/helm/trustfleet/ci/1-required-values.yaml", "--dry-run=client"]
        options += ["--set", "firstToken.existingSecret=trustfleet-first-token", "-n", "pki"]
        command = [HELM, "install", "trustfleet", f"{ROOT}/helm/trustfleet", *options]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout.split("NOTES:", 1)[1].replace("\\\n", "")

    def agent(self, replicas):
        url = replicas[0][2]
        self.cli(
            url,
            "join-token",
            "create",
            "--tenant",
            "acme",
            "--uses",
            "2",
            "--write-to",
            str(self.work / "join-token"),
            token=self.admin,
        )
        readme = (ROOT / "helm/trustfleet-agent/README.md").read_text()
        self.secret(re.search(r"^kubectl create secret .*$", readme, re.M).group(), self.work)
        documents = self.render("trustfleet-agent", f"config.controller_url={url}")
        pod = self.pod(self.workload("DaemonSet", documents), "agent")
        process = pod.start(AGENT)
        try:
            listed = lambda: "worker-1" in self.cli(url, "agent", "list", "--tenant", "acme", token=self.admin)
            until(listed, "an agent joins from the DaemonSet's files, by its node's name", pod)
        finally:
            code = pod.end(process)
        check(code == 0, f"and ends in order at SIGTERM (exit code {code})", pod)

    def broker_is_no_reason_to_restart(self):
        """A replica that cannot reach the broker is alive and not ready."""
        pod = self.pod(self.workload("Deployment"), "controller-without-broker")
        process = pod.start(
            TRUSTFLEET, TRUSTFLEET__HTTP__LISTEN="127.0.0.1:0", TRUSTFLEET__BROKER__URL="amqp://u:p@127.0.0.1:1/%2f"
        )
        try:
            url = json.loads(process.stdout.readline())["listening"]
            live, ready = (
                status(url + pod.container[p]["httpGet"]["path"]) for p in ("livenessProbe", "readinessProbe")
            )
            check(
                (live, ready) == (200, 503),
                f"without a broker a replica lives ({live}) and is not ready ({ready})",
                pod,
            )
        finally:
            pod.end(process)

    def tls_to_the_broker(self):
        """`amqps://` by the roots of a ConfigMap, and not without them."""
        port = tls_in_front_of(urllib.parse.urlsplit(os.environ["TRUSTFLEET_AMQP_URL"]), self.work)
        self.objects["ConfigMap", "roots"] = {"data": {"ca.crt": (self.work / "ca.pem").read_text()}}
        broker = urllib.parse.urlsplit(os.environ["TRUSTFLEET_AMQP_URL"])
        user = broker.netloc.rsplit("@", 1)[0]
        url = broker._replace(scheme="amqps", netloc=f"{user}@localhost:{port}").geturl()
        required = ["config.broker.agent_url=amqps://localhost/%2f"]
        for name, settings in (("with", ["broker.tlsCaConfigMap=roots"]), ("without", [])):
            documents = self.render("trustfleet", *required, *settings)
            pod = self.pod(self.workload("Deployment", documents), f"controller-{name}-roots")
            process = pod.start(TRUSTFLEET, TRUSTFLEET__HTTP__LISTEN="127.0.0.1:0", TRUSTFLEET__BROKER__URL=url)
            try:
                ready = json.loads(process.stdout.readline())["listening"] + "/readyz"
                if settings:
                    until(lambda: status(ready) == 200, "a replica reaches an amqps:// broker by broker.tlsCaConfigMap", pod)
                else:
                    time.sleep(3)
                    check(status(ready) == 503, "and does not trust it without", pod)
            finally:
                pod.end(process)


def tls_in_front_of(broker, work):
    """A port of localhost that ends TLS, with a certificate of a CA whose root is `ca.pem`, and goes on to the broker."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
    for command in (
        ["req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=roots"],
        ["req", "-x509", *key, "-keyout", "tls.key", "-out", "tls.pem", "-subj", "/CN=localhost", "-CA", "ca.pem"]
        + ["-CAkey", "ca.key", "-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=CA:FALSE"],
    ):
        subprocess.run(["openssl", *command], cwd=work, capture_output=True, check=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(work / "tls.pem", work / "tls.key")
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        sink.close()

    def serve():
        while True:
            accepted, _ = listener.accept()
            try:
                inner = context.wrap_socket(accepted, server_side=True)
            except OSError:
                continue
            outer = socket.create_connection((broker.hostname, broker.port))
            for pair in ((inner, outer), (outer, inner)):
                threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()[1]


def status(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def until(done, what, pod):
    end = time.monotonic() + PATIENCE_S
    while not done():
        if time.monotonic() > end:
            check(False, what, pod)
        time.sleep(0.2)
    check(True, what)


def check(good, what, *pods, said=""):
    if good:
        if what:
            print(what)
        return
    for pod in pods:
        print(pod.log()[-3000:])
    raise SystemExit(f"not so: {what or 'a command succeeds'} {said}")


main()
