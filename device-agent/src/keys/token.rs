//! Keys in a PKCS #11 token: made, kept and used there, so that nothing private ever enters this process.
//!
//! A version's folder holds `key.uri`, the RFC 7512 URI of its key, in place of `key.pem`; services find the key by it.
//! The URI is on the disk before the key is made, so that a key whose URI is nowhere is nobody's and can be removed.
//! A session is opened for each operation and closed after it: a token that was pulled out is found again.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error as P11Error, RvError};
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsPssParams};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType as TokenKeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::{AuthPin, Ulong};
use trustfleet_cmp::key::{KeyType, SignError, Signer};
use trustfleet_pki::public_key::algorithms;
use trustfleet_pki::signature::{SignatureAlgorithm, ecdsa_signature};
use trustfleet_pki::{KeyKind, ObjectIdentifier, PublicKey};

use super::{FileKeyStore, KeyStore, KeysError};
use crate::slots::Slots;
use crate::store;

/// Octets of a key's CKA_ID.
const ID_BYTES: u32 = 16;

/// A token did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The library or the token itself.
    #[error("the PKCS #11 token {token:?}: {doing} failed: {source}")]
    Failed {
        /// Its label.
        token: String,
        /// What was tried.
        doing: &'static str,
        /// Why.
        source: P11Error,
    },
    /// A program that loads no library.
    #[error("this agent is linked statically and loads no PKCS #11 library: use one that is not, or keys in files")]
    Static,
    /// No token has this label.
    #[error("no PKCS #11 token has the label {token:?}: check keys.pkcs11_token and that the token is plugged in")]
    NotThere {
        /// The label.
        token: String,
    },
    /// A PIN that was refused is not tried again: tokens lock themselves after a few wrong ones.
    #[error("the PKCS #11 token {token:?} is not logged in to: {why}; correct keys.pkcs11_pin_file, {then}")]
    Pin {
        /// The token's label.
        token: String,
        /// What keeps it from being tried.
        why: &'static str,
        /// What to do besides.
        then: &'static str,
    },
    /// A key that should be there is not.
    #[error("the PKCS #11 token {token:?} holds no key {id} (named in {path})")]
    NoKey {
        /// The token's label.
        token: String,
        /// CKA_ID in hexadecimal.
        id: String,
        /// Who names it.
        path: PathBuf,
    },
    /// A kind of key that is not made in tokens.
    #[error("keys of kind {0} are not made in tokens: use RSA, ecdsa-p256 or ecdsa-p384")]
    Kind(String),
    /// A public key of the token, or a reference to one, that makes no sense.
    #[error("{what} cannot be understood")]
    Strange {
        /// What.
        what: String,
    },
}

/// Keys in a token.
#[derive(Clone, Debug)]
pub struct TokenKeyStore(Arc<Token>);

impl TokenKeyStore {
    /// Loads the library and tries the PIN. `owner` marks this agent's keys (CKA_LABEL), so that agents can share a token.
    ///
    /// # Errors
    /// The library does not load, the token is not there or refuses the PIN.
    pub fn open(module: &Path, token: &str, pin: &str, owner: String) -> Result<Self, TokenError> {
        // glibc in a static program cannot load a library that needs glibc
        if cfg!(target_feature = "crt-static") {
            return Err(TokenError::Static);
        }
        let failed = |doing| move |source| TokenError::Failed { token: token.to_owned(), doing, source };
        let context = Pkcs11::new(module).map_err(failed("loading its library"))?;
        match context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            Ok(()) | Err(P11Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
            Err(error) => return Err(failed("starting its library")(error)),
        }
        let pin = AuthPin::from(pin.to_owned());
        let token = Token { context, label: token.to_owned(), pin, owner, turn: Mutex::new(Pin::Good) };
        token.session(|_| Ok(()))?;
        Ok(Self(Arc::new(token)))
    }

    /// Whether a version's key is in a file, from the time before the token.
    fn is_older(version: &Path) -> bool {
        !reference_file(version).exists() && Slots::key_file(version).exists()
    }

