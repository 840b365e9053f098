//! How `trustfleet-agent cmp` ends when it does not end well: by number, in words, and with what to do next.

use std::fs;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::{Duration, Instant};

use trustfleet_cmp::codec::FailureBit;

use crate::authority::{Leaf, key};
use crate::ca::{self, Gate, TestCa, Trick};
use crate::cmp_shell::{Desk, Ran, ran};

const ENROL: &str = "--subject /CN=dev1 --newkey dev.key --certout dev.crt";

/// A desk that knows the secret of a CA of ours.
fn at(ca: &TestCa) -> (Desk, String) {
    let desk = Desk::new();
    desk.write("root.crt", &ca.authority.certificate.to_pem());
    desk.write("ca-secret", ca::SECRET);
    let words = format!("--server {} --ref {} --secret file:ca-secret --trusted root.crt", ca.url, ca::REFERENCE);
    (desk, words)
}

#[test]
fn a_rejection_ends_with_2_its_reasons_in_words_and_advice() {
    let desk = Desk::new();
    let server = desk.mac_server(&["-pkistatus", "2", "-failure", "19", "-statusstring", "no such profile"]);
    let ran = desk.by_mac("ir", &server, ENROL).ends(2);
    for word in ["badCertTemplate", "no such profile", "next: the server does not issue such a certificate"] {
        assert!(ran.errors.contains(word), "{word}: {}", ran.errors);
    }
    assert!(!ran.errors.contains("may have done") && !desk.path("dev.crt").exists());
    let json = desk.by_mac("ir", &server, &format!("{ENROL} --output json")).ends(2).json();
    assert_eq!(json["error"]["fail_info"], serde_json::json!(["badCertTemplate"]));
    assert_eq!((&json["error"]["culprit"], &json["error"]["maybe_issued"]), (&"peer_refusal".into(), &false.into()));
}

#[test]
fn a_wrong_secret_ends_with_3_because_the_refusal_cannot_be_authenticated() {
    let desk = Desk::new();
    let server = desk.mac_server(&[]);
    let words = format!(
        "ir --server {}/pkix/ --ref dev1 --secret pass:something-else-entirely --allow-sha1 {ENROL}",
        server.address()
    );
    let ran = desk.cmp(&words).ends(3);
    for word in ["check reference and secret", "wrong pbm value", "--secret", "can be seen by others"] {
        assert!(ran.errors.contains(word), "{word}: {}", ran.errors);
    }
    assert!(!ran.errors.contains("something-else-entirely"), "{}", ran.errors);
}

#[test]
fn an_answer_by_sha1_ends_with_3_and_names_the_option_that_takes_it() {
    let desk = Desk::new();
    let server = desk.mac_server(&[]);
    let words = format!("ir --server {}/pkix/ --ref dev1 --secret file:secret {ENROL}", server.address());
    assert!(desk.cmp(&words).ends(3).errors.contains("--allow-sha1"));
}

#[test]
fn v6_an_answer_signed_by_a_sibling_ends_with_3_and_says_who_may_answer() {
    let desk = Desk::new();
    let server = crate::openssl::MockServer::start(
        desk.folder.path(),
        &["-srv_cert", "factory.crt", "-srv_key", "factory.key", "-srv_trusted", "ca.crt", "-rsp_cert", "issued.crt"],
    );
    let ran = desk.by_signature("ir", &server, "factory", ENROL).ends(3);
    assert!(ran.errors.contains("--recipient") && !desk.path("dev.crt").exists(), "{}", ran.errors);
    // unless it is pinned
    desk.by_signature("ir", &server, "factory", &format!("{ENROL} --srvcert factory.crt")).ends(0);
}

#[test]
fn p10_an_unprotected_refusal_ends_with_3_or_by_choice_with_2_and_is_never_more() {
    let desk = Desk::new();
    let server = desk.mac_server(&["-send_error", "-send_unprot_err", "-send_unprotected"]);
    desk.by_mac("ir", &server, ENROL).ends(3);
    desk.by_mac("ir", &server, &format!("{ENROL} --unprotected-errors")).ends(2);
    let server = desk.mac_server(&["-send_unprotected"]);
    desk.by_mac("ir", &server, &format!("{ENROL} --unprotected-errors")).ends(3);
    assert!(!desk.path("dev.crt").exists());
}

#[test]
fn a_dead_port_ends_with_4_and_nothing_was_sent() {
    let desk = Desk::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let words = format!("ir --server {address} --ref dev1 --secret file:secret {ENROL} --output json");
    let json = desk.cmp(&words).ends(4).json();
    assert_eq!(json["error"]["code"], "ca_unreachable");
    assert_eq!((&json["error"]["culprit"], &json["error"]["maybe_issued"]), (&"transport".into(), &false.into()));
}

