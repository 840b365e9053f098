//! Services of the device take a certificate, or do not and everything goes back. The service here is a shell command that
//! copies what it is to serve; real services are in the lab's tests.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use trustfleet_pki::Certificate;
use trustfleet_wire::v1::{Enroll, Event, Failed, InService, Job, Request, Task};

use crate::ca::TestCa;
use crate::house::House;

/// Folder of a device's services: exports, and what the service has loaded.
struct Served {
    dir: tempfile::TempDir,
}

impl Served {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn serial(&self, name: &str) -> Option<String> {
        let text = fs::read_to_string(self.path(name)).ok()?;
        Some(Certificate::from_pem(&text).unwrap().serial_hex())
    }

    /// A service that loads `https/cert.pem` into `https.loaded` unless `https.broken` is there, and is probed there.
    fn config(&self) -> String {
        let dir = self.dir.path().display();
        format!(
            "[services.https]\n\
             reload = [\"/bin/sh\", \"-c\", \"echo $TRUSTFLEET_SERIAL >> {dir}/https.reloads; test ! -e {dir}/https.broken && \
             cp {dir}/https/cert.pem {dir}/https.loaded\"]\n\
             probe_timeout_s = 1\n\
             [services.https.probe]\nfile = \"{dir}/https.loaded\"\n\
             [[services.https.exports]]\npath = \"{dir}/https/cert.pem\"\ncontent = \"certificate\"\n\
             [[services.https.exports]]\npath = \"{dir}/https/key.pem\"\ncontent = \"key\"\nmode = \"0640\"\n\
             [services.plain]\nreload = [\"/bin/true\"]\n\
             [services.deaf]\nreload = [\"/bin/true\"]\nprobe_timeout_s = 1\nprobe = {{ command = [\"/bin/echo\", \"serial=0BAD\"] }}\n"
        )
    }

    fn reloads(&self) -> usize {
        fs::read_to_string(self.path("https.reloads")).unwrap_or_default().lines().count()
    }
}

fn bound(job: Job, services: &[&str]) -> Job {
    Job { services: services.iter().map(ToString::to_string).collect(), ..job }
}

fn update(house: &House, number: u128, ca: &TestCa, services: &[&str]) -> Job {
    let kur = Enroll { mac: None, ..house.enroll(number, Request::Kur, ca) };
    bound(house.job(number, Task::Enroll(Box::new(kur))), services)
}

async fn activated(house: &House, nth: usize) -> (String, InService) {
    let event = house.wait_for_nth("activated", nth).await.event;
    let Event::Activated { serial, in_service, .. } = event else { panic!("{event:?}") };
    (serial, *in_service.expect("nothing is told of services"))
}

async fn failed(house: &House, nth: usize) -> (Failed, InService) {
    let Event::Failed(failed) = house.wait_for_nth("failed", nth).await.event else { panic!() };
    let in_service = *failed.in_service.clone().expect("nothing is told of services");
    (*failed, in_service)
}

fn results(said: &InService) -> Vec<(&str, &str)> {
    said.services.iter().map(|outcome| (outcome.service.as_str(), outcome.result.as_str())).collect()
}

fn steps(said: &InService) -> Vec<(&str, bool)> {
    said.steps.iter().map(|step| (step.step.as_str(), step.ok)).collect()
}

fn serial_in(house: &House, slot: &str) -> Option<String> {
    let text = fs::read_to_string(house.trustpoint().join(slot).join("certificate.pem")).ok()?;
    Some(Certificate::from_pem(&text).unwrap().serial_hex())
}

