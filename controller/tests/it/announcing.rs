//! Agents without a token: let in by a factory identity, or by an operator who knows the serial number.

use std::{fs, process::Command};

use serde_json::json;
use tempfile::TempDir;
use trustfleet_pki::Certificate;
use trustfleet_wire::{
    Envelope,
    join::{AnnounceAnswer, AnnounceRequest, Challenge, FactoryProof},
    seal::OpeningKey,
    sign::{Purpose, SigningKey, key_id},
    v1::Blob,
};

use crate::api_house::{Answer, House};

/// A factory: its CA, and identities that it issues, by openssl.
struct Factory {
    dir: TempDir,
}

impl Factory {
    fn new() -> Self {
        let factory = Self { dir: tempfile::tempdir().unwrap() };
        factory.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "30",
            "-subj",
            "/CN=Factory CA",
            "-addext",
            "basicConstraints=critical,CA:TRUE",
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
        ]);
        factory
    }

    fn openssl(&self, args: &[&str]) -> Vec<u8> {
        let done = Command::new("openssl").args(args).current_dir(self.dir.path()).output().unwrap();
        assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
        done.stdout
    }

    fn ca_pem(&self) -> String {
        fs::read_to_string(self.dir.path().join("ca.pem")).unwrap()
    }

    /// An identity with this subject and these extensions, one a line.
    fn issue(&self, name: &str, subject: &str, extensions: &str) {
        let file = |ending: &str| format!("{name}.{ending}");
        let (key, csr, pem, ext) = (file("key"), file("csr"), file("pem"), file("ext"));
        fs::write(self.dir.path().join(&ext), extensions).unwrap();
        self.openssl(&[
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            subject,
            "-keyout",
            &key,
            "-out",
            &csr,
        ]);
        self.openssl(&[
            "x509", "-req", "-in", &csr, "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "30", "-extfile", &ext, "-out",
            &pem,
        ]);
    }

    fn proof(&self, name: &str, input: &[u8]) -> FactoryProof {
        let path = |ending: &str| self.dir.path().join(format!("{name}.{ending}"));
        fs::write(path("input"), input).unwrap();
        let (key, file) = (format!("{name}.key"), format!("{name}.input"));
        let signature = self.openssl(&["dgst", "-sha256", "-sign", &key, &file]);
        let certificate = Certificate::from_pem(&fs::read_to_string(path("pem")).unwrap()).unwrap();
        FactoryProof {
            certificate: Blob(certificate.as_der().to_vec()),
            chain: Vec::new(),
            algorithm: "ecdsa-sha256".to_owned(),
            signature: Blob(signature),
        }
    }
}

/// An agent that has no token.
pub struct Newcomer {
    pub sign: SigningKey,
    pub open: OpeningKey,
}

impl Newcomer {
    pub fn new() -> Self {
        Self { sign: SigningKey::generate().unwrap(), open: OpeningKey::generate().unwrap() }
    }

    pub async fn request(&self, house: &House, name: &str, serial: Option<&str>) -> AnnounceRequest {
        let answer = house.call("POST", "/agent/v1/challenge", None, Some(json!({}))).await.expect(200);
        let challenge: Challenge = serde_json::from_value(answer.body).unwrap();
        AnnounceRequest {
            tenant: "acme".to_owned(),
            name: name.to_owned(),
            serial: serial.map(str::to_owned),
            sign_key: Blob(self.sign.public_key()),
            seal_key: Blob(self.open.public_key()),
            software: "test 1".to_owned(),
            challenge: challenge.challenge,
            factory: None,
            proof: Blob(Vec::new()),
        }
    }

    pub async fn announce(&self, house: &House, mut request: AnnounceRequest) -> Answer {
        request.proof = Blob(self.sign.sign(Purpose::AnnounceProof, &request.proof_input()));
        house.call("POST", "/agent/v1/announce", None, Some(serde_json::to_value(&request).unwrap())).await
    }

    async fn with_identity(&self, house: &House, factory: &Factory, identity: &str, name: &str) -> Answer {
        let mut request = self.request(house, name, None).await;
        request.factory = Some(factory.proof(identity, &request.factory_input()));
        self.announce(house, request).await
    }

    async fn with_serial(&self, house: &House, name: &str, serial: &str) -> Answer {
        let request = self.request(house, name, Some(serial)).await;
        self.announce(house, request).await
    }
}

