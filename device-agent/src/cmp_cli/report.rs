//! What the command says at its end: lines for people, or one JSON object for programs.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use trustfleet_cmp::Warning;
use trustfleet_pki::certificate::Certificate;

use super::exit::Exit;
use super::fault::Fault;
use super::talk::Spoken;

/// Something that should be known although it is no failure.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub(super) struct Note {
    /// Stable snake_case code.
    pub(super) code: String,
    /// In words.
    pub(super) text: String,
}

impl Note {
    /// A note.
    pub(super) fn new(code: &str, text: impl Into<String>) -> Self {
        Self { code: code.to_owned(), text: text.into() }
    }

    /// A warning of the engine.
    pub(super) fn of(warning: &Warning) -> Self {
        Self::new(warning.code(), warning.to_string())
    }
}

/// A certificate as people compare it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Shown {
    subject: String,
    issuer: String,
    serial: String,
    not_before: String,
    not_after: String,
    subject_alt_names: Vec<String>,
    sha256: String,
    /// PEM.
    pem: String,
}

impl Shown {
    /// Of a certificate.
    pub(super) fn of(certificate: &Certificate) -> Self {
        Self {
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            serial: certificate.serial_hex(),
            not_before: certificate.not_before().to_string(),
            not_after: certificate.not_after().to_string(),
            subject_alt_names: certificate.subject_alt_names(),
            sha256: hex::encode_upper(certificate.sha256_fingerprint()),
            pem: certificate.to_pem(),
        }
    }
}

/// A file that was written.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Written {
    what: &'static str,
    path: PathBuf,
}

/// What went wrong.
#[derive(Clone, Debug, Serialize)]
struct Failure {
    culprit: &'static str,
    code: &'static str,
    text: String,
    fail_info: Vec<&'static str>,
    status_texts: Vec<String>,
    maybe_issued: bool,
}

/// Where the time went, milliseconds.
#[derive(Clone, Debug, Default, Serialize)]
struct Timings {
    total_ms: u128,
    waited_ms: u128,
    exchanges_ms: Vec<u128>,
}

/// All that is said at the end.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// enrolled, revoked, informed, dry_run or failed.
    pub(super) result: &'static str,
    exit_code: u8,
    /// ir, cr, kur, p10cr, rr or genm.
    pub(super) request: &'static str,
    /// The URL.
    pub(super) server: Option<String>,
    /// In hexadecimal.
    pub(super) transaction_id: Option<String>,
    /// The new certificate.
    pub(super) certificate: Option<Shown>,
    /// No certConf was needed.
    pub(super) implicitly_confirmed: Option<bool>,
    /// The CA's status, in the RFC's words.
    pub(super) status: Option<&'static str>,
    /// What the CA says: harmless, untrusted.
    pub(super) status_texts: Vec<String>,
    /// The answer to a question, or what was revoked, in lines.
    pub(super) information: Vec<String>,
    /// Files that were written.
    pub(super) files: Vec<Written>,
    /// What should be known.
    pub(super) warnings: Vec<Note>,
    /// Messages in their order.
    pub(super) messages: Vec<Spoken>,
    timings: Timings,
    error: Option<Failure>,
    /// What to do next.
    pub(super) next: Vec<String>,
    /// Print the certificate behind the result.
    #[serde(skip)]
    pub(super) print_pem: bool,
    #[serde(skip)]
    exit: Exit,
}

impl Report {
    /// Nothing has happened yet.
    pub(super) fn new(request: &'static str) -> Self {
        Self {
            result: "failed",
            exit_code: 0,
            request,
            server: None,
            transaction_id: None,
            certificate: None,
            implicitly_confirmed: None,
            status: None,
            status_texts: Vec::new(),
            information: Vec::new(),
            files: Vec::new(),
            warnings: Vec::new(),
            messages: Vec::new(),
            timings: Timings::default(),
            error: None,
            next: Vec::new(),
            print_pem: false,
            exit: Exit::Ok,
        }
    }

    /// A file was written.
    pub(super) fn wrote(&mut self, what: &'static str, path: &Path) {
        self.files.push(Written { what, path: path.to_owned() });
    }

    /// It failed.
    pub(super) fn fail(&mut self, fault: Fault) {
        let Fault { exit, code, text, next, fail_info, status_texts, maybe_issued } = fault;
        self.result = "failed";
        (self.exit, self.exit_code) = (exit, exit as u8);
        self.next = next;
        self.error = Some(Failure { culprit: exit.culprit(), code, text, fail_info, status_texts, maybe_issued });
    }

    /// How long it took.
    pub(super) fn took(&mut self, total: Duration, waited: Duration) {
        self.timings = Timings {
            total_ms: total.as_millis(),
            waited_ms: waited.as_millis(),
            exchanges_ms: self.messages.iter().filter_map(|spoken| spoken.after_ms).collect(),
        };
    }

    /// How the process shall end.
    pub(super) const fn exit(&self) -> Exit {
        self.exit
    }

    /// One JSON object.
    pub(super) fn json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_else(|_| "{}".to_owned()) + "\n"
    }

    /// Lines for stdout.
    pub(super) fn lines(&self) -> String {
        let mut out = String::new();
        let _ = match self.result {
            "enrolled" => writeln!(out, "certificate issued ({})", self.request),
            "revoked" => writeln!(out, "certificate revoked"),
            "informed" => writeln!(out, "answer of the CA"),
            "dry_run" => writeln!(out, "request as it would be sent ({}); nothing was sent or written", self.request),
            _ => Ok(()),
        };
        if let Some(shown) = &self.certificate {
            let rows = [
                ("subject", shown.subject.clone()),
                ("issuer", shown.issuer.clone()),
                ("serial", shown.serial.clone()),
                ("valid", format!("{} to {}", shown.not_before, shown.not_after)),
                ("names", shown.subject_alt_names.join(", ")),
                ("SHA-256", shown.sha256.clone()),
            ];
            for (what, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
                let _ = writeln!(out, "  {what:<12}{value}");
            }
        }
        if let (Some(implicitly), "enrolled") = (self.implicitly_confirmed, self.result) {
            let how = if implicitly { "implicitly" } else { "by certConf and pkiConf" };
            let _ = writeln!(out, "  {:<12}{how}", "confirmed");
        }
        for line in &self.information {
            let _ = writeln!(out, "  {line}");
        }
        for text in &self.status_texts {
            let _ = writeln!(out, "  the CA says {text:?}");
        }
        for file in &self.files {
            let _ = writeln!(out, "wrote {}: {}", file.what, file.path.display());
        }
        if self.error.is_none() {
            for next in &self.next {
                let _ = writeln!(out, "next: {next}");
            }
        }
        if let (true, Some(shown)) = (self.print_pem, &self.certificate) {
            out.push_str(&shown.pem);
        }
        out
    }

    /// Lines for stderr.
    pub(super) fn complaints(&self) -> String {
        let mut out = String::new();
        for note in &self.warnings {
            let _ = writeln!(out, "warning: {}", note.text);
        }
        if let Some(failure) = &self.error {
            let _ = writeln!(out, "trustfleet-agent cmp {}: {}", self.request, failure.text);
            for next in &self.next {
                let _ = writeln!(out, "  next: {next}");
            }
            if failure.maybe_issued {
                let _ = writeln!(out, "  the CA may have done what was asked: look there before trying again");
            }
        }
        out
    }
}
