//! The good ends: ir, kur, certConf, staged and activated, files and links on the disk.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use trustfleet_agent::controller_link::Verdict;
use trustfleet_cmp::codec::PkiMessage;
use trustfleet_cmp::key::{Signer as _, SoftwareKey};
use trustfleet_pki::Certificate;
use trustfleet_pki::digest::sha256;
use trustfleet_wire::v1::{Enroll, Event, Request, Task};

use crate::ca::TestCa;
use crate::house::{House, job_id};

fn read(path: &str) -> Certificate {
    Certificate::from_pem(&fs::read_to_string(path).unwrap()).unwrap()
}

fn key_beside(file: &str) -> SoftwareKey {
    SoftwareKey::from_pem(&fs::read_to_string(Path::new(file).with_file_name("key.pem")).unwrap()).unwrap()
}

#[tokio::test]
async fn s27_an_ir_with_mac_ends_with_a_certificate_in_use_and_its_key_beside_it() {
    let (ca, house) = (TestCa::start(), House::start().await);
    assert_eq!(house.send(&house.ir(1, &ca)).await, Verdict::Ack);
    let issued = house.issued().await;
    let Event::Activated { serial, file, .. } = house.wait_for("activated").await.event else { panic!() };
    assert_eq!(house.kinds(), ["started", "issued", "activated"]);
    let certificate = read(&file);
    assert_eq!(certificate.as_der(), issued.certificate.0);
    assert_eq!((certificate.serial_hex(), certificate.subject().to_slash()), (serial, "/O=Lab/CN=ap-1".to_owned()));
    assert_eq!(file, house.trustpoint().join("current/certificate.pem").display().to_string());
    assert_eq!(key_beside(&file).public_key_der(), certificate.spki_der());
    assert!(issued.file.ends_with("staged/certificate.pem"), "{}", issued.file);
    assert!(issued.implicitly_confirmed && issued.polls == 0 && issued.status == "accepted");
    assert_eq!(ca.heard(), ["ir"]);
}

#[tokio::test]
async fn s8_every_mac_and_kind_of_key_that_a_policy_can_name_is_carried_out() {
    let (ca, house) = (TestCa::start(), House::start().await);
    let macs = ["hmac-sha384", "hmac-sha512", "pbmac1-sha256", "pbmac1-sha384", "pbmac1-sha512"];
    let keys = ["ecdsa-p384", "ed25519", "rsa-2048", "ecdsa-p256", "ed25519"];
    for (number, (mac, key)) in (1..).zip(macs.into_iter().zip(keys)) {
        let mut enroll = house.enroll(number, Request::Ir, &ca);
        let settings = enroll.mac.as_mut().unwrap();
        (settings.algorithm, settings.iterations) = (mac.to_owned(), 1000);
        enroll.key_algorithm = key.to_owned();
        house.send(&house.job(number, Task::Enroll(Box::new(enroll)))).await;
        let nth = usize::try_from(number).unwrap();
        let Event::Activated { file, .. } = house.wait_for_nth("activated", nth).await.event else { panic!() };
        let certificate = read(&file);
        assert_eq!(key_beside(&file).public_key_der(), certificate.spki_der());
        let kind = certificate.public_key().algorithm().to_string().to_lowercase();
        assert_eq!(kind.replace("ec p-", "ecdsa-p").replace("rsa ", "rsa-"), key, "{mac}");
    }
    // the last one signs for its successor
    let enroll = Enroll { mac: None, key_algorithm: "ecdsa-p384".to_owned(), ..house.enroll(9, Request::Kur, &ca) };
    house.send(&house.job(9, Task::Enroll(Box::new(enroll)))).await;
    house.wait_for_nth("activated", macs.len() + 1).await;
    assert_eq!(ca.heard().last(), Some(&"kur"));
}

#[tokio::test]
async fn the_key_is_reported_before_the_ca_is_asked_and_is_the_certificates() {
    let (ca, house) = (TestCa::start(), House::start().await);
    house.send(&house.ir(1, &ca)).await;
    let Event::Started { public_key_sha256 } = house.wait_for("started").await.event else { panic!() };
    let issued = house.issued().await;
    let certificate = Certificate::from_der(&issued.certificate.0).unwrap();
    assert_eq!(public_key_sha256, hex::encode(sha256(&certificate.spki_der())));
}

#[tokio::test]
async fn keys_are_0600_below_folders_that_are_0700() {
    let (ca, house) = (TestCa::start(), House::start().await);
    house.send(&house.ir(1, &ca)).await;
    house.wait_for("activated").await;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let version = house.trustpoint().join("current");
    assert_eq!(mode(&version.join("key.pem")), 0o600);
    for folder in [version, house.trustpoint(), house.state().join("devices/ap-1"), house.state().join("jobs")] {
        assert_eq!(mode(&folder), 0o700, "{}", folder.display());
    }
    assert_eq!(mode(&house.state().join(format!("jobs/{}.json", job_id(1)))), 0o600);
}

#[tokio::test]
async fn s13_the_secret_is_on_the_disk_nowhere() {
    let (ca, house) = (TestCa::start(), House::start().await);
    house.send(&house.ir(1, &ca)).await;
    house.wait_for("activated").await;
    let mut folders = vec![house.state()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else {
                let text = String::from_utf8_lossy(&fs::read(&entry).unwrap()).into_owned();
                assert!(!text.contains(crate::ca::SECRET), "{}", entry.display());
            }
        }
    }
}

