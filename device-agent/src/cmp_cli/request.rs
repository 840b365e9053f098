//! From options to what the engine is asked for.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use trustfleet_cmp::{
    Acceptance, Crl, CrlOf, Csr, EnrollRequest, InfoRequest, P10Request, Question, Request, RequestKind,
    RevocationReason, RevokeRequest, Signer, SoftwareKey, Validity,
};
use trustfleet_model::clock::{Clock as _, SystemClock};
use trustfleet_pki::certificate::Certificate;
use trustfleet_pki::name::Name;

use super::args::{AskArgs, EnrolArgs, IssuedFiles, Mods, NewKey, P10Args, RevokeArgs, Verb, Wanted};
use super::fault::Fault;
use super::files;
use super::material::{self, Own};
use super::report::Note;
use super::secret::{self, Given};

/// Everything that one transaction needs.
pub(super) struct Prepared {
    /// What is asked for.
    pub(super) request: Request,
    /// By what it is protected.
    pub(super) own: Own,
    /// What is taken as an answer.
    pub(super) acceptance: Acceptance,
    /// The key to be certified.
    pub(super) key: Option<Arc<dyn Signer>>,
    /// A key that was made and must be on the disk before anything is sent.
    pub(super) new_key: Option<PendingKey>,
}

/// A key that was made and is not written yet.
pub(super) struct PendingKey {
    path: PathBuf,
    key: Arc<SoftwareKey>,
    passphrase: Option<Given>,
    force: bool,
}

impl PendingKey {
    /// Writes it.
    ///
    /// # Errors
    /// The disk's, or there is a file already.
    pub(super) fn write(&self) -> Result<&Path, Fault> {
        files::write_key(&self.path, &self.key, self.passphrase.as_ref(), self.force)?;
        Ok(&self.path)
    }
}

/// What kind of request a verb is.
pub(super) const fn kind(verb: &Verb) -> RequestKind {
    match verb {
        Verb::Ir(_) => RequestKind::Ir,
        Verb::Cr(_) => RequestKind::Cr,
        Verb::Kur(_) => RequestKind::Kur,
        Verb::P10cr(_) => RequestKind::P10cr,
        Verb::Rr(_) => RequestKind::Rr,
        Verb::Genm(_) => RequestKind::Genm,
    }
}

/// The files of an issued certificate, where the verb has one.
pub(super) fn issued_files(verb: &Verb) -> Option<&IssuedFiles> {
    match verb {
        Verb::Ir(args) | Verb::Cr(args) => Some(&args.issued),
        Verb::Kur(args) => Some(&args.issued),
        Verb::P10cr(args) => Some(&args.issued),
        Verb::Rr(_) | Verb::Genm(_) => None,
    }
}

/// Reads what the options name. `resuming`: a transaction is kept, so a key that it made is there.
///
/// # Errors
/// What cannot be used; nothing has been sent or written.
pub(super) fn prepare(verb: &Verb, resuming: bool, notes: &mut Vec<Note>) -> Result<Prepared, Fault> {
    let common = verb.common();
    let own = material::own(&common.own, common, notes)?;
    let (modifications, out_trusted) = match issued_files(verb) {
        Some(issued) => {
            check_targets(issued)?;
            (issued.modifications, issued.out_trusted.as_slice())
        }
        None => (Mods::Warn, [].as_slice()),
    };
    if let Some(path) = &common.out.extracertsout {
        files::check_target("--extracertsout", path)?;
    }
    let mut acceptance = material::acceptance(common, modifications, out_trusted)?;
    let prepared = match verb {
        Verb::Ir(args) | Verb::Cr(args) => enrol(args, kind(verb), own, acceptance, resuming)?,
        Verb::Kur(args) => {
            let old = args.oldcert.as_deref().map(|path| files::certificate("--oldcert", path)).transpose()?;
            let old = old.or_else(|| own.certificate.clone());
            let (key, new_key) = new_key(&args.newkey, args.common.out.dry_run, resuming)?;
            acceptance.decrypter = Some(Arc::<SoftwareKey>::clone(&key));
            let signer = material::signer(Arc::clone(&key), &args.common.own)?;
            if old.as_ref().is_some_and(|old| old.spki_der() == key.public_key_der()) {
                notes.push(Note::new("same_key", "the key stays the same: some CAs refuse that (badCertTemplate)"));
            }
            let wanted = &args.wanted;
            let kept = (wanted.sans.is_empty() && !wanted.san_nodefault).then(|| old.as_ref().map(Certificate::sans));
            let mut request = EnrollRequest {
                old_certificate: old.clone(),
                ..plain(RequestKind::Kur, &args.wanted, &args.issued, verb, &own, &acceptance, old.as_ref())?
            };
            if let Some(sans) = kept.flatten() {
                request.sans = sans;
            }
            let request = Request::Enroll(Box::new(request), Arc::clone(&signer));
            Prepared { request, own, acceptance, key: Some(signer), new_key }
        }
        Verb::P10cr(args) => p10(args, own, acceptance)?,
        Verb::Rr(args) => revoke(args, own, acceptance)?,
        Verb::Genm(args) => ask(args, own, acceptance)?,
    };
    lint(&prepared, notes);
    Ok(prepared)
}

