//! docs/cmp-client.md does what it says: its blocks are run from top to bottom, as a reader would.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use trustfleet_agent::cmp_cli::exit::Exit;

fn page() -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cmp-client.md");
    std::fs::read_to_string(page).unwrap()
}

/// The first of three ports in a row that are free.
fn ports() -> u16 {
    (0..100)
        .filter_map(|_| {
            let first = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = first.local_addr().unwrap().port();
            let others = (1..3).map(|next| TcpListener::bind(("127.0.0.1", port.checked_add(next)?)).ok());
            others.collect::<Option<Vec<_>>>().map(|_| port)
        })
        .next()
        .expect("three free ports in a row")
}

#[test]
fn every_block_of_the_clients_manual_runs_from_top_to_bottom() {
    let page = page();
    let blocks: Vec<_> = page.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() > 10, "only {} blocks", blocks.len());
    for verb in ["ir", "cr", "kur", "p10cr", "rr", "genm"] {
        assert!(blocks.iter().any(|block| block.contains(&format!("trustfleet-agent cmp {verb} "))), "{verb}");
    }
    let folder = tempfile::tempdir().unwrap();
    // Servers of the page that a failure leaves behind end with the shell.
    let script = format!("set -eu\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{}", blocks.concat());
    let programs = Path::new(env!("CARGO_BIN_EXE_trustfleet-agent")).parent().unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let log = folder.path().join("page.log");
    let file = std::fs::File::create(&log).unwrap();
    let status = Command::new("bash")
        .args(["-x", "-c", &script])
        .current_dir(folder.path())
        .env("PATH", path)
        .env("PORT", ports().to_string())
        .stdin(Stdio::null())
        .stdout(file.try_clone().unwrap())
        .stderr(file)
        .status()
        .unwrap();
    let log = std::fs::read_to_string(log).unwrap_or_default();
    assert!(status.success(), "{status}\n{log}");
    let secret = std::fs::read_to_string(folder.path().join("secret.txt")).unwrap();
    assert!(!log.contains(secret.trim()), "the secret is in the output");
}

#[test]
fn the_manual_tells_every_exit_code_as_the_program_does() {
    let page = page();
    for exit in Exit::ALL {
        let row = format!("| {} | {} |", exit as u8, exit.meaning());
        assert!(page.contains(&row), "{row}");
    }
}