    fn signer(&self, version: &Path) -> Result<Arc<dyn Signer>, KeysError> {
        let path = reference_file(version);
        let id = read_reference(&path)?.ok_or_else(|| KeysError::Missing { path: path.clone() })?;
        let missing = || TokenError::NoKey { token: self.0.label.clone(), id: hex::encode(&id), path: path.clone() };
        let public = self.0.session(|session| self.0.public_key(session, &id))?.ok_or_else(missing)?;
        Ok(Arc::new(TokenKey { token: Arc::clone(&self.0), id, public }))
    }
}

impl KeyStore for TokenKeyStore {
    fn make(&self, version: &Path, key_type: KeyType) -> Result<Arc<dyn Signer>, KeysError> {
        let path = reference_file(version);
        let id = match read_reference(&path)? {
            Some(id) => id,
            None => {
                let id = self.0.session(|session| {
                    session.generate_random_vec(ID_BYTES).map_err(self.0.failed("making a key's id"))
                })?;
                store::save(&path, self.0.uri(&id).as_bytes(), 0o600)?;
                id
            }
        };
        self.0.session(|session| match self.0.find(session, ObjectClass::PRIVATE_KEY, &id)? {
            Some(_) => Ok(()),
            None => self.0.generate(session, &id, key_type),
        })?;
        self.signer(version)
    }

    fn carry_over(&self, from: &Path, to: &Path) -> Result<Arc<dyn Signer>, KeysError> {
        if Self::is_older(from) {
            tracing::warn!(version = %to.display(), "this update keeps a key in a file: let the policy make new keys");
            return FileKeyStore.carry_over(from, to);
        }
        let path = reference_file(from);
        let id = read_reference(&path)?.ok_or(KeysError::Missing { path })?;
        store::save(&reference_file(to), self.0.uri(&id).as_bytes(), 0o600)?;
        self.signer(to)
    }

    fn load(&self, version: &Path) -> Result<Arc<dyn Signer>, KeysError> {
        if Self::is_older(version) { FileKeyStore.load(version) } else { self.signer(version) }
    }

    fn sweep(&self, devices: &Path) -> Result<usize, KeysError> {
        // first what is there, then what is named: a key made in between is not looked at
        let ours = [Attribute::Token(true), Attribute::Label(self.0.owner.clone().into_bytes())];
        let objects = self.0.session(|session| {
            let found = session.find_objects(&ours).map_err(self.0.failed("listing its keys"))?;
            found.into_iter().map(|object| Ok((object, self.0.id_of(session, object)?))).collect::<Result<Vec<_>, _>>()
        })?;
        let named = named_below(devices)?;
        if named.is_empty() && !objects.is_empty() {
            // rather lost, or not mounted, than given up: keys in files would come back with their folder, these would not
            tracing::warn!(folder = %devices.display(), "no version names a key: the keys in the token are left alone");
            return Ok(0);
        }
        let unused: HashSet<Vec<u8>> = objects.into_iter().map(|(_, id)| id).filter(|id| !named.contains(id)).collect();
        for id in &unused {
            self.0.session(|session| self.0.destroy(session, id))?;
        }
        Ok(unused.len())
    }
}

struct Token {
    context: Pkcs11,
    label: String,
    pin: AuthPin,
    owner: String,
    /// One operation at a time: the end of a last session would log out the others.
    turn: Mutex<Pin>,
}

/// What is known of the PIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pin {
    /// It was not refused yet.
    Good,
    /// The token refused it.
    Refused,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("label", &self.label).finish_non_exhaustive()
    }
}

impl Token {
    fn failed(&self, doing: &'static str) -> impl Fn(P11Error) -> TokenError {
        let token = self.label.clone();
        move |source| TokenError::Failed { token: token.clone(), doing, source }
    }

    fn slot(&self) -> Result<Slot, TokenError> {
        for slot in self.context.get_slots_with_token().map_err(self.failed("listing the tokens"))? {
            let info = self.context.get_token_info(slot);
            if info.is_ok_and(|info| info.label() == self.label) {
                return Ok(slot);
            }
        }
        Err(TokenError::NotThere { token: self.label.clone() })
    }

