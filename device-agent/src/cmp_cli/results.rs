//! What came: into files, and into the report.

use std::path::{Path, PathBuf};

use trustfleet_cmp::{Conclusion, Crl, Enrolled, Information, Informed, Revoked, show};
use trustfleet_pki::certificate::Certificate;

use super::args::{AskArgs, IssuedFiles, Verb};
use super::fault::Fault;
use super::report::{Note, Report, Shown};
use super::{files, material, request};

/// An issued certificate. `anchors` complete its chain.
///
/// # Errors
/// The disk's: the certificate is in the report all the same.
pub(super) fn enrolled(
    enrolled: &Enrolled,
    verb: &Verb,
    anchors: &[Certificate],
    report: &mut Report,
) -> Result<(), Fault> {
    report.result = "enrolled";
    report.transaction_id = Some(enrolled.transaction_id.clone());
    report.certificate = Some(Shown::of(&enrolled.certificate));
    report.implicitly_confirmed = Some(enrolled.implicitly_confirmed);
    report.status = Some(show::status_name(enrolled.status));
    report.status_texts.clone_from(&enrolled.status_texts);
    report.warnings.extend(enrolled.warnings.iter().map(Note::of));
    report.print_pem = true;
    let Some(out) = request::issued_files(verb) else { return Ok(()) };
    let next = match (verb, &out.certout) {
        (Verb::Kur(_), _) => {
            "put certificate and key into use together, then the old certificate is not needed any more".to_owned()
        }
        (_, Some(path)) => format!("look at it: openssl x509 -noout -text -in {}", path.display()),
        (_, None) => "keep the certificate beside its key: it is not in a file yet".to_owned(),
    };
    write(enrolled, out, verb.common().out.extracertsout.as_deref(), anchors, report)?;
    report.print_pem = out.certout.is_none();
    report.next.push(next);
    Ok(())
}

fn write(
    enrolled: &Enrolled,
    out: &IssuedFiles,
    extracertsout: Option<&Path>,
    anchors: &[Certificate],
    report: &mut Report,
) -> Result<(), Fault> {
    if let Some(path) = &out.certout {
        files::write(path, enrolled.certificate.to_pem().as_bytes(), 0o644)?;
        report.wrote("certificate", path);
    }
    if let Some(path) = &out.chainout {
        let helpers = [enrolled.chain_helpers.as_slice(), &enrolled.ca_pubs, anchors].concat();
        list("chain", path, &material::chain(&enrolled.certificate, &helpers), report)?;
    }
    if let Some(path) = &out.cacertsout {
        list("CA certificates", path, &enrolled.ca_pubs, report)?;
        if !enrolled.ca_pubs_trusted && !enrolled.ca_pubs.is_empty() {
            let text = "the CA certificates came by a signature, not by the shared secret: do not trust them for that";
            report.warnings.push(Note::new("ca_pubs_not_trusted", text));
        }
    }
    match extracertsout {
        Some(path) => list("extra certificates", path, &enrolled.chain_helpers, report),
        None => Ok(()),
    }
}

/// Several certificates in one file; none: no file, and a word about it.
fn list(what: &'static str, path: &Path, certificates: &[Certificate], report: &mut Report) -> Result<(), Fault> {
    if certificates.is_empty() {
        report
            .warnings
            .push(Note::new("nothing_to_write", format!("{what}: none came, {} is not written", path.display())));
        return Ok(());
    }
    let pem: String = certificates.iter().map(Certificate::to_pem).collect();
    files::write(path, pem.as_bytes(), 0o644)?;
    report.wrote(what, path);
    Ok(())
}

/// A certificate that may be valid at the CA and is not used: beside --certout, for whoever revokes it (C7).
pub(super) fn orphan(certificate: &Certificate, verb: &Verb, report: &mut Report) {
    report.information.push(format!(
        "certificate {} of {} may be valid at the CA",
        certificate.serial_hex(),
        certificate.issuer()
    ));
    let Some(certout) = request::issued_files(verb).and_then(|out| out.certout.as_ref()) else { return };
    let mut path = certout.clone().into_os_string();
    path.push(".unused");
    let path = PathBuf::from(path);
    match files::write(&path, certificate.to_pem().as_bytes(), 0o644) {
        Ok(()) => report.wrote("certificate that is not used", &path),
        Err(fault) => report.warnings.push(Note::new(fault.code, fault.text)),
    }
}

/// A revocation, or the answer to a question.
///
/// # Errors
/// The disk's.
pub(super) fn concluded(
    conclusion: &Conclusion,
    verb: &Verb,
    known: &[Certificate],
    report: &mut Report,
) -> Result<(), Fault> {
    match conclusion {
        Conclusion::Revoked(done) => revoked(done, verb, known, report),
        Conclusion::Informed(answer) => informed(answer, verb, known, report),
    }
}

