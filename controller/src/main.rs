//! The binary `trustfleet`: the controller, and the operator's command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    trustfleet_controller::program::run()
}
