#!/bin/sh
# Installs what building and testing need, and nothing that is already there.
#
#   scripts/setup.sh          what the programs, the demo and the tests need from the distribution, and Rust
#   scripts/setup.sh test     also cargo-nextest, and the services that tests give certificates to
#   scripts/setup.sh lint     also cargo-deny
#   scripts/setup.sh fuzz     also cargo-fuzz, and the C++ compiler for libFuzzer
#
# On Debian, as root or with sudo that asks no password, missing packages are installed, without starting any of their
# services. Elsewhere it says what is missing and fails.
set -eu

RUST_MINIMUM=1.95
NEXTEST_VERSION=0.9.143
DENY_VERSION=0.20.2
FUZZ_VERSION=0.13.1

main() {
    case "${1:-}" in
        --install-packages) shift; install_packages "$@"; return ;;
        '' | test | lint | fuzz) ;;
        *) say "unknown argument: $1 (expected nothing, test, lint or fuzz)"; exit 2 ;;
    esac
    purpose="${1:-}"
    packages
    rust
    case "${1:-}" in
        test) cargo_tool cargo-nextest "$NEXTEST_VERSION" ;;
        lint) cargo_tool cargo-deny "$DENY_VERSION" ;;
        fuzz) cargo_tool cargo-fuzz "$FUZZ_VERSION" ;;
    esac
}

say() {
    echo "setup: $*" >&2
}

have() {
    command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ]
}

# Real services that take certificates in tests.
missing_services() {
    have freeradius || echo freeradius
    have eapol_test || echo eapoltest
    have charon-systemd || echo charon-systemd
    have swanctl || echo strongswan-swanctl
    ls /usr/lib/ipsec/plugins/libstrongswan-openssl.so >/dev/null 2>&1 || echo libstrongswan-standard-plugins
    have ip || echo iproute2
}

# The Debian packages whose programs are not there.
missing_packages() {
    have initdb || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || echo postgresql
    have psql || echo postgresql-client
    ls /usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server >/dev/null 2>&1 || echo rabbitmq-server
    have promtool || echo prometheus
    have openssl || echo openssl
    have nginx || echo nginx-light
    have softhsm2-util || echo softhsm2
    have cc || echo gcc
    [ "$purpose" != test ] || missing_services
    [ "$purpose" != fuzz ] || have c++ || echo g++
    [ -e /usr/include/stdio.h ] || echo libc6-dev
    have make || echo make
    have pkg-config || echo pkg-config
    have setpriv || echo util-linux
    have git || echo git
    # GNU time for make bench; the path, because a shell may have a word of its own for it
    [ -x /usr/bin/time ] || echo time
    [ -e /etc/ssl/certs/ca-certificates.crt ] || echo ca-certificates
}

packages() {
    missing="$(missing_packages | tr '\n' ' ')"
    [ -n "$missing" ] || return 0
    say "missing: $missing"
    if ! have apt-get; then
        say "this is not Debian: please install the programs of these Debian packages, then try again"
        exit 1
    fi
    # shellcheck disable=SC2086 # a list of words
    if [ "$(id -u)" = 0 ]; then
        install_packages $missing
    elif have sudo && sudo -n true 2>/dev/null; then
        sudo -n sh scripts/setup.sh --install-packages $missing
    else
        say "not root, and sudo needs a password or is not there; please run as root, then try again:"
        say "    sh $PWD/scripts/setup.sh --install-packages $missing"
        exit 1
    fi
    missing="$(missing_packages | tr '\n' ' ')"
    if [ -n "$missing" ]; then
        say "still missing after the installation: $missing"
        exit 1
    fi
}

# As root. policy-rc.d is Debian's way to say that no service may be started while packages are installed.
install_packages() {
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        trap 'rm -f "$policy"' EXIT
        trap 'exit 130' INT
        trap 'exit 143' TERM HUP
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    export DEBIAN_FRONTEND=noninteractive
    set -- -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends "$@"
    apt-get "$@" </dev/null || { apt-get -q -o DPkg::Lock::Timeout=300 update </dev/null && apt-get "$@" </dev/null; }
    say "installed; no service was started (where systemd runs, the packages' own services would start at the next boot:"
    say "'systemctl disable postgresql rabbitmq-server prometheus nginx freeradius strongswan' if you do not want them; Trustfleet"
    say "does not use them)"
}

rust() {
    if ! have cargo || ! have rustc; then
        say "Rust is missing; please install it (https://rustup.rs), then try again:"
        say "    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal"
        exit 1
    fi
    found="$(rustc --version | cut -d' ' -f2)"
    if [ "$(printf '%s\n%s\n' "$RUST_MINIMUM" "$found" | sort -V | head -n 1)" != "$RUST_MINIMUM" ]; then
        say "Rust $found is too old, $RUST_MINIMUM is needed: 'rustup update', or see https://rustup.rs"
        exit 1
    fi
}

cargo_tool() {
    if ! have "$1"; then
        say "installing $1 $2 with cargo (some minutes)"
        cargo install --locked "$1@$2"
    fi
}

PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
cd "$(dirname "$0")/.."
main "$@"
