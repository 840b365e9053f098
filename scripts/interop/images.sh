#!/usr/bin/env bash
# images.sh: builds the images of the Dockerfile by buildah, as `make images` does, and holds them to what is promised.
# As root: it makes root file systems.
#
# No registry of images is asked: the two base images are made here, of Debian's packages (debootstrap) and of the Rust
# that is installed. Everything lies in target/interop/images; what the compiler made stays there, for the next run. The
# files of each image are left in target/interop/images/files, for the checks that start them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# What buildah mounts is gone with this process.
[ "${INTEROP_MOUNTS:-}" = own ] || INTEROP_MOUNTS=own exec unshare --mount --propagation private "$PWD/scripts/interop/images.sh"

work="$(realpath "${CARGO_TARGET_DIR:-target}")/interop/images"
suite=bookworm
rust="$(rustc --version | cut -d' ' -f2)"
version="$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' Cargo.toml)"
export BUILDAH_ISOLATION=chroot CONTAINERS_STORAGE_CONF="$work/storage.conf" TMPDIR="$work/tmp"

main() {
    mkdir -p "$work/tmp" "$work/files"
    # One at a time: what follows clears away what an interrupted run has left.
    exec 9>"$work/lock"
    flock 9
    rm -rf "${work:?}/run"
    storage
    # Of a run that was interrupted.
    buildah rm --all >/dev/null
    same_versions
    base
    local begin=$SECONDS
    RUST_IMAGE=localhost/trustfleet-rust:$rust LAB_IMAGE=localhost/trustfleet-debian:$suite TOOL=buildah OPTIONS='--layers --quiet' \
        scripts/images.sh agent controller lab >"$work/build.log" 2>&1 || { tail -n 40 "$work/build.log"; exit 1; }
    echo "three images are built by buildah ($((SECONDS - begin)) s)"
    for image in agent controller lab; do
        files "$image"
    done
    only agent usr/local/bin/trustfleet-agent var/lib/trustfleet-agent
    only controller usr/local/bin/trustfleet var/lib/trustfleet
    reproducible
}

# Overlays where the kernel has them, else whole copies.
storage() {
    [ ! -e "$work/storage.conf" ] || return 0
    local driver
    for driver in overlay vfs; do
        printf '[storage]\ndriver = "%s"\ngraphroot = "%s"\nrunroot = "%s"\n' \
            "$driver" "$work/storage" "$work/run" >"$work/storage.conf"
        if buildah info >/dev/null 2>&1; then
            return 0
        fi
        rm -rf "$work/storage" "$work/run"
    done
    echo "buildah has no storage driver here"
    exit 1
}