pub fn read(house: &House, answer: &Answer) -> AnnounceAnswer {
    let key = house.services().keys.signing.public_key();
    Envelope::from_bytes(answer.text.as_bytes()).unwrap().open(Purpose::AnnounceAnswer, &key).unwrap()
}

const SIGNS: &str = "keyUsage=critical,digitalSignature\nbasicConstraints=CA:FALSE\n";

#[actix::test]
async fn a_factory_identity_of_a_registered_ca_lets_its_expected_agent_in_and_no_other() {
    let house = House::open().await;
    let [_, _, admin] = house.tenant("acme").await;
    let (factory, other) = (Factory::new(), Factory::new());
    let subject = "/O=Maker/serialNumber=SN-1/CN=device";
    factory.issue("device", subject, SIGNS);
    other.issue("device", subject, SIGNS);
    factory.issue(
        "mute",
        "/serialNumber=SN-1/CN=mute",
        "keyUsage=critical,keyEncipherment\nbasicConstraints=CA:FALSE\n",
    );
    factory.issue("nameless", "/CN=device", SIGNS);
    factory.issue("twofold", "/serialNumber=SN-1/serialNumber=SN-2/CN=device", SIGNS);
    let ca = json!({"name": "maker", "anchors": [factory.ca_pem()], "serial_from": "subject_serial_number",
        "labels": {"made": "here"}});
    house.post("/v1/tenants/acme/factory-cas", &admin, ca).await.expect(201);
    let newcomer = Newcomer::new();

    let early = newcomer.with_identity(&house, &factory, "device", "ap-1").await.expect(401);
    assert_eq!(early.str("/code"), "announce_refused", "it is not expected");
    let expected = json!({"serial": "SN-1", "agent_name": "ap-one", "labels": {"site": "berlin"}});
    house.post("/v1/tenants/acme/expected-agents", &admin, expected).await.expect(201);
    for (whose, identity) in [(&other, "device"), (&factory, "mute"), (&factory, "nameless"), (&factory, "twofold")] {
        newcomer.with_identity(&house, whose, identity, "ap-1").await.expect(401);
    }
    // The factory's key vouched for other keys than those that are shown; and for another serial number.
    let mut request = newcomer.request(&house, "ap-1", None).await;
    let mut of_another = request.clone();
    of_another.sign_key = Blob(SigningKey::generate().unwrap().public_key());
    request.factory = Some(factory.proof("device", &of_another.factory_input()));
    newcomer.announce(&house, request).await.expect(401);
    let mut request = newcomer.request(&house, "ap-1", Some("SN-2")).await;
    request.factory = Some(factory.proof("device", &request.factory_input()));
    newcomer.announce(&house, request).await.expect(401);

    let answer = newcomer.with_identity(&house, &factory, "device", "ap-1").await.expect(200);
    let AnnounceAnswer::Joined(joined) = read(&house, &answer) else { panic!("not joined") };
    assert_eq!(joined.name, "ap-one");
    let again = newcomer.with_identity(&house, &factory, "device", "ap-1").await.expect(200);
    assert_eq!(read(&house, &again), AnnounceAnswer::Joined(joined), "a lost answer is given again");
    let shown = house.get("/v1/tenants/acme/agents/ap-one", &admin).await.expect(200);
    assert_eq!((shown.str("/serial"), shown.str("/joined_by")), ("SN-1", "factory"));
    assert_eq!(shown.body["labels"], json!({"made": "here", "site": "berlin"}));
    // The same identity with other keys is a second life of it.
    let twin = Newcomer::new().with_identity(&house, &factory, "device", "ap-2").await.expect(409);
    assert_eq!(twin.str("/code"), "serial_taken");
    house.close().await;
}