#[tokio::test]
async fn s34_a_service_gets_its_copies_is_reloaded_and_seen_with_the_new_certificate() {
    let served = Served::new();
    let (ca, house) = (TestCa::start(), House::configured(&served.config()).await);
    house.send(&bound(house.ir(1, &ca), &["https", "plain"])).await;
    let (serial, said) = activated(&house, 1).await;
    assert_eq!(results(&said), [("https", "verified"), ("plain", "unverifiable")], "{said:?}");
    assert_eq!(steps(&said), [("export", true), ("reload", true), ("probe", true), ("reload", true)], "{said:?}");
    assert!(said.steps[2].detail.contains(&serial), "{said:?}");
    assert_eq!(served.serial("https.loaded"), Some(serial.clone()));
    assert_eq!(fs::metadata(served.path("https/key.pem")).unwrap().permissions().mode() & 0o777, 0o640);
    assert!(!house.trustpoint().join("activation.json").exists(), "the journal, with keys in it, is left over");

    house.send(&update(&house, 2, &ca, &["https"])).await;
    let (renewed, said) = activated(&house, 2).await;
    assert_ne!(renewed, serial);
    assert_eq!((results(&said), said.warnings.len()), (vec![("https", "verified")], 0), "{said:?}");
    assert_eq!(served.serial("https.loaded"), Some(renewed));
    assert_eq!(serial_in(&house, "previous"), Some(serial));
}

#[tokio::test]
async fn a_service_that_does_not_reload_keeps_the_old_certificate_and_the_new_one_can_be_activated_again() {
    let served = Served::new();
    let (ca, house) = (TestCa::start(), House::configured(&served.config()).await);
    house.send(&bound(house.ir(1, &ca), &["https"])).await;
    let (serial, _) = activated(&house, 1).await;
    fs::write(served.path("https.broken"), "").unwrap();
    let key = fs::read(served.path("https/key.pem")).unwrap();
    house.send(&update(&house, 2, &ca, &["https"])).await;
    let (told, said) = failed(&house, 1).await;
    assert_eq!((told.culprit.as_str(), told.code.as_str()), ("device", "reload_failed"), "{told:?}");
    assert!(told.in_use.is_none() && told.message.contains("stays staged"), "{}", told.message);
    assert_eq!(results(&said), [("https", "failed")]);
    let expected = [("export", true), ("reload", false), ("restore", true), ("reload_former", false)];
    assert_eq!(steps(&said), expected, "{said:?}");
    // As before, and the new one waits.
    assert_eq!(
        (served.serial("https/cert.pem"), serial_in(&house, "current")),
        (Some(serial.clone()), Some(serial.clone()))
    );
    assert_eq!(fs::read(served.path("https/key.pem")).unwrap(), key);
    let staged = serial_in(&house, "staged").expect("nothing is staged");
    assert!(!house.trustpoint().join("activation.json").exists());

    fs::remove_file(served.path("https.broken")).unwrap();
    house.send(&bound(house.job(3, Task::Activate { serial: staged.clone() }), &["https"])).await;
    let (now, said) = activated(&house, 2).await;
    assert_eq!((now, results(&said)), (staged.clone(), vec![("https", "verified")]));
    assert_eq!(served.serial("https.loaded"), Some(staged.clone()));
    assert_eq!((serial_in(&house, "staged"), serial_in(&house, "previous")), (None, Some(serial)));

    // The one in use is given to its services once more.
    let before = served.reloads();
    house.send(&bound(house.job(4, Task::Activate { serial: staged.clone() }), &["https", "plain"])).await;
    let (again, said) = activated(&house, 3).await;
    assert_eq!((again, results(&said)), (staged, vec![("https", "verified"), ("plain", "unverifiable")]));
    assert_eq!(served.reloads(), before + 1);
}

#[tokio::test]
async fn a_probe_that_never_sees_the_serial_number_rolls_back_and_says_what_it_saw() {
    let served = Served::new();
    let (ca, house) = (TestCa::start(), House::configured(&served.config()).await);
    house.send(&bound(house.ir(1, &ca), &["https"])).await;
    let (serial, _) = activated(&house, 1).await;
    house.send(&update(&house, 2, &ca, &["https", "deaf"])).await;
    let (told, said) = failed(&house, 1).await;
    assert_eq!(told.code, "probe_failed");
    assert!(told.message.contains("deaf") && told.message.contains("0BAD"), "{}", told.message);
    assert_eq!(results(&said), [("https", "verified"), ("deaf", "failed")]);
    assert_eq!(served.serial("https.loaded"), Some(serial.clone()), "the first service was not taken back");
    assert_eq!(serial_in(&house, "current"), Some(serial));
}

