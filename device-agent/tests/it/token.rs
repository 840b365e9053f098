//! Keys in a real PKCS #11 token (SoftHSM): made there, used there, found again, removed there.
//!
//! SoftHSM finds its configuration by an environment variable only, so each test runs itself again in a process that
//! has it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use trustfleet_agent::keys::token::TokenKeyStore;
use trustfleet_agent::keys::{FileKeyStore, KeyStore, KeysError};
use trustfleet_cmp::key::{KeyType, Signer, Using};
use trustfleet_pki::{PublicKey, SignatureAlgorithm};

const PIN: &str = "648219";
const CONFIGURATION: &str = "SOFTHSM2_CONF";
const OURS: &str = "TRUSTFLEET_TEST_TOKEN";

fn module() -> PathBuf {
    let known = [
        "/usr/lib/softhsm/libsofthsm2.so",
        "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
        "/usr/lib64/pkcs11/libsofthsm2.so",
    ];
    known.iter().map(PathBuf::from).find(|path| path.exists()).expect("SoftHSM is installed (scripts/setup.sh)")
}

/// The folder with a token, in the process that sees it; `None` in the one that has started it, which is done then.
fn folder(test: &str) -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os(OURS) {
        return Some(PathBuf::from(folder));
    }
    let folder = tempfile::tempdir().unwrap();
    let configuration = folder.path().join("softhsm2.conf");
    fs::create_dir(folder.path().join("tokens")).unwrap();
    let text = format!(
        "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
        folder.path().join("tokens").display()
    );
    fs::write(&configuration, text).unwrap();
    let made = Command::new("softhsm2-util")
        .args(["--init-token", "--free", "--label", "trust fleet", "--so-pin", "12345678", "--pin", PIN])
        .env(CONFIGURATION, &configuration)
        .output()
        .expect("SoftHSM is installed (scripts/setup.sh)");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let ran = Command::new(std::env::current_exe().unwrap())
        .args([&format!("token::{test}"), "--exact", "--nocapture"])
        .env(CONFIGURATION, &configuration)
        .env(OURS, folder.path())
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && said.contains("1 passed"), "{said}");
    None
}

fn open(owner: &str) -> TokenKeyStore {
    TokenKeyStore::open(&module(), "trust fleet", PIN, owner.to_owned()).unwrap()
}

/// Folder of a version, as the agent would name it.
fn version(folder: &Path, name: &str) -> PathBuf {
    let version = folder.join("devices/ap-1/dot1x/versions").join(name);
    fs::create_dir_all(&version).unwrap();
    version
}

fn verifies(key: &Arc<dyn Signer>, algorithm: SignatureAlgorithm) {
    let signer = Using { signer: Arc::clone(key), algorithm };
    let signature = signer.sign(b"certReq").unwrap();
    let public = PublicKey::from_spki_der(signer.public_key_der()).unwrap();
    assert_eq!(public.verify(&signer.algorithm(), b"certReq", &signature), Ok(()), "{algorithm}");
}

#[test]
fn p6_keys_made_in_a_token_sign_by_rsa_and_ecdsa_and_are_found_again() {
    let Some(folder) = folder("p6_keys_made_in_a_token_sign_by_rsa_and_ecdsa_and_are_found_again") else { return };
    use SignatureAlgorithm as S;
    for (key_type, algorithms) in [
        (KeyType::Rsa2048, vec![S::RsaSha256, S::RsaSha384, S::RsaSha512, S::RsaPssSha256, S::RsaPssSha384]),
        (KeyType::P256, vec![S::EcdsaSha256]),
        (KeyType::P384, vec![S::EcdsaSha384]),
    ] {
        let place = version(&folder, key_type.name());
        let key = open("agent 1").make(&place, key_type).unwrap();
        for algorithm in algorithms {
            verifies(&key, algorithm);
        }
        assert!(key.sign_with(S::Ed25519, b"").is_err());
        // as after a restart, and when the start is repeated
        let again = open("agent 1");
        assert_eq!(again.load(&place).unwrap().public_key_der(), key.public_key_der());
        assert_eq!(again.make(&place, key_type).unwrap().public_key_der(), key.public_key_der());
        let uri = fs::read_to_string(place.join("key.uri")).unwrap();
        assert!(
            uri.starts_with("pkcs11:token=%74%72%75%73%74%20") && uri.trim_end().ends_with(";type=private"),
            "{uri}"
        );
        assert!(!place.join("key.pem").exists());
    }
    let error = open("agent 1").make(&version(&folder, "ed"), KeyType::Ed25519).unwrap_err();
    assert_eq!(error.code(), "token_unusable");
}

