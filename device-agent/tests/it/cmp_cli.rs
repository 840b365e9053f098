//! `trustfleet-agent cmp` against the mock server of `openssl cmp`, and against our own CA where a key is made.

use std::os::unix::fs::PermissionsExt as _;
use std::{fs, process::Command};

use trustfleet_cmp::SoftwareKey;
use trustfleet_cmp::codec::{CertRequest, PkiBody, PkiMessage};
use trustfleet_cmp::key::Signer as _;
use trustfleet_pki::Certificate;

use crate::ca::{self, TestCa};
use crate::cmp_shell::Desk;

#[test]
fn an_ir_by_mac_brings_a_certificate_and_its_chain() {
    let desk = Desk::new();
    let server = desk.mac_server(&[]);
    let ran = desk.by_mac("ir", &server, "--subject /CN=dev1 --newkey dev.key --certout dev.crt --chainout chain.pem");
    let ran = ran.ends(0);
    assert_eq!(desk.certificate("dev.crt"), desk.issued);
    assert_eq!(desk.certificate("chain.pem"), desk.ca.certificate);
    for word in ["certificate issued (ir)", "CN=dev1", &desk.issued.serial_hex(), "by certConf and pkiConf", "dev.crt"]
    {
        assert!(ran.out.contains(word), "{word}: {}", ran.out);
    }
    assert!(ran.errors.contains("SHA-1"), "{}", ran.errors);
}

#[test]
fn an_ir_by_signature_of_an_external_identity_names_its_messages_in_json() {
    let desk = Desk::new();
    let server = desk.signature_server(&["-grant_implicitconf"]);
    let words = "--subject CN=dev1 --newkey dev.key --implicit-confirm --output json";
    let ran = desk.by_signature("ir", &server, "factory", words).ends(0);
    assert_eq!(ran.kinds(), ["ir", "ip"]);
    let json = ran.json();
    assert_eq!((&json["result"], &json["exit_code"]), (&"enrolled".into(), &0.into()));
    assert_eq!(json["implicitly_confirmed"], true);
    assert_eq!(json["certificate"]["serial"], desk.issued.serial_hex());
    assert_eq!(Certificate::from_pem(json["certificate"]["pem"].as_str().unwrap()).unwrap(), desk.issued);
    assert!(json["timings"]["total_ms"].is_u64() && json["error"].is_null());
    assert!(ran.errors.is_empty(), "{}", ran.errors);
}

#[test]
fn openssls_names_of_options_are_taken_with_two_dashes() {
    let desk = Desk::new();
    let server = desk.mac_server(&["-grant_implicitconf"]);
    let words = "--subject /CN=dev1 --newkey dev.key --implicit_confirm --msg_timeout 20 --total_timeout 30 \
                 --mac hmac-sha512 --digest sha256 --out_trusted ca.crt --unprotected_errors --certout dev.crt";
    desk.by_mac("ir", &server, words).ends(0);
    assert_eq!(desk.certificate("dev.crt"), desk.issued);
}

#[test]
fn a_cr_and_a_kur_by_the_certificate_that_is_here() {
    let desk = Desk::new();
    let server = desk.signature_server(&[]);
    desk.write("dev.crt", &desk.issued.to_pem());
    let cr = desk.by_signature("cr", &server, "dev", "--newkey dev.key --output json").ends(0);
    assert_eq!(cr.kinds(), ["cr", "cp", "certConf", "pkiconf"]);
    let kur = desk.by_signature("kur", &server, "dev", "--newkey dev.key --output json").ends(0);
    assert_eq!(kur.kinds(), ["kur", "kup", "certConf", "pkiconf"]);
    let codes: Vec<_> = kur.json()["warnings"].as_array().unwrap().iter().map(|one| one["code"].clone()).collect();
    assert!(codes.contains(&"same_key".into()), "{codes:?}");
}

#[test]
fn a_p10cr_sends_a_csr_that_openssl_made() {
    let desk = Desk::new();
    let server = desk.mac_server(&[]);
    let made = Command::new("openssl")
        .args(["req", "-new", "-key", "dev.key", "-subj", "/CN=dev1", "-out", "dev.csr"])
        .current_dir(desk.folder.path())
        .status()
        .unwrap();
    assert!(made.success());
    let ran = desk.by_mac("p10cr", &server, "--csr dev.csr --certout dev.crt --output json").ends(0);
    assert_eq!(ran.kinds(), ["p10cr", "cp", "certConf", "pkiconf"]);
    assert_eq!(desk.certificate("dev.crt"), desk.issued);
}