#[tokio::test]
async fn where_the_ca_has_revoked_the_old_certificate_the_new_one_stays_in_use() {
    let served = Served::new();
    let (ca, house) = (TestCa::start(), House::configured(&served.config()).await);
    house.send(&bound(house.ir(1, &ca), &["https"])).await;
    let (serial, _) = activated(&house, 1).await;
    let job = Job { replaced_is_revoked: true, ..update(&house, 2, &ca, &["deaf", "https"]) };
    house.send(&job).await;
    let (told, said) = failed(&house, 1).await;
    assert_eq!(results(&said), [("deaf", "failed"), ("https", "verified")], "the others get it all the same");
    let in_use = told.in_use.expect("it is not told that it is in use");
    assert_ne!(in_use.serial, serial);
    assert_eq!(serial_in(&house, "current"), Some(in_use.serial.clone()));
    assert_eq!(served.serial("https.loaded"), Some(in_use.serial));
    assert!(told.message.contains("revoked"), "{}", told.message);
}

#[tokio::test]
async fn the_first_certificate_that_a_service_does_not_take_leaves_nothing_behind() {
    let served = Served::new();
    let (ca, house) = (TestCa::start(), House::configured(&served.config()).await);
    fs::write(served.path("https.broken"), "").unwrap();
    house.send(&bound(house.ir(1, &ca), &["https"])).await;
    let (told, _) = failed(&house, 1).await;
    assert_eq!(told.code, "reload_failed");
    assert!(!served.path("https/cert.pem").exists() && !served.path("https/key.pem").exists());
    assert_eq!((serial_in(&house, "current"), serial_in(&house, "staged").is_some()), (None, true));
    assert!(!house.trustpoint().join("exports.json").exists());
}

#[tokio::test]
async fn a_service_that_the_agent_does_not_know_changes_nothing_and_is_named() {
    let served = Served::new();
    let (ca, house) = (TestCa::start(), House::configured(&served.config()).await);
    house.send(&bound(house.ir(1, &ca), &["https", "smtp"])).await;
    let (told, said) = failed(&house, 1).await;
    assert_eq!((told.culprit.as_str(), told.code.as_str()), ("device", "service_unknown"));
    assert!(told.message.contains("smtp") && told.message.contains("deaf, https, plain"), "{}", told.message);
    assert!(said.steps.is_empty() && served.reloads() == 0);
    assert!(serial_in(&house, "staged").is_some() && serial_in(&house, "current").is_none());
}

#[tokio::test]
async fn an_agent_that_dies_while_a_service_reloads_goes_on_with_it() {
    let served = Served::new();
    let dir = served.dir.path().display().to_string();
    let slow = served
        .config()
        .replace("test ! -e", &format!("while test -e {dir}/https.held; do sleep 0.05; done; test ! -e"));
    let (ca, mut house) = (TestCa::start(), House::configured(&slow).await);
    house.send(&bound(house.ir(1, &ca), &["https"])).await;
    let (serial, _) = activated(&house, 1).await;
    fs::write(served.path("https.held"), "").unwrap();
    house.send(&update(&house, 2, &ca, &["https"])).await;
    while served.reloads() < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    house.kill_agent().await;
    assert!(house.trustpoint().join("activation.json").exists());
    assert_eq!(served.serial("https.loaded"), Some(serial.clone()));
    fs::remove_file(served.path("https.held")).unwrap();
    house.start_agent().await;
    let (renewed, said) = activated(&house, 2).await;
    assert_eq!(results(&said), [("https", "verified")]);
    assert_eq!(said.warnings, [""; 0], "its own half-done work is taken for somebody else's");
    assert_eq!((served.serial("https.loaded"), serial_in(&house, "previous")), (Some(renewed), Some(serial)));

    // And back, when the device was changed while it was away: the service is broken by then.
    fs::write(served.path("https.held"), "").unwrap();
    let in_use = serial_in(&house, "current");
    house.send(&update(&house, 3, &ca, &["https"])).await;
    while served.reloads() < 4 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    house.stop_agent().await;
    fs::write(served.path("https.broken"), "").unwrap();
    fs::remove_file(served.path("https.held")).unwrap();
    house.start_agent().await;
    let (told, _) = failed(&house, 1).await;
    assert_eq!(told.code, "reload_failed");
    assert_eq!((served.serial("https/cert.pem"), serial_in(&house, "current")), (in_use.clone(), in_use));
}