#[test]
fn a_private_key_never_leaves_its_token() {
    use cryptoki::context::{CInitializeArgs, CInitializeFlags};
    use cryptoki::object::{Attribute, AttributeInfo, AttributeType, ObjectClass};
    let Some(folder) = folder("a_private_key_never_leaves_its_token") else { return };
    for key_type in [KeyType::P256, KeyType::Rsa2048] {
        open("agent 1").make(&version(&folder, key_type.name()), key_type).unwrap();
    }
    // an observer in the same process, with the PIN
    let context = cryptoki::context::Pkcs11::new(module()).unwrap();
    context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
    let slot = context.get_slots_with_initialized_token().unwrap()[0];
    let session = context.open_rw_session(slot).unwrap();
    session.login(cryptoki::session::UserType::User, Some(&PIN.to_owned().into())).unwrap();
    let keys = session.find_objects(&[Attribute::Class(ObjectClass::PRIVATE_KEY)]).unwrap();
    assert_eq!(keys.len(), 2);
    for key in keys {
        let told = session.get_attributes(
            key,
            &[
                AttributeType::Sensitive,
                AttributeType::AlwaysSensitive,
                AttributeType::NeverExtractable,
                AttributeType::Extractable,
            ],
        );
        let expected = [
            Attribute::Sensitive(true),
            Attribute::AlwaysSensitive(true),
            Attribute::NeverExtractable(true),
            Attribute::Extractable(false),
        ];
        assert_eq!(format!("{:?}", told.unwrap()), format!("{expected:?}"));
        for secret in [AttributeType::Value, AttributeType::PrivateExponent] {
            let info = session.get_attribute_info(key, &[secret]).unwrap();
            assert!(matches!(info[0], AttributeInfo::Sensitive | AttributeInfo::TypeInvalid), "{secret:?}: {info:?}");
        }
    }
}

#[test]
fn s3_an_update_that_keeps_its_key_names_the_same_key_of_the_token() {
    let Some(folder) = folder("s3_an_update_that_keeps_its_key_names_the_same_key_of_the_token") else { return };
    let (store, old, new) = (open("agent 1"), version(&folder, "old"), version(&folder, "new"));
    let key = store.make(&old, KeyType::P256).unwrap();
    assert_eq!(store.carry_over(&old, &new).unwrap().public_key_der(), key.public_key_der());
    fs::remove_dir_all(&old).unwrap();
    assert_eq!(store.sweep(&folder.join("devices")).unwrap(), 0, "the new version names it");
    verifies(&store.load(&new).unwrap(), SignatureAlgorithm::EcdsaSha256);
}

#[test]
fn a_key_in_a_file_from_before_still_signs_for_its_successor_in_the_token() {
    let Some(folder) = folder("a_key_in_a_file_from_before_still_signs_for_its_successor_in_the_token") else { return };
    let (store, old, new) = (open("agent 1"), version(&folder, "old"), version(&folder, "new"));
    let before = FileKeyStore.make(&old, KeyType::P256).unwrap();
    assert_eq!(store.load(&old).unwrap().public_key_der(), before.public_key_der());
    assert_ne!(store.make(&new, KeyType::P256).unwrap().public_key_der(), before.public_key_der());
    assert!(new.join("key.uri").exists() && !new.join("key.pem").exists());
    let kept = version(&folder, "kept");
    assert_eq!(store.carry_over(&old, &kept).unwrap().public_key_der(), before.public_key_der());
}