fn check_targets(issued: &IssuedFiles) -> Result<(), Fault> {
    for (option, path) in
        [("--certout", &issued.certout), ("--chainout", &issued.chainout), ("--cacertsout", &issued.cacertsout)]
    {
        if let Some(path) = path {
            files::check_target(option, path)?;
        }
    }
    Ok(())
}

fn enrol(
    args: &EnrolArgs,
    kind: RequestKind,
    own: Own,
    mut acceptance: Acceptance,
    resuming: bool,
) -> Result<Prepared, Fault> {
    let (key, new_key) = new_key(&args.newkey, args.common.out.dry_run, resuming)?;
    acceptance.decrypter = Some(Arc::<SoftwareKey>::clone(&key));
    let signer = material::signer(key, &args.common.own)?;
    let at_hand = own.certificate.clone();
    let recipient = material::recipient(&args.common, &acceptance, at_hand.as_ref())?;
    let request = enrol_request(kind, &args.wanted, &args.issued, recipient, &own)?;
    let request = Request::Enroll(Box::new(request), Arc::clone(&signer));
    Ok(Prepared { request, own, acceptance, key: Some(signer), new_key })
}

fn plain(
    kind: RequestKind,
    wanted: &Wanted,
    issued: &IssuedFiles,
    verb: &Verb,
    own: &Own,
    acceptance: &Acceptance,
    at_hand: Option<&Certificate>,
) -> Result<EnrollRequest, Fault> {
    let recipient = material::recipient(verb.common(), acceptance, at_hand)?;
    enrol_request(kind, wanted, issued, recipient, own)
}

fn enrol_request(
    kind: RequestKind,
    wanted: &Wanted,
    issued: &IssuedFiles,
    recipient: Name,
    own: &Own,
) -> Result<EnrollRequest, Fault> {
    let subject = match (&wanted.subject, kind, &own.certificate) {
        (Some(text), _, _) => material::name("--subject", text)?,
        // a certificate asks for another one of the same name
        (None, RequestKind::Cr, Some(certificate)) => certificate.subject(),
        (None, _, _) => Name::null(),
    };
    Ok(EnrollRequest {
        kind,
        subject,
        sans: material::sans(&wanted.sans)?,
        recipient,
        sender: None,
        old_certificate: None,
        implicit_confirm: issued.implicit_confirm,
        extra_certs: own.extra_certs.clone(),
        extensions: Vec::new(),
        cert_profile: wanted.profile.clone(),
        validity: wanted.days.and_then(|days| Validity::days_from(SystemClock.now(), days)),
    })
}

