//! Two real strongSwan daemons in network namespaces of their own authenticate each other by IKEv2 with enrolled
//! certificates and RSASSA-PSS (S25a); after a renewal they do so with the new one, and only with it.
//!
//! Needs root and network namespaces. Where they cannot be had, `TRUSTFLEET_WITHOUT_NAMESPACES=1` leaves this test out, and
//! says so; without that word it fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "support/served.rs"]
mod served;
mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::{Value, json};
use served::{LIMIT, bind, done, program, run, told};
use support::Lab;
use trustfleet_lab::{
    house::Fleet,
    testkit::{Child, eventually},
};

const CHARON: &str = "/usr/sbin/charon-systemd";
const SWANCTL: &str = "/usr/sbin/swanctl";
const DEVICES: [&str; 2] = ["gw-a", "gw-b"];

/// Two namespaces that see each other and nothing else.
struct Namespaces {
    names: [String; 2],
}

impl Namespaces {
    /// None: this machine does not let us, and the run has said that it knows.
    fn make() -> Option<Self> {
        if std::env::var_os("TRUSTFLEET_WITHOUT_NAMESPACES").is_some() {
            eprintln!("SKIPPED: TRUSTFLEET_WITHOUT_NAMESPACES is set, strongSwan is not tested");
            return None;
        }
        let names = ["a", "b"].map(|side| format!("tf{}{side}", std::process::id()));
        let namespaces = Self { names };
        let [a, b] = &namespaces.names;
        for name in [a, b] {
            let made = run(&["ip", "netns", "add", name]);
            assert!(
                made.status.success(),
                "this test needs root and network namespaces (set TRUSTFLEET_WITHOUT_NAMESPACES=1 to leave it out): {}",
                String::from_utf8_lossy(&made.stderr)
            );
        }
        done(&["ip", "link", "add", "ike", "netns", a, "type", "veth", "peer", "name", "ike", "netns", b]);
        for (name, address) in [(a, "10.9.0.1/24"), (b, "10.9.0.2/24")] {
            done(&["ip", "-n", name, "addr", "add", address, "dev", "ike"]);
            done(&["ip", "-n", name, "link", "set", "ike", "up"]);
            done(&["ip", "-n", name, "link", "set", "lo", "up"]);
        }
        Some(namespaces)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.names {
            run(&["ip", "netns", "del", name]);
        }
    }
}

/// One gateway with its daemon.
struct Gateway {
    name: &'static str,
    dir: PathBuf,
    _charon: Child,
}

impl Gateway {
    async fn start(below: &Path, name: &'static str, namespace: &str) -> Self {
        let dir = below.join(name);
        for folder in ["x509", "x509ca", "private"] {
            fs::create_dir_all(dir.join("swanctl").join(folder)).unwrap();
        }
        let here = dir.display();
        let plugins = "random nonce x509 revocation constraints pubkey pkcs1 pkcs8 pem openssl kernel-netlink socket-default vici kdf \
                       hmac sha2 gmp";
        let text = format!(
            "charon-systemd {{\n load = {plugins}\n filelog {{\n  log {{\n   path = {here}/log\n   default = 1\n   ike = 2\n   \
             flush_line = yes\n  }}\n }}\n plugins {{\n  vici {{\n   socket = unix://{here}/vici\n  }}\n }}\n}}\n\
             swanctl {{\n load = pem pkcs1 x509 revocation constraints pubkey openssl random\n}}\n"
        );
        fs::write(dir.join("strongswan.conf"), text).unwrap();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace, CHARON]).env("STRONGSWAN_CONF", dir.join("strongswan.conf"));
        let charon = Child::start("charon", command).unwrap();
        let gateway = Self { name, dir, _charon: charon };
        gateway.configure("rsa/pss-sha256", false);
        eventually(LIMIT, "charon answers", async || gateway.swanctl(&["--stats"]).status.success().then_some(()))
            .await
            .unwrap();
        gateway
    }

    /// `auth`: the signature of IKE_AUTH on both sides. `pinned`: no other certificate of the peer's than `peer.pem` counts.
    fn configure(&self, auth: &str, pinned: bool) {
        let (me, peer) = if self.name == DEVICES[0] { (0, 1) } else { (1, 0) };
        let (mine, theirs) = (me + 1, peer + 1);
        let pin = if pinned { "certs = peer.pem" } else { "" };
        let text = format!(
            "connections {{\n lab {{\n  version = 2\n  local_addrs = 10.9.0.{mine}\n  remote_addrs = 10.9.0.{theirs}\n  \
             proposals = aes128-sha256-ecp256\n  childless = force\n  unique = replace\n  \
             local {{\n   auth = ike:{auth}\n   certs = cert.pem\n   id = {}.lab.example\n  }}\n  \
             remote {{\n   auth = ike:{auth}\n   {pin}\n   id = {}.lab.example\n  }}\n }}\n}}\n",
            DEVICES[me], DEVICES[peer]
        );
        fs::write(self.dir.join("swanctl/swanctl.conf"), text).unwrap();
    }

    fn swanctl(&self, words: &[&str]) -> Output {
        let mut command = Command::new(SWANCTL);
        command.args(words).arg("--uri").arg(format!("unix://{}/vici", self.dir.display()));
        command.env("STRONGSWAN_CONF", self.dir.join("strongswan.conf")).env("SWANCTL_DIR", self.dir.join("swanctl"));
        command.output().unwrap()
    }

    fn load(&self) {
        let loaded = self.swanctl(&["--load-all", "--noprompt"]);
        assert!(loaded.status.success(), "{}", String::from_utf8_lossy(&loaded.stderr));
    }

    /// Authenticates anew as the initiator; whether that went well, and what was said.
    fn authenticate(&self) -> (bool, String) {
        self.swanctl(&["--terminate", "--ike", "lab", "--timeout", "10"]);
        let output = self.swanctl(&["--initiate", "--ike", "lab", "--timeout", "20"]);
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn pin(&self, pem: &str) {
        fs::write(self.dir.join("swanctl/x509/peer.pem"), pem).unwrap();
        self.load();
    }
}