#[test]
fn keys_that_nothing_names_are_removed_and_other_agents_keys_are_not() {
    let Some(folder) = folder("keys_that_nothing_names_are_removed_and_other_agents_keys_are_not") else { return };
    let (ours, theirs) = (open("agent 1"), open("agent 2"));
    let (gone, kept) = (version(&folder, "gone"), version(&folder, "kept"));
    let elsewhere = version(&folder.join("another"), "1");
    for (store, place) in [(&ours, &gone), (&ours, &kept), (&theirs, &elsewhere)] {
        store.make(place, KeyType::P256).unwrap();
    }
    let (held, reference) = (ours.load(&gone).unwrap(), fs::read(gone.join("key.uri")).unwrap());
    fs::remove_dir_all(&gone).unwrap();
    assert_eq!(ours.sweep(&folder.join("devices")).unwrap(), 1);
    assert!(held.sign(b"").is_err(), "a signer of a removed key signs no more");
    verifies(&ours.load(&kept).unwrap(), SignatureAlgorithm::EcdsaSha256);
    verifies(&theirs.load(&elsewhere).unwrap(), SignatureAlgorithm::EcdsaSha256);
    let gone = version(&folder, "gone");
    assert!(matches!(ours.load(&gone), Err(KeysError::Missing { .. })));
    fs::write(gone.join("key.uri"), reference).unwrap();
    assert!(ours.load(&gone).unwrap_err().to_string().contains("holds no key"));
}

#[test]
fn a_wrong_pin_token_or_library_is_said() {
    let Some(folder) = folder("a_wrong_pin_token_or_library_is_said") else { return };
    let open = |module: &Path, token: &str, pin: &str| {
        TokenKeyStore::open(module, token, pin, "agent 1".to_owned()).unwrap_err().to_string()
    };
    let error = open(&module(), "trust fleet", "000000");
    assert!(error.contains("logging in failed") && !error.contains("000000"), "{error}");
    assert!(open(&module(), "other", PIN).contains("no PKCS #11 token has the label \"other\""));
    assert!(open(&folder.join("none.so"), "trust fleet", PIN).contains("loading its library failed"));
}

#[test]
fn keys_outlive_the_loss_of_the_folder_that_names_them() {
    let Some(folder) = folder("keys_outlive_the_loss_of_the_folder_that_names_them") else { return };
    let (store, place) = (open("agent 1"), version(&folder, "1"));
    let key = store.make(&place, KeyType::P256).unwrap();
    // the agent starts before the folder's file system is mounted
    fs::rename(folder.join("devices"), folder.join("away")).unwrap();
    for empty in [false, true] {
        if empty {
            fs::create_dir(folder.join("devices")).unwrap();
        }
        assert_eq!(store.sweep(&folder.join("devices")).unwrap(), 0);
    }
    fs::remove_dir(folder.join("devices")).unwrap();
    fs::rename(folder.join("away"), folder.join("devices")).unwrap();
    assert_eq!(store.load(&place).unwrap().public_key_der(), key.public_key_der());
}

#[test]
fn a_pin_that_was_refused_is_not_tried_again() {
    let Some(folder) = folder("a_pin_that_was_refused_is_not_tried_again") else { return };
    let (store, place) = (open("agent 1"), version(&folder, "1"));
    let set_pin = |old: &str, new: &str| {
        let context = cryptoki::context::Pkcs11::new(module()).unwrap();
        let slot = context.get_slots_with_initialized_token().unwrap()[0];
        let session = context.open_rw_session(slot).unwrap();
        session.login(cryptoki::session::UserType::User, Some(&old.to_owned().into())).unwrap();
        session.set_pin(&old.to_owned().into(), &new.to_owned().into()).unwrap();
    };
    set_pin(PIN, "135790");
    assert!(store.make(&place, KeyType::P256).unwrap_err().to_string().contains("logging in failed"));
    set_pin("135790", PIN); // it would be right again now, and still nobody tries
    for _ in 0..3 {
        let error = store.make(&place, KeyType::P256).unwrap_err().to_string();
        assert!(error.contains("has refused the PIN") && error.contains("start the agent again"), "{error}");
    }
    open("agent 1").make(&place, KeyType::P256).unwrap();
}