fn openssl(args: &[&str]) -> String {
    let output = Command::new("openssl").args(args).output().unwrap();
    assert!(output.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test]
async fn every_form_of_a_copy_is_read_by_openssl() {
    let served = Served::new();
    let dir = served.dir.path().display();
    let export = |path: &str, content: &str, more: &str| {
        format!("[[services.x.exports]]\npath = \"{dir}/{path}\"\ncontent = \"{content}\"\n{more}\n")
    };
    let config = [
        "[services.x]".to_owned(),
        export("{device}/{trustpoint}.pem", "certificate", ""),
        export("cert.der", "certificate", "format = \"der\""),
        export("key.der", "key", "format = \"der\""),
        export("key.pem", "key", ""),
        export("full.pem", "fullchain", ""),
        export("chain.pem", "chain", ""),
        export("ca.pem", "ca", ""),
        export("all.p12", "pkcs12", &format!("password_file = \"{dir}/password\"")),
    ];
    fs::write(served.path("password"), "open sesame\n").unwrap();
    let (ca, house) = (TestCa::start(), House::configured(&config.join("\n")).await);
    house.send(&bound(house.ir(1, &ca), &["x"])).await;
    let (serial, said) = activated(&house, 1).await;
    assert_eq!(results(&said), [("x", "unverifiable")], "{said:?}");

    let certificate = served.path("ap-1/dot1x.pem");
    assert_eq!(openssl(&["x509", "-noout", "-serial", "-in", text(&certificate)]), format!("serial={serial}"));
    let der = served.path("cert.der");
    assert_eq!(
        openssl(&["x509", "-inform", "der", "-noout", "-serial", "-in", text(&der)]),
        format!("serial={serial}")
    );
    let public = openssl(&["x509", "-noout", "-pubkey", "-in", text(&certificate)]);
    let (key, key_der) = (served.path("key.pem"), served.path("key.der"));
    assert_eq!(openssl(&["pkey", "-pubout", "-in", text(&key)]), public);
    assert_eq!(openssl(&["pkey", "-pubout", "-inform", "der", "-in", text(&key_der)]), public);
    let (full, ca_file) = (served.path("full.pem"), served.path("ca.pem"));
    let verified = openssl(&["verify", "-CAfile", text(&ca_file), "-untrusted", text(&full), text(&certificate)]);
    assert!(verified.ends_with(": OK"), "{verified}");
    let p12 = served.path("all.p12");
    let inside = openssl(&["pkcs12", "-in", text(&p12), "-passin", "pass:open sesame", "-nodes"]);
    let begin = inside.find("-----BEGIN CERTIFICATE-----").unwrap();
    assert_eq!(Certificate::pem_bundle(&inside[begin..]).unwrap()[0].serial_hex(), serial);
    assert!(inside.contains("-----BEGIN PRIVATE KEY-----"), "there is no key in it");
    for secret in [&key, &key_der, &p12] {
        assert_eq!(fs::metadata(secret).unwrap().permissions().mode() & 0o777, 0o600, "{}", secret.display());
    }
}

#[tokio::test]
async fn s36_s46_generated_names_stay_over_updates_and_a_renamed_file_is_told_of_and_the_set_stays_whole() {
    let served = Served::new();
    let dir = served.dir.path().display();
    let config = format!("[services.vendor]\n[[services.vendor.exports]]\nfolder = \"{dir}/pki\"\n");
    let (ca, house) = (TestCa::start(), House::configured(&config).await);
    let names = || {
        let mut names: Vec<_> = fs::read_dir(served.path("pki"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    house.send(&bound(house.ir(1, &ca), &["vendor"])).await;
    let (serial, _) = activated(&house, 1).await;
    assert_eq!(served.serial("pki/dot1x_ir.cer"), Some(serial));
    let first = names();
    assert!(first.contains(&"dot1x_ca0.cer".to_owned()), "{first:?}");
    let authority = fs::read(served.path("pki/dot1x_ca0.cer")).unwrap();

    fs::rename(served.path("pki/dot1x_ca0.cer"), served.path("pki/imported.cer")).unwrap();
    house.send(&update(&house, 2, &ca, &["vendor"])).await;
    let (renewed, said) = activated(&house, 2).await;
    assert_eq!(said.warnings.len(), 1, "{said:?}");
    assert!(said.warnings[0].contains("dot1x_ca0.cer was removed or renamed"), "{said:?}");
    assert_eq!(served.serial("pki/dot1x_ir.cer"), Some(renewed));
    assert_eq!(fs::read(served.path("pki/dot1x_ca0.cer")).unwrap(), authority, "S45: not without its CA");
    let mut expected = first;
    expected.push("imported.cer".to_owned());
    expected.sort();
    assert_eq!(names(), expected);

    house.send(&update(&house, 3, &ca, &["vendor"])).await;
    assert_eq!(activated(&house, 3).await.1.warnings, [""; 0]);
}

#[tokio::test]
async fn s45_a_set_that_cannot_be_written_as_a_whole_is_not_written_at_all() {
    let served = Served::new();
    let (ca, mut house) = (TestCa::start(), House::configured(&served.config()).await);
    house.send(&bound(house.ir(1, &ca), &["https"])).await;
    let (serial, _) = activated(&house, 1).await;
    house.stop_agent().await;
    // One more copy, where a file stands in the way of its folder.
    let blocked = served.path("https/cert.pem/ca.pem");
    house.config += &format!("[[services.https.exports]]\npath = {:?}\ncontent = \"ca\"\n", text(&blocked));
    house.start_agent().await;
    house.send(&update(&house, 2, &ca, &["https"])).await;
    let Event::Failed(told) = house.wait_for("failed").await.event else { panic!() };
    assert!(told.message.contains("ca.pem"), "{told:?}");
    assert_eq!((served.serial("https/cert.pem"), serial_in(&house, "current")), (Some(serial.clone()), Some(serial)));
}

#[tokio::test]
async fn two_devices_behind_one_agent_do_not_write_into_one_file() {
    let served = Served::new();
    let (ca, house) = (TestCa::start(), House::configured(&served.config()).await);
    house.send(&bound(house.ir(1, &ca), &["https"])).await;
    let (serial, _) = activated(&house, 1).await;
    let key = fs::read(served.path("https/key.pem")).unwrap();
    let other = Job { device: "ap-2".to_owned(), device_id: uuid::Uuid::from_u128(0xd2).into(), ..house.ir(2, &ca) };
    house.send(&bound(other, &["https"])).await;
    let (told, _) = failed(&house, 1).await;
    assert_eq!(told.code, "export_failed");
    assert!(told.message.contains("trustpoint dot1x of device ap-1"), "{}", told.message);
    assert_eq!((served.serial("https/cert.pem"), fs::read(served.path("https/key.pem")).unwrap()), (Some(serial), key));
    assert!(!house.state().join("devices/ap-2/dot1x/current").exists());
}

#[tokio::test]
async fn copies_that_cannot_be_put_back_are_told_of_and_the_certificate_before_is_in_use() {
    let served = Served::new();
    let dir = served.dir.path().display().to_string();
    // Whoever reloads takes the folder of the copies away, and puts a file there.
    let thief = format!("if test -e {dir}/steal; then rm -r {dir}/https; touch {dir}/https; exit 1; fi; test ! -e");
    let (ca, house) = (TestCa::start(), House::configured(&served.config().replace("test ! -e", &thief)).await);
    house.send(&bound(house.ir(1, &ca), &["https"])).await;
    let (serial, _) = activated(&house, 1).await;
    fs::write(served.path("steal"), "").unwrap();
    house.send(&update(&house, 2, &ca, &["https"])).await;
    let (told, said) = failed(&house, 1).await;
    assert_eq!(told.code, "reload_failed");
    assert!(told.message.contains("not what they were") && told.message.contains("stays staged"), "{}", told.message);
    assert!(steps(&said).contains(&("restore", false)), "{said:?}");
    assert_eq!((serial_in(&house, "current"), serial_in(&house, "staged").is_some()), (Some(serial), true));
}