#[actix::test]
async fn the_serial_number_is_read_from_the_hardware_module_name_where_the_ca_has_it_there() {
    let house = House::open().await;
    let [_, _, admin] = house.tenant("acme").await;
    let factory = Factory::new();
    let san = "subjectAltName=otherName:1.3.6.1.5.5.7.8.4;SEQUENCE:module\n[module]\nkind=OID:1.3.6.1.4.1.99999.1\n\
               serial=FORMAT:ASCII,OCT:HW-77\n";
    factory.issue("device", "/CN=device", &format!("{SIGNS}{san}"));
    let ca = json!({"name": "maker", "anchors": [factory.ca_pem()], "serial_from": "hardware_module_name",
        "expected_only": false});
    house.post("/v1/tenants/acme/factory-cas", &admin, ca).await.expect(201);
    Newcomer::new().with_identity(&house, &factory, "device", "ap-1").await.expect(200);
    let shown = house.get("/v1/tenants/acme/agents/ap-1", &admin).await.expect(200);
    assert_eq!(shown.str("/serial"), "HW-77");
    house.close().await;
}

#[actix::test]
async fn an_expected_serial_number_lets_an_agent_ask_and_an_operator_decides_by_its_key() {
    let house = House::open().await;
    let [viewer, operator, admin] = house.tenant("acme").await;
    let (honest, thief) = (Newcomer::new(), Newcomer::new());
    honest.with_serial(&house, "ap-1", "SN-1").await.expect(401);
    house.post("/v1/tenants/acme/expected-agents", &admin, json!({"serial": "SN-1"})).await.expect(201);
    let taken = house.post("/v1/tenants/acme/expected-agents", &admin, json!({"serial": "SN-1"})).await.expect(409);
    assert_eq!(taken.str("/code"), "serial_taken");
    for newcomer in [&honest, &thief, &honest] {
        let answer = newcomer.with_serial(&house, "ap-1", "SN-1").await.expect(200);
        assert!(matches!(read(&house, &answer), AnnounceAnswer::Pending { retry_after_s: 30, .. }));
    }
    let waiting = house.get("/v1/tenants/acme/applicants", &viewer).await.expect(200);
    let id_of = |newcomer: &Newcomer| {
        let key = key_id(&newcomer.sign.public_key());
        let found =
            waiting.body["items"].as_array().unwrap().iter().find(|item| item["key_id"] == key.as_str()).unwrap();
        found["id"].as_str().unwrap().to_owned()
    };
    assert_eq!(waiting.body["items"].as_array().unwrap().len(), 2);
    let decide = async |newcomer: &Newcomer, verb: &str, token: &str| {
        let path = format!("/v1/tenants/acme/applicants/{}/{verb}", id_of(newcomer));
        house.call("POST", &path, Some(token), None).await
    };
    decide(&honest, "approve", &operator).await.expect(403);
    decide(&thief, "reject", &admin).await.expect(200);
    assert_eq!(thief.with_serial(&house, "ap-1", "SN-1").await.expect(403).str("/code"), "announce_rejected");
    decide(&honest, "approve", &admin).await.expect(200);
    let answer = honest.with_serial(&house, "ap-1", "SN-1").await.expect(200);
    assert!(matches!(read(&house, &answer), AnnounceAnswer::Joined(_)));
    let shown = house.get("/v1/tenants/acme/agents/ap-1", &viewer).await.expect(200);
    assert_eq!((shown.str("/serial"), shown.str("/joined_by")), ("SN-1", "approval"));
    // It is expected no more, and nobody waits.
    for list in ["applicants", "expected-agents"] {
        let left = house.get(&format!("/v1/tenants/acme/{list}"), &viewer).await.expect(200);
        assert_eq!(left.body["items"], json!([]), "{list}");
    }
    thief.with_serial(&house, "ap-1", "SN-1").await.expect(409);
    house.close().await;
}

#[actix::test]
async fn whoever_knows_a_serial_number_cannot_fill_the_list_of_applicants() {
    let house = House::open().await;
    let [_, _, admin] = house.tenant("acme").await;
    house.post("/v1/tenants/acme/expected-agents", &admin, json!({"serial": "SN-1"})).await.expect(201);
    for _ in 0..5 {
        Newcomer::new().with_serial(&house, "ap-1", "SN-1").await.expect(200);
    }
    Newcomer::new().with_serial(&house, "ap-1", "SN-1").await.expect(401);
    let mut request = Newcomer::new().request(&house, "ap-1", None).await;
    request.proof = Blob(vec![0; 64]);
    let body = serde_json::to_value(&request).unwrap();
    let refused = house.call("POST", "/agent/v1/announce", None, Some(body)).await.expect(422);
    assert_eq!(refused.violations(), ["serial identity"]);
    house.close().await;
}