/// One service for both: the gateway in front of them fills in whose it is.
fn service(below: &Path) -> String {
    let here = format!("{}/{{device}}", below.display());
    let env = format!("\"/usr/bin/env\", \"STRONGSWAN_CONF={here}/strongswan.conf\", \"SWANCTL_DIR={here}/swanctl\"");
    let loaded = format!(
        "swanctl --list-certs --type x509 --pem --uri unix://{here}/vici 2>/dev/null | openssl crl2pkcs7 -nocrl -certfile /dev/stdin | \
         openssl pkcs7 -print_certs -noout -text | grep -A 1 'Serial Number'"
    );
    let export = |path: &str, content: &str| {
        format!("[[services.ipsec.exports]]\npath = \"{here}/swanctl/{path}\"\ncontent = \"{content}\"\n")
    };
    [
        format!("\n[services.ipsec]\nreload = [{env}, \"{SWANCTL}\", \"--load-all\", \"--noprompt\", \"--uri\", \"unix://{here}/vici\"]\n"),
        format!("[services.ipsec.probe]\ncommand = [{env}, \"/bin/sh\", \"-c\", \"{loaded}\"]\n"),
        export("x509/cert.pem", "certificate"),
        export("private/key.pem", "key"),
        export("x509ca/issuing.pem", "chain"),
        export("x509ca/root.pem", "ca"),
    ]
    .concat()
}

fn pem_of(fleet: &Fleet, trustpoint: &Value) -> String {
    let id = trustpoint["active"]["id"].as_str().unwrap();
    fleet.get(&format!("certificates/{id}")).unwrap()["pem"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s25a_s34_strongswan_authenticates_by_rsassa_pss_and_after_a_renewal_with_the_new_certificate_alone() {
    let Some(namespaces) = Namespaces::make() else { return };
    program(CHARON, "charon-systemd");
    program(SWANCTL, "strongswan-swanctl");
    let lab = Lab::start().await;
    let below = lab.dir.path().join("ipsec");
    let a = Gateway::start(&below, DEVICES[0], &namespaces.names[0]).await;
    let b = Gateway::start(&below, DEVICES[1], &namespaces.names[1]).await;
    let fleet = lab.fleet(&DEVICES, &json!({ "key": { "algorithm": "rsa-2048" } })).await;
    let (_agent, _files) = fleet.start_agent_with("gw", &service(&below)).await.unwrap();
    let mut enrolled = Vec::new();
    for device in DEVICES {
        fleet.add_device(device, "gw").unwrap();
        bind(&fleet, device, &["ipsec"]);
        let first = fleet.enrolled(device, &fleet.enroll(device, "ir").unwrap(), LIMIT).await.unwrap();
        assert_eq!(first["in_service"]["services"][0]["result"], "verified", "{first:#}");
        enrolled.push(first);
    }

    // RSASSA-PSS with SHA-256, and the certificate that the controller knows: no other would do.
    let old = pem_of(&fleet, &enrolled[0]);
    b.configure("rsa/pss-sha256", true);
    b.pin(&old);
    let (well, said) = a.authenticate();
    assert!(well && said.contains("RSA_EMSA_PSS_SHA2_256"), "{said}");

    let job = fleet.enroll(DEVICES[0], "kur").unwrap();
    assert_eq!(fleet.job_ended(&job, LIMIT).await.unwrap()["state"], "succeeded");
    let renewed = told(&lab, &fleet, DEVICES[0], &enrolled[0]["active"]["serial"]).await;
    assert_eq!(renewed["in_service"]["services"][0]["result"], "verified", "{renewed:#}");
    assert_ne!(renewed["active"]["serial"], enrolled[0]["active"]["serial"]);

    // Who takes only the old certificate refuses; who takes only the new one lets in, by RSASSA-PSS with SHA-384 now.
    let (well, said) = a.authenticate();
    assert!(!well, "the old certificate is still used: {said}");
    for side in [&a, &b] {
        side.configure("rsa/pss-sha384", side.name == DEVICES[1]);
        side.load();
    }
    b.pin(&pem_of(&fleet, &renewed));
    let (well, said) = a.authenticate();
    assert!(
        well && said.contains("RSA_EMSA_PSS_SHA2_384"),
        "{said}\n{}",
        fs::read_to_string(b.dir.join("log")).unwrap()
    );
}
