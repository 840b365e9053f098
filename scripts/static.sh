#!/bin/sh
# static.sh FOLDER PROGRAM...: release binaries that need no file of a system, in FOLDER. What the Dockerfile runs.
#
#   scripts/static.sh target/static/bin trustfleet trustfleet-agent
#
# Each program is built alone, so that none carries what only another one needs. No path of this machine is in them. The
# target directory is one of its own (CARGO_TARGET_DIR, or target/static): flags are part of what Cargo keeps, and these
# would rebuild everything else.
#
# glibc and not musl: C code of dependencies needs no second compiler for it, and the allocator is the one that everything
# was measured with. Since 2.34 glibc finds names by /etc/hosts and DNS without loading anything.
set -eu

cd "$(dirname "$0")/.."
[ $# -ge 2 ] || { echo "usage: $0 FOLDER PROGRAM..." >&2; exit 2; }
folder="$1"
shift

target="${CARGO_TARGET_DIR:-$PWD/target/static}"
cargo_home="${CARGO_HOME:-$HOME/.cargo}"
host="$(rustc --print host-tuple)"
# With a --target, Cargo leaves build scripts and macros without these flags: they are loaded by the compiler.
export CARGO_TARGET_DIR="$target"
export RUSTFLAGS="-C target-feature=+crt-static --remap-path-prefix=$target=/build --remap-path-prefix=$PWD=/src \
--remap-path-prefix=$cargo_home=/cargo"
# Times of embedded files would come from the machine.
export SOURCE_DATE_EPOCH=0
# C code of dependencies, too.
export CFLAGS="-ffile-prefix-map=$target=/build -ffile-prefix-map=$cargo_home=/cargo"

mkdir -p "$folder"
for program in "$@"; do
    profile=release
    case "$program" in
        trustfleet) package=trustfleet-controller ;;
        trustfleet-agent) package="$program" profile=release-agent ;;
        trustfleet-lab) package="$program" ;;
        *) echo "$0: there is no program $program" >&2; exit 2 ;;
    esac
    cargo build --profile "$profile" --locked --target "$host" --package "$package"
    install -m 0755 "$target/$host/$profile/$program" "$folder/$program"
done
