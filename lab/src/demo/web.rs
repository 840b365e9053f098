//! The last act: a real nginx whose certificate is renewed by itself, while it is asked without a pause.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::time::sleep;
use trustfleet_pki::certificate::Certificate;

use super::{DemoError, Fleet, Screen, fleet::word, proof::output, world::World};
use crate::stack::PortReservation;

/// The agent beside the web server, and its device.
pub(super) const AGENT: &str = "ap-1";
const SERVICE: &str = "https";
const NGINX: &str = "/usr/sbin/nginx";
/// How long the CA's certificates are valid here.
const VALIDITY_S: &str = "120";
/// Renewed when this part of it has elapsed.
const RENEW_AT_PERCENT: u8 = 10;
const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);

/// A web server that takes its certificate from the agent.
#[derive(Debug)]
pub(super) struct Web {
    dir: PathBuf,
    port: u16,
}

impl Web {
    /// Writes its configuration, and a certificate to start with.
    ///
    /// # Errors
    /// A file cannot be written.
    pub(super) fn prepare(world: &World) -> Result<Self, DemoError> {
        let dir = world.dir().join("nginx");
        fs::create_dir_all(dir.join("tls")).map_err(DemoError::file("making", &dir))?;
        let port = PortReservation::any()?.port();
        let web = Self { dir, port };
        let placeholder = [
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            "/CN=placeholder",
        ];
        let mut openssl = Command::new("openssl");
        openssl.args(placeholder).arg("-keyout").arg(web.dir.join("tls/key.pem"));
        openssl.arg("-out").arg(web.dir.join("tls/fullchain.pem"));
        output(openssl)?;
        let conf = web.dir.join("nginx.conf");
        fs::write(&conf, web.configuration()).map_err(DemoError::file("writing", &conf))?;
        Ok(web)
    }

    fn configuration(&self) -> String {
        let (dir, port) = (self.dir.display(), self.port);
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|kind| format!("    {kind}_temp_path {dir}/{kind};\n"))
            .collect();
        format!(
            "pid {dir}/nginx.pid;\nerror_log {dir}/error.log;\ndaemon off;\nevents {{}}\nhttp {{\n    access_log off;\n{temporary}    \
             server {{\n        listen 127.0.0.1:{port} ssl;\n        ssl_certificate {dir}/tls/fullchain.pem;\n        \
             ssl_certificate_key {dir}/tls/key.pem;\n        location / {{ return 200 \"served\\n\"; }}\n    }}\n}}\n"
        )
    }

    fn arguments(&self) -> Vec<String> {
        let dir = self.dir.display();
        ["-p", &format!("{dir}/"), "-c", &format!("{dir}/nginx.conf"), "-e", &format!("{dir}/error.log")]
            .map(str::to_owned)
            .into()
    }

    /// What the agent's configuration says of it.
    pub(super) fn service(&self) -> String {
        let mut reload = vec![NGINX.to_owned()];
        reload.extend(self.arguments());
        reload.extend(["-s".to_owned(), "reload".to_owned()]);
        let (dir, port) = (self.dir.display(), self.port);
        format!(
            "\n[services.{SERVICE}]\nreload = {reload:?}\n[services.{SERVICE}.probe]\ntls = \"127.0.0.1:{port}\"\n\
             [[services.{SERVICE}.exports]]\npath = \"{dir}/tls/fullchain.pem\"\ncontent = \"fullchain\"\n\
             [[services.{SERVICE}.exports]]\npath = \"{dir}/tls/key.pem\"\ncontent = \"key\"\n"
        )
    }

    /// Starts it, gives it a certificate, and watches how that is replaced.
    ///
    /// # Errors
    /// Something takes too long, a handshake fails, or it serves another certificate than the controller says.
    pub(super) async fn act(&self, world: &mut World, fleet: &Fleet, screen: &Screen) -> Result<(), DemoError> {
        world.start_server("nginx", Path::new(NGINX), &self.arguments())?;
        let ca = world.start_ca("short-lived CA", &[AGENT], ["--validity-seconds", VALIDITY_S]).await?;
        screen.say(&format!(
            "a real nginx serves https on 127.0.0.1:{} with a placeholder; a second CA issues for {VALIDITY_S} seconds only",
            self.port
        ));
        let renewal =
            json!({ "enabled": true, "elapsed_percent": RENEW_AT_PERCENT, "latest_percent": RENEW_AT_PERCENT });
        let policy = json!({ "name": "web", "key": { "algorithm": "ecdsa-p256" }, "auto_update": renewal });
        fleet.serve(&ca, AGENT, SERVICE, &policy)?;
        let root = ca.dir.join("root.pem");
        let first = self.served_in_use(world, fleet, &root, None).await?;
        screen.say(&format!("nginx serves {first}, verified in service by the agent's own look"));

        let begin = Instant::now();
        let mut handshakes = 0_u32;
        let second = loop {
            let serial =
                self.ask(&root)?.ok_or_else(|| DemoError::Unexpected("a handshake with nginx failed".to_owned()))?;
            handshakes += 1;
            if serial != first {
                break serial;
            }
            if begin.elapsed() > LIMIT {
                return Err(DemoError::Late { what: "renewal of nginx's certificate".to_owned(), limit: LIMIT });
            }
            sleep(PAUSE).await;
        };
        self.served_in_use(world, fleet, &root, Some(&second)).await?;
        screen.say(&format!(
            "renewed by itself after {:.0} s and taken into service: nginx serves {second}, none of {handshakes} handshakes failed",
            begin.elapsed().as_secs_f64()
        ));
        Ok(())
    }

    /// Waits until nginx serves what the controller says is in use and verified in service.
    async fn served_in_use(
        &self,
        world: &mut World,
        fleet: &Fleet,
        root: &Path,
        wanted: Option<&str>,
    ) -> Result<String, DemoError> {
        let begin = Instant::now();
        loop {
            world.all_alive()?;
            let trustpoint = fleet.trustpoint(AGENT, SERVICE)?;
            let verified = trustpoint["in_service"].to_string().contains("verified");
            if verified && let Ok(serial) = word(&trustpoint, "/active/serial") {
                let served = self.ask(root)?;
                if served.as_deref() == Some(serial.as_str()) && wanted.is_none_or(|wanted| wanted == serial) {
                    return Ok(serial);
                }
            }
            if begin.elapsed() > LIMIT {
                return Err(DemoError::Late { what: format!("nginx's certificate ({trustpoint})"), limit: LIMIT });
            }
            sleep(PAUSE).await;
        }
    }

    /// Serial number of the certificate in one whole handshake; none: it does not lead to the root.
    fn ask(&self, root: &Path) -> Result<Option<String>, DemoError> {
        let mut client = Command::new("openssl");
        client.args(["s_client", "-connect", &format!("127.0.0.1:{}", self.port), "-verify_return_error", "-CAfile"]);
        let answer =
            client.arg(root).stdin(Stdio::null()).output().map_err(DemoError::file("running", Path::new("openssl")))?;
        if !answer.status.success() {
            return Ok(None);
        }
        let text = String::from_utf8_lossy(&answer.stdout);
        let begin = text.find("-----BEGIN CERTIFICATE-----").unwrap_or(text.len());
        let end =
            text.find("-----END CERTIFICATE-----").map_or(text.len(), |at| at + "-----END CERTIFICATE-----".len());
        let pem = text.get(begin..end).unwrap_or_default();
        Ok(Certificate::from_pem(pem).ok().map(|certificate| certificate.serial_hex()))
    }
}
