//! `trustfleet-lab`: see [`trustfleet_lab::cli`].

use std::process::ExitCode;

use clap::Parser as _;
use trustfleet_lab::cli::Cli;

#[tokio::main]
async fn main() -> ExitCode {
    Cli::parse().run().await
}