#[test]
fn an_rr_is_about_our_certificate_or_about_one_by_issuer_and_serial_number() {
    let desk = Desk::new();
    let server = desk.signature_server(&[]);
    desk.write("dev.crt", &desk.issued.to_pem());
    let own = desk.by_signature("rr", &server, "dev", "--revreason superseded").ends(0);
    assert!(own.out.contains(&desk.issued.serial_hex()), "{}", own.out);
    let mut command = desk.command(&format!(
        "rr --server {}/pkix/ --cert factory.crt --key factory.key --trusted ca.crt --show-messages --revreason 1",
        server.address()
    ));
    command.args(["--issuer", "/O=Lab/CN=Mock CA", "--serial", &desk.issued.serial_hex()]);
    let other = crate::cmp_shell::ran(command.output().unwrap()).ends(0);
    assert!(other.errors.contains("reason: keyCompromise"), "{}", other.errors);
    let refused = desk.by_signature("rr", &server, "factory", "").ends(2);
    assert!(refused.errors.contains("badRequest"), "{}", refused.errors);
}

#[test]
fn a_genm_asks_and_an_echo_is_no_information() {
    let desk = Desk::new();
    let server = desk.mac_server(&[]);
    for (name, words) in [
        ("caCerts", "no certificates"),
        ("certReqTemplate", "no template"),
        ("signKeyPairTypes", "no algorithm"),
        ("currentCRL", "no newer CRL"),
        ("1.3.6.1.5.5.7.4.21", "no value"),
    ] {
        let ran = desk.by_mac("genm", &server, &format!("--infotype {name}")).ends(0);
        assert!(ran.out.contains(words), "{name}: {}", ran.out);
    }
    desk.by_mac("genm", &server, "--infotype noSuchThing").ends(1);
    desk.by_mac("genm", &server, "--infotype rootCaCert").ends(1);
}

#[test]
fn polling_is_waited_for_and_its_messages_are_named() {
    let desk = Desk::new();
    let server = desk.mac_server(&["-poll_count", "2", "-check_after", "1"]);
    let ran = desk.by_mac("ir", &server, "--subject /CN=dev1 --newkey dev.key --output json").ends(0);
    assert_eq!(ran.kinds(), ["ir", "ip", "pollReq", "pollRep", "pollReq", "ip", "certConf", "pkiconf"]);
    assert!(ran.json()["timings"]["waited_ms"].as_u64().unwrap() >= 1000);
}

#[test]
fn a_key_is_made_written_for_us_alone_and_never_over_another_one() {
    let (desk, ca) = (Desk::new(), TestCa::start());
    desk.write("root.crt", &ca.authority.certificate.to_pem());
    fs::write(desk.path("ca-secret"), ca::SECRET).unwrap();
    let words = format!(
        "ir --server {} --ref {} --secret file:ca-secret --trusted root.crt --subject /CN=ap-1 --sans ap-1.example,192.0.2.7 \
         --newkey-type p384 --newkeyout new.key --certout new.crt",
        ca.url,
        ca::REFERENCE
    );
    let ran = desk.cmp(&words).ends(0);
    assert!(ran.errors.contains("secret"), "a secret that others can read is worth a word: {}", ran.errors);
    assert_eq!(fs::metadata(desk.path("new.key")).unwrap().permissions().mode() & 0o777, 0o600);
    let key = SoftwareKey::from_pem(&desk.read("new.key")).unwrap();
    let certificate = desk.certificate("new.crt");
    assert_eq!(certificate.spki_der(), key.public_key_der());
    assert_eq!(certificate.subject_alt_names(), ["dns:ap-1.example", "ip:192.0.2.7"]);
    let asked = ca.heard().len();
    let again = desk.cmp(&words).ends(1);
    assert!(again.errors.contains("--force") && ca.heard().len() == asked, "{}", again.errors);
    desk.cmp(&format!("{words} --force")).ends(0);
    assert_ne!(desk.certificate("new.crt"), certificate);
    // nor does anything else land on a key
    desk.cmp(&words.replace("new.crt", "new.key").replace("--newkeyout new.key", "--newkeyout newer.key")).ends(1);
}

