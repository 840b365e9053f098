//! `trustfleet-agent cmp` at the mock server of a newer OpenSSL than Debian's 3.0.
//!
//! `make interop` brings one, makes it the first `openssl` of PATH and runs these tests (docs/interop.md).

use trustfleet_cmp::key::KeyType;

use crate::cmp_shell::Desk;

const ENROL: &str = "--subject /CN=dev1 --newkey dev.key --certout dev.crt --output json";

#[test]
#[ignore = "wants a newer OpenSSL: scripts/interop/cmp.sh"]
fn c4_keys_and_cas_by_ml_dsa_enrol_by_mac_and_renew_by_signature() {
    for (ca, own) in [(KeyType::MlDsa44, KeyType::MlDsa65), (KeyType::MlDsa87, KeyType::MlDsa44)] {
        let desk = Desk::of(ca, own);
        let server = desk.mac_server(&[]);
        let ran = desk.by_mac("ir", &server, &format!("{ENROL} --show-messages")).ends(0);
        assert_eq!(ran.kinds(), ["ir", "ip", "certConf", "pkiconf"]);
        assert_eq!(desk.certificate("dev.crt"), desk.issued);
        assert!(ran.errors.contains("pvno: 3"), "certConf: {}", ran.errors);
        let server = desk.signature_server(&[]);
        let ran = desk.by_signature("kur", &server, "dev", "--newkey dev.key --show-messages").ends(0);
        for shown in [format!("protectionAlg: {own}"), format!("protectionAlg: {ca}")] {
            assert!(ran.errors.contains(&shown), "{shown}: {}", ran.errors);
        }
    }
}

#[test]
#[ignore = "wants a newer OpenSSL: scripts/interop/cmp.sh"]
fn w2_a_delayed_certconf_is_polled_for_and_r9_a_template_is_asked_for_first() {
    let desk = Desk::new();
    let server = desk.mac_server(&["-poll_count", "1", "-check_after", "1", "-ref_cert", "issued.crt"]);
    let ran = desk.by_mac("ir", &server, ENROL).ends(0);
    assert_eq!(ran.kinds(), ["ir", "ip", "pollReq", "ip", "certConf", "error", "pollReq", "pkiconf"]);
    let server = desk.mac_server(&["-ref_cert", "issued.crt"]);
    let ran = desk.by_mac("ir", &server, &format!("{ENROL} --ask-template --force")).ends(0);
    assert_eq!(ran.kinds(), ["genm", "genp", "ir", "ip", "certConf", "pkiconf"]);
    let ran = desk.by_mac("genm", &server, "--infotype certReqTemplate").ends(0);
    assert!(ran.out.contains("RSA of 4096 bits"), "{}", ran.out);
}

#[test]
#[ignore = "wants a newer OpenSSL: scripts/interop/cmp.sh"]
fn h15_the_servers_profile_is_named_and_another_one_refused() {
    let desk = Desk::new();
    let server = desk.mac_server(&[]);
    desk.by_mac("cr", &server, &format!("{ENROL} --profile profile1")).ends(0);
    let ran = desk.by_mac("cr", &server, &format!("{ENROL} --profile profile2 --force")).ends(2);
    assert!(ran.out.contains("unexpected certprofile"), "{}", ran.out);
}
