//! One tenant with its devices, made and asked through the public REST API.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::time::sleep;
use trustfleet_pki::certificate::Certificate;
use url::Url;

use super::{
    DemoError, Screen,
    world::{Controller, RunningCa, World},
};
use crate::house::Rest;

/// The tenant's name.
pub(super) const TENANT: &str = "demo";
/// The agents: two access points of their own, and a gateway with two devices behind it.
pub(super) const AGENTS: [&str; 3] = ["ap-1", "ap-2", "gw-1"];
/// The devices.
pub(super) const DEVICES: [Device; 4] = [
    Device { name: "ap-1", agent: "ap-1", trustpoint: "radius", serial: "AP-4711-1", site: "berlin" },
    Device { name: "ap-2", agent: "ap-2", trustpoint: "radius", serial: "AP-4711-2", site: "berlin" },
    Device { name: "gw-1a", agent: "gw-1", trustpoint: "ipsec", serial: "GW-0815-A", site: "hamburg" },
    Device { name: "gw-1b", agent: "gw-1", trustpoint: "ipsec", serial: "GW-0815-B", site: "hamburg" },
];

const JOIN_LIMIT: Duration = Duration::from_secs(20);
const ACTIVATION_LIMIT: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(50);

/// A device of the demonstration.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) name: &'static str,
    pub(super) agent: &'static str,
    pub(super) trustpoint: &'static str,
    serial: &'static str,
    site: &'static str,
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) device: &'static Device,
    pub(super) kind: &'static str,
    pub(super) id: String,
}

/// The tenant, reached with an administrator's token of its own.
#[derive(Debug)]
pub(super) struct Fleet {
    rest: Rest,
    /// The administrator's token, for the commands to try next.
    pub(super) token: String,
    secrets: Vec<(&'static str, String)>,
}

impl Fleet {
    /// Creates the tenant, its administrator's token, a CA server, an entity and a CMP policy.
    ///
    /// # Errors
    /// The API refuses.
    pub(super) fn create(controller: &Controller, ca: &RunningCa) -> Result<Self, DemoError> {
        let platform = &controller.rest;
        platform.post("/v1/tenants", &json!({ "name": TENANT, "display_name": "Demonstration" }))?;
        let admin = json!({ "role": "admin", "description": "demonstration" });
        let token = word(&platform.post(&format!("/v1/tenants/{TENANT}/tokens"), &admin)?, "/token")?;
        let rest = platform.with_token(Some(token.clone()));
        let fleet = Self { rest, token, secrets: ca.secrets.clone() };

        fleet.ca_server("lab-ca", ca)?;
        let sans = json!([{ "kind": "dns", "value": "{device.name}.{label.site}.example" }]);
        let subject = "/C=DE/O=Example/OU={label.site}/CN={device.name}/serialNumber={device.serial}";
        fleet.post("entities", &json!({ "name": "devices", "subject": subject, "sans": sans }))?;
        fleet.post("policies", &json!({ "name": "p256", "key": { "algorithm": "ecdsa-p256" } }))?;
        Ok(fleet)
    }

    /// The controller's URL.
    pub(super) const fn url(&self) -> &Url {
        self.rest.base()
    }

    /// A one-time token for an agent of that name.
    ///
    /// # Errors
    /// The API refuses.
    pub(super) fn join_token(&self, agent: &str) -> Result<String, DemoError> {
        word(&self.post("join-tokens", &json!({ "agent_name": agent }))?, "/token")
    }

