//! The operator's verbs against a running house: what they show, and what their exit codes say.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};
use support::{Lab, policy};
use trustfleet_lab::{house::TENANT, testkit::command};

/// The operator at a shell.
struct Shell {
    url: String,
    token_file: PathBuf,
}

impl Shell {
    fn at(lab: &Lab) -> Self {
        Self { url: lab.house.platform.base().to_string(), token_file: lab.house.files.first_token.clone() }
    }

    fn run(&self, line: &[&str], stdin: &str) -> Output {
        let mut command = command("trustfleet").unwrap();
        command.args(line).env("TRUSTFLEET_URL", &self.url).env("TRUSTFLEET_TENANT", TENANT);
        command.env("TRUSTFLEET_TOKEN_FILE", &self.token_file);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    fn done(&self, line: &[&str]) -> (String, String) {
        self.done_with(line, "")
    }

    fn done_with(&self, line: &[&str], stdin: &str) -> (String, String) {
        let output = self.run(line, stdin);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{line:?}: {stdout}{stderr}");
        (stdout, stderr)
    }

    fn json(&self, line: &[&str]) -> Value {
        let line: Vec<_> = line.iter().copied().chain(["--output", "json"]).collect();
        let (stdout, stderr) = self.done(&line);
        assert_eq!(stderr, "", "programs get no hints");
        serde_json::from_str(&stdout).unwrap()
    }

    fn refused(&self, line: &[&str], code: i32) -> String {
        let output = self.run(line, "");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{line:?}: {stderr}");
        stderr
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s49_an_operator_brings_a_device_from_nothing_to_a_renewed_certificate_by_verbs_alone() {
    let lab = Lab::start().await;
    let fleet = lab.fleet(&["ap-1"], &policy()).await;
    let mut shell = Shell::at(&lab);
    let dir = lab.dir.path();

    let admin = dir.join("admin.token");
    shell.done(&[
        "token",
        "create",
        "--role",
        "admin",
        "--description",
        "shell",
        "--write-to",
        admin.to_str().unwrap(),
    ]);
    assert_eq!(fs::metadata(&admin).unwrap().permissions().mode() & 0o777, 0o600);
    shell.token_file = admin;

    let (root, url) = (fleet.ca_dir.join("root.pem"), fleet.ca_url.to_string());
    let ca_name = fleet.get("ca-servers/default").unwrap()["ca_name"].as_str().unwrap().to_owned();
    let root = root.to_str().unwrap();
    let ca = ["ca-server", "create", "ca", "--ca-name", &ca_name, "--primary-url", &url, "--trust-anchor", root];
    let (shown, hint) = shell.done(&ca);
    assert!(shown.contains("trust_anchors[0]") && !shown.contains("BEGIN CERTIFICATE"), "{shown}");
    assert!(hint.starts_with("next: "), "{hint}");
    let subject = "/O=Acme/OU={label.site}/CN={device.name}";
    shell.done(&["entity", "create", "aps", "--subject", subject, "--san", "dns:{device.name}.acme.example"]);
    let spec = dir.join("policy.toml");
    fs::write(&spec, "implicit_confirm = true\n[key]\nalgorithm = \"rsa-2048\"\n").unwrap();
    shell.done(&["policy", "create", "p", "--file", spec.to_str().unwrap(), "--key", "ecdsa-p256"]);
    assert_eq!(shell.json(&["policy", "show", "p"])["key"]["algorithm"], "ecdsa-p256");
    let updated = shell.json(&["policy", "update", "p", "--message-timeout", "20"]);
    assert_eq!((&updated["revision"], &updated["implicit_confirm"]), (&json!(2), &json!(true)));

    let (_agent, _files) = fleet.start_agent("ap-1").await.unwrap();
    shell.done(&["device", "create", "ap-1", "--agent", "ap-1", "--serial", "SN-1", "--label", "site=berlin"]);
    let create = ["trustpoint", "create", "ap-1", "radius", "--entity", "aps", "--ca-server", "ca", "--policy", "p"];
    let mac = ["--mac-reference", "ref-ap-1", "--mac-secret-file", "-"];
    let (shown, _) = shell.done_with(&[create.as_slice(), &mac].concat(), "secret-ap-1\n");
    assert!(!shown.contains("secret-ap-1"), "{shown}");

    let (shown, progress) = shell.done(&["trustpoint", "enroll", "ap-1", "radius", "--wait"]);
    assert!(shown.contains("CN=ap-1,OU=berlin,O=Acme"), "{shown}");
    assert!(progress.contains("done\n") && progress.contains("next: "), "{progress}");
    let renewed = shell.json(&["trustpoint", "enroll", "ap-1", "radius", "--request", "kur", "--wait"]);
    assert_eq!((&renewed["slot"], &renewed["device"]), (&json!("active"), &json!("ap-1")));
    assert!(!shown.contains(renewed["serial"].as_str().unwrap()));

    let (pem, _) = shell.done(&["certificate", "show", renewed["id"].as_str().unwrap(), "--pem"]);
    assert_eq!(pem, fs::read_to_string(renewed["file"].as_str().unwrap()).unwrap());
    let (listed, _) = shell.done(&["trustpoint", "list", "--device", "ap-1"]);
    assert!(listed.starts_with("DEVICE") && listed.contains("active") && listed.contains("(in "), "{listed}");
    let all = shell.json(&["certificate", "list", "--all"]);
    let slots: Vec<_> = all["items"].as_array().unwrap().iter().map(|item| item["slot"].as_str().unwrap()).collect();
    assert_eq!(slots.len(), 2, "{all}");
    assert!(slots.contains(&"active") && slots.contains(&"previous"), "{all}");
    let former = all["items"].as_array().unwrap().iter().find(|item| item["slot"] == "previous").unwrap();
    assert_eq!(former["file"], Value::Null, "another certificate is at its former place");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s40_services_are_bound_shown_and_given_the_certificate_in_use_by_verbs() {
    let lab = Lab::start().await;
    let fleet = lab.fleet(&["ap-1"], &policy()).await;
    let service = "\n[services.plain]\nreload = [\"/bin/true\"]\n[services.broken]\nreload = [\"/bin/false\"]\n";
    let (_agent, _files) = fleet.start_agent_with("ap-1", service).await.unwrap();
    fleet.add_device("ap-1", "ap-1").unwrap();
    let shell = Shell::at(&lab);
    let quirk = shell.json(&["ca-server", "update", "default", "--revokes-on-issue"]);
    assert_eq!(quirk["quirks"]["revokes_on_issue"], true);
    let quirk = shell.json(&["ca-server", "update", "default", "--revokes-on-issue", "false"]);
    assert_eq!(quirk["quirks"]["revokes_on_issue"], false);

    shell.done(&["trustpoint", "enroll", "ap-1", "default", "--wait"]);
    let bound = shell.json(&["trustpoint", "set-services", "ap-1", "default", "plain", "broken"]);
    assert_eq!(bound["services"], json!(["plain", "broken"]));
    let create = ["--entity", "default", "--ca-server", "default", "--policy", "default", "--service", "plain"];
    let said = shell.refused(&[&["trustpoint", "create", "ap-1", "second"], create.as_slice()].concat(), 1);
    assert!(said.contains("service_taken") && said.contains("default"), "{said}");
    let said = shell.refused(&["trustpoint", "set-services", "ap-1", "default", "../x"], 1);
    assert!(said.contains("services[0]"), "{said}");

    let said = shell.refused(&["trustpoint", "activate", "ap-1", "default", "--wait"], 1);
    assert!(said.contains("reload_failed") && said.contains("broken"), "{said}");
    shell.done(&["trustpoint", "set-services", "ap-1", "default", "plain"]);
    let (shown, _) = shell.done(&["trustpoint", "activate", "ap-1", "default", "--wait"]);
    assert!(shown.contains("in_service.services[0].result") && shown.contains("unverifiable"), "{shown}");
    let (listed, _) = shell.done(&["trustpoint", "list"]);
    assert!(listed.contains("plain:unverifiable"), "{listed}");

    // A renewal waits for its services, and ends badly when they do.
    shell.done(&["trustpoint", "set-services", "ap-1", "default", "broken"]);
    let said = shell.refused(&["trustpoint", "enroll", "ap-1", "default", "--request", "kur", "--wait"], 1);
    assert!(said.contains("could not be put into use") && said.contains("broken"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s15_a_certificate_is_written_as_der_where_the_policy_says_so() {
    let lab = Lab::start().await;
    let fleet = lab.fleet(&["ap-1"], &policy()).await;
    let (_agent, _files) = fleet.start_agent("ap-1").await.unwrap();
    fleet.add_device("ap-1", "ap-1").unwrap();
    let shell = Shell::at(&lab);

    shell.done(&["policy", "update", "default", "--file-format", "der"]);
    let certificate = shell.json(&["trustpoint", "enroll", "ap-1", "default", "--wait"]);
    let file = certificate["file"].as_str().unwrap();
    assert!(file.ends_with("/current/certificate.der"), "{file}");
    let openssl = ["x509", "-inform", "DER", "-noout", "-serial", "-in", file];
    let said = Command::new("openssl").args(openssl).output().unwrap();
    assert_eq!(
        String::from_utf8(said.stdout).unwrap().trim(),
        format!("serial={}", certificate["serial"].as_str().unwrap())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_names_every_field_and_the_exit_code_tells_what_kind_it_is() {
    let lab = Lab::start().await;
    let fleet = lab.fleet(&["ap-1"], &policy()).await;
    let shell = Shell::at(&lab);

    let long = "x".repeat(129);
    let said = shell
        .refused(&["entity", "create", "a/b", "--subject", "CN={device.colour}", "--san", &format!("dns:{long}")], 1);
    for part in ["name: ", "subject: ", "(placeholder)", "sans[0].value: ", "(S22)", "next: correct the fields"] {
        assert!(said.contains(part), "{part:?} is missing: {said}");
    }
    let said = shell.refused(&["device", "show", "nobody"], 1);
    assert!(said.contains("404") && said.contains("next: check the name"), "{said}");
    let said = shell.refused(&["device", "list", "--token", "wrong"], 1);
    assert!(said.contains("401") && said.contains("TRUSTFLEET_TOKEN_FILE"), "{said}");
    shell.done(&["policy", "delete", "default"]);
    assert_eq!(fleet.get("policies").unwrap()["items"], json!([]));

    shell.refused(&["device", "colour"], 2);
    let said = shell.refused(&["device", "list", "--url", "http://127.0.0.1:1"], 3);
    assert!(said.contains("cannot reach the controller"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_enrolment_is_explained_with_the_cas_reason_and_exit_code_1() {
    let lab = Lab::start().await;
    let fleet = lab.fleet(&["ap-1"], &policy()).await;
    let (_agent, _files) = fleet.start_agent("ap-1").await.unwrap();
    fleet.add_device_with_secret("ap-1", "ap-1", "not the CA's").unwrap();
    let shell = Shell::at(&lab);

    let said = shell.refused(&["trustpoint", "enroll", "ap-1", "default", "--wait"], 1);
    for part in ["failed: ", "code: ", "culprit: ", "next: ", "trustfleet trustpoint enroll ap-1 default --wait"] {
        assert!(said.contains(part), "{part:?} is missing: {said}");
    }
    let (shown, _) = shell.done(&["trustpoint", "show", "ap-1", "default"]);
    assert!(shown.contains("last_failure.message") && shown.contains("failed"), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_platform_administrator_leads_a_tenant_through_its_life_and_two_administrators_change_a_ca_by_verbs_alone() {
    let lab = Lab::start().await;
    let mut shell = Shell::at(&lab);
    let dir = lab.dir.path();
    let platform = shell.token_file.clone();
    let tenant = |state: &Value| (state["state"].clone(), state["state_reason"].clone());

    shell.done(&["tenant", "create", "second", "--four-eyes"]);
    let suspended = shell.json(&["tenant", "suspend", "second", "--reason", "moving house"]);
    assert_eq!(tenant(&suspended), (json!("suspended"), json!("moving house")));
    let said = shell.refused(&["device", "create", "ap-1", "--tenant", "second"], 1);
    assert!(said.contains("moving house"), "{said}");
    assert_eq!(shell.json(&["tenant", "resume", "second"])["state"], "active");
    shell.json(&["tenant", "quota", "second", "--devices", "1", "--jobs-per-hour", "5"]);
    let quota = shell.json(&["tenant", "quota", "second", "--jobs-per-hour", "none"]);
    assert_eq!((&quota["devices"], &quota["jobs_per_hour"]), (&json!(1), &Value::Null));
    shell.done(&["device", "create", "ap-1", "--tenant", "second"]);
    let said = shell.refused(&["device", "create", "ap-2", "--tenant", "second"], 1);
    assert!(said.contains("quota_exceeded") && said.contains("1 devices"), "{said}");

    let made = shell.json(&["token", "create", "--platform", "--description", "reader", "--scope", "tenants:read"]);
    assert_eq!(made["scopes"], json!(["tenants:read"]));
    let listed = shell.json(&["token", "list", "--platform"]);
    assert_eq!(listed["items"].as_array().unwrap().len(), 2, "{listed}");
    shell.done(&["token", "delete", "--platform", made["id"].as_str().unwrap()]);

    let administrator = |name: &str| {
        let file = dir.join(name);
        let path = file.to_str().unwrap();
        let line =
            ["token", "create", "--tenant", "second", "--role", "admin", "--description", name, "--write-to", path];
        shell.done(&line);
        file
    };
    let (one, two) = (administrator("one"), administrator("two"));
    let root = dir.join("root.pem");
    let key = dir.join("root.key");
    let options = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=Root", "-days", "2", "-keyout"];
    let openssl = Command::new("openssl").args(options).arg(&key).arg("-out").arg(&root).output().unwrap();
    assert!(openssl.status.success());
    shell.token_file = one;
    let create = ["ca-server", "create", "ca", "--tenant", "second", "--ca-name", "/CN=Root"];
    let rest = ["--primary-url", "http://127.0.0.1:9/", "--trust-anchor", root.to_str().unwrap()];
    let (shown, hint) = shell.done(&[create.as_slice(), &rest].concat());
    assert!(shown.contains("pending") && hint.contains("trustfleet change approve "), "{shown}{hint}");
    let id = hint.rsplit(' ').next().unwrap().trim().to_owned();
    let said = shell.refused(&["change", "approve", &id, "--tenant", "second"], 1);
    assert!(said.contains("own_change"), "{said}");
    shell.token_file = two;
    assert_eq!(shell.json(&["change", "approve", &id, "--tenant", "second"])["state"], "approved");
    shell.done(&["ca-server", "show", "ca", "--tenant", "second"]);
    let change = shell.json(&["ca-server", "delete", "ca", "--tenant", "second"]);
    let id = change["id"].as_str().unwrap();
    shell.done(&["change", "reject", id, "--reason", "still in use", "--tenant", "second"]);

    shell.token_file = platform;
    let deleted = shell.json(&["tenant", "delete", "second"]);
    assert!(deleted["purge_at"].is_string(), "{deleted}");
    let restored = shell.json(&["tenant", "restore", "second"]);
    assert_eq!((&restored["state"], &restored["purge_at"]), (&json!("suspended"), &Value::Null));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_audit_log_is_listed_exported_and_verified_by_verbs_and_a_changed_row_ends_with_exit_code_1() {
    let lab = Lab::start().await;
    let fleet = lab.fleet(&[], &policy()).await;
    let shell = Shell::at(&lab);
    fleet.post("devices", &json!({ "name": "ap-1" })).unwrap();
    let rows = shell.json(&["audit", "list", "--action", "device_created"]);
    assert_eq!(rows["items"][0]["after"]["name"], "ap-1", "{rows}");
    lab.eventually("all is chained", || {
        let output = shell.run(&["audit", "verify", "--output", "json"], "");
        let report: Value = serde_json::from_slice(&output.stdout).ok()?;
        (report["rows"].as_u64()? >= 5 && report["findings"] == json!([])).then_some(())
    })
    .await;
    let file = lab.dir.path().join("export.ndjson");
    shell.done(&["audit", "export", "--write-to", file.to_str().unwrap()]);
    let (said, _) = shell.done(&["audit", "verify", "--file", file.to_str().unwrap()]);
    assert!(said.contains(" rows, signed up to row "), "{said}");
    shell.done(&["audit", "list", "--platform"]);

    let (client, connection) =
        tokio_postgres::connect(lab.db.as_ref().unwrap().admin_url().as_str(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let sql = "UPDATE audit SET actor = 'nobody' WHERE action = 'device_created'";
    assert_eq!(client.execute(sql, &[]).await.unwrap(), 1);
    let output = shell.run(&["audit", "verify"], "");
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(1), "{stdout}{stderr}");
    assert!(stdout.contains("was changed") && stderr.contains("not as the controller left it"), "{stdout}{stderr}");
    // What was exported before is as it was.
    shell.done(&["audit", "verify", "--file", file.to_str().unwrap()]);
    let text = fs::read_to_string(&file).unwrap().replace("ap-1", "ap-2");
    fs::write(&file, text).unwrap();
    assert_eq!(shell.run(&["audit", "verify", "--file", file.to_str().unwrap()], "").status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s13_secrets_are_imported_line_by_line_and_a_one_time_secret_is_gone_after_its_enrolment() {
    let lab = Lab::start().await;
    let fleet = lab.fleet(&["ap-1"], &policy()).await;
    let (_agent, _files) = fleet.start_agent("site").await.unwrap();
    let shell = Shell::at(&lab);
    for device in ["ap-1", "ap-2"] {
        fleet.post("devices", &json!({ "name": device, "agent": "site" })).unwrap();
        let body = json!({ "name": "default", "entity": "default", "ca_server": "default", "policy": "default" });
        fleet.post(&format!("devices/{device}/trustpoints"), &body).unwrap();
    }
    let file = lab.dir.path().join("secrets.csv");
    let lines = "device,trustpoint,reference,secret,one_time\n\
                 ap-1,default,ref-ap-1,secret-ap-1,true\n\
                 ap-2,default,what?,plum-4711,\n\
                 ap-3,default,ref-ap-3,plum-4712,\n\
                 ap-2,default,plum-4713\n";
    fs::write(&file, lines).unwrap();
    let output = shell.run(&["secret", "import", file.to_str().unwrap()], "");
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(1), "{stdout}{stderr}");
    assert!(stdout.contains("1 taken, 3 refused"), "{stdout}{stderr}");
    for told in ["line 3: ap-2/default", "line 4: there is no such device", "line 5:", "warning: 1 of them"] {
        assert!(stderr.contains(told), "{told} is not in {stderr}");
    }
    assert!(!format!("{stdout}{stderr}").contains("plum"), "{stdout}{stderr}");

    let before = fleet.trustpoint("ap-1").unwrap();
    assert_eq!((&before["mac_secret_stored"], &before["mac_one_time"]), (&json!(true), &json!(true)));
    assert_eq!(fleet.trustpoint("ap-2").unwrap()["mac_secret_stored"], false);
    let job = fleet.enroll("ap-1", "ir").unwrap();
    let after = fleet.enrolled("ap-1", &job, std::time::Duration::from_secs(60)).await.unwrap();
    assert_eq!(after["mac_secret_stored"], false, "{after}");
    // The next update is signed, and needs none.
    let job = fleet.enroll("ap-1", "kur").unwrap();
    let ended = fleet.job_ended(&job, std::time::Duration::from_secs(60)).await.unwrap();
    assert_eq!(ended["state"], "succeeded", "{ended}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_encryption_key_is_replaced_by_verbs_while_the_controller_serves() {
    let mut lab = Lab::start().await;
    let fleet = lab.fleet(&["ap-1"], &policy()).await;
    let (_agent, _files) = fleet.start_agent("ap-1").await.unwrap();
    fleet.add_device("ap-1", "ap-1").unwrap();
    let shell = Shell::at(&lab);
    let config = lab.house.files.config.clone();
    let config = config.to_str().unwrap();
    let new = lab.dir.path().join("kek-2.key");
    let (said, next) = shell.done(&["keys", "add", "--write-to", new.to_str().unwrap()]);
    let new_id = said.trim().rsplit(' ').next().unwrap().to_owned();
    assert!(next.contains("further_key_encryption_key_files"), "{next}");
    let old = lab.env.keys.kek.display().to_string();
    let text = fs::read_to_string(config).unwrap();
    let line = format!("key_encryption_key_file = {old:?}");
    assert!(text.contains(&line), "{text}");
    let with = |first: &str, further: &str| {
        let lines = format!("key_encryption_key_file = {first:?}\nfurther_key_encryption_key_files = [{further:?}]");
        text.replace(&line, &lines)
    };
    for (first, further) in [(old.as_str(), new.to_str().unwrap()), (new.to_str().unwrap(), old.as_str())] {
        fs::write(config, with(first, further)).unwrap();
        lab.house.controller.terminate(std::time::Duration::from_secs(60)).await.unwrap();
        lab.house.start_again().await.unwrap();
    }
    let (status, _) = shell.done(&["keys", "status", "--config", config]);
    let old_id = status.lines().find(|line| line.contains("decrypts")).unwrap().split(' ').next().unwrap().to_owned();
    assert!(status.lines().any(|line| line.starts_with(&new_id) && line.contains("encrypts")), "{status}");
    let refused = shell.refused(&["keys", "remove", "--config", config, "--id", &old_id], 1);
    assert!(refused.contains("in use by 1 secret"), "{refused}");
    let (moved, _) = shell.done(&["keys", "rotate", "--config", config]);
    assert!(moved.starts_with("1 secret(s) moved"), "{moved}");
    shell.done(&["keys", "remove", "--config", config, "--id", &old_id]);
    let job = fleet.enroll("ap-1", "ir").unwrap();
    assert_eq!(fleet.enrolled("ap-1", &job, std::time::Duration::from_secs(60)).await.unwrap()["status"], "active");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_go_out_and_in_in_bulk_are_found_by_labels_and_deleted_and_dead_letters_are_looked_for_by_verbs() {
    let lab = Lab::start().await;
    let _fleet = lab.fleet(&["ap-1"], &policy()).await;
    let shell = Shell::at(&lab);
    let file = lab.dir.path().join("devices.ndjson");
    let lines = "{\"name\":\"b-1\",\"labels\":{\"site\":\"bonn\"}}\n{\"name\":\"b-2\",\"labels\":{\"site\":\"ulm\"}}\n";
    fs::write(&file, lines).unwrap();
    let file = file.to_str().unwrap();
    let tried = shell.json(&["device", "import", file, "--dry-run"]);
    assert_eq!((&tried["created"], &tried["dry_run"]), (&json!(2), &json!(true)));
    let (told, _) = shell.done(&["device", "import", file]);
    assert!(told.starts_with("created 2, updated 0, unchanged 0, refused 0"), "{told}");
    let (again, _) = shell.done_with(&["device", "import", "-"], lines);
    assert!(again.starts_with("created 0, updated 0, unchanged 2"), "{again}");
    let found = shell.json(&["device", "list", "--label", "site=bonn"]);
    assert_eq!((found["items"].as_array().unwrap().len(), &found["items"][0]["name"]), (1, &json!("b-1")));
    let (exported, _) = shell.done(&["device", "export", "--label", "site=bonn"]);
    assert_eq!(serde_json::from_str::<Value>(&exported).unwrap(), json!({"name": "b-1", "labels": {"site": "bonn"}}));

    fs::write(file, "{\"name\":\"b-1\"}\n\n{\"name\":\"b 3\"}\n").unwrap();
    let refused = shell.refused(&["device", "import", file], 1);
    assert!(refused.contains("line 3: b 3: ") && refused.contains("(invalid)"), "{refused}");
    assert_eq!(
        shell.json(&["trustpoint", "list", "--status", "failed", "--expires-within", "30d"])["items"],
        json!([])
    );
    assert_eq!(shell.json(&["certificate", "list", "--key", "rsa-2048", "--label", "site=bonn"])["items"], json!([]));
    shell.done(&["device", "delete", "b-2", "--certificates", "keep"]);
    shell.refused(&["device", "show", "b-2"], 1);

    assert_eq!(shell.json(&["dead-letter", "list", "--reason", "failed"])["items"], json!([]));
    assert_eq!(shell.json(&["dead-letter", "drop", "--reason", "unreadable"])["dropped"], 0);
    assert_eq!(shell.json(&["dead-letter", "retry", "--reason", "failed"])["retried"], 0);
    assert!(shell.refused(&["dead-letter", "list", "--reason", "colours"], 1).contains("not_authentic"));
    let changed = shell.json(&["tenant", "update", TENANT, "--job-days", "30"]);
    assert_eq!((&changed["job_days"], &changed["certificate_days"]), (&json!(30), &json!(730)));
}
