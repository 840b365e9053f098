#!/bin/sh
# `make images`: the images of controller and agent (and of the lab, with `scripts/images.sh lab`), by whichever of
# docker, podman and buildah is here, or by the one that TOOL names.
#
# Labels and time stamps come from the commit. By podman and buildah those of the files in the images, too; docker leaves
# these as they were made, unless its builder and OPTIONS="--output type=docker,rewrite-timestamp=true" change them.
# RUST_IMAGE and LAB_IMAGE in the environment name other base images, OPTIONS holds more options for the build.
set -eu
cd "$(dirname "$0")/.."

version="$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' Cargo.toml)"
revision="$(git rev-parse HEAD 2>/dev/null || echo unknown)"
epoch="${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}"
if [ -n "$(git status --porcelain 2>/dev/null)" ]; then
    revision="$revision-changed"
fi

tool="${TOOL:-}"
# A client of docker without its engine is not docker.
for found in docker podman buildah; do
    [ -n "$tool" ] || ! "$found" info >/dev/null 2>&1 || tool="$found"
done
case "$tool" in
    docker) build='docker build' ;;
    podman) build="podman build --timestamp $epoch" ;;
    buildah) build="buildah bud --timestamp $epoch" ;;
    *) echo "images: docker, podman or buildah is needed, found: ${tool:-none}" >&2; exit 1 ;;
esac

[ $# -gt 0 ] || set -- controller agent
for image in "$@"; do
    # shellcheck disable=SC2086 # lists of words
    $build --file Dockerfile --target "$image" --tag "trustfleet-$image:$version" \
        --build-arg VERSION="$version" --build-arg REVISION="$revision" --build-arg SOURCE_DATE_EPOCH="$epoch" \
        ${RUST_IMAGE:+--build-arg RUST_IMAGE="$RUST_IMAGE"} ${LAB_IMAGE:+--build-arg LAB_IMAGE="$LAB_IMAGE"} \
        ${OPTIONS:-} .
    echo "images: trustfleet-$image:$version ($revision) by $tool"
done
