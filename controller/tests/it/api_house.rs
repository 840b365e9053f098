//! A controller with its HTTP server on a free port, and a client that keeps every answer it ever got.

use std::{net::TcpListener, path::PathBuf, sync::Arc, sync::Mutex, time::Duration};

use serde_json::{Value, json};
use trustfleet_controller::{
    api,
    app::{Core, Services},
    config::Config,
};
use trustfleet_model::clock::{Clock, SystemClock};
use trustfleet_wire::{
    Envelope,
    join::{JoinAnswer, JoinRequest},
    seal::OpeningKey,
    sign::{Purpose, SigningKey},
    v1::Blob,
};

use crate::{
    fixture::certificate,
    support::{Place, backend},
};

/// A controller as operators reach it.
pub struct House {
    pub place: Place,
    pub core: Core,
    pub platform: String,
    pub token_file: PathBuf,
    base: String,
    server: actix_web::dev::ServerHandle,
    seen: Arc<Mutex<Vec<String>>>,
    _dir: tempfile::TempDir,
}

async fn start(config: Config) -> Core {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let core = Core::start(config, backend().handle(), clock).await.unwrap();
    tokio::time::timeout(Duration::from_secs(30), core.services.broker.ready()).await.expect("the broker answers");
    core
}

/// An answer of the API.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub content_type: String,
    pub headers: ureq::http::HeaderMap,
    pub text: String,
    pub body: Value,
}

impl Answer {
    /// The answer, which must have this status.
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text);
        self
    }

    /// The broken rules as `field rule`.
    pub fn violations(&self) -> Vec<String> {
        let violations = self.body["violations"].as_array().cloned().unwrap_or_default();
        let text = |v: &Value, key: &str| v[key].as_str().unwrap_or("?").to_owned();
        violations.iter().map(|v| format!("{} {}", text(v, "field"), text(v, "rule"))).collect()
    }

    pub fn str(&self, pointer: &str) -> &str {
        self.body.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no {pointer} in {}", self.text))
    }
}

/// An agent that joined over HTTP.
pub struct JoinedAgent {
    pub sign: SigningKey,
    pub answer: JoinAnswer,
}

impl House {
    pub async fn open() -> Self {
        Self::open_with(|_| ()).await
    }

    /// The same with something else in the configuration.
    pub async fn open_with(change: impl FnOnce(&mut Config)) -> Self {
        let place = Place::make().await;
        let dir = tempfile::tempdir().unwrap();
        let token_file = dir.path().join("platform.token");
        let mut config = place.config("");
        config.first_token_file = Some(token_file.clone());
        change(&mut config);
        let core = start(config).await;
        api::ensure_first_token(&core.services).await.unwrap();
        let platform = std::fs::read_to_string(&token_file).unwrap().trim().to_owned();
        Self::serve(place, core, platform, token_file, dir)
    }

    /// A further replica of the same controller.
    pub async fn second(&self) -> Self {
        self.second_with(|_| ()).await
    }

    /// The same with something else in the configuration.
    pub async fn second_with(&self, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = self.place.config("");
        change(&mut config);
        let core = start(config).await;
        let dir = tempfile::tempdir().unwrap();
        Self::serve(self.place.clone(), core, self.platform.clone(), self.token_file.clone(), dir)
    }