    /// Runs `work` in a session that is logged in.
    fn session<T>(&self, work: impl FnOnce(&Session) -> Result<T, TokenError>) -> Result<T, TokenError> {
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = self.slot()?;
        self.spare_the_pin(*turn, slot)?;
        let session = self.context.open_rw_session(slot).map_err(self.failed("opening a session"))?;
        match session.login(UserType::User, Some(&self.pin)) {
            Ok(()) | Err(P11Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => work(&session),
            Err(error) => {
                if let P11Error::Pkcs11(RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLocked, _) = &error {
                    *turn = Pin::Refused;
                }
                Err(self.failed("logging in")(error))
            }
        }
    }

    /// An agent that logs in for every operation, and is started again by whoever watches over it, must not be what locks
    /// the token.
    fn spare_the_pin(&self, pin: Pin, slot: Slot) -> Result<(), TokenError> {
        let refused = |why, then| Err(TokenError::Pin { token: self.label.clone(), why, then });
        let info = self.context.get_token_info(slot).map_err(self.failed("reading its state"))?;
        if info.user_pin_locked() {
            return refused("its PIN is locked", "and let the security officer set it anew");
        }
        if info.user_pin_final_try() {
            return refused("one more wrong PIN would lock it", "and log in once by another tool");
        }
        if pin == Pin::Refused {
            return refused("it has refused the PIN", "and start the agent again");
        }
        Ok(())
    }

    fn find(&self, session: &Session, class: ObjectClass, id: &[u8]) -> Result<Option<ObjectHandle>, TokenError> {
        let template = [Attribute::Token(true), Attribute::Class(class), Attribute::Id(id.to_vec())];
        let found = session.find_objects(&template).map_err(self.failed("looking for a key"))?;
        Ok(found.first().copied())
    }

    fn id_of(&self, session: &Session, object: ObjectHandle) -> Result<Vec<u8>, TokenError> {
        match self.attributes(session, object, &[AttributeType::Id])?.into_iter().next() {
            Some(Attribute::Id(id)) => Ok(id),
            _ => Err(TokenError::Strange { what: "a key without an id".to_owned() }),
        }
    }

    fn attributes(
        &self,
        session: &Session,
        object: ObjectHandle,
        kinds: &[AttributeType],
    ) -> Result<Vec<Attribute>, TokenError> {
        session.get_attributes(object, kinds).map_err(self.failed("reading a key's attributes"))
    }

    fn generate(&self, session: &Session, id: &[u8], key_type: KeyType) -> Result<(), TokenError> {
        let (mechanism, kind) = match key_type {
            KeyType::Rsa2048 => (Mechanism::RsaPkcsKeyPairGen, rsa(Ulong::new(2048))),
            KeyType::Rsa3072 => (Mechanism::RsaPkcsKeyPairGen, rsa(Ulong::new(3072))),
            KeyType::Rsa4096 => (Mechanism::RsaPkcsKeyPairGen, rsa(Ulong::new(4096))),
            KeyType::P256 => (Mechanism::EccKeyPairGen, vec![curve(algorithms::P256)]),
            KeyType::P384 => (Mechanism::EccKeyPairGen, vec![curve(algorithms::P384)]),
            other => return Err(TokenError::Kind(other.to_string())),
        };
        let common = [Attribute::Token(true), Attribute::Id(id.to_vec()), Attribute::Label(self.owner.clone().into())];
        let public = [&common[..], &[Attribute::Private(false), Attribute::Verify(true)], &kind].concat();
        let private = [
            &common[..],
            &[
                Attribute::Private(true),
                Attribute::Sensitive(true),
                Attribute::Extractable(false),
                Attribute::Sign(true),
            ],
        ]
        .concat();
        let made = session.generate_key_pair(&mechanism, &public, &private);
        made.map(|_| ()).map_err(self.failed("making a key"))
    }

    fn public_key(&self, session: &Session, id: &[u8]) -> Result<Option<PublicKey>, TokenError> {
        if self.find(session, ObjectClass::PRIVATE_KEY, id)?.is_none() {
            return Ok(None);
        }
        let Some(object) = self.find(session, ObjectClass::PUBLIC_KEY, id)? else { return Ok(None) };
        let kind = self.attributes(session, object, &[AttributeType::KeyType])?;
        let wanted: &[AttributeType] = match kind.first() {
            Some(Attribute::KeyType(TokenKeyType::RSA)) => &[AttributeType::Modulus, AttributeType::PublicExponent],
            _ => &[AttributeType::EcParams, AttributeType::EcPoint],
        };
        let strange = || TokenError::Strange { what: format!("the public key {} of the token", hex::encode(id)) };
        let key = match self.attributes(session, object, wanted)?.as_slice() {
            [Attribute::Modulus(modulus), Attribute::PublicExponent(exponent)] => PublicKey::of_rsa(modulus, exponent),
            [Attribute::EcParams(parameters), Attribute::EcPoint(point)] => {
                let named = [algorithms::P256, algorithms::P384].into_iter().find(|oid| der_of(*oid) == *parameters);
                PublicKey::of_point(named.ok_or_else(strange)?, octets(point))
            }
            _ => return Err(strange()),
        };
        key.map(Some).map_err(|_| strange())
    }

    fn destroy(&self, session: &Session, id: &[u8]) -> Result<(), TokenError> {
        for class in [ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY] {
            if let Some(object) = self.find(session, class, id)? {
                session.destroy_object(object).map_err(self.failed("removing a key"))?;
            }
        }
        Ok(())
    }

    /// RFC 7512: what services are configured with.
    fn uri(&self, id: &[u8]) -> String {
        let percent = |bytes: &[u8]| bytes.iter().map(|byte| format!("%{byte:02X}")).collect::<String>();
        let plain = self.label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte));
        let label = if plain { self.label.clone() } else { percent(self.label.as_bytes()) };
        format!("pkcs11:token={label};id={};type=private\n", percent(id))
    }
}