same_versions() {
    local wanted named
    if [ "$(sed -n 's/^ARG VERSION=//p' Dockerfile; sed -n 's/^appVersion: "\?\([^"]*\)"\?$/\1/p' helm/*/Chart.yaml)" != \
        "$(yes "$version" | head -n 5)" ]; then
        echo "Dockerfile (three times) and the charts' appVersion must say $version, as Cargo.toml does"
        exit 1
    fi
    wanted="$(sed -n 's/^channel = "\(.*\)"$/\1/p' rust-toolchain.toml)"
    named="$(sed -n 's/^ARG RUST_IMAGE=.*rust:\([0-9.]*\)-.*$/\1/p' Dockerfile)"
    if [ "$wanted" != "$named" ]; then
        echo "Dockerfile builds with Rust $named, rust-toolchain.toml says $wanted"
        exit 1
    fi
}

# Debian, and Debian with gcc and Rust: what docker.io/library/debian and rust have of it.
base() {
    local container folder
    if ! buildah inspect --type image "localhost/trustfleet-debian:$suite" >/dev/null 2>&1; then
        container="$(buildah from scratch)"
        folder="$(buildah mount "$container")"
        debootstrap --variant=minbase --include=ca-certificates "$suite" "$folder" http://deb.debian.org/debian \
            >"$work/base.log" 2>&1 || { tail -n 20 "$work/base.log"; exit 1; }
        # A site's own roots, if its mirrors need them.
        cp /etc/ssl/certs/ca-certificates.crt "$folder/etc/ssl/certs/ca-certificates.crt"
        commit "$container" "trustfleet-debian:$suite"
    fi
    if ! buildah inspect --type image "localhost/trustfleet-rust:$rust" >/dev/null 2>&1; then
        container="$(buildah from --pull-never "localhost/trustfleet-debian:$suite")"
        folder="$(buildah mount "$container")"
        buildah run "$container" sh -c 'apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q -y install \
            --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists /var/cache/apt' \
            >"$work/base.log" 2>&1 || { tail -n 20 "$work/base.log"; exit 1; }
        mkdir -p "$folder/usr/local/rust" "$folder/usr/local/cargo"
        cp -rL "$(rustc --print sysroot)"/{bin,lib} "$folder/usr/local/rust/"
        buildah config --env PATH=/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
        commit "$container" "trustfleet-rust:$rust"
    fi
}

commit() {
    buildah umount "$1" >/dev/null
    buildah commit --quiet --rm "$1" "localhost/$2" >/dev/null
}

# The files of an image, to $work/files/IMAGE; what an orchestrator reads of it, to $work/files/IMAGE.json.
files() {
    local container folder
    container="$(buildah from --pull-never "localhost/trustfleet-$1:$version")"
    folder="$(buildah mount "$container")"
    rm -rf "${work:?}/files/$1"
    cp -a "$folder" "$work/files/$1"
    buildah umount "$container" >/dev/null
    buildah rm "$container" >/dev/null
    buildah inspect --type image "localhost/trustfleet-$1:$version" >"$work/files/$1.json"
    python3 - "$work/files/$1.json" "$version" <<'PY'
import json, sys
config = json.load(open(sys.argv[1]))["OCIv1"]["config"]
labels = config["Labels"]
assert config["User"] == "65532:65532", config["User"]
assert len(config["Entrypoint"]) == 1, config["Entrypoint"]
assert labels["org.opencontainers.image.version"] == sys.argv[2], labels
assert labels["org.opencontainers.image.revision"][:40].isalnum(), labels
assert "debian" in str(config.get("Env")) or not [e for e in config.get("Env", []) if not e.startswith("PATH=")], config
PY
}

# only IMAGE PROGRAM STATE: one static program, the roots of TLS, an empty folder of the image's user, and nothing else.
only() {
    local root="$work/files/$1" wanted found
    wanted="$(printf '%s\n' etc/ssl/certs/ca-certificates.crt "$2" | sort)"
    found="$(cd "$root" && find . ! -type d -printf '%P\n' | sort)"
    if [ "$found" != "$wanted" ]; then
        echo "the image $1 holds other files than expected:"
        diff <(echo "$wanted") <(echo "$found") || true
        exit 1
    fi
    if [ "$(stat -c %u:%g "$root/$3")" != 65532:65532 ]; then
        echo "/$3 of the image $1 does not belong to its user"
        exit 1
    fi
    if readelf -lW "$root/$2" | grep -q INTERP || readelf -dW "$root/$2" | grep -q NEEDED; then
        echo "$2 of the image $1 is not static"
        exit 1
    fi
    echo "$1: /$2, $(($(stat -c %s "$root/$2") / 1000)) kB, static; TLS roots; nothing else, no shell; user 65532"
}

# The agent once more: from another path, with a Cargo home and a target directory of its own. Only when it has changed; the
# controller would take several minutes more each time.
reproducible() {
    local container hash
    hash="$(sha256sum <"$work/files/agent/usr/local/bin/trustfleet-agent" | cut -d' ' -f1)"
    if [ "$(cat "$work/reproduced" 2>/dev/null)" != "$hash" ]; then
        mkdir -p "$work/again"
        container="$(buildah from --pull-never "localhost/trustfleet-rust:$rust")"
        git ls-files -z --cached --others --exclude-standard Cargo.toml Cargo.lock shared controller device-agent lab fuzz migrations \
            scripts/static.sh | tar -c --ignore-failed-read --null --files-from - |
            buildah run --volume "$work/again:/another" "$container" sh -c 'mkdir -p /elsewhere/is/it && cd /elsewhere/is/it &&
                tar -xm && CARGO_HOME=/another/home CARGO_TARGET_DIR=/another/made scripts/static.sh /again \
                trustfleet-agent && sha256sum </again/trustfleet-agent' >"$work/again.log" 2>&1 ||
            { tail -n 20 "$work/again.log"; exit 1; }
        buildah rm "$container" >/dev/null
        if [ "$(tail -n 1 "$work/again.log" | cut -d' ' -f1)" != "$hash" ]; then
            echo "built from another path the agent is another one: $hash and $(tail -n 1 "$work/again.log")"
            exit 1
        fi
        echo "$hash" >"$work/reproduced"
    fi
    echo "the agent built again, from another path and by a Cargo of its own, is the same: sha256 ${hash:0:16}…"
}

main
