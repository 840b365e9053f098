//! `trustfleet-lab bench`: how fast and how small, each figure beside something that others can judge it by.
//!
//! A group is one file here with its benchmarks and a line in [`GROUPS`]; the rest is common: which are run, how often,
//! medians, spread, targets, table and `bench.json`. It must never measure something easier than what its name says,
//! never leave out what it could not measure, and nothing in the tests may depend on its figures.
//!
//! ```text
//! spec (ids, targets) -> harness (runs) -> figure (medians, ratios) -> report (table, JSON)
//! ```

mod agent;
mod cmp;
mod error;
mod figure;
mod fleet;
mod harness;
mod inside;
mod machine;
mod mock;
mod policy;
mod process;
mod report;
mod spec;
mod storm;

use std::{
    fs, io,
    path::{Path, PathBuf},
    pin::Pin,
    process::ExitCode,
};

use clap::ValueEnum;

use self::{
    error::BenchError,
    harness::{Failure, Harness},
    machine::Machine,
    report::Report,
    spec::Spec,
};

pub use self::inside::{InsideArgs, run as inside};

/// A file of benchmarks.
struct Group {
    specs: &'static [Spec],
    run: for<'a> fn(&'a mut Harness) -> Running<'a>,
}

type Running<'a> = Pin<Box<dyn Future<Output = Result<(), BenchError>> + 'a>>;

/// All groups, in the order in which they run.
const GROUPS: &[Group] = &[
    Group { specs: cmp::SPECS, run: |harness| Box::pin(cmp::run(harness)) },
    Group { specs: agent::SPECS, run: |harness| Box::pin(agent::run(harness)) },
    Group { specs: policy::SPECS, run: |harness| Box::pin(policy::run(harness)) },
    Group { specs: fleet::SPECS, run: |harness| Box::pin(fleet::run(harness)) },
    Group { specs: storm::SPECS, run: |harness| Box::pin(storm::run(harness)) },
];

/// Arguments of `bench`.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 all that was chosen is measured, whether at target or not; 1 something could not be \
    measured; 2 no benchmark has such an id.\n\nExamples:\n  \
    trustfleet-lab bench\n  \
    trustfleet-lab bench cmp agent.rss --quick\n  \
    trustfleet-lab bench cmp.wall --output json | jq '.results[].ratio'"
)]
pub struct BenchArgs {
    /// Beginnings of ids, such as cmp or agent.rss [default: all]
    #[arg(value_name = "ID-PREFIX")]
    prefixes: Vec<String>,
    /// Smaller sizes and fewer runs: whether all works, and about how good it is
    #[arg(long)]
    quick: bool,
    /// Say what there is and what it is measured beside, and run nothing
    #[arg(long)]
    list: bool,
    /// Form of the result on stdout; progress is told on stderr
    #[arg(long, value_enum, default_value_t)]
    output: Form,
    /// Where to write the result as JSON [default: bench.json in the build's folder, target/]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Form of the result.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Form {
    /// Columns for people.
    #[default]
    Table,
    /// What `bench.json` holds.
    Json,
}

/// Measures what was chosen, shows it and writes it down.
pub async fn run(args: BenchArgs) -> ExitCode {
    let all = || GROUPS.iter().flat_map(|group| group.specs);
    let chosen = match spec::select(all(), &args.prefixes) {
        Ok(chosen) => chosen,
        Err(stranger) => {
            let ids: Vec<_> = all().map(|spec| spec.id).collect();
            eprintln!("bench: no benchmark begins with {stranger:?}; there are: {}", ids.join(", "));
            return ExitCode::from(2);
        }
    };
    if args.list {
        print!("{}", report::list(chosen.into_iter()));
        return ExitCode::SUCCESS;
    }
    if cfg!(debug_assertions) {
        eprintln!("bench: this is a debug build, its figures mean nothing: use `make bench`");
    }
    let machine = Machine::here(args.quick);
    let mut harness = Harness::new(chosen, args.quick);
    for group in GROUPS {
        if group.specs.iter().any(|spec| harness.wants(spec.id))
            && let Err(error) = (group.run)(&mut harness).await
        {
            harness.fail_rest(group.specs, &error);
        }
    }
    let (chosen, results, failures) = harness.finish();
    finish(&args, &Report { machine, results }, &chosen, &failures)
}

fn finish(args: &BenchArgs, report: &Report, chosen: &[&Spec], failures: &[Failure]) -> ExitCode {
    let mut good = failures.is_empty();
    match report.json().map_err(io::Error::other) {
        Ok(json) => {
            let file = args.file.clone().unwrap_or_else(default_file);
            match fs::write(&file, &json) {
                Ok(()) => eprintln!("bench: written to {}", file.display()),
                Err(error) => {
                    eprintln!("bench: {} cannot be written: {error}", file.display());
                    good = false;
                }
            }
            match args.output {
                Form::Table => print!("\n{}", report.table(chosen)),
                Form::Json => print!("{json}"),
            }
        }
        Err(error) => {
            eprintln!("bench: the result cannot be written as JSON: {error}");
            good = false;
        }
    }
    for Failure { id, why } in failures {
        eprintln!("bench: {id} was not measured: {why}");
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// `target/bench.json` for `target/release/trustfleet-lab`.
fn default_file() -> PathBuf {
    let here = std::env::current_exe().unwrap_or_default();
    let target = here.ancestors().skip(2).find(|folder| !folder.ends_with("deps")).unwrap_or_else(|| Path::new("."));
    target.join("bench.json")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_benchmark_has_an_id_of_its_own_with_its_group_before_the_point() {
        let mut ids = BTreeSet::new();
        for group in GROUPS {
            let names: BTreeSet<_> = group.specs.iter().filter_map(|spec| spec.id.split('.').next()).collect();
            assert_eq!(names.len(), 1, "one group a file: {names:?}");
            for spec in group.specs {
                assert!(ids.insert(spec.id), "two benchmarks are called {}", spec.id);
                assert!(!spec.limits.is_empty() && !spec.beside.is_empty(), "{} promises nothing", spec.id);
            }
        }
        assert!(ids.len() > 5);
    }

    #[test]
    fn the_document_explains_every_benchmark_with_its_target() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/benchmarks.md");
        let text = fs::read_to_string(path).unwrap();
        for line in report::list(GROUPS.iter().flat_map(|group| group.specs)).lines() {
            let id = line.split_whitespace().next().unwrap_or_default();
            assert!(!id.contains('.') || text.contains(&format!("| `{id}` |")), "docs/benchmarks.md lacks {id}");
        }
    }
}
