//! Keys, certificates, credentials and trust, out of the files and names that the options give.

use std::path::PathBuf;
use std::sync::Arc;

use trustfleet_cmp::key::{KeyType, Using};
use trustfleet_cmp::protection::{AcceptedMacs, Hash, MacPolicy, MacScheme};
use trustfleet_cmp::{Acceptance, Credentials, Modifications, Signer, SoftwareKey};
use trustfleet_pki::certificate::Certificate;
use trustfleet_pki::name::Name;
use trustfleet_pki::public_key::KeyKind;
use trustfleet_pki::san::San;
use trustfleet_pki::signature::SignatureAlgorithm;

use super::args::{Common, Mods, OwnArgs};
use super::exit::Exit;
use super::fault::Fault;
use super::report::Note;
use super::{files, secret};

/// Longest chain of the signer's certificate that is put together.
const CHAIN_MAX: usize = 8;

/// What protects our messages, and what was seen on the way.
pub(super) struct Own {
    /// For the engine.
    pub(super) credentials: Credentials,
    /// The signing certificate, with a signature.
    pub(super) certificate: Option<Certificate>,
    /// More certificates to send along.
    pub(super) extra_certs: Vec<Certificate>,
}

/// A name of an option.
///
/// # Errors
/// Where in the text what is wrong.
pub(super) fn name(option: &str, text: &str) -> Result<Name, Fault> {
    Name::parse(text).map_err(|error| Fault::usage(format!("{option} {text:?}: {error}")))
}

/// Secret or certificate with key; `untrusted` helps with the certificate's chain.
///
/// # Errors
/// Neither is given, or one that cannot be used.
pub(super) fn own(args: &OwnArgs, common: &Common, notes: &mut Vec<Note>) -> Result<Own, Fault> {
    let extra_certs = files::all_certificates("--extracerts", &args.extracerts)?;
    if let (Some(reference), Some(source)) = (&args.reference, &args.secret) {
        let given = secret::read("--secret", source)?;
        if given.visible {
            notes.push(Note::new("secret_visible", "--secret pass: can be seen by others on this machine: use file:"));
        }
        if let Some(open) = source.strip_prefix("file:").and_then(|path| secret::open_to_others(path.as_ref())) {
            notes.push(Note::new("secret_readable", open));
        }
        let mac = mac_policy(args, common.peer.allow_sha1)?;
        let credentials = Credentials::Mac { reference: reference.clone().into_bytes(), secret: given.bytes, mac };
        return Ok(Own { credentials, certificate: None, extra_certs });
    }
    let (Some(cert), Some(key_file)) = (&args.cert, &args.key) else {
        return Err(
            Fault::usage("nothing to protect the request with").and("give --ref and --secret, or --cert and --key")
        );
    };
    let passphrase = secret::read_optional("--keypass", args.keypass.as_deref())?;
    let key = files::key("--key", key_file, passphrase.as_ref())?;
    if passphrase.is_none() {
        notes.extend(secret::open_to_others(key_file).map(|text| Note::new("key_readable", text)));
    }
    let mut found = files::certificates("--cert", cert)?;
    let certificate = found.remove(0);
    found.extend(files::all_certificates("--untrusted", &common.peer.untrusted)?);
    let chain = chain(&certificate, &found);
    let signer = signer(key, args)?;
    let credentials = Credentials::Signature { signer, certificate: certificate.clone(), chain };
    Ok(Own { credentials, certificate: Some(certificate), extra_certs })
}

/// The certificates above one, as far as they are at hand (X2); the last may be a root.
pub(super) fn chain(certificate: &Certificate, helpers: &[Certificate]) -> Vec<Certificate> {
    let mut chain: Vec<Certificate> = Vec::new();
    let mut last = certificate.clone();
    while chain.len() < CHAIN_MAX && !last.is_self_issued() {
        let above = helpers.iter().find(|helper| {
            helper.subject().says_the_same_as(&last.issuer())
                && !chain.contains(helper)
                && last.verify_signed_by(&helper.public_key()).is_ok()
        });
        let Some(above) = above else { break };
        chain.push(above.clone());
        last = above.clone();
    }
    chain
}

fn hash(option: &str, text: &str) -> Result<Hash, Fault> {
    match text.to_ascii_lowercase().trim_start_matches("hmac-").trim_start_matches("hmac") {
        "sha1" | "sha-1" => Ok(Hash::Sha1),
        "sha256" | "sha-256" => Ok(Hash::Sha256),
        "sha384" | "sha-384" => Ok(Hash::Sha384),
        "sha512" | "sha-512" => Ok(Hash::Sha512),
        _ => Err(Fault::usage(format!("{option} {text:?}: use sha256, sha384, sha512, or sha1"))),
    }
}