fn new_key(args: &NewKey, dry_run: bool, resuming: bool) -> Result<(Arc<SoftwareKey>, Option<PendingKey>), Fault> {
    let passphrase = secret::read_optional("--newkeypass", args.newkeypass.as_deref())?;
    match (&args.newkey, &args.newkey_type, &args.newkeyout) {
        (Some(path), _, _) => Ok((files::key("--newkey", path, passphrase.as_ref())?, None)),
        (None, Some(_), Some(path)) if resuming && path.exists() => {
            Ok((files::key("--newkeyout", path, passphrase.as_ref())?, None))
        }
        (None, Some(kind), Some(path)) => {
            if path.exists() && !args.force && !dry_run {
                let text = format!("--newkeyout {}: the file exists and may hold a key that is in use", path.display());
                return Err(
                    Fault::usage(text).and("name another file, use its key by --newkey, or overwrite it by --force")
                );
            }
            if path.parent().is_some_and(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()) {
                return Err(Fault::usage(format!("--newkeyout {}: its folder does not exist", path.display())));
            }
            let key = material::make_key(kind)?;
            let pending = PendingKey { path: path.clone(), key: Arc::clone(&key), passphrase, force: args.force };
            Ok((key, (!dry_run).then_some(pending)))
        }
        (None, Some(kind), None) if dry_run => Ok((material::make_key(kind)?, None)),
        (None, Some(_), None) => Err(Fault::usage("--newkey-type makes a key: say by --newkeyout where to write it")),
        (None, None, _) => Err(Fault::usage("no key to be certified")
            .and("give one by --newkey, or have one made by --newkey-type and --newkeyout")),
    }
}

fn p10(args: &P10Args, own: Own, acceptance: Acceptance) -> Result<Prepared, Fault> {
    let bytes = files::read("--csr", &args.csr)?;
    let csr = match files::pem(&bytes) {
        Some(text) => Csr::from_pem(text),
        None => Csr::from_der(&bytes),
    };
    let csr = csr.map_err(|error| Fault::usage(format!("--csr {}: {error}", args.csr.display())))?;
    let request = P10Request {
        csr,
        recipient: material::recipient(&args.common, &acceptance, own.certificate.as_ref())?,
        sender: None,
        implicit_confirm: args.issued.implicit_confirm,
        cert_profile: None,
        extra_certs: own.extra_certs.clone(),
    };
    Ok(Prepared { request: Request::P10(Box::new(request)), own, acceptance, key: None, new_key: None })
}

fn revoke(args: &RevokeArgs, own: Own, acceptance: Acceptance) -> Result<Prepared, Fault> {
    let reason = if args.revreason == "-1" {
        RevocationReason::Unspecified // openssl's word for: none given
    } else {
        RevocationReason::parse(&args.revreason).ok_or_else(|| {
            let names: Vec<_> = RevocationReason::ALL.into_iter().map(RevocationReason::name).collect();
            Fault::usage(format!("--revreason {:?}: use one of {}", args.revreason, names.join(", ")))
        })?
    };
    if let Some(path) = &args.crlout {
        files::check_target("--crlout", path)?;
    }
    let mut request = match (&args.oldcert, &args.issuer, &args.serial, &own.certificate) {
        (Some(path), ..) => RevokeRequest::of(&files::certificate("--oldcert", path)?, reason),
        (None, Some(issuer), Some(serial), _) => {
            let issuer = material::name("--issuer", issuer)?;
            let serial = material::serial(serial)?;
            RevokeRequest { recipient: issuer.clone(), issuer, serial, reason, extra_certs: Vec::new() }
        }
        (None, _, _, Some(certificate)) => RevokeRequest::of(certificate, reason),
        _ => return Err(Fault::usage("nothing to revoke").and("give --oldcert, or --issuer and --serial")),
    };
    let pinned = acceptance.verification_certificates.first();
    if args.common.peer.recipient.is_some() || pinned.is_some() {
        request.recipient = material::recipient(&args.common, &acceptance, None)?;
    }
    request.extra_certs.clone_from(&own.extra_certs);
    Ok(Prepared { request: Request::Revoke(Box::new(request)), own, acceptance, key: None, new_key: None })
}