#[test]
fn t3_a_redirect_and_t2_plain_text_end_with_4_and_their_words_are_harmless() {
    let ca = TestCa::start();
    let (desk, words) = at(&ca);
    ca.trick(Trick::Redirect("http://127.0.0.1:1/elsewhere".to_owned()));
    assert!(desk.cmp(&format!("ir {words} {ENROL}")).ends(4).errors.contains("redirects are not followed"));
    let body = b"no \x1b[31msuch\r\npage".to_vec();
    ca.trick(Trick::Http { status: 404, content_type: "text/plain", body });
    let ran = desk.cmp(&format!("ir {words} {ENROL}")).ends(4);
    assert!(ran.errors.contains("--path") && !ran.errors.contains('\u{1b}'), "{}", ran.errors);
}

#[test]
fn t5_a_lost_answer_to_certconf_is_asked_for_again_with_the_same_bytes() {
    let ca = TestCa::start();
    ca.never_confirm_implicitly();
    let (desk, words) = at(&ca);
    let gate = Arc::new(Gate::default());
    gate.open.store(true, Ordering::SeqCst);
    ca.trick(Trick::Gate(gate)); // the request is answered as it should be
    ca.trick(Trick::LoseAnswer);
    desk.cmp(&format!("ir {words} {ENROL}")).ends(0);
    let raw = ca.raw();
    assert_eq!((ca.heard(), raw[1] == raw[2]), (vec!["ir", "certConf", "certConf"], true));
}

#[test]
fn a_request_whose_answer_is_lost_is_not_repeated_and_may_have_been_granted() {
    let ca = TestCa::start();
    let (desk, words) = at(&ca);
    ca.trick(Trick::LoseAnswer);
    let json = desk.cmp(&format!("ir {words} {ENROL} --output json")).ends(4).json();
    assert_eq!((json["error"]["maybe_issued"].clone(), ca.heard()), (true.into(), vec!["ir"]));
}

#[test]
fn with_a_state_file_the_lost_answer_is_fetched_by_the_same_bytes() {
    let ca = TestCa::start();
    let (desk, words) = at(&ca);
    ca.trick(Trick::LoseAnswer);
    let key = "--subject /CN=dev1 --newkey-type p256 --newkeyout new.key --certout dev.crt --state tx.json";
    assert!(desk.cmp(&format!("ir {words} {key}")).ends(4).errors.contains("repeat the command"));
    let other = desk.cmp(&format!("cr {words} {key}")).ends(1);
    assert!(other.errors.contains("another kind"), "{}", other.errors);
    desk.cmp(&format!("ir {words} {key}")).ends(0);
    assert_eq!((ca.heard(), ca.issued()), (vec!["ir", "ir", "certConf"], 1));
    assert!(!desk.path("tx.json").exists());
}

#[test]
fn the_total_time_ends_with_5_and_the_ca_is_told() {
    let desk = Desk::new();
    let server = desk.mac_server(&["-poll_count", "9", "-check_after", "60"]);
    let begun = Instant::now();
    let ran = desk.by_mac("ir", &server, &format!("{ENROL} --total-timeout 2 --output json")).ends(5);
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert_eq!(ran.kinds(), ["ir", "ip", "pollReq", "pollRep", "error"]);
    assert_eq!(ran.json()["error"]["code"], "total_time_exceeded");
}

#[test]
fn w4_with_a_state_file_more_time_can_be_given_afterwards() {
    let ca = TestCa::start();
    let (desk, words) = at(&ca);
    ca.trick(Trick::Wait);
    let words = format!("ir {words} {ENROL} --state tx.json --total-timeout");
    desk.cmp(&format!("{words} 1")).ends(5);
    assert!(!ca.heard().contains(&"error"), "{:?}", ca.heard());
    desk.cmp(&format!("{words} 1")).ends(5);
    desk.cmp(&format!("{words} 60")).ends(0);
    assert_eq!((ca.issued(), desk.path("tx.json").exists()), (1, false));
}

#[test]
fn a_silent_server_ends_with_5_after_the_time_of_one_message() {
    let desk = Desk::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let words = format!(
        "ir --server {} --ref dev1 --secret file:secret {ENROL} --msg-timeout 1 --output json",
        listener.local_addr().unwrap()
    );
    // telling it that we give up takes as long as it may
    let json = desk.cmp(&words).ends(5).json();
    assert_eq!((&json["error"]["culprit"], &json["error"]["maybe_issued"]), (&"time".into(), &true.into()));
}

#[test]
fn c7_a_certificate_for_another_key_ends_with_7_and_lies_beside_for_whoever_revokes_it() {
    let desk = Desk::new();
    let other = desk.ca.issue(&Leaf::new("/CN=dev1", key(trustfleet_cmp::key::KeyType::P256).as_ref()));
    desk.write("issued.crt", &other.to_pem());
    let server = desk.mac_server(&[]);
    let ran = desk.by_mac("ir", &server, ENROL).ends(7);
    assert!(ran.errors.contains("public key") && !desk.path("dev.crt").exists(), "{}", ran.errors);
    assert_eq!(desk.certificate("dev.crt.unused"), other);
}

#[test]
fn v9_changed_names_are_rejected_where_that_is_asked_for() {
    let desk = Desk::new();
    let server = desk.mac_server(&[]);
    let words = "--subject /CN=somebody --newkey dev.key --certout dev.crt";
    assert!(desk.by_mac("ir", &server, words).ends(0).errors.contains("CN=somebody"));
    desk.by_mac("ir", &server, &format!("{words} --modifications reject")).ends(7);
}