/// A key in a token.
#[derive(Debug)]
struct TokenKey {
    token: Arc<Token>,
    id: Vec<u8>,
    public: PublicKey,
}

impl Signer for TokenKey {
    fn signature_algorithm(&self) -> SignatureAlgorithm {
        match self.public.algorithm() {
            KeyKind::EcP256 => SignatureAlgorithm::EcdsaSha256,
            KeyKind::EcP384 => SignatureAlgorithm::EcdsaSha384,
            _ => SignatureAlgorithm::RsaSha256,
        }
    }

    fn sign_with(&self, algorithm: SignatureAlgorithm, message: &[u8]) -> Result<Vec<u8>, SignError> {
        if !algorithm.fits(self.public.algorithm()) {
            return Err(SignError(format!("a key of kind {} makes no {algorithm}", self.public.algorithm())));
        }
        // of ECDSA all tokens know the plain form, over a hash made here
        let ecdsa = matches!(self.public.algorithm(), KeyKind::EcP256 | KeyKind::EcP384);
        let digest = algorithm.hash().filter(|_| ecdsa).map(|hash| hash.digest(message));
        let mechanism =
            mechanism(algorithm).ok_or_else(|| SignError(format!("tokens are not asked for {algorithm}")))?;
        let path = PathBuf::from("a kept transaction");
        let missing = || TokenError::NoKey { token: self.token.label.clone(), id: hex::encode(&self.id), path };
        let signed = self.token.session(|session| {
            let key = self.token.find(session, ObjectClass::PRIVATE_KEY, &self.id)?.ok_or_else(missing)?;
            let signed = session.sign(&mechanism, key, digest.as_deref().unwrap_or(message));
            signed.map_err(self.token.failed("signing"))
        });
        let signed = signed.map_err(|error| SignError(error.to_string()))?;
        if ecdsa { ecdsa_signature(&signed).map_err(|error| SignError(error.to_string())) } else { Ok(signed) }
    }