fn mac_policy(args: &OwnArgs, allow_sha1: bool) -> Result<MacPolicy, Fault> {
    let (scheme, named) = match args.mac.to_ascii_lowercase().as_str() {
        "pbm" => (MacScheme::Pbm, None),
        "pbmac1" => (MacScheme::Pbmac1, None),
        other => (MacScheme::Pbm, Some(hash("--mac", other)?)),
    };
    let owf = hash("--owf", &args.owf)?;
    let hmac = match (&args.mac_algorithm, named) {
        (Some(text), _) => hash("--mac-algorithm", text)?,
        (None, named) => named.unwrap_or(owf),
    };
    Ok(MacPolicy { scheme, owf, hmac, iterations: args.iterations, weak_allowed: allow_sha1 })
}

/// A key that signs as --digest and --pss say.
///
/// # Errors
/// The key cannot.
pub(super) fn signer(key: Arc<SoftwareKey>, args: &OwnArgs) -> Result<Arc<dyn Signer>, Fault> {
    if args.digest.is_none() && !args.pss {
        return Ok(key);
    }
    let digest = hash("--digest", args.digest.as_deref().unwrap_or("sha256"))?;
    let own = key.signature_algorithm();
    use SignatureAlgorithm as A;
    let rsa = A::RsaSha256.fits(kind(key.as_ref()));
    let algorithm = match (digest, own) {
        (Hash::Sha1, _) => return Err(Fault::usage("--digest sha1: no signature is made with SHA-1")),
        (_, A::Ed25519 | A::MlDsa44 | A::MlDsa65 | A::MlDsa87) if !args.pss => own,
        (Hash::Sha256, _) if rsa && args.pss => A::RsaPssSha256,
        (Hash::Sha384, _) if rsa && args.pss => A::RsaPssSha384,
        (Hash::Sha512, _) if rsa && args.pss => A::RsaPssSha512,
        (Hash::Sha256, _) if rsa => A::RsaSha256,
        (Hash::Sha384, _) if rsa => A::RsaSha384,
        (Hash::Sha512, _) if rsa => A::RsaSha512,
        _ if args.pss => return Err(Fault::usage(format!("--pss: a key for {own} cannot sign by RSA-PSS"))),
        (Hash::Sha256, _) => A::EcdsaSha256,
        (Hash::Sha384, _) => A::EcdsaSha384,
        (Hash::Sha512, _) => A::EcdsaSha512,
    };
    // Asked of the key itself: a curve may be tied to its hash.
    key.sign_with(algorithm, b"")
        .map_err(|error| Fault::usage(format!("--digest: the key does not sign by {algorithm}: {error}")))?;
    Ok(Arc::new(Using { signer: key, algorithm }))
}

fn kind(key: &dyn Signer) -> KeyKind {
    match trustfleet_pki::public_key::PublicKey::from_spki_der(key.public_key_der()) {
        Ok(key) => key.algorithm(),
        Err(_) => KeyKind::Ed25519,
    }
}

/// What is taken as an answer. `modifications` and `out_trusted` are about issued certificates.
///
/// # Errors
/// A file or name that cannot be read.
pub(super) fn acceptance(common: &Common, modifications: Mods, out_trusted: &[PathBuf]) -> Result<Acceptance, Fault> {
    let peer = &common.peer;
    let pinned = peer.srvcert.as_deref().map(|path| files::certificate("--srvcert", path)).transpose()?;
    let expected_signer = peer.expect_sender.as_deref().map(|text| name("--expect-sender", text)).transpose()?;
    Ok(Acceptance {
        macs: if peer.allow_sha1 { AcceptedMacs::with_sha1() } else { AcceptedMacs::strong() },
        anchors: files::all_certificates("--trusted", &peer.trusted)?,
        enrolment_anchors: files::all_certificates("--out-trusted", out_trusted)?,
        verification_certificates: pinned.into_iter().collect(),
        untrusted: files::all_certificates("--untrusted", &peer.untrusted)?,
        expected_signer,
        ignore_key_usage: peer.ignore_keyusage,
        modifications: match modifications {
            Mods::Accept => Modifications::Accept,
            Mods::Warn => Modifications::Warn,
            Mods::Reject => Modifications::Refuse,
        },
        total_seconds: common.server.total_timeout,
        // each request is posted once
        retry_id_in_use: true,
        ..Acceptance::default()
    })
}

/// The CA's name: said, or the subject of the pinned certificate, or the issuer of the certificate at hand; else NULL-DN.
///
/// # Errors
/// A name that cannot be read.
pub(super) fn recipient(
    common: &Common,
    acceptance: &Acceptance,
    at_hand: Option<&Certificate>,
) -> Result<Name, Fault> {
    if let Some(text) = &common.peer.recipient {
        return name("--recipient", text);
    }
    let pinned = acceptance.verification_certificates.first().map(Certificate::subject);
    Ok(pinned.or_else(|| at_hand.map(Certificate::issuer)).unwrap_or_else(Name::null))
}