    fn serve(place: Place, core: Core, platform: String, token_file: PathBuf, dir: tempfile::TempDir) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let server = api::serve(core.services.clone(), listener).unwrap();
        let handle = server.handle();
        actix::spawn(server);
        Self { place, core, platform, token_file, base, server: handle, seen: Arc::default(), _dir: dir }
    }

    pub async fn close(self) {
        self.server.stop(true).await;
        self.core.stop().await;
    }

    pub fn services(&self) -> &Services {
        &self.core.services
    }

    /// Where it listens, as `address:port`.
    pub fn address(&self) -> &str {
        self.base.trim_start_matches("http://")
    }

    /// Every answer so far, as one text.
    pub fn everything_answered(&self) -> String {
        self.seen.lock().unwrap().join("\n")
    }

    /// One request with a JSON body.
    pub async fn call(&self, method: &str, path: &str, token: Option<&str>, body: Option<Value>) -> Answer {
        self.raw(method, path, token, &[], body.map(|body| body.to_string().into_bytes())).await
    }

    pub async fn get(&self, path: &str, token: &str) -> Answer {
        self.call("GET", path, Some(token), None).await
    }

    pub async fn post(&self, path: &str, token: &str, body: Value) -> Answer {
        self.call("POST", path, Some(token), Some(body)).await
    }

    /// One request with whatever headers and bytes.
    pub async fn raw(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        headers: &[(&str, &str)],
        body: Option<Vec<u8>>,
    ) -> Answer {
        let mut request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if body.is_some() && !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/json");
        }
        let request = request.body(body.unwrap_or_default()).unwrap();
        let (status, headers, text) = tokio::task::spawn_blocking(move || {
            let config = ureq::Agent::config_builder().http_status_as_error(false).allow_non_standard_methods(true);
            let agent = ureq::Agent::new_with_config(config.timeout_global(Some(Duration::from_secs(30))).build());
            let mut response = agent.run(request).unwrap();
            let bytes = response.body_mut().read_to_vec().unwrap();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            (response.status().as_u16(), response.headers().clone(), text)
        })
        .await
        .unwrap();
        self.seen.lock().unwrap().push(text.clone());
        let content_type = headers.get("content-type").map_or("", |v| v.to_str().unwrap()).to_owned();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Answer { status, content_type, headers, text, body }
    }

    /// A tenant with a token of each role: viewer, operator, admin.
    pub async fn tenant(&self, name: &str) -> [String; 3] {
        self.post("/v1/tenants", &self.platform, json!({"name": name})).await.expect(201);
        let mut tokens = Vec::new();
        for role in ["viewer", "operator", "admin"] {
            tokens.push(self.token(name, role).await.1);
        }
        tokens.try_into().unwrap()
    }

    /// A further token: its id and itself.
    pub async fn token(&self, tenant: &str, role: &str) -> (String, String) {
        let body = json!({"role": role, "description": format!("{role} of {tenant}")});
        let made = self.post(&format!("/v1/tenants/{tenant}/tokens"), &self.platform, body).await.expect(201);
        (made.str("/id").to_owned(), made.str("/token").to_owned())
    }

    /// A join token.
    pub async fn join_token(&self, tenant: &str, body: Value) -> String {
        let path = format!("/v1/tenants/{tenant}/join-tokens");
        self.post(&path, &self.platform, body).await.expect(201).str("/token").to_owned()
    }

    /// What an agent sends to join.
    pub fn join_request(token: &str, name: &str, sign: &SigningKey, open: &OpeningKey) -> JoinRequest {
        let (sign_key, seal_key) = (sign.public_key(), open.public_key());
        let input = JoinRequest::proof_input(token, name, &sign_key, &seal_key);
        JoinRequest {
            token: token.to_owned(),
            name: name.to_owned(),
            sign_key: Blob(sign_key),
            seal_key: Blob(seal_key),
            software: "test 1".to_owned(),
            proof: Blob(sign.sign(Purpose::JoinProof, &input)),
        }
    }

    pub async fn join(&self, request: &JoinRequest) -> Answer {
        self.call("POST", "/agent/v1/join", None, Some(serde_json::to_value(request).unwrap())).await
    }

    /// Lets an agent join.
    pub async fn agent(&self, tenant: &str, name: &str) -> JoinedAgent {
        let token = self.join_token(tenant, json!({})).await;
        let (sign, open) = (SigningKey::generate().unwrap(), OpeningKey::generate().unwrap());
        let answer = self.join(&Self::join_request(&token, name, &sign, &open)).await.expect(200);
        let envelope = Envelope::from_bytes(answer.text.as_bytes()).unwrap();
        let key = self.services().keys.signing.public_key();
        JoinedAgent { sign, answer: envelope.open(Purpose::JoinAnswer, &key).unwrap() }
    }

    /// Everything that an enrolment needs: agent `site-1`, device `ap-1`, entity, CA server and policy `default`,
    /// trustpoint `mgmt` with the MAC secret `secret`.
    pub async fn furnish(&self, tenant: &str, secret: &str) -> JoinedAgent {
        let agent = self.agent(tenant, "site-1").await;
        let (anchor, _) = certificate("Test CA");
        let at = |path: &str| format!("/v1/tenants/{tenant}/{path}");
        let post = async |path: &str, body: Value| {
            self.post(&at(path), &self.platform, body).await.expect(201);
        };
        post("entities", json!({"name": "default", "subject": "/O=Acme/CN={device.name}"})).await;
        let server = json!({
            "name": "default", "ca_name": "/CN=Test CA", "primary_url": "http://127.0.0.1:9/pkix/", "trust_anchors": [anchor]
        });
        post("ca-servers", server).await;
        post("policies", json!({"name": "default", "key": {"algorithm": "ecdsa-p256"}})).await;
        post("devices", json!({"name": "ap-1", "agent": "site-1", "serial": "SN-1", "labels": {"site": "berlin"}}))
            .await;
        let trustpoint = json!({
            "name": "mgmt", "entity": "default", "ca_server": "default", "policy": "default",
            "mac": {"reference": "ref-1", "secret": secret}
        });
        post("devices/ap-1/trustpoints", trustpoint).await;
        agent
    }
}