    fn public_key_der(&self) -> &[u8] {
        self.public.spki_der()
    }
}

fn mechanism(algorithm: SignatureAlgorithm) -> Option<Mechanism<'static>> {
    use SignatureAlgorithm as S;
    let pss = |hash_alg, mgf, s_len| PkcsPssParams { hash_alg, mgf, s_len: Ulong::new(s_len) };
    Some(match algorithm {
        S::RsaSha256 => Mechanism::Sha256RsaPkcs,
        S::RsaSha384 => Mechanism::Sha384RsaPkcs,
        S::RsaSha512 => Mechanism::Sha512RsaPkcs,
        S::RsaPssSha256 => Mechanism::Sha256RsaPkcsPss(pss(MechanismType::SHA256, PkcsMgfType::MGF1_SHA256, 32)),
        S::RsaPssSha384 => Mechanism::Sha384RsaPkcsPss(pss(MechanismType::SHA384, PkcsMgfType::MGF1_SHA384, 48)),
        S::RsaPssSha512 => Mechanism::Sha512RsaPkcsPss(pss(MechanismType::SHA512, PkcsMgfType::MGF1_SHA512, 64)),
        S::EcdsaSha256 | S::EcdsaSha384 | S::EcdsaSha512 => Mechanism::Ecdsa,
        _ => return None,
    })
}

fn rsa(bits: Ulong) -> Vec<Attribute> {
    vec![Attribute::ModulusBits(bits), Attribute::PublicExponent(vec![1, 0, 1])]
}

fn curve(oid: ObjectIdentifier) -> Attribute {
    Attribute::EcParams(der_of(oid))
}

/// An object identifier with its tag and length; those used here are short.
fn der_of(oid: ObjectIdentifier) -> Vec<u8> {
    let bytes = oid.as_bytes();
    [&[0x06, u8::try_from(bytes.len()).unwrap_or(0x7f)], bytes].concat()
}

/// CKA_EC_POINT is the point in a DER OCTET STRING; some tokens give the bare point.
fn octets(point: &[u8]) -> &[u8] {
    match point {
        [0x04, length, bare @ ..] if usize::from(*length) == bare.len() => bare,
        bare => bare,
    }
}

fn reference_file(version: &Path) -> PathBuf {
    version.join("key.uri")
}

/// The id in a reference; `None` where there is none.
fn read_reference(path: &Path) -> Result<Option<Vec<u8>>, KeysError> {
    let Some(bytes) = store::load(path)? else { return Ok(None) };
    let text = String::from_utf8_lossy(&bytes);
    let id = text.split([':', ';']).find_map(|part| part.strip_prefix("id="));
    let id = id.and_then(|id| hex::decode(id.trim_end().replace('%', "")).ok()).filter(|id| !id.is_empty());
    id.map(Some).ok_or_else(|| TokenError::Strange { what: path.display().to_string() }.into())
}

/// The ids that versions of trustpoints name: `devices/DEVICE/TRUSTPOINT/versions/JOB/key.uri`.
fn named_below(devices: &Path) -> Result<HashSet<Vec<u8>>, KeysError> {
    let mut folders = vec![devices.to_owned()];
    for below in [None, None, Some("versions"), None] {
        let mut next = Vec::new();
        for folder in folders {
            match below {
                Some(name) => next.push(folder.join(name)),
                None => next.extend(children(&folder)?),
            }
        }
        folders = next;
    }
    let ids = folders.iter().filter_map(|version| read_reference(&reference_file(version)).transpose());
    ids.collect()
}

/// What is in a folder; nothing where there is none. What cannot be read is an error: it may name keys.
fn children(folder: &Path) -> Result<Vec<PathBuf>, KeysError> {
    let strange = |error: std::io::Error| TokenError::Strange { what: format!("{} ({error})", folder.display()) };
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry.map_err(strange)?.path())).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => Ok(Vec::new()),
        Err(error) => Err(strange(error).into()),
    }
}