#[test]
fn a_key_can_be_encrypted_on_the_way_to_the_disk() {
    let (desk, ca) = (Desk::new(), TestCa::start());
    desk.write("root.crt", &ca.authority.certificate.to_pem());
    desk.write("ca-secret", ca::SECRET);
    let server = format!("--server {} --trusted root.crt", ca.url);
    let words = format!("--ref {} --secret file:ca-secret --subject /CN=ap-1", ca::REFERENCE);
    let key = "--newkey-type ed25519 --newkeyout new.key --newkeypass env:SECRET_OF_DEV1 --certout new.crt";
    desk.cmp(&format!("ir {server} {words} {key}")).ends(0);
    assert!(desk.read("new.key").contains("ENCRYPTED PRIVATE KEY"));
    let own = "--cert new.crt --key new.key --keypass env:SECRET_OF_DEV1";
    let next = "--newkey-type rsa:2048 --newkeyout next.key --certout next.crt --pss";
    // the CA's CMP signer carries cmcCA, and the recipient is the issuer of our certificate
    let fault = desk.cmp(&format!("kur {server} {own} {next}")).ends(1);
    assert!(fault.errors.contains("--pss"), "{}", fault.errors);
    desk.cmp(&format!("kur {server} {own} {}", next.replace(" --pss", ""))).ends(0);
    let requests: Vec<_> = ca.heard().into_iter().filter(|kind| *kind != "certConf").collect();
    assert_eq!(requests, ["ir", "kur"]);
    let missing =
        desk.cmp(&format!("kur {server} --cert new.crt --key new.key {}", next.replace("next.", "x."))).ends(1);
    assert!(missing.errors.contains("passphrase"), "{}", missing.errors);
}

#[test]
fn a_dry_run_shows_the_request_and_touches_neither_network_nor_disk() {
    let desk = Desk::new();
    let before = fs::read_dir(desk.folder.path()).unwrap().count();
    let words = "ir --dry-run --ref dev1 --secret file:secret --subject /CN=dev1 --sans a.example --newkey-type p256 \
                 --newkeyout new.key --certout new.crt --server 127.0.0.1:1";
    let ran = desk.cmp(words).ends(0);
    for line in ["body: ir", "subject: CN=dev1", "subjectAltName dns:a.example", "EC P-256", "there, not shown"] {
        assert!(ran.out.contains(line), "{line}: {}", ran.out);
    }
    assert_eq!(fs::read_dir(desk.folder.path()).unwrap().count(), before);
    let lint = desk.cmp("ir --dry-run --cert factory.crt --key factory.key --subject /CN=x --newkey dev.key").ends(0);
    assert!(lint.errors.contains("--trusted"), "{}", lint.errors);
    desk.cmp("ir --dry-run --ref dev1 --secret file:secret --newkey dev.key").ends(1);
    desk.cmp("kur --dry-run --ref dev1 --secret file:secret --newkey dev.key").ends(1);
}

#[test]
fn shown_messages_have_no_salt_and_no_mac() {
    let (desk, ca) = (Desk::new(), TestCa::start());
    ca.never_confirm_implicitly();
    desk.write("root.crt", &ca.authority.certificate.to_pem());
    desk.write("ca-secret", ca::SECRET);
    for mac in ["pbm", "pbmac1"] {
        let words = format!(
            "ir --server {} --ref {} --secret file:ca-secret --trusted root.crt --subject /CN=ap-1 --newkey dev.key --mac {mac} \
             --show-messages",
            ca.url,
            ca::REFERENCE
        );
        let ran = desk.cmp(&words).ends(0);
        for line in [
            "sent ir",
            "received ip",
            "sent certConf",
            "received pkiconf",
            "10000 iterations",
            "senderKID: \"ref-ap-1\"",
        ] {
            assert!(ran.errors.contains(line), "{line}: {}", ran.errors);
        }
        assert!(!ran.errors.contains(ca::SECRET) && !ran.out.contains(ca::SECRET));
        for raw in ca.raw() {
            let message = trustfleet_cmp::codec::PkiMessage::from_der(&raw).unwrap();
            let mac = hex::encode(message.protection.unwrap());
            let salt = salt(&message.header.protection_alg.unwrap());
            for hidden in [mac, salt] {
                assert!(hidden.len() >= 32 && !ran.errors.contains(&hidden) && !ran.out.contains(&hidden), "{hidden}");
            }
        }
    }
}

