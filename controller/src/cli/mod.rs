//! The operator's verbs: `trustfleet device list`, `trustfleet trustpoint enroll …` and so on.
//!
//! They use the public REST API and nothing else: what a verb can do, a script with a token can do too. A verb never
//! opens the database, the broker or a key file, and never prints a secret that it was given.
//!
//! Exit codes: 0 done; 1 refused by the controller, or the job failed; 2 wrong usage; 3 the controller cannot be
//! reached or cannot answer now.

mod agent;
mod args;
mod audit;
mod binding;
mod blocked_subject;
mod ca_endpoint;
mod campaign;
mod certificate;
mod change;
mod client;
mod dead_letter;
mod device;
mod error;
mod follow;
mod forecast;
mod freeze;
mod job;
mod joining;
mod mac;
mod output;
mod problem;
mod recovery;
mod registry;
mod rollover;
mod secret;
mod session;
mod spec;
mod statistics;
mod tenant;
mod transcript;
mod transfer;
mod trustpoint;

use std::process::ExitCode;

use clap::Subcommand;

use self::{
    agent::AgentVerb,
    args::Noun,
    audit::AuditVerb,
    binding::BindingVerb,
    blocked_subject::BlockedSubjectVerb,
    ca_endpoint::CaEndpointVerb,
    campaign::CampaignVerb,
    certificate::CertificateVerb,
    change::ChangeVerb,
    dead_letter::DeadLetterVerb,
    device::DeviceVerb,
    error::CliError,
    freeze::FreezeVerb,
    job::JobVerb,
    joining::{ApplicantVerb, ExpectedAgentVerb, FactoryCaVerb},
    mac::SecretVerb,
    registry::{CaServerVerb, EntityVerb, PolicyVerb},
    rollover::RolloverVerb,
    session::Session,
    tenant::{JoinTokenVerb, TenantVerb, TokenVerb},
    trustpoint::TrustpointVerb,
};

/// What the exit codes mean, for the end of every help text.
pub const EXIT_CODES: &str = "Exit codes: 0 done; 1 refused, or the job failed; 2 wrong usage; 3 the controller cannot \
                              be reached or cannot answer now.";

/// The operator's verbs, one noun each; to be flattened into the program's own subcommands.
#[derive(Debug, Subcommand)]
pub enum OperatorCommand {
    /// Tenants: who shares this installation without seeing each other
    Tenant(Noun<TenantVerb>),
    /// Bearer tokens of a tenant
    Token(Noun<TokenVerb>),
    /// People of identity providers who are let in no more
    BlockedSubject(Noun<BlockedSubjectVerb>),
    /// CMP servers that jobs go to, and what they may be burdened with
    CaEndpoint(Noun<CaEndpointVerb>),
    /// Messages of agents that could not be processed
    DeadLetter(Noun<DeadLetterVerb>),
    /// One-time tokens by which agents join
    JoinToken(Noun<JoinTokenVerb>),
    /// Agents that have joined
    Agent(Noun<AgentVerb>),
    /// CAs whose factory identities (IDevID) let agents in
    FactoryCa(Noun<FactoryCaVerb>),
    /// Give trustpoints to devices by their labels
    Binding(Noun<BindingVerb>),
    /// One change of many trustpoints, in waves: renew, re-key, move to another CA, activate, give new anchors, revoke
    Campaign(Noun<CampaignVerb>),
    /// Windows in which devices are not changed, but for what is urgent
    Freeze(Noun<FreezeVerb>),
    /// Serial numbers whose agents may announce themselves
    ExpectedAgent(Noun<ExpectedAgentVerb>),
    /// Agents that announced themselves and wait for an operator
    Applicant(Noun<ApplicantVerb>),
    /// PKI entities: the subject and alternative names that requests carry
    Entity(Noun<EntityVerb>),
    /// CA servers: whom requests go to, and what is trusted in the answers
    CaServer(Noun<CaServerVerb>),
    /// Roll-overs of trust anchors: services load the next ones before a CA is switched
    Rollover(Noun<RolloverVerb>),
    /// CMP policies: the settings of enrolments
    Policy(Noun<PolicyVerb>),
    /// Changes that need another administrator's approval
    Change(Noun<ChangeVerb>),
    /// Registered devices
    Device(Noun<DeviceVerb>),
    /// Trustpoints of devices: enrol and activate certificates
    Trustpoint(Noun<TrustpointVerb>),
    /// MAC secrets of trustpoints: one by one, or many from a file
    Secret(Noun<SecretVerb>),
    /// Jobs: what was asked of agents, and how it ended
    Job(Noun<JobVerb>),
    /// Issued certificates
    Certificate(Noun<CertificateVerb>),
    /// The audit log: who did or tried what, and whether the log is whole
    Audit(Noun<AuditVerb>),
}

/// Does what the command line says; everything that went wrong is told on stderr.
pub fn run(command: OperatorCommand) -> ExitCode {
    match dispatch(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", error.screen());
            ExitCode::from(error.exit_code())
        }
    }
}

