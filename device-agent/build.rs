//! When the agent is built: a floor for its clock. And what the linker is told about it as it is shipped: profile `release-agent`, known by its opt-level.

use std::env;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo:rustc-env=TRUSTFLEET_BUILT_AT={}", built_at());
    println!("cargo:rerun-if-changed=asleep.ld");
    let var = |name: &str| env::var(name).unwrap_or_default();
    if var("OPT_LEVEL") != "z" || var("CARGO_CFG_TARGET_OS") != "linux" || var("CARGO_CFG_TARGET_ENV") != "gnu" {
        return;
    }
    println!("cargo:rustc-link-arg-bins=-Wl,-T,{}/asleep.ld", var("CARGO_MANIFEST_DIR"));
    // A tenth of a megabyte or two of relocations become some kilobytes.
    if var("HOST") == var("TARGET") && glibc().is_some_and(|version| version >= (2, 36)) {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// Seconds since 1970: no device that runs the program lives earlier.
#[allow(clippy::disallowed_methods)] // nothing of the program decides here
fn built_at() -> u64 {
    let told = env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok());
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    told.unwrap_or_else(now)
}

/// Version of the C library here: older ones do not know packed relocations.
fn glibc() -> Option<(u32, u32)> {
    let output = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (major, minor) = text.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