#[tokio::test]
async fn c1_a_certificate_is_confirmed_where_the_ca_wants_that() {
    let (ca, house) = (TestCa::start(), House::start().await);
    ca.never_confirm_implicitly();
    house.send(&house.ir(1, &ca)).await;
    assert!(!house.issued().await.implicitly_confirmed);
    assert_eq!(ca.heard(), ["ir", "certConf"]);
}

#[tokio::test]
async fn s30_a_kur_is_signed_with_the_old_certificate_and_brings_a_new_key() {
    let (ca, house) = (TestCa::start(), House::start().await);
    house.send(&house.ir(1, &ca)).await;
    house.wait_for("activated").await;
    let current = house.trustpoint().join("current/certificate.pem").display().to_string();
    let (old, old_key) = (read(&current), key_beside(&current));
    let kur = house.enroll(2, Request::Kur, &ca);
    house.send(&house.job(2, Task::Enroll(Box::new(kur)))).await;
    house.wait_for_nth("activated", 2).await;
    assert_eq!(ca.heard(), ["ir", "kur"]);
    let (new, new_key) = (read(&current), key_beside(&current));
    assert_ne!(new.serial_hex(), old.serial_hex());
    assert_ne!(new_key.public_key_der(), old_key.public_key_der());
    let previous = house.trustpoint().join("previous/certificate.pem").display().to_string();
    assert_eq!(read(&previous), old);
    assert_eq!(key_beside(&previous).public_key_der(), old_key.public_key_der());
}

#[tokio::test]
async fn s3_a_kur_without_regenerate_keeps_the_key() {
    let (ca, house) = (TestCa::start(), House::start().await);
    house.send(&house.ir(1, &ca)).await;
    house.wait_for("activated").await;
    let current = house.trustpoint().join("current/certificate.pem").display().to_string();
    let old_key = key_beside(&current);
    let mut kur = house.enroll(2, Request::Kur, &ca);
    kur.regenerate_key = false;
    house.send(&house.job(2, Task::Enroll(Box::new(kur)))).await;
    house.wait_for_nth("activated", 2).await;
    assert_eq!(key_beside(&current).public_key_der(), old_key.public_key_der());
}

#[tokio::test]
async fn s33_a_staged_certificate_takes_effect_only_on_command() {
    let (ca, house) = (TestCa::start(), House::start().await);
    let mut enroll = house.enroll(1, Request::Ir, &ca);
    enroll.activate = false;
    enroll.file_format = "der".to_owned();
    house.send(&house.job(1, Task::Enroll(Box::new(enroll)))).await;
    let issued = house.issued().await;
    let certificate = Certificate::from_der(&issued.certificate.0).unwrap();
    assert_eq!(fs::read(&issued.file).unwrap(), issued.certificate.0, "S15: der");
    assert!(!house.trustpoint().join("current").exists());
    let serial = certificate.serial_hex();
    house.send(&house.job(2, Task::Activate { serial: serial.clone() })).await;
    let Event::Activated { serial: activated, file, .. } = house.wait_for("activated").await.event else { panic!() };
    assert_eq!(activated, serial);
    assert!(file.ends_with("current/certificate.der") && !house.trustpoint().join("staged").exists());
}

#[tokio::test]
async fn an_activation_of_another_certificate_than_the_staged_one_is_refused() {
    let (ca, house) = (TestCa::start(), House::start().await);
    house.send(&house.job(1, Task::Activate { serial: "0A".to_owned() })).await;
    assert_eq!(house.failed().await.code, "nothing_staged");
    let mut enroll = house.enroll(2, Request::Ir, &ca);
    enroll.activate = false;
    house.send(&house.job(2, Task::Enroll(Box::new(enroll)))).await;
    house.issued().await;
    house.send(&house.job(3, Task::Activate { serial: "0A".to_owned() })).await;
    let Event::Failed(failed) = house.wait_for_nth("failed", 2).await.event else { panic!() };
    assert_eq!(failed.code, "other_certificate_staged");
    assert!(!house.trustpoint().join("current").exists());
}

#[tokio::test]
async fn s35_ca_certificates_that_came_are_saved_beside_the_certificate() {
    let (ca, house) = (TestCa::start(), House::start().await);
    house.send(&house.ir(1, &ca)).await;
    let issued = house.issued().await;
    house.wait_for("activated").await;
    assert_eq!(issued.chain.len(), 1);
    let chain = fs::read_to_string(house.trustpoint().join("current/chain.pem")).unwrap();
    assert_eq!(Certificate::from_pem(&chain).unwrap(), ca.authority.certificate);
}

#[tokio::test]
async fn x2_a_signed_request_brings_the_root_where_the_ca_wants_it_and_nowhere_else() {
    let (ca, house) = (TestCa::start(), House::start().await);
    house.send(&house.ir(1, &ca)).await;
    house.wait_for("activated").await;
    let root = ca.authority.certificate.as_der();
    for (number, wanted) in [(2, false), (3, true)] {
        // As if the CA sent its root along with no answer.
        fs::write(house.trustpoint().join("current/chain.pem"), "").unwrap();
        let kur = Enroll { root_in_extra_certs: wanted, ..house.enroll(number, Request::Kur, &ca) };
        let before = ca.raw().len();
        house.send(&house.job(number, Task::Enroll(Box::new(kur)))).await;
        house.wait_for_nth("activated", usize::try_from(number).unwrap()).await;
        let sent = PkiMessage::from_der(&ca.raw()[before]).unwrap();
        let brought: Vec<Vec<u8>> = sent.extra_certs.iter().map(|raw| raw.to_tlv().unwrap()).collect();
        assert_eq!(brought.iter().any(|der| der == root), wanted, "{number}: {} certificates", brought.len());
        assert_ne!(brought[0], root, "the signer's own leads");
    }
}