/// A kind of key by the names of openssl and of policies.
///
/// # Errors
/// Unknown.
pub(super) fn key_type(text: &str) -> Result<KeyType, Fault> {
    match text.to_ascii_lowercase().as_str() {
        "rsa:2048" | "rsa2048" => Ok(KeyType::Rsa2048),
        "rsa:3072" | "rsa3072" => Ok(KeyType::Rsa3072),
        "rsa:4096" | "rsa4096" => Ok(KeyType::Rsa4096),
        "p256" | "ec:p-256" | "prime256v1" => Ok(KeyType::P256),
        "p384" | "ec:p-384" | "secp384r1" => Ok(KeyType::P384),
        other => other.parse().map_err(|_| {
            Fault::usage(format!("--newkey-type {text:?}: use rsa:2048, rsa:3072, rsa:4096, p256, p384 or ed25519"))
        }),
    }
}

/// Makes a key.
///
/// # Errors
/// No randomness, or a kind that this build does not know.
pub(super) fn make_key(text: &str) -> Result<Arc<SoftwareKey>, Fault> {
    let made = SoftwareKey::generate(key_type(text)?);
    made.map(Arc::new).map_err(|error| Fault::new(Exit::Local, "key_not_made", error.to_string()))
}

/// Alternative names as openssl takes them: between commas or spaces, their kind seen from their form; or with a kind in
/// front, which for `dn:` and `upn:` takes the rest as it is.
///
/// # Errors
/// A name that is not of its kind.
pub(super) fn sans(texts: &[String]) -> Result<Vec<San>, Fault> {
    let kinds = ["dns", "ip", "email", "uri", "dn", "upn"];
    let mut sans = Vec::new();
    for text in texts {
        let whole = text.split_once(':').is_some_and(|(kind, _)| ["dn", "upn"].contains(&kind.to_lowercase().as_str()));
        let parts: Vec<&str> = if whole { vec![text.as_str()] } else { text.split([',', ' ']).collect() };
        for part in parts.into_iter().map(str::trim).filter(|part| !part.is_empty()) {
            let (kind, value) = match part.split_once(':') {
                _ if part.parse::<std::net::IpAddr>().is_ok() => ("ip".to_owned(), part),
                Some((kind, value)) if kinds.contains(&kind.to_lowercase().as_str()) => (kind.to_lowercase(), value),
                Some(_) => ("uri".to_owned(), part),
                None if part.contains('@') => ("email".to_owned(), part),
                None => ("dns".to_owned(), part),
            };
            let made = San::parse(&kind, value);
            sans.push(made.map_err(|error| Fault::usage(format!("--sans {part:?}: {error}")))?);
        }
    }
    Ok(sans)
}

/// A serial number as the content octets of its INTEGER.
///
/// # Errors
/// Not hexadecimal.
pub(super) fn serial(text: &str) -> Result<Vec<u8>, Fault> {
    let digits: String = text.trim_start_matches("0x").chars().filter(|c| *c != ':').collect();
    let padded = if digits.len() % 2 == 1 { format!("0{digits}") } else { digits };
    let bytes = hex::decode(&padded).ok().filter(|bytes| !bytes.is_empty() && bytes.len() <= 64);
    let bytes = bytes.ok_or_else(|| Fault::usage(format!("--serial {text:?}: not a number in hexadecimal")))?;
    let zeros = bytes.iter().take(bytes.len() - 1).take_while(|byte| **byte == 0).count();
    let mut octets = bytes[zeros..].to_vec();
    if octets[0] & 0x80 != 0 {
        octets.insert(0, 0);
    }
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alternative_names_get_their_kind_from_their_form_or_from_a_word_before_them() {
        let texts = ["ap.example, 192.0.2.7 fe80::1,https://x.example/y".to_owned(), "email:a@b.example".to_owned()];
        let kinds: Vec<_> = sans(&texts).unwrap().iter().map(San::kind).collect();
        assert_eq!(kinds, ["dns", "ip", "ip", "uri", "email"]);
        assert_eq!(sans(&["dn:CN=a, O=b c".to_owned()]).unwrap().len(), 1);
        assert!(sans(&["not_a_name!".to_owned()]).is_err());
    }

    #[test]
    fn a_serial_number_becomes_a_positive_integer() {
        for (text, octets) in
            [("0x8F", vec![0, 0x8f]), ("7f", vec![0x7f]), ("00:00:01", vec![1]), ("0", vec![0]), ("123", vec![1, 0x23])]
        {
            assert_eq!(serial(text).unwrap(), octets, "{text}");
        }
        assert!(serial("xyz").is_err() && serial("").is_err());
    }

    #[test]
    fn kinds_of_keys_have_the_names_of_openssl_and_of_policies() {
        assert_eq!(key_type("RSA:3072").unwrap(), KeyType::Rsa3072);
        assert_eq!(key_type("p-384").unwrap(), KeyType::P384);
        assert_eq!(key_type("prime256v1").unwrap(), KeyType::P256);
        assert!(key_type("dsa").is_err());
    }
}