/// The first OCTET STRING of 16 octets in the parameters.
fn salt(algorithm: &spki::AlgorithmIdentifierOwned) -> String {
    use der::Encode as _;
    let der = algorithm.to_der().unwrap();
    let at = der.windows(2).position(|head| head == [0x04, 0x10]).expect("a salt of 16 octets");
    hex::encode(&der[at + 2..at + 18])
}

#[test]
fn a_request_follows_the_cas_template_or_says_that_there_is_none() {
    let desk = Desk::new();
    let server = desk.mac_server(&[]);
    let ran = desk.by_mac("ir", &server, "--subject /CN=dev1 --newkey dev.key --ask-template --output json").ends(0);
    assert_eq!(ran.kinds(), ["genm", "genp", "ir", "ip", "certConf", "pkiconf"]);
    assert!(ran.json()["information"][0].as_str().unwrap().contains("no template"));
}

/// notBefore and notAfter, in seconds, that an ir asks for.
fn validity_asked(message: &[u8]) -> Option<(u64, u64)> {
    let PkiBody::Ir(requests) = PkiMessage::from_der(message).unwrap().body else { panic!("no ir") };
    let request: CertRequest = requests[0].cert_req.parse().unwrap();
    let validity = request.cert_template.validity?;
    let seconds = |time: Option<x509_cert::time::Time>| time.unwrap().to_unix_duration().as_secs();
    Some((seconds(validity.not_before), seconds(validity.not_after)))
}

#[test]
fn days_ask_for_a_validity_as_openssl_cmp_does() {
    let (desk, ca) = (Desk::new(), TestCa::start());
    desk.write("ca-secret", ca::SECRET);
    let own =
        |name: &str| format!("--ref {} --secret file:ca-secret --subject /CN={name} --newkey dev.key", ca::REFERENCE);
    desk.cmp(&format!("ir --server {} {} --days 30", ca.url, own("dev1"))).ends(0);
    desk.cmp(&format!("ir --server {} {}", ca.url, own("dev2"))).ends(0);
    let raw = ca.raw();
    let is_ir = |message: &&Vec<u8>| matches!(PkiMessage::from_der(message).unwrap().body, PkiBody::Ir(_));
    let requests: Vec<_> = raw.iter().filter(is_ir).collect();
    let server = desk.mac_server(&[]);
    let openssl = Command::new("openssl")
        .args([
            "cmp",
            "-config",
            "",
            "-cmd",
            "ir",
            "-server",
            &server.address().to_string(),
            "-path",
            "pkix/",
            "-ref",
            "dev1",
        ])
        .args([
            "-secret",
            "file:secret",
            "-subject",
            "/CN=dev1",
            "-newkey",
            "dev.key",
            "-days",
            "30",
            "-trusted",
            "ca.crt",
        ])
        .args(["-recipient", "/O=Lab/CN=Mock CA", "-certout", "theirs.crt", "-reqout", "theirs.der certconf.der"])
        .current_dir(desk.folder.path())
        .output()
        .unwrap();
    assert!(openssl.status.success(), "{}", String::from_utf8_lossy(&openssl.stderr));
    let theirs = validity_asked(&fs::read(desk.path("theirs.der")).unwrap()).unwrap();
    let ours = validity_asked(requests[0]).unwrap();
    assert_eq!(ours.1 - ours.0, 30 * 86_400);
    assert_eq!(theirs.1 - theirs.0, ours.1 - ours.0);
    assert!(theirs.0.abs_diff(ours.0) < 60, "{theirs:?} {ours:?}");
    assert_eq!(validity_asked(requests[1]), None, "without --days the CA decides");
    let shown = desk.cmp(&format!("ir --dry-run {} --days 1", own("dev1"))).ends(0);
    assert!(shown.out.contains("validity: "), "{}", shown.out);
    desk.cmp(&format!("ir --server {} {} --days 0", ca.url, own("dev1"))).ends(1);
}
