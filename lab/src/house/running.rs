//! The running processes, and one tenant's fleet built through the public REST API.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};
use url::Url;

use super::{AgentFiles, ControllerFiles, Rest, RestError};
use crate::{
    stack::{StackEnv, TlsFiles},
    testkit::{Child, PortReservation, TestkitError, command, eventually},
};

/// Name of the tenant that [`Fleet::create`] makes.
pub const TENANT: &str = "lab";

const START_LIMIT: Duration = Duration::from_secs(30);

/// A part of the house did not come up, or refused what it should take.
#[derive(Debug, thiserror::Error)]
pub enum HouseError {
    /// A process.
    #[error(transparent)]
    Process(#[from] TestkitError),
    /// The REST API.
    #[error(transparent)]
    Rest(#[from] RestError),
    /// A file.
    #[error("{what} {path}")]
    File {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A process printed something else than announced.
    #[error("{name} announced itself with {line:?}, not with its URL")]
    Announcement {
        /// The process.
        name: &'static str,
        /// What it printed.
        line: String,
    },
    /// A job did not end as awaited.
    #[error("job {id} of {device} ended as {state}: {failure}")]
    Job {
        /// The job.
        id: String,
        /// The device.
        device: String,
        /// Its last state.
        state: String,
        /// Its failure.
        failure: Value,
    },
}

impl HouseError {
    fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { what, path, source }
    }
}

/// A controller process on a migrated database.
#[derive(Debug)]
pub struct House {
    /// The controller.
    pub controller: Child,
    /// The REST API with the platform's token.
    pub platform: Rest,
    /// Its files.
    pub files: ControllerFiles,
    /// Where everything is encrypted: what the controller serves with, and what verifies it.
    pub tls: Option<TlsFiles>,
    settings: Vec<(&'static str, String)>,
    dir: PathBuf,
    _port: PortReservation,
}

impl House {
    /// Migrates the database of `env`, starts a controller there and reads the platform's first token.
    ///
    /// # Errors
    /// The migration fails, or the controller does not come up.
    pub async fn start(dir: &Path, env: &StackEnv) -> Result<Self, HouseError> {
        Self::start_with(dir, env, &[]).await
    }

    /// The same with variables in the controller's environment, which go over its configuration.
    ///
    /// # Errors
    /// As [`House::start`].
    pub async fn start_with(
        dir: &Path,
        env: &StackEnv,
        settings: &[(&'static str, String)],
    ) -> Result<Self, HouseError> {
        // A port of its own, so that agents find the controller again after it was restarted.
        let mut port = PortReservation::any().map_err(TestkitError::from)?;
        port.open();
        let files = ControllerFiles::write(dir, env, port.port()).map_err(HouseError::file("writing", dir))?;
        let mut migrate = command("trustfleet")?;
        migrate.arg("migrate").arg("--config").arg(&files.config);
        let status = Child::start("trustfleet migrate", migrate)?;
        finish(status).await?;
        let (controller, url) = serve(&files, settings).await?;
        let token = fs::read_to_string(&files.first_token).map_err(|error| TestkitError::Process {
            name: "trustfleet serve",
            what: format!("listens, but {} cannot be read: {error}", files.first_token.display()),
            tail: controller.log(),
        })?;
        let token = Some(token.trim().to_owned());
        let platform = match &env.tls {
            Some(tls) => Rest::trusting(url, token, &tls.ca).map_err(HouseError::file("reading", &tls.ca))?,
            None => Rest::new(url, token),
        };
        let (tls, settings, dir) = (env.tls.clone(), settings.to_vec(), dir.to_owned());
        Ok(Self { controller, platform, files, tls, settings, dir, _port: port })
    }

    /// Starts the controller again after it ended or was killed, at the same address.
    ///
    /// # Errors
    /// It does not come up.
    pub async fn start_again(&mut self) -> Result<(), HouseError> {
        (self.controller, _) = serve(&self.files, &self.settings).await?;
        Ok(())
    }

    /// Starts a further controller on the same database and broker, with an address of its own.
    ///
    /// # Errors
    /// It does not come up.
    pub async fn replica(&self, name: &str, env: &StackEnv) -> Result<Replica, HouseError> {
        let dir = self.dir.join(name);
        fs::create_dir_all(&dir).map_err(HouseError::file("making", &dir))?;
        let mut port = PortReservation::any().map_err(TestkitError::from)?;
        port.open();
        let files = ControllerFiles::write(&dir, env, port.port()).map_err(HouseError::file("writing", &dir))?;
        let (controller, url) = serve(&files, &[]).await?;
        Ok(Replica { controller, url, files, _port: port })
    }

    /// Folder for files of the house.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

/// A further controller process of a house.
#[derive(Debug)]
pub struct Replica {
    /// The process.
    pub controller: Child,
    /// Its address.
    pub url: Url,
    files: ControllerFiles,
    _port: PortReservation,
}

impl Replica {
    /// Starts it again after it ended or was killed, at the same address.
    ///
    /// # Errors
    /// It does not come up.
    pub async fn start_again(&mut self) -> Result<(), HouseError> {
        (self.controller, _) = serve(&self.files, &[]).await?;
        Ok(())
    }
}

async fn finish(mut child: Child) -> Result<(), TestkitError> {
    let status = child.wait(START_LIMIT).await?;
    if status.success() {
        return Ok(());
    }
    Err(TestkitError::Process { name: "trustfleet migrate", what: format!("ended with {status}"), tail: child.log() })
}

async fn serve(files: &ControllerFiles, settings: &[(&'static str, String)]) -> Result<(Child, Url), HouseError> {
    let mut serve = command("trustfleet")?;
    serve.envs(settings.iter().map(|(name, value)| (*name, value.as_str())));
    serve.arg("serve").arg("--config").arg(&files.config);
    let mut child = Child::start("trustfleet serve", serve)?;
    let url = announced(&mut child, "trustfleet serve", "listening").await?;
    Ok((child, url))
}

/// Reads the URL from the one JSON line that a server prints when it is ready.
async fn announced(child: &mut Child, name: &'static str, key: &str) -> Result<Url, HouseError> {
    let line = child.line_with(&format!("\"{key}\""), START_LIMIT).await?;
    serde_json::from_str::<Value>(&line)
        .ok()
        .and_then(|value| value[key].as_str().and_then(|url| url.parse().ok()))
        .ok_or(HouseError::Announcement { name, line })
}

/// A further lab CA; ended with this.
#[derive(Debug)]
pub struct AnotherCa {
    /// The process.
    pub child: Child,
    /// Its CMP URL.
    pub url: Url,
    /// Its files: `root.pem`, `issuing.pem`, `chain.pem`.
    pub dir: PathBuf,
}

/// A tenant with a CA server, an entity and a policy; devices and agents are added to it.
#[derive(Debug)]
pub struct Fleet {
    /// The REST API with the tenant administrator's token.
    pub rest: Rest,
    /// The lab CA.
    pub ca: Child,
    /// The CA's CMP URL.
    pub ca_url: Url,
    /// The CA's files: `root.pem`, `issuing.pem`, `chain.pem`.
    pub ca_dir: PathBuf,
    tls: Option<TlsFiles>,
    dir: PathBuf,
}

impl Fleet {
    /// Starts a lab CA that knows the MAC secret `secret-DEVICE` of reference `ref-DEVICE` for every device named, and
    /// creates the tenant with a CA server, an entity with placeholders and a policy, each called `default`.
    ///
    /// # Errors
    /// A process does not come up, or the API refuses.
    pub async fn create(house: &House, devices: &[&str], policy: &Value) -> Result<Self, HouseError> {
        Self::create_at(house, devices, policy, &[]).await
    }

    /// The same with further arguments for the lab CA, such as `--hold-seconds 2`.
    ///
    /// # Errors
    /// A process does not come up, or the API refuses.
    pub async fn create_at(
        house: &House,
        devices: &[&str],
        policy: &Value,
        ca_args: &[&str],
    ) -> Result<Self, HouseError> {
        let ca_dir = house.dir().join("ca");
        fs::create_dir_all(&ca_dir).map_err(HouseError::file("making", &ca_dir))?;
        let (ca, ca_url) = start_ca(&ca_dir, devices, ca_args, house.tls.as_ref()).await?;
        house.platform.post("/v1/tenants", &json!({ "name": TENANT, "allow_weak_algorithms": false }))?;
        let admin = json!({ "role": "admin", "description": "lab" });
        let token = house.platform.post(&format!("/v1/tenants/{TENANT}/tokens"), &admin)?;
        let rest = house.platform.with_token(token["token"].as_str().map(str::to_owned));
        let fleet = Self { rest, ca, ca_url, ca_dir, tls: house.tls.clone(), dir: house.dir().to_owned() };
        fleet.post("ca-servers", &fleet.ca_server("default", &fleet.ca_url)?)?;
        let subject = "/C=DE/O=Trustfleet Lab/CN={device.name}";
        let sans = json!([{ "kind": "dns", "value": "{device.name}.lab.example" }]);
        fleet.post("entities", &json!({ "name": "default", "subject": subject, "sans": sans }))?;
        let mut body = policy.clone();
        body["name"] = Value::from("default");
        fleet.post("policies", &body)?;
        Ok(fleet)
    }

    /// The body that creates a CA server with the lab CA's anchors at `url`.
    ///
    /// # Errors
    /// The CA's files cannot be read.
    pub fn ca_server(&self, name: &str, url: &Url) -> Result<Value, HouseError> {
        let pem = |file: &str| {
            let path = self.ca_dir.join(file);
            fs::read_to_string(&path).map_err(HouseError::file("reading", &path))
        };
        let issuing = pem("issuing.pem")?;
        let name_of_ca = trustfleet_pki::certificate::Certificate::from_pem(&issuing)
            .map(|certificate| certificate.subject().to_slash())
            .map_err(|error| HouseError::File {
                what: "reading the CA's name from",
                path: self.ca_dir.join("issuing.pem"),
                source: io::Error::other(error),
            })?;
        Ok(json!({ "name": name, "ca_name": name_of_ca, "primary_url": url, "trust_anchors": [pem("root.pem")?] }))
    }

    /// Starts a further lab CA that knows the same secrets for these devices; its files are in a folder called `name`.
    ///
    /// # Errors
    /// It does not come up.
    pub async fn another_ca(&self, name: &str, devices: &[&str], args: &[&str]) -> Result<AnotherCa, HouseError> {
        let dir = self.dir.join(name);
        fs::create_dir_all(&dir).map_err(HouseError::file("making", &dir))?;
        let (child, url) = start_ca(&dir, devices, args, self.tls.as_ref()).await?;
        Ok(AnotherCa { child, url, dir })
    }

    /// Path of something of this tenant.
    pub fn path(&self, below: &str) -> String {
        format!("/v1/tenants/{TENANT}/{below}")
    }

    /// GET below the tenant.
    ///
    /// # Errors
    /// [`RestError`].
    pub fn get(&self, below: &str) -> Result<Value, RestError> {
        self.rest.get(&self.path(below))
    }

    /// POST below the tenant.
    ///
    /// # Errors
    /// [`RestError`].
    pub fn post(&self, below: &str, body: &Value) -> Result<Value, RestError> {
        self.rest.post(&self.path(below), body)
    }

    /// Makes a join token and starts an agent with it; returns when it has joined.
    ///
    /// # Errors
    /// The agent does not join.
    pub async fn start_agent(&self, name: &str) -> Result<(Child, AgentFiles), HouseError> {
        self.start_agent_with(name, "").await
    }

    /// The same with more in its configuration file, such as services.
    ///
    /// # Errors
    /// The agent does not join.
    pub async fn start_agent_with(&self, name: &str, more: &str) -> Result<(Child, AgentFiles), HouseError> {
        let token = self.post("join-tokens", &json!({ "agent_name": name }))?;
        let token = token["token"].as_str().unwrap_or_default();
        let ca_file = self.tls.as_ref().map(|tls| tls.ca.as_path());
        let files = AgentFiles::write_trusting(&self.dir, name, self.rest.base(), token, ca_file)
            .map_err(HouseError::file("writing", &self.dir))?;
        let text = fs::read_to_string(&files.config).map_err(HouseError::file("reading", &files.config))?;
        fs::write(&files.config, text + more).map_err(HouseError::file("writing", &files.config))?;
        let child = start_agent_process(&files)?;
        eventually(START_LIMIT, "the agent joined", async || self.get(&format!("agents/{name}")).ok()).await?;
        Ok((child, files))
    }

    /// Registers a device behind an agent and gives it the trustpoint `default` with its MAC credentials.
    ///
    /// # Errors
    /// The API refuses.
    pub fn add_device(&self, device: &str, agent: &str) -> Result<(), HouseError> {
        self.add_device_with_secret(device, agent, &format!("secret-{device}"))
    }

    /// The same with a secret of the caller's choice.
    ///
    /// # Errors
    /// The API refuses.
    pub fn add_device_with_secret(&self, device: &str, agent: &str, secret: &str) -> Result<(), HouseError> {
        self.post("devices", &json!({ "name": device, "agent": agent }))?;
        self.add_trustpoint(device, secret)
    }

    /// Registers a device that nobody is in front of, with its trustpoint.
    ///
    /// # Errors
    /// The API refuses.
    pub fn add_device_without_agent(&self, device: &str) -> Result<(), HouseError> {
        self.post("devices", &json!({ "name": device }))?;
        self.add_trustpoint(device, &format!("secret-{device}"))
    }

    fn add_trustpoint(&self, device: &str, secret: &str) -> Result<(), HouseError> {
        let mac = json!({ "reference": format!("ref-{device}"), "secret": secret });
        let body =
            json!({ "name": "default", "entity": "default", "ca_server": "default", "policy": "default", "mac": mac });
        self.post(&format!("devices/{device}/trustpoints"), &body)?;
        Ok(())
    }

    /// Asks for an enrolment of the trustpoint `default`; gives the job.
    ///
    /// # Errors
    /// The API refuses.
    pub fn enroll(&self, device: &str, request: &str) -> Result<Value, HouseError> {
        let body = json!({ "request": request });
        Ok(self.post(&format!("devices/{device}/trustpoints/default/enroll"), &body)?)
    }

    /// The trustpoint `default` of a device.
    ///
    /// # Errors
    /// The API refuses.
    pub fn trustpoint(&self, device: &str) -> Result<Value, HouseError> {
        Ok(self.get(&format!("devices/{device}/trustpoints/default"))?)
    }

    /// Waits until a job has ended, in whatever way.
    ///
    /// # Errors
    /// It has not ended in time.
    pub async fn job_ended(&self, job: &Value, at_most: Duration) -> Result<Value, HouseError> {
        let below = format!("jobs/{}", job["id"].as_str().unwrap_or_default());
        let found = eventually(at_most, "the job ended", async || {
            let job = self.get(&below).ok()?;
            matches!(job["state"].as_str(), Some("succeeded" | "failed")).then_some(job)
        });
        Ok(found.await?)
    }

    /// Waits until a job has succeeded and its certificate is in use.
    ///
    /// # Errors
    /// It failed, or not in time.
    pub async fn enrolled(&self, device: &str, job: &Value, at_most: Duration) -> Result<Value, HouseError> {
        let job = self.job_ended(job, at_most).await?;
        if job["state"] != "succeeded" {
            return Err(HouseError::Job {
                id: job["id"].to_string(),
                device: device.to_owned(),
                state: job["state"].to_string(),
                failure: job["failure"].clone(),
            });
        }
        let found = eventually(at_most, "the certificate is in use", async || {
            let trustpoint = self.trustpoint(device).ok()?;
            (trustpoint["status"] == "active").then_some(trustpoint)
        });
        Ok(found.await?)
    }
}

/// Starts an agent's process from its files, as after a restart of the device.
///
/// # Errors
/// It cannot be started.
pub fn start_agent_process(files: &AgentFiles) -> Result<Child, TestkitError> {
    let mut run = command("trustfleet-agent")?;
    run.arg("run").arg("--config").arg(&files.config);
    Child::start("trustfleet-agent", run)
}

async fn start_ca(
    dir: &Path,
    devices: &[&str],
    args: &[&str],
    tls: Option<&TlsFiles>,
) -> Result<(Child, Url), HouseError> {
    let mut ca = command("trustfleet-lab")?;
    ca.args(["ca", "--port", "0", "--dir"]).arg(dir).args(args);
    if let Some(tls) = tls {
        ca.arg("--tls-cert-file").arg(&tls.certificate).arg("--tls-key-file").arg(&tls.key);
    }
    for device in devices {
        ca.arg("--secret").arg(format!("ref-{device}=secret-{device}"));
    }
    let mut child = Child::start("trustfleet-lab ca", ca)?;
    let url = announced(&mut child, "trustfleet-lab ca", "url").await?;
    Ok((child, url))
}