fn revoked(done: &Revoked, verb: &Verb, known: &[Certificate], report: &mut Report) -> Result<(), Fault> {
    report.result = "revoked";
    report.transaction_id = Some(done.transaction_id.clone());
    report.status = Some(show::status_name(done.status));
    report.status_texts.clone_from(&done.status_texts);
    report.warnings.extend(done.warnings.iter().map(Note::of));
    report.information.push(format!("serial number {}", done.serial));
    let crlout = if let Verb::Rr(args) = verb { args.crlout.as_deref() } else { None };
    crls(&done.crls, crlout, known, report)
}

fn informed(answer: &Informed, verb: &Verb, known: &[Certificate], report: &mut Report) -> Result<(), Fault> {
    report.result = "informed";
    report.transaction_id = Some(answer.transaction_id.clone());
    report.warnings.extend(answer.warnings.iter().map(Note::of));
    let Verb::Genm(args) = verb else { return Ok(()) };
    if let Some(path) = &args.common.out.extracertsout {
        list("extra certificates", path, &answer.chain_helpers, report)?;
    }
    match &answer.information {
        Information::CaCerts(list) => ca_certs(list, args, report),
        Information::RootCaUpdate(None) => says(report, "there is no other root"),
        Information::RootCaUpdate(Some(update)) => {
            says(report, &format!("new root {}", line(&update.new_root)))?;
            let files = [
                ("new root", &args.newwithnew, Some(&update.new_root)),
                ("new root's key certified by the old root", &args.newwithold, Some(&update.new_with_old)),
                ("old root's key certified by the new root", &args.oldwithnew, update.old_with_new.as_ref()),
            ];
            for (what, path, certificate) in files {
                if let Some(path) = path {
                    list(what, path, certificate.map(std::slice::from_ref).unwrap_or_default(), report)?;
                }
            }
            Ok(())
        }
        Information::CertReqTemplate(None) => says(report, "any request will do: there is no template"),
        Information::CertReqTemplate(Some(template)) => {
            report.information.extend(template.describe());
            Ok(())
        }
        Information::Crls(list) => crls(list, args.crlout.as_deref(), &[known, &answer.chain_helpers].concat(), report),
        Information::Algorithms(list) if list.is_empty() => says(report, "no algorithm is named"),
        Information::Algorithms(list) => {
            report.information.extend(list.iter().map(show::algorithm));
            Ok(())
        }
        Information::Languages(list) => says(report, &format!("languages: {}", list.join(", "))),
        Information::Time(time) => says(report, &time.to_string()),
        Information::Other(None) => says(report, "no value"),
        Information::Other(Some(der)) => says(report, &format!("value, DER: {}", hex::encode(der))),
    }
}

fn ca_certs(list_of: &[Certificate], args: &AskArgs, report: &mut Report) -> Result<(), Fault> {
    if list_of.is_empty() {
        says(report, "the CA has no certificates to give")?;
    }
    for certificate in list_of {
        says(report, &line(certificate))?;
    }
    match &args.cacertsout {
        Some(path) => list("CA certificates", path, list_of, report),
        None => Ok(()),
    }
}

/// CRLs as DER: FILE, FILE.2, and so on; each with a word on whether its signature is known to be good.
fn crls(list: &[Crl], out: Option<&Path>, known: &[Certificate], report: &mut Report) -> Result<(), Fault> {
    for (number, crl) in list.iter().enumerate() {
        let issuers = known.iter().filter(|certificate| certificate.subject().says_the_same_as(crl.issuer()));
        let verified = issuers.into_iter().any(|issuer| crl.verify_signed_by(issuer).is_ok());
        let time = |time: Option<jiff::Timestamp>| time.map_or_else(|| "-".to_owned(), |time| time.to_string());
        report.information.push(format!(
            "CRL of {}, {} to {}, {} certificates, signature {}",
            crl.issuer(),
            time(crl.this_update()),
            time(crl.next_update()),
            crl.serials().len(),
            if verified { "good" } else { "not verified: give its issuer by --trusted" }
        ));
        if let Some(path) = out {
            let mut path = path.as_os_str().to_owned();
            if number > 0 {
                path.push(format!(".{}", number + 1));
            }
            files::write(Path::new(&path), crl.as_der(), 0o644)?;
            report.wrote("CRL", Path::new(&path));
        }
    }
    if list.is_empty() && report.request == "genm" {
        says(report, "there is no newer CRL")?;
    }
    Ok(())
}

fn line(certificate: &Certificate) -> String {
    let fingerprint = hex::encode_upper(certificate.sha256_fingerprint());
    format!("{}, until {}, SHA-256 {fingerprint}", certificate.subject(), certificate.not_after())
}

fn says(report: &mut Report, text: &str) -> Result<(), Fault> {
    report.information.push(text.to_owned());
    Ok(())
}
