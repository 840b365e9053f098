#!/usr/bin/env python3
"""api.py SCHEMATHESIS TRUSTFLEET: a running controller against its own OpenAPI document, inside `trustfleet-lab stack`.

All checks of Schemathesis, over all operations, as a tenant's administrator, as a platform administrator and without a
token: no server error, no status, header or body that is not documented, no authorization that is ignored. The limits of
rates are off. Options after the two programs go to Schemathesis (such as `--seed 1`).
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request

SCHEMATHESIS, TRUSTFLEET, *OPTIONS = sys.argv[1:]
SCHEMATHESIS, TRUSTFLEET = os.path.abspath(SCHEMATHESIS), os.path.abspath(TRUSTFLEET)
HERE = pathlib.Path(__file__).resolve().parent
EXAMPLES = 40
PATIENCE_S = 900


def main():
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        controller = Controller(folder)
        try:
            admin = controller.furnish()
            of_tenant = controller.operations("viewer", "operator", "admin")
            of_platform = controller.operations("platform_admin")
            # Together with the lists they would take back the very token of the run: they go alone.
            taking_back = {"token_delete", "platform_token_delete"}
            # The platform's operations end the life of a tenant that nobody else needs.
            platform = controller.platform
            failures = [
                controller.check("a tenant's administrator", admin, "acme", of_tenant - taking_back),
                controller.check("a tenant's administrator, tokens", admin, "acme", of_tenant & taking_back),
                controller.check("a platform administrator", platform, "spare", of_platform - taking_back),
                controller.check("a platform administrator, tokens", platform, "spare", of_platform & taking_back),
                controller.check("nobody", None, "acme"),
            ]
        finally:
            controller.end()
        if any(failures):
            sys.exit(1)


class Controller:
    def __init__(self, folder):
        self.folder = folder
        variable = lambda name: os.environ[f"TRUSTFLEET_{name}"]
        broker = urllib.parse.urlsplit(variable("AMQP_URL"))
        token = folder / "platform.token"
        config = folder / "controller.toml"
        lines = [
            f'first_token_file = "{token}"',
            "[http]",
            'listen = "127.0.0.1:0"',
            "rate_limit_per_s = 0",
            "failed_limit_per_min = 0",
            "[database]",
            f'api_url = "{variable("DB_API_URL")}"',
            f'system_url = "{variable("DB_SYSTEM_URL")}"',
            f'owner_url = "{variable("DB_OWNER_URL")}"',
            "[broker]",
            f'url = "{variable("AMQP_URL")}"',
            f'agent_url = "{broker._replace(netloc=f"{broker.hostname}:{broker.port}").geturl()}"',
            "[keys]",
            f'signing_key_file = "{variable("SIGNING_KEY_FILE")}"',
            f'broker_token_key_file = "{variable("BROKER_TOKEN_KEY_FILE")}"',
            f'key_encryption_key_file = "{variable("KEK_FILE")}"',
        ]
        config.write_text("\n".join(lines) + "\n")
        subprocess.run([TRUSTFLEET, "migrate", "--config", config], check=True, stdout=subprocess.DEVNULL)
        self.log = folder / "controller.log"
        self.process = subprocess.Popen(
            [TRUSTFLEET, "serve", "--config", config], stdout=subprocess.PIPE, stderr=self.log.open("w"), text=True
        )
        self.url = json.loads(self.process.stdout.readline())["listening"]
        self.platform = token.read_text().strip()

    def post(self, path, body):
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), method="POST")
        request.add_header("Authorization", f"Bearer {self.platform}")
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def furnish(self):
        """A tenant with one object of each kind that operators make; its administrator's token."""
        self.post("/v1/tenants", {"name": "acme"})
        self.post("/v1/tenants", {"name": "spare"})
        certificate = self.folder / "ca.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=CA", "-days", "2"]
            + ["-keyout", self.folder / "ca.key", "-out", certificate],
            check=True,
            stderr=subprocess.DEVNULL,
        )
        server = {"name": "default", "ca_name": "/CN=CA", "primary_url": "http://127.0.0.1:9/pkix/"}
        self.post("/v1/tenants/acme/ca-servers", {**server, "trust_anchors": [certificate.read_text()]})
        self.post("/v1/tenants/acme/entities", {"name": "default", "subject": "CN={device.name}"})
        self.post("/v1/tenants/acme/policies", {"name": "default", "key": {"algorithm": "ecdsa-p256"}})
        self.post("/v1/tenants/acme/devices", {"name": "ap-1"})
        return self.post("/v1/tenants/acme/tokens", {"role": "admin", "description": "schemathesis"})["token"]

    def operations(self, *roles):
        """The operations that need one of these roles."""
        with urllib.request.urlopen(f"{self.url}/openapi.json", timeout=30) as answer:
            document = json.load(answer)
        operations = [operation for item in document["paths"].values() for operation in item.values()]
        return {operation["operationId"] for operation in operations if operation.get("x-role") in roles}

    def check(self, who, token, tenant, operations=()):
        """Runs Schemathesis; whether it found something. Only nobody may be refused what the document allows."""
        refusals = "" if token else "401, 403, "
        config = self.folder / "api.toml"
        config.write_text((HERE / "api.toml").read_text().replace("REFUSALS", refusals).replace("TENANT", tenant))
        command = [SCHEMATHESIS, "--config-file", config, "run", f"{self.url}/openapi.json"]
        command += ["--checks", "all", "--phases", "examples,coverage,fuzzing", "--max-examples", str(EXAMPLES)]
        command += ["--no-color", "--continue-on-failure", "--warnings", "off", "--generation-database", "none"]
        for operation in sorted(operations):
            command += ["--include-operation-id", operation]
        if token:
            command += ["--generation-with-security-parameters", "false"]
            command += ["--header", f"Authorization: Bearer {token}"]
        hooks = {**os.environ, "SCHEMATHESIS_HOOKS": "api_hooks", "PYTHONPATH": str(HERE)}
        done = subprocess.run(
            [*command, *OPTIONS], cwd=self.folder, env=hooks, capture_output=True, text=True, timeout=PATIENCE_S
        )
        summary = done.stdout[done.stdout.find("SUMMARY") :]
        cases = re.search(r"([\d,]+) generated.*", summary)
        print(f"as {who}: {cases.group(0) if cases else 'no cases'}, exit code {done.returncode}")
        if done.returncode:
            print(done.stdout[-20000:], done.stderr[-4000:])
        return done.returncode != 0

    def end(self):
        self.process.terminate()
        code = self.process.wait(120)
        errors = [line for line in self.log.read_text().splitlines() if " ERROR " in line]
        print(f"the controller ended with {code}; its log has {len(errors)} errors")
        if code or errors:
            print("\n".join(errors[:20]))
            sys.exit(1)


main()