#[test]
fn an_answer_that_makes_no_sense_ends_with_8() {
    let ca = TestCa::start();
    let (desk, words) = at(&ca);
    ca.trick(Trick::Http { status: 200, content_type: "application/pkixcmp", body: b"\x30\x03abc".to_vec() });
    let ran = desk.cmp(&format!("ir {words} {ENROL} --show-messages")).ends(8);
    assert!(ran.errors.contains("received unreadable, 5 bytes"), "{}", ran.errors);
}

#[test]
fn a_disk_that_does_not_take_the_certificate_ends_with_9_and_shows_it() {
    let ca = TestCa::start();
    let (desk, words) = at(&ca);
    let gate = Arc::new(Gate::default());
    ca.trick(Trick::Gate(Arc::clone(&gate)));
    let sub = desk.path("sub");
    fs::create_dir(&sub).unwrap();
    let child = start(
        &desk,
        &format!("ir {words} --subject /CN=dev1 --newkey dev.key --implicit-confirm --certout sub/dev.crt"),
    );
    until(|| gate.reached.load(Ordering::SeqCst));
    fs::remove_dir(&sub).unwrap();
    gate.open.store(true, Ordering::SeqCst);
    let ran = finish(child).ends(9);
    assert!(ran.out.contains("BEGIN CERTIFICATE"), "{}", ran.out);
}

#[test]
fn mistakes_in_options_end_with_1_and_nothing_is_sent() {
    let ca = TestCa::start();
    let (desk, words) = at(&ca);
    for wrong in [
        "ir --no-such-option",
        "ir",
        &format!("ir {words}"),
        &format!("ir {words} --newkey nowhere.key --subject /CN=x"),
        &format!("ir {words} --newkey dev.key"),
        &format!("ir {words} --newkey dev.key --subject nonsense"),
        &format!("ir {words} --newkey dev.key --subject /CN=x --certout nowhere/x"),
        &format!("ir {words} --newkey dev.key --subject /CN=x --mac md5"),
        &format!("ir {words} --newkey dev.key --subject /CN=x --owf sha1"),
        &format!("ir {words} --newkey dev.key --subject /CN=x --iterations 1"),
        &format!("ir {words} --newkey-type p256 --subject /CN=x"),
        &format!("kur {words} --newkey dev.key"),
        &format!("rr {words} --issuer /CN=x --serial 1"),
        &format!("rr {words} --oldcert ca.crt --revreason because"),
        &format!("p10cr {words} --csr dev.key"),
        &format!("ir {words} --newkey dev.key --subject /CN=x --state dev.key"),
        &format!(
            "ir {words} --newkey dev.key --subject /CN=x --interface no-such-interface-0 --tls-cert ca.crt --tls-key ca.key"
        ),
    ] {
        desk.cmp(wrong).ends(1);
    }
    assert!(ca.heard().is_empty(), "{:?}", ca.heard());
    desk.cmp("ir --help").ends(0);
}

#[test]
fn e1_a_signal_ends_with_6_and_the_ca_is_told() {
    for (signal, state) in [("INT", false), ("TERM", true)] {
        let ca = TestCa::start();
        let (desk, words) = at(&ca);
        ca.trick(Trick::Wait);
        let gate = Arc::new(Gate::default());
        ca.trick(Trick::Gate(Arc::clone(&gate)));
        let more = if state { "--state tx.json" } else { "" };
        let child = start(&desk, &format!("ir {words} {ENROL} {more}"));
        until(|| gate.reached.load(Ordering::SeqCst));
        let kill = Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().unwrap();
        assert!(kill.success());
        sleep(Duration::from_millis(300));
        gate.open.store(true, Ordering::SeqCst);
        let ran = finish(child).ends(6);
        assert!(ran.errors.contains("stopped by a signal"), "{}", ran.errors);
        let told = ca.heard().contains(&"error");
        assert_eq!(told, !state, "{:?}", ca.heard());
        if state {
            desk.cmp(&format!("ir {words} {ENROL} {more}")).ends(0);
            assert_eq!(ca.issued(), 1);
        }
    }
}

#[test]
fn a_refusal_with_hostile_words_leaves_the_terminal_intact() {
    let ca = TestCa::start();
    let (desk, words) = at(&ca);
    ca.trick(Trick::Refuse(vec![FailureBit::BadRequest], "\u{1b}]0;x\u{7} %s%n\r\nwrote private key: /etc".to_owned()));
    let ran = desk.cmp(&format!("ir {words} {ENROL}")).ends(2);
    assert!(!ran.errors.contains(['\u{1b}', '\u{7}', '\r']) && ran.errors.contains("%s%n"), "{}", ran.errors);
    assert!(!ran.errors.lines().any(|line| line.starts_with("wrote")), "{}", ran.errors);
}

fn start(desk: &Desk, words: &str) -> Child {
    desk.command(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn finish(child: Child) -> Ran {
    ran(child.wait_with_output().unwrap())
}

fn until(done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(20), "it did not happen");
        sleep(Duration::from_millis(10));
    }
}
