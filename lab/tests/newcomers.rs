//! Agents without a token, as processes: one with a factory identity, one that an operator approves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{fs, path::Path, process::Command, time::Duration};

use serde_json::{Value, json};
use support::{Lab, policy};
use trustfleet_lab::{
    house::{AgentFiles, Fleet, TENANT, start_agent_process},
    testkit::command,
};

const LIMIT: Duration = Duration::from_secs(120);

fn openssl(dir: &Path, args: &[&str]) {
    let done = Command::new("openssl").args(args).current_dir(dir).output().unwrap();
    assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// An agent's configuration with a section `announce`.
fn files(lab: &Lab, fleet: &Fleet, name: &str, controller_key: &str, announce: &str) -> AgentFiles {
    let dir = lab.dir.path();
    let files = AgentFiles { config: dir.join(format!("{name}.toml")), state: dir.join(name) };
    let text = format!(
        "controller_url = {:?}\nstate_dir = {:?}\nname = {name:?}\n[announce]\ntenant = {TENANT:?}\n\
         controller_key = {controller_key:?}\n{announce}\n",
        fleet.rest.base().as_str(),
        files.state.display().to_string(),
    );
    fs::write(&files.config, text).unwrap();
    files
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_agent_joins_by_its_factory_identity_and_another_when_an_operator_has_approved_its_key() {
    let lab = Lab::start().await;
    let fleet = lab.fleet(&["ap-1"], &policy()).await;
    let dir = lab.dir.path();
    let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let ca = ["req", "-x509", "-days", "9", "-subj", "/CN=Maker CA", "-keyout", "maker.key", "-out", "maker.pem"];
    openssl(dir, &[ca.as_slice(), &curve, &["-addext", "basicConstraints=critical,CA:TRUE"]].concat());
    let request = ["req", "-subj", "/serialNumber=SN-1/CN=device", "-keyout", "id.key", "-out", "id.csr"];
    openssl(dir, &[request.as_slice(), &curve].concat());
    fs::write(dir.join("id.ext"), "keyUsage=critical,digitalSignature\n").unwrap();
    let issue = ["x509", "-req", "-in", "id.csr", "-CA", "maker.pem", "-CAkey", "maker.key", "-days", "9"];
    openssl(dir, &[issue.as_slice(), &["-extfile", "id.ext", "-out", "id.pem"]].concat());
    let told =
        command("trustfleet").unwrap().args(["keys", "id", "--signing-key"]).arg(&lab.env.keys.signing_key).output();
    let told = String::from_utf8(told.unwrap().stdout).unwrap();
    let controller_key = told.trim();

    let anchor = fs::read_to_string(dir.join("maker.pem")).unwrap();
    let maker = json!({ "name": "maker", "anchors": [anchor], "serial_from": "subject_serial_number" });
    fleet.post("factory-cas", &maker).unwrap();
    for serial in ["SN-1", "SN-2"] {
        fleet.post("expected-agents", &json!({ "serial": serial })).unwrap();
    }

    // Another controller is not believed, whatever it answers.
    let identity =
        format!("certificate_file = {:?}\nkey_file = {:?}", dir.join("id.pem").display(), dir.join("id.key").display());
    let misled = files(&lab, &fleet, "misled", &"0".repeat(32), "serial = \"SN-2\"");
    let mut misled = start_agent_process(&misled).unwrap();
    assert!(!misled.wait(LIMIT).await.unwrap().success());
    assert!(misled.log().contains("this is another controller"), "{}", misled.log());

    let by_identity = files(&lab, &fleet, "ap-1", controller_key, &identity);
    let mut agent = start_agent_process(&by_identity).unwrap();
    agent.line_with("connected to the broker", LIMIT).await.unwrap();
    let shown = fleet.get("agents/ap-1").unwrap();
    assert_eq!((&shown["serial"], &shown["joined_by"]), (&json!("SN-1"), &json!("factory")));
    fleet.add_device("ap-1", "ap-1").unwrap();
    let job = fleet.enroll("ap-1", "ir").unwrap();
    fleet.enrolled("ap-1", &job, LIMIT).await.unwrap();

    let by_serial = files(&lab, &fleet, "ap-2", controller_key, "serial = \"SN-2\"");
    let mut agent = start_agent_process(&by_serial).unwrap();
    let line = agent.line_with("waits to be approved", LIMIT).await.unwrap();
    let waiting = fleet.get("applicants").unwrap();
    let applicant = waiting["items"].as_array().unwrap().iter().find(|item| item["name"] == "ap-2").unwrap();
    assert!(line.contains(applicant["key_id"].as_str().unwrap()), "the key is not in the agent's log: {line}");
    let approve = format!("applicants/{}/approve", applicant["id"].as_str().unwrap());
    fleet.post(&approve, &Value::Null).unwrap();
    agent.line_with("connected to the broker", LIMIT).await.unwrap();
    assert_eq!(fleet.get("agents/ap-2").unwrap()["joined_by"], "approval");
}
