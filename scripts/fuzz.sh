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

WORK="${CARGO_TARGET_DIR:-target}/fuzz"
SECONDS_IN_TOTAL="${FUZZ_SECONDS:-600}"

# Of 8 parts of the time: whole runs need most of it.
parts() {
    case "$1" in
        answers) echo 4 ;;
        decode) echo 2 ;;
        records | texts) echo 1 ;;
        *) echo "fuzz: unknown target $1 (expected answers, decode, records or texts)" >&2; exit 2 ;;
    esac
}

# Rust guards its own memory; what is left to AddressSanitizer is the C below it, and the sizes of allocations.
CHEAP=detect_odr_violation=0:detect_leaks=0:detect_stack_use_after_return=0:malloc_context_size=0

# TARGET ARGUMENTS...: a run of ten seconds, of a gibibyte or with an allocation of 64 MiB is a finding.
fuzz() {
    program="$PROGRAMS/$1"
    prefix="$WORK/artifacts/$1/"
    case "$1" in decode) length=65536 ;; *) length=16384 ;; esac
    shift
    ASAN_OPTIONS=$CHEAP "$program" "$@" -timeout=10 -rss_limit_mb=1024 -malloc_limit_mb=64 -print_funcs=0 \
        -max_len="$length" -artifact_prefix="$prefix"
}

keep=
[ "${1:-}" != --keep ] || { keep=yes; shift; }
[ $# -gt 0 ] || set -- decode records texts answers
sum=0
for target in "$@"; do
    sum=$((sum + $(parts "$target")))
done

cargo run --quiet -p trustfleet-fuzz --example seeds -- "$WORK/seeds"

# The compiler's instrumentation is a nightly option; this lets the pinned stable compiler take it, for these programs only.
export RUSTC_BOOTSTRAP=1
# Whole-program optimisation would only take time, and a finding needs its lines.
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_STRIP=none CARGO_PROFILE_RELEASE_DEBUG=line-tables-only
cargo fuzz build --fuzz-dir fuzz --features libfuzzer --target-dir "$WORK" --codegen-units 16
PROGRAMS="$WORK/$(rustc -vV | sed -n 's/^host: //p')/release"

failed=
for target in "$@"; do
    mkdir -p "$WORK/corpus/$target" "$WORK/artifacts/$target" "fuzz/corpus/$target"
    if [ -n "$keep" ]; then
        fuzz "$target" "fuzz/corpus/$target" "$WORK/corpus/$target" "$WORK/seeds/$target" -merge=1 -use_counters=0
        continue
    fi
    time=$((SECONDS_IN_TOTAL * $(parts "$target") / sum))
    echo "fuzz: $target, $time seconds"
    fuzz "$target" "$WORK/corpus/$target" "fuzz/corpus/$target" "$WORK/seeds/$target" -print_final_stats=1 \
        -max_total_time="$((time > 0 ? time : 1))" || failed="$failed $target"
done
if [ -n "$failed" ]; then
    echo "fuzz: findings in:$failed" >&2
    find "$WORK/artifacts" -type f >&2
    echo "fuzz: copy a finding to fuzz/corpus/TARGET, then 'cargo nextest run -p trustfleet-fuzz' replays it" >&2
    exit 1
fi