fn ask(args: &AskArgs, own: Own, acceptance: Acceptance) -> Result<Prepared, Fault> {
    let targets = [
        ("--newwithnew", &args.newwithnew),
        ("--newwithold", &args.newwithold),
        ("--oldwithnew", &args.oldwithnew),
        ("--crlout", &args.crlout),
        ("--cacertsout", &args.cacertsout),
    ];
    for (option, path) in targets {
        if let Some(path) = path {
            files::check_target(option, path)?;
        }
    }
    let request = InfoRequest {
        question: question(args)?,
        recipient: material::recipient(&args.common, &acceptance, own.certificate.as_ref())?,
        sender: None,
        extra_certs: own.extra_certs.clone(),
    };
    Ok(Prepared { request: Request::Info(Box::new(request)), own, acceptance, key: None, new_key: None })
}

fn question(args: &AskArgs) -> Result<Question, Fault> {
    Ok(match args.infotype.to_ascii_lowercase().as_str() {
        "cacerts" => Question::CaCerts,
        "rootcacert" => {
            let path = args.oldwithold.as_deref();
            let path = path.ok_or_else(|| Fault::usage("rootCaCert: give the root that is trusted by --oldwithold"))?;
            Question::RootCaUpdate { old: files::certificate("--oldwithold", path)? }
        }
        "certreqtemplate" => Question::CertReqTemplate,
        "crlstatuslist" => crl_question(args)?,
        "currentcrl" => Question::CurrentCrl,
        "signkeypairtypes" => Question::SignKeyPairTypes,
        "enckeypairtypes" => Question::EncKeyPairTypes,
        "preferredsymmalg" => Question::PreferredSymmAlg,
        "supplangtags" => Question::SupportedLanguages(args.languages.clone()),
        "confirmwaittime" => Question::ConfirmWaitTime,
        other => Question::Other(other.parse().map_err(|_| {
            Fault::usage(format!("--infotype {:?}: neither a known name nor an object identifier", args.infotype))
        })?),
    })
}

fn crl_question(args: &AskArgs) -> Result<Question, Fault> {
    let old = match &args.oldcrl {
        Some(path) => {
            let bytes = files::read("--oldcrl", path)?;
            let wrong = |error: String| Fault::usage(format!("--oldcrl {}: {error} (DER is wanted)", path.display()));
            Some(Crl::from_der(&bytes).map_err(wrong)?)
        }
        None => None,
    };
    let source = match (&args.crlcert, &args.crluri, &old) {
        (Some(path), ..) => CrlOf::Issuer(files::certificate("--crlcert", path)?.issuer()),
        (None, Some(uri), _) => CrlOf::Uri(uri.clone()),
        (None, None, Some(old)) => CrlOf::Issuer(old.issuer().clone()),
        (None, None, None) => {
            return Err(Fault::usage("crlStatusList: say which CRL").and("give --crlcert, --crluri or --oldcrl"));
        }
    };
    let this_update: Option<Timestamp> = old.as_ref().and_then(Crl::this_update);
    Ok(Question::CrlUpdate { source, this_update })
}

/// What may work and is doubtful all the same.
fn lint(prepared: &Prepared, notes: &mut Vec<Note>) {
    let Prepared { request, own, acceptance, .. } = prepared;
    let recipient = match request {
        Request::Enroll(request, _) => &request.recipient,
        Request::P10(request) => &request.recipient,
        Request::Revoke(request) => &request.recipient,
        Request::Info(request) => &request.recipient,
    };
    let signed = own.certificate.is_some();
    let trusts = !acceptance.anchors.is_empty() || !acceptance.verification_certificates.is_empty();
    if signed && !trusts {
        let text = "no answer can be taken: give the CA by --trusted, or pin its certificate by --srvcert";
        notes.push(Note::new("nobody_trusted", text));
    }
    if recipient.is_null() && acceptance.expected_signer.is_none() && trusts && signed {
        let text = "neither --recipient nor --expect-sender: only a signer with cmcCA or cmcRA may answer";
        notes.push(Note::new("nobody_named", text));
    }
    if let Request::Enroll(request, _) = request
        && request.subject.is_null()
        && request.kind != RequestKind::Kur
    {
        notes.push(Note::new("subject_empty", "the subject is empty: many CAs refuse that"));
    }
}
