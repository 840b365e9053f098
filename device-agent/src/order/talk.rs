//! Whom to talk to and what to believe: the part of an order that every kind of request has.

use std::net::IpAddr;
use std::time::Duration;

use trustfleet_cmp::peer::Acceptance;
use trustfleet_cmp::protection::AcceptedMacs;
use trustfleet_model::ca_server::check_cmp_url;
use trustfleet_model::field::Violations;
use trustfleet_model::policy::check_interface;
use trustfleet_pki::{Certificate, Name};
use trustfleet_wire::v1::{self as wire, Blob};

use super::list;
use crate::cmp_http::Source;

/// Whom to talk to and what to believe.
#[derive(Clone, Debug)]
pub struct Talk {
    /// Name of the CA.
    pub recipient: Name,
    /// Servers in the order to try them (S16).
    pub urls: Vec<String>,
    /// Where connections to them come from (S7).
    pub source: Source,
    /// Longest time of one message and its answer.
    pub message_timeout: Duration,
    /// What is accepted in answers.
    pub acceptance: Acceptance,
    /// The CA does not know polling: waiting ends the exchange.
    pub no_polling: bool,
    /// The CA wants the signer's root among extraCerts (X2).
    pub root_in_extra_certs: bool,
}

/// The same as a job says it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Said<'a> {
    pub(super) recipient: &'a str,
    pub(super) urls: &'a [String],
    pub(super) source: Option<&'a wire::Source>,
    pub(super) accept_sha1_answers: bool,
    pub(super) trust_anchors: &'a [Blob],
    pub(super) verification_certificates: &'a [Blob],
    pub(super) message_timeout_s: u32,
    pub(super) total_timeout_s: u32,
    pub(super) no_polling: bool,
    pub(super) root_in_extra_certs: bool,
}

impl Talk {
    /// Checks it; what is wrong is added to `v`.
    pub(super) fn of(v: &mut Violations, said: &Said<'_>) -> Option<Self> {
        let recipient = v.check("recipient", "S5", Name::parse(said.recipient));
        let urls =
            list(v, "urls", said.urls, |v, field, url| v.check(field, "S6", check_cmp_url(url)).map(|_| url.clone()));
        if urls.is_empty() {
            v.add("urls", "S6", "has no usable URL of a CMP server");
        }
        let source = source(v, said.source);
        let anchors = certificates(v, "trust_anchors", said.trust_anchors);
        if said.trust_anchors.is_empty() {
            v.add("trust_anchors", "S10", "is empty: no answer and no certificate could be trusted");
        }
        let verification_certificates = certificates(v, "verification_certificates", said.verification_certificates);
        let macs = if said.accept_sha1_answers { AcceptedMacs::with_sha1() } else { AcceptedMacs::strong() };
        let acceptance = Acceptance {
            macs,
            anchors,
            verification_certificates,
            total_seconds: u64::from(said.total_timeout_s.max(1)),
            ..Acceptance::default()
        };
        let message_timeout = Duration::from_secs(u64::from(said.message_timeout_s.clamp(1, 600)));
        let (no_polling, root_in_extra_certs) = (said.no_polling, said.root_in_extra_certs);
        recipient.map(|recipient| Self {
            recipient,
            urls,
            source,
            message_timeout,
            acceptance,
            no_polling,
            root_in_extra_certs,
        })
    }
}

fn source(violations: &mut Violations, source: Option<&wire::Source>) -> Source {
    let Some(source) = source else { return Source::default() };
    let address = source.address.as_deref().and_then(|text| {
        violations.check(
            "source.address",
            "S7",
            text.parse::<IpAddr>().map_err(|_| format!("is {text:?}, no IP address")),
        )
    });
    let interface = source
        .interface
        .as_deref()
        .and_then(|name| violations.check("source.interface", "S7", check_interface(name)).map(|()| name.to_owned()));
    Source { address, interface }
}

fn certificates(violations: &mut Violations, field: &str, list_of: &[Blob]) -> Vec<Certificate> {
    list(violations, field, list_of, |v, field, der| v.check(field, "S10", Certificate::from_der(&der.0)))
}
