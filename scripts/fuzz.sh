#!/bin/sh
# Fuzzes everything that reads a peer's bytes (fuzz/), by libFuzzer with AddressSanitizer, on stable Rust.
#
#   scripts/fuzz.sh             every target; FUZZ_SECONDS (600) is the time of all together, without building
#   scripts/fuzz.sh TARGET...   only these: answers, decode, records, texts
#   scripts/fuzz.sh --keep      no fuzzing: what the runs so far have found new goes into fuzz/corpus, smallest first
#
# A finding fails the script. It lies in target/fuzz/artifacts; how to replay and keep it is said at the end.
set -eu
cd "$(dirname "$0")/.."

# The compiler's instrumentation is a nightly option; this lets the pinned stable compiler take it, for these programs only.
export RUSTC_BOOTSTRAP=1
# Whole-program optimisation would only take time, and a finding needs its lines.
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_STRIP=none CARGO_PROFILE_RELEASE_DEBUG=line-tables-only

WORK="${CARGO_TARGET_DIR:-target}/fuzz"
SECONDS_IN_TOTAL="${FUZZ_SECONDS:-600}"
OPTIONS="--fuzz-dir fuzz --features libfuzzer --target-dir $WORK --codegen-units 16"

# Bounds: a run of ten seconds, of a gibibyte or with an allocation of 64 MiB is a finding.
LIMITS="-timeout=10 -rss_limit_mb=1024 -malloc_limit_mb=64"

# Of 8 parts of the time: whole runs need most of it.
parts() {
    case "$1" in
        answers) echo 4 ;;
        decode) echo 2 ;;
        records | texts) echo 1 ;;
        *) echo "fuzz: unknown target $1 (expected answers, decode, records or texts)" >&2; exit 2 ;;
    esac
}

max_len() {
    case "$1" in
        decode) echo 65536 ;;
        *) echo 16384 ;;
    esac
}

keep=
[ "${1:-}" != --keep ] || { keep=yes; shift; }
[ $# -gt 0 ] || set -- decode records texts answers
sum=0
for target in "$@"; do
    sum=$((sum + $(parts "$target")))
done

cargo run --quiet -p trustfleet-fuzz --example seeds -- "$WORK/seeds"
# shellcheck disable=SC2086 # lists of words
cargo fuzz build $OPTIONS
for target in "$@"; do
    mkdir -p "$WORK/corpus/$target" "$WORK/artifacts/$target" "fuzz/corpus/$target"
done

failed=
for target in "$@"; do
    if [ -n "$keep" ]; then
        # shellcheck disable=SC2086
        cargo fuzz run $OPTIONS "$target" "fuzz/corpus/$target" "$WORK/seeds/$target" "$WORK/corpus/$target" -- \
            -merge=1 -use_counters=0 $LIMITS -max_len="$(max_len "$target")"
        continue
    fi
    time=$((SECONDS_IN_TOTAL * $(parts "$target") / sum))
    echo "fuzz: $target, $time seconds"
    # shellcheck disable=SC2086
    cargo fuzz run $OPTIONS "$target" "$WORK/corpus/$target" "fuzz/corpus/$target" "$WORK/seeds/$target" -- \
        -max_total_time="$((time > 0 ? time : 1))" -max_len="$(max_len "$target")" $LIMITS -print_final_stats=1 \
        -artifact_prefix="$WORK/artifacts/$target/" || failed="$failed $target"
done
if [ -n "$failed" ]; then
    echo "fuzz: findings in:$failed" >&2
    find "$WORK/artifacts" -type f >&2
    echo "fuzz: copy a finding to fuzz/corpus/TARGET, then 'cargo nextest run -p trustfleet-fuzz' replays it" >&2
    exit 1
fi
