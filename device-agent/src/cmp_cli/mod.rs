//! `trustfleet-agent cmp`: the CMP engine by hand, from a shell, without a controller.
//!
//! Why it exists: to try a CA, to enrol a single machine, and to find out why an enrolment fails. It uses the engine and
//! the HTTP client of the agent and decides nothing about CMP itself. It must never show a secret, a salt or a MAC, never
//! overwrite a private key unasked, and never end without saying what may be left at the CA.
//!
//! ```text
//! args -> request, material, server -> talk (engine + HTTP) -> results -> report
//! ```

pub mod args;
pub mod deferred;
pub mod exit;
mod fault;
mod files;
mod material;
mod reach;
mod report;
mod request;
mod results;
mod secret;
mod server;
mod state;
mod talk;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use trustfleet_cmp::codec::PkiMessage;
use trustfleet_cmp::transaction::{Step, Transaction};
use trustfleet_cmp::{
    CmpError, Conclusion, InfoRequest, Information, Question, Request, SystemEntropy, apply_template, show,
};
use trustfleet_model::clock::{Clock as _, SystemClock};
use trustfleet_pki::certificate::Certificate;
use trustfleet_pki::public_key::PublicKey;

use self::args::{CmpArgs, Form, Verb};
use self::exit::Exit;
use self::fault::Fault;
use self::report::Report;
use self::request::Prepared;
use self::talk::{Bad, Good, Manner, Talk};

/// Does what the options say, says how it went, and ends with a promised exit code ([`Exit`]).
pub fn run(args: &CmpArgs) -> ExitCode {
    let begun = Instant::now();
    let verb = &args.verb;
    let mut report = Report::new(request::kind(verb).request().name());
    let mut waited = Duration::ZERO;
    if let Err(fault) = work(verb, &mut report, &mut waited) {
        report.fail(fault);
    }
    report.took(begun.elapsed(), waited);
    // A reader that has gone away (a pager, `head`) is no failure.
    let (mut out, mut errors) = (std::io::stdout(), std::io::stderr());
    let _ = match verb.common().out.output {
        Form::Json => out.write_all(report.json().as_bytes()),
        Form::Text => out.write_all(report.lines().as_bytes()).and_then(|()| out.flush()),
    };
    if verb.common().out.output == Form::Text {
        let _ = errors.write_all(report.complaints().as_bytes());
    }
    report.exit().into()
}

