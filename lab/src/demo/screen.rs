//! What the demonstration shows: progress, the table, what to try next, and what to look at after a failure.

use std::{
    env,
    error::Error,
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use comfy_table::{ContentArrangement, Table, presets};
use jiff::{Timestamp, tz::TimeZone};
use serde_json::Value;

use super::{
    DemoError,
    fleet::{Fleet, TENANT},
    world::{World, write_private},
};

/// Progress lines, each with the seconds since the beginning.
#[derive(Debug)]
pub(super) struct Screen {
    begin: Instant,
}

impl Screen {
    pub(super) const fn new(begin: Instant) -> Self {
        Self { begin }
    }

    /// One line.
    pub(super) fn say(&self, text: &str) {
        println!("{:5.1} s  {text}", self.begin.elapsed().as_secs_f32());
    }
}

/// The certificates in use, one line for each trustpoint.
pub(super) fn table(trustpoints: &[Value], dir: &Path) {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["DEVICE", "TRUSTPOINT", "STATE", "SUBJECT", "SERIAL", "NOT AFTER", "FILE"]);
    for trustpoint in trustpoints {
        let text = |pointer: &str| trustpoint.pointer(pointer).and_then(Value::as_str).unwrap_or("-").to_owned();
        let file = text("/active/file");
        let file =
            Path::new(&file).strip_prefix(dir).map_or_else(|_| file.clone(), |below| below.display().to_string());
        table.add_row([
            text("/device"),
            text("/name"),
            text("/status"),
            text("/active/subject"),
            text("/active/serial"),
            day(&text("/active/not_after")),
            file,
        ]);
    }
    println!();
    for line in table.to_string().lines() {
        println!("{}", line.strip_prefix(' ').unwrap_or(line).trim_end());
    }
    println!("(files are below {})", dir.display());
}

fn day(text: &str) -> String {
    text.parse::<Timestamp>()
        .map_or_else(|_| text.to_owned(), |moment| moment.to_zoned(TimeZone::UTC).date().to_string())
}

/// The URLs, and commands that work as they stand.
pub(super) fn try_next(world: &World, fleet: &Fleet) {
    let url = fleet.url();
    let token_file = world.dir().join("admin.token");
    let env_file = world.dir().join("env");
    let programs = env::current_exe().ok().and_then(|path| path.parent().map(Path::to_owned)).unwrap_or_default();
    let ca_file = world.tls().map(|tls| format!("export TRUSTFLEET_CA_FILE='{}'\n", tls.ca.display()));
    let ca_file = ca_file.unwrap_or_default();
    let exports = format!(
        "{ca_file}export TRUSTFLEET_URL='{url}'\nexport TRUSTFLEET_TENANT='{TENANT}'\nexport TRUSTFLEET_TOKEN_FILE='{}'\n\
         export PATH='{}':\"$PATH\"\n",
        token_file.display(),
        programs.display()
    );
    let written = write_private(&token_file, &fleet.token).and_then(|()| write_private(&env_file, &exports));
    if let Err(error) = written {
        eprintln!("demo: {error}");
    }
    let agent = world.dir().join("agents/ap-1.toml");
    println!(
        "It stays up. In the browser:\n  \
         {url}docs/          the API, to read and to try\n  \
         {url}openapi.json   the same for programs\n  \
         {url}metrics        for Prometheus\n\n\
         In another shell:\n  \
         . {env_file}\n  \
         trustfleet trustpoint list\n  \
         trustfleet trustpoint enroll ap-2 radius --request kur --wait\n  \
         trustfleet certificate list\n  \
         trustfleet job list --output json\n  \
         trustfleet-agent status --config {agent}\n  \
         ls {logs}\n\n\
         Ctrl-C stops and removes everything.",
        env_file = env_file.display(),
        agent = agent.display(),
        logs = world.dir().join("logs").display(),
    );
}

/// The services did not start.
pub(super) fn not_begun(error: &DemoError) -> ExitCode {
    eprintln!("\nthe demonstration could not begin: {}", with_causes(error));
    ExitCode::FAILURE
}

/// A signal came before the end.
pub(super) fn interrupted(code: u8) -> ExitCode {
    eprintln!("\ninterrupted; all is stopped and removed");
    ExitCode::from(code)
}

/// What went wrong, the ends of the logs, and where the whole logs are kept.
pub(super) fn failure(error: &DemoError, world: &mut World) {
    for (name, tail) in world.log_tails() {
        eprintln!("\n--- the end of the log of {name}:\n{tail}");
    }
    eprintln!("\nthe demonstration failed: {}", with_causes(error));
    match keep_logs(world) {
        Ok(kept) => eprintln!("all logs are kept in {}", kept.display()),
        Err(error) => eprintln!("the logs could not be kept: {error}"),
    }
}

fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

/// Copies the logs to a folder that stays when everything else goes.
fn keep_logs(world: &World) -> io::Result<PathBuf> {
    let kept = tempfile::Builder::new().prefix("trustfleet-demo-logs-").tempdir()?.keep();
    for place in world.log_places() {
        if place.is_file() {
            fs::copy(&place, kept.join("postgresql.log"))?;
        } else if place.is_dir() {
            for entry in fs::read_dir(&place)? {
                let path = entry?.path();
                if let (true, Some(name)) = (path.is_file(), path.file_name()) {
                    fs::copy(&path, kept.join(name))?;
                }
            }
        }
    }
    Ok(kept)
}