    /// Waits until all agents have joined.
    ///
    /// # Errors
    /// One has not in time, or a process has ended.
    pub(super) async fn joined(&self, world: &mut World, screen: &Screen) -> Result<(), DemoError> {
        let begin = Instant::now();
        let mut missing = AGENTS.to_vec();
        while !missing.is_empty() {
            world.all_alive()?;
            missing.retain(|agent| {
                let there = self.get(&format!("agents/{agent}")).is_ok();
                if there {
                    screen.say(&format!("agent {agent} has joined with its one-time token"));
                }
                !there
            });
            if begin.elapsed() > JOIN_LIMIT {
                let what = format!("joining of agent {}", missing.join(", "));
                return Err(DemoError::Late { what, limit: JOIN_LIMIT });
            }
            sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Registers all devices with their trustpoints.
    ///
    /// # Errors
    /// The API refuses.
    pub(super) fn register(&self) -> Result<(), DemoError> {
        for device in &DEVICES {
            let Device { name, agent, trustpoint, serial, site } = device;
            let labels = json!({ "site": site });
            self.post("devices", &json!({ "name": name, "agent": agent, "serial": serial, "labels": labels }))?;
            let secret = self.secrets.iter().find(|(device, _)| device == name).map(|(_, secret)| secret);
            let body = json!({
                "name": trustpoint, "entity": "devices", "ca_server": "lab-ca", "policy": "p256",
                "mac": { "reference": name, "secret": secret },
            });
            self.post(&format!("devices/{name}/trustpoints"), &body)?;
        }
        Ok(())
    }

    /// Asks for a certificate.
    ///
    /// # Errors
    /// The API refuses.
    pub(super) fn enroll(&self, device: &'static Device, kind: &'static str) -> Result<Job, DemoError> {
        let below = format!("devices/{}/trustpoints/{}/enroll", device.name, device.trustpoint);
        let id = word(&self.post(&below, &json!({ "request": kind }))?, "/id")?;
        Ok(Job { device, kind, id })
    }

    /// A job as it stands now.
    ///
    /// # Errors
    /// The API refuses.
    pub(super) fn job(&self, id: &str) -> Result<Value, DemoError> {
        self.get(&format!("jobs/{id}"))
    }

    /// The trustpoint, once nothing is under way and a certificate is in use.
    ///
    /// # Errors
    /// [`DemoError::Late`].
    pub(super) async fn in_use(&self, device: &Device) -> Result<Value, DemoError> {
        let begin = Instant::now();
        loop {
            let trustpoint = self.get(&format!("devices/{}/trustpoints/{}", device.name, device.trustpoint))?;
            if trustpoint["status"] == "active" {
                return Ok(trustpoint);
            }
            if begin.elapsed() > ACTIVATION_LIMIT {
                let what = format!("activation on {} (it stands at {})", device.name, trustpoint["status"]);
                return Err(DemoError::Late { what, limit: ACTIVATION_LIMIT });
            }
            sleep(PAUSE).await;
        }
    }

    /// Asks a CA of its own for the certificate of a service, which renews itself from then on.
    ///
    /// # Errors
    /// The API refuses.
    pub(super) fn serve(
        &self,
        ca: &RunningCa,
        device: &str,
        service: &str,
        policy: &Value,
    ) -> Result<String, DemoError> {
        self.ca_server("short-lived", ca)?;
        self.post("policies", policy)?;
        let secret = ca.secrets.iter().find(|(name, _)| *name == device).map(|(_, secret)| secret);
        let body = json!({
            "name": service, "entity": "devices", "ca_server": "short-lived", "policy": policy["name"],
            "services": [service], "mac": { "reference": device, "secret": secret },
        });
        self.post(&format!("devices/{device}/trustpoints"), &body)?;
        let below = format!("devices/{device}/trustpoints/{service}/enroll");
        word(&self.post(&below, &json!({ "request": "ir" }))?, "/id")
    }

    /// A trustpoint as it stands now.
    ///
    /// # Errors
    /// The API refuses.
    pub(super) fn trustpoint(&self, device: &str, name: &str) -> Result<Value, DemoError> {
        self.get(&format!("devices/{device}/trustpoints/{name}"))
    }

    fn ca_server(&self, name: &str, ca: &RunningCa) -> Result<(), DemoError> {
        let issuing = pem(ca, "issuing.pem")?;
        let ca_name = Certificate::from_pem(&issuing)
            .map_err(|error| DemoError::Unexpected(format!("the CA's issuing.pem cannot be read: {error}")))?
            .subject()
            .to_slash();
        let anchors = [pem(ca, "root.pem")?];
        let body = json!({ "name": name, "ca_name": ca_name, "primary_url": ca.url, "trust_anchors": anchors });
        self.post("ca-servers", &body).map(drop)
    }

    fn get(&self, below: &str) -> Result<Value, DemoError> {
        Ok(self.rest.get(&format!("/v1/tenants/{TENANT}/{below}"))?)
    }

    fn post(&self, below: &str, body: &Value) -> Result<Value, DemoError> {
        Ok(self.rest.post(&format!("/v1/tenants/{TENANT}/{below}"), body)?)
    }
}

fn pem(ca: &RunningCa, file: &str) -> Result<String, DemoError> {
    let path = ca.dir.join(file);
    fs::read_to_string(&path).map_err(DemoError::file("reading", &path))
}

/// A string of an answer.
pub(super) fn word(answer: &Value, pointer: &str) -> Result<String, DemoError> {
    answer
        .pointer(pointer)
        .and_then(Value::as_str)
        .map(str::to_owned)
        .ok_or_else(|| DemoError::Unexpected(format!("an answer of the API has no {pointer}: {answer}")))
}
