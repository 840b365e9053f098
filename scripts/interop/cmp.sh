#!/usr/bin/env bash
# CMP against implementations that Debian does not have: a newer OpenSSL, and the ASN.1 of pyasn1. Checks of `make interop`
# (docs/interop.md), which can also be run alone, and from everywhere:
#
#   scripts/interop/cmp.sh newer      what only a newer OpenSSL can: the tests that ask for one
#   scripts/interop/cmp.sh again      the tests that run with Debian's OpenSSL, with the newer one
#   scripts/interop/cmp.sh vectors    the messages of tests/vectors, made anew by both, are read
#   scripts/interop/cmp.sh asn1       messages of ours, read by pyasn1; its own, made again byte for byte
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

tools="$(realpath -m "${CARGO_TARGET_DIR:-target}")/interop"
vectors=shared/cmp/tests/vectors

# What is about OpenSSL 3.0's server alone: it repeats questions, delays no certConf, and knows the certificate that may be
# revoked without being told. Checks of their own (`newer`) are about what became of that.
ONLY_OLDER=(--skip r9_genm_questions_are_read_and_their_echo_is_taken_for_no_information
    --skip w1_a_waiting_answer_is_polled_for_at_the_servers_pace
    --skip w1_a_waiting_p10cr_is_polled_for
    --skip r8_a_refused_rr_is_read_with_its_reasons
    --skip an_rr_is_about_our_certificate_or_about_one_by_issuer_and_serial_number
    --skip a_genm_asks_and_an_echo_is_no_information
    --skip a_request_follows_the_cas_template_or_says_that_there_is_none
    --skip polling_is_waited_for_and_its_messages_are_named)

main() {
    [ $# = 1 ] || usage
    scripts/interop/tools.sh cmp
    case "$1" in
        newer) newer ;;
        again) again ;;
        vectors) vectors ;;
        asn1) asn1 ;;
        *) usage ;;
    esac
}

usage() {
    echo "usage: $0 newer|again|vectors|asn1" >&2
    exit 2
}

newer() {
    with_newer_openssl
    run newer_openssl --ignored
    run newer_openssl_asks_the_lab_ca --ignored
    run it newer_openssl --ignored
}

again() {
    with_newer_openssl
    run openssl_mock "${ONLY_OLDER[@]}"
    run openssl_signatures
    run pbmac1
    run openssl_asks_the_lab_ca
    run openssl_enrols_at_the_lab_ca
    run it cmp_cli "${ONLY_OLDER[@]}"
}

# Its keys and times differ, so what is in the messages is compared, not their bytes.
vectors() {
    with_newer_openssl
    made="$(mktemp -d)"
    trap 'rm -rf "$made"' EXIT
    sh "$vectors/make.sh" "$made" >/dev/null 2>&1
    export PATH="$tools/venv-asn1/bin:$PATH"
    python3 "$vectors/make_pyasn1.py" "$made" >/dev/null
    python3 "$vectors/make_pbmac1.py" "$made" >/dev/null
    [ "$(names "$made")" = "$(names "$vectors")" ] || {
        echo "made anew: $(names "$made")"
        echo "kept: $(names "$vectors")"
        return 1
    }
    TRUSTFLEET_VECTORS="$made" run vectors
}

names() {
    (cd "$1" && ls ./*.der)
}

asn1() {
    export PATH="$tools/venv-asn1/bin:$PATH"
    run foreign_asn1 --ignored
}

with_newer_openssl() {
    export PATH="$tools/openssl/bin:$PATH"
    openssl version
}

# run TEST ARGUMENT...: what `cargo test` runs in the binaries of that name. All packages that have to do with CMP are
# named, so that what one check builds fits the next. A filter that finds nothing is no success.
run() {
    test="$1"
    shift
    said="$(cargo test --quiet --workspace --exclude trustfleet-controller --test "$test" -- "$@" 2>&1)" || {
        echo "$said"
        return 1
    }
    passed="$(sed -n 's/^test result: ok\. \([0-9]*\) passed.*/\1/p' <<<"$said" | awk '{ sum += $1 } END { print sum + 0 }')"
    [ "$passed" -gt 0 ] || {
        echo "no test ran: $test $*"
        return 1
    }
    echo "$test: $passed tests"
}

main "$@"