fn dispatch(command: OperatorCommand) -> Result<(), CliError> {
    match command {
        OperatorCommand::Tenant(noun) => tenant::run(&Session::open(noun.connection)?, noun.verb),
        OperatorCommand::Token(noun) => tenant::run_token(&Session::open(noun.connection)?, noun.verb),
        OperatorCommand::CaEndpoint(noun) => ca_endpoint::run(&Session::open(noun.connection)?, noun.verb),
        OperatorCommand::DeadLetter(noun) => dead_letter::run(&Session::open(noun.connection)?, noun.verb),
        OperatorCommand::BlockedSubject(noun) => blocked_subject::run(&Session::open(noun.connection)?, noun.verb),
        OperatorCommand::JoinToken(noun) => tenant::run_join_token(&Session::open(noun.connection)?, noun.verb),
        OperatorCommand::Agent(noun) => agent::run(&Session::open(noun.connection)?, noun.verb),
        OperatorCommand::Binding(noun) => binding::run(&Session::open(noun.connection)?, noun.verb),
        OperatorCommand::Campaign(noun) => campaign::run(&Session::open(noun.connection)?, noun.verb),
        OperatorCommand::Freeze(noun) => freeze::run(&Session::open(noun.connection)?, noun.verb),
        OperatorCommand::FactoryCa(noun) => joining::run_factory_ca(&Session::open(noun.connection)?, noun.verb),
        OperatorCommand::ExpectedAgent(noun) => joining::run_expected(&Session::open(noun.connection)?, noun.verb),
        OperatorCommand::Applicant(noun) => joining::run_applicant(&Session::open(noun.connection)?, noun.verb),
        OperatorCommand::Entity(noun) => registry::run_entity(&Session::open(noun.connection)?, noun.verb),
        OperatorCommand::CaServer(noun) => registry::run_ca_server(&Session::open(noun.connection)?, noun.verb),
        OperatorCommand::Rollover(noun) => rollover::run(&Session::open(noun.connection)?, noun.verb),
        OperatorCommand::Policy(noun) => registry::run_policy(&Session::open(noun.connection)?, noun.verb),
        OperatorCommand::Change(noun) => change::run(&Session::open(noun.connection)?, noun.verb),
        OperatorCommand::Device(noun) => device::run(&Session::open(noun.connection)?, noun.verb),
        OperatorCommand::Trustpoint(noun) => trustpoint::run(&Session::open(noun.connection)?, noun.verb),
        OperatorCommand::Secret(noun) => mac::run(&Session::open(noun.connection)?, noun.verb),
        OperatorCommand::Job(noun) => job::run(&Session::open(noun.connection)?, noun.verb),
        OperatorCommand::Audit(noun) => audit::run(&Session::open(noun.connection)?, noun.verb),
        OperatorCommand::Certificate(noun) => certificate::run(&Session::open(noun.connection)?, noun.verb),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    #[command(name = "trustfleet")]
    struct Whole {
        #[command(subcommand)]
        command: OperatorCommand,
    }

    fn walk(command: &clap::Command, path: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
        path.push(command.get_name().to_owned());
        found.push(path[1..].to_vec());
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            walk(sub, path, found);
        }
        path.pop();
    }

    fn all_verbs() -> Vec<Vec<String>> {
        let mut found = Vec::new();
        walk(&Whole::command(), &mut Vec::new(), &mut found);
        found
    }

    #[test]
    fn every_verb_has_a_help_text_and_no_argument_is_defined_twice() {
        Whole::command().debug_assert();
        let verbs = all_verbs();
        assert!(verbs.len() > 40, "only {} verbs were found", verbs.len());
        for verb in verbs {
            let line = std::iter::once("trustfleet".to_owned()).chain(verb.clone()).chain(["--help".to_owned()]);
            let error = Whole::try_parse_from(line).unwrap_err();
            assert_eq!(error.kind(), clap::error::ErrorKind::DisplayHelp, "{verb:?}");
            assert!(error.to_string().contains("Usage:"), "{verb:?}");
        }
    }

    #[test]
    fn the_connection_may_be_named_before_or_after_the_verb() {
        for line in [
            ["trustfleet", "device", "--tenant", "acme", "list"].as_slice(),
            ["trustfleet", "device", "list", "--tenant", "acme", "--output", "json"].as_slice(),
            ["trustfleet", "trustpoint", "enroll", "ap-1", "radius", "--request", "kur", "--wait"].as_slice(),
            ["trustfleet", "policy", "create", "p1", "--key", "ecdsa-p256", "--implicit-confirm"].as_slice(),
        ] {
            Whole::try_parse_from(line).unwrap();
        }
    }

    #[test]
    fn no_verb_takes_a_mac_secret_on_the_command_line() {
        for verb in all_verbs() {
            let mut command = &mut Whole::command();
            for word in &verb {
                command = command.find_subcommand_mut(word).unwrap();
            }
            assert!(command.get_arguments().all(|arg| arg.get_long() != Some("mac-secret")), "{verb:?}");
        }
    }
}