fn work(verb: &Verb, report: &mut Report, waited: &mut Duration) -> Result<(), Fault> {
    let common = verb.common();
    let server = &common.server;
    let url = server
        .server
        .as_deref()
        .map(|text| server::url(text, server.path.as_deref(), server.well_known.as_deref(), server.tls_used));
    let url = url.transpose()?;
    report.server = url.as_ref().map(ToString::to_string);
    let kept = match (&common.out.state, &url) {
        (Some(path), Some(url)) if !common.out.dry_run => state::load(path, url)?,
        _ => None,
    };
    let prepared = request::prepare(verb, kept.is_some(), &mut report.warnings)?;
    let Some(url) = url.filter(|_| !common.out.dry_run) else {
        return dry_run(prepared, report);
    };
    let http = reach::http(server, &url)?;
    let failed = |error: std::io::Error| Fault::new(Exit::Local, "runtime", error.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let result = runtime.block_on(async {
        let manner = Manner {
            message_timeout: Duration::from_secs(server.msg_timeout),
            total_timeout: Duration::from_secs(server.total_timeout),
            show: common.out.show_messages,
            progress: common.out.output == Form::Text,
            state: common.out.state.as_deref(),
            believe: common.peer.unprotected_errors,
        };
        let mut talk = Talk::new(http, url.as_str(), manner)?;
        let result = converse(&mut talk, verb, prepared, kept, report).await;
        *waited = talk.waited;
        report.messages = std::mem::take(&mut talk.log);
        result
    });
    // An HTTP request that hangs must not hold up the end.
    runtime.shutdown_background();
    result
}

async fn converse(
    talk: &mut Talk<'_>,
    verb: &Verb,
    prepared: Prepared,
    kept: Option<trustfleet_cmp::TransactionRecord>,
    report: &mut Report,
) -> Result<(), Fault> {
    let Prepared { mut request, own, mut acceptance, key, new_key } = prepared;
    let known: Vec<Certificate> =
        [acceptance.anchors.as_slice(), &acceptance.verification_certificates, &acceptance.untrusted].concat();
    let engine = |error: CmpError| Fault::of_cmp(&error, false);
    let resumed = kept.is_some();
    let step = if let Some(record) = kept {
        if record.kind() != request::kind(verb) {
            return Err(Fault::usage("the transaction that --state holds is about another kind of request"));
        }
        acceptance.retry_id_in_use = false; // its request may be there already
        let now = SystemClock.now();
        match &key {
            Some(key) => Transaction::resume(record, own.credentials, acceptance, key.as_ref(), now),
            None => Transaction::resume_keyless(record, own.credentials, acceptance, now),
        }
        .map_err(engine)?
    } else {
        if wants_template(verb) {
            request = fit_template(talk, request, &own.credentials, &acceptance, report).await?;
        }
        let (transaction, message) =
            Transaction::begin(request, own.credentials, acceptance, &mut SystemEntropy, SystemClock.now())
                .map_err(engine)?;
        // The key is on the disk before its public half leaves (and not before everything else is known to be good).
        if let Some(pending) = &new_key {
            report.wrote("private key", pending.write()?);
        }
        Step::Send { transaction: Box::new(transaction), message }
    };
    match talk.run(step, resumed).await {
        Ok(Good::Enrolled(enrolled)) => results::enrolled(&enrolled, verb, &known, report),
        Ok(Good::Concluded(conclusion)) => results::concluded(&conclusion, verb, &known, report),
        Err(bad) => {
            let Bad { mut fault, orphan } = *bad;
            if let Some(orphan) = &orphan {
                results::orphan(orphan, verb, report);
            }
            if matches!(verb, Verb::Genm(_)) {
                fault.maybe_issued = false; // a question changes nothing
            }
            let kept = verb.common().out.state.as_ref().is_some_and(|path| path.exists());
            if new_key.is_some() && !kept {
                fault = fault.and("the key that was made is kept: go on with it by --newkey instead of --newkey-type");
            }
            Err(fault)
        }
    }
}

fn wants_template(verb: &Verb) -> bool {
    match verb {
        Verb::Ir(args) | Verb::Cr(args) => args.wanted.ask_template,
        Verb::Kur(args) => args.wanted.ask_template,
        Verb::P10cr(_) | Verb::Rr(_) | Verb::Genm(_) => false,
    }
}

/// Asks what a request must look like and makes it fit (R9).
async fn fit_template(
    talk: &mut Talk<'_>,
    request: Request,
    credentials: &trustfleet_cmp::Credentials,
    acceptance: &trustfleet_cmp::Acceptance,
    report: &mut Report,
) -> Result<Request, Fault> {
    let Request::Enroll(enrol, key) = request else { return Ok(request) };
    let question = InfoRequest {
        question: Question::CertReqTemplate,
        recipient: enrol.recipient.clone(),
        sender: None,
        extra_certs: Vec::new(),
    };
    let (transaction, message) = Transaction::begin(
        Request::Info(Box::new(question)),
        credentials.clone(),
        acceptance.clone(),
        &mut SystemEntropy,
        SystemClock.now(),
    )
    .map_err(|error| Fault::of_cmp(&error, false))?;
    let step = Step::Send { transaction: Box::new(transaction), message };
    let answer = talk.aside(step).await.map_err(|bad| {
        let fault = Fault { maybe_issued: false, ..bad.fault };
        fault.and("the CA was asked for its template: leave --ask-template out if it has none")
    })?;
    let template = match answer {
        Good::Concluded(conclusion) => match *conclusion {
            Conclusion::Informed(informed) => match informed.information {
                Information::CertReqTemplate(template) => template,
                _ => None,
            },
            Conclusion::Revoked(_) => None,
        },
        Good::Enrolled(_) => None,
    };
    let Some(template) = template else {
        report.information.push("the CA has no template: the request stays as it is".to_owned());
        return Ok(Request::Enroll(enrol, key));
    };
    let unfit = |error: trustfleet_cmp::TemplateError| Fault::new(Exit::Usage, "template_not_met", error.to_string());
    let public = PublicKey::from_spki_der(key.public_key_der());
    let public = public.map_err(|error| Fault::usage(format!("the key to be certified: {error}")))?;
    template.permits_key(&public).map_err(unfit)?;
    Ok(Request::Enroll(Box::new(apply_template(*enrol, &template).map_err(unfit)?), key))
}

/// The request as it would be sent. Neither disk nor network is touched.
fn dry_run(prepared: Prepared, report: &mut Report) -> Result<(), Fault> {
    let Prepared { request, own, acceptance, .. } = prepared;
    let (transaction, message) =
        Transaction::begin(request, own.credentials, acceptance, &mut SystemEntropy, SystemClock.now())
            .map_err(|error| Fault::of_cmp(&error, false))?;
    let message = PkiMessage::from_der(&message)
        .map_err(|error| Fault::new(Exit::Local, "encoding_failed", error.to_string()))?;
    report.result = "dry_run";
    report.transaction_id = Some(transaction.transaction_id());
    report.information = show::lines(&message);
    Ok(())
}
