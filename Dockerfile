# The images of Trustfleet, for docker (BuildKit), podman and buildah:
#
#   docker build --target controller -t trustfleet-controller:0.1.0 .
#   docker build --target agent -t trustfleet-agent:0.1.0 .
#
# `make images` does both with what is there. Controller and agent are one static binary each on an empty file system: no
# shell, no package, no writable place but the volumes. The third, `lab`, is for trying things out (compose.yaml).
#
# Arguments: RUST_IMAGE (pin it by digest for builds that must be the same for years: rust@sha256:…), LAB_IMAGE,
# VERSION and REVISION for the labels. The compiler's version is the one of rust-toolchain.toml; `make interop` checks it.
ARG RUST_IMAGE=docker.io/library/rust:1.95.0-bookworm
ARG LAB_IMAGE=docker.io/library/debian:bookworm-slim

FROM ${RUST_IMAGE} AS source
WORKDIR /src
COPY . .
# Cargo goes by times of files. The caches below may come from another checkout, whose times say nothing about these.
RUN find . -type f -exec touch {} + && install -d -m 0700 /out/agent/trustfleet-agent /out/controller/trustfleet

# Each program from its own stage, so that nobody builds what is not asked for.
FROM source AS build-agent
RUN --mount=type=cache,id=trustfleet-registry,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,id=trustfleet-build,target=/build,sharing=locked \
    CARGO_HOME=/usr/local/cargo CARGO_TARGET_DIR=/build scripts/static.sh /out trustfleet-agent

FROM scratch AS agent
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="trustfleet-agent" \
    org.opencontainers.image.description="Trustfleet's device agent: runs CMP next to the device, keeps its keys there" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
COPY --from=build-agent /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build-agent --chown=65532:65532 /out/agent /var/lib
COPY --from=build-agent /out/trustfleet-agent /usr/local/bin/trustfleet-agent
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/trustfleet-agent"]
CMD ["run", "--config", "/etc/trustfleet-agent/agent.toml"]

FROM source AS build-controller
RUN --mount=type=cache,id=trustfleet-registry,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,id=trustfleet-build,target=/build,sharing=locked \
    CARGO_HOME=/usr/local/cargo CARGO_TARGET_DIR=/build scripts/static.sh /out trustfleet

FROM scratch AS controller
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="trustfleet-controller" \
    org.opencontainers.image.description="Trustfleet's controller, and the operator's command line" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
COPY --from=build-controller /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build-controller --chown=65532:65532 /out/controller /var/lib
COPY --from=build-controller /out/trustfleet /usr/local/bin/trustfleet
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/trustfleet"]
CMD ["serve", "--config", "/etc/trustfleet/controller.toml"]

FROM source AS build-lab
RUN --mount=type=cache,id=trustfleet-registry,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,id=trustfleet-build,target=/build,sharing=locked \
    CARGO_HOME=/usr/local/cargo CARGO_TARGET_DIR=/build scripts/static.sh /out trustfleet-lab trustfleet

# Not for production: a CA that forgets its keys when it ends, and a shell for the set-up scripts of compose.yaml.
FROM ${LAB_IMAGE} AS lab
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="trustfleet-lab" \
    org.opencontainers.image.description="NOT FOR PRODUCTION: Trustfleet's lab CA, and a shell with the operator's command line" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
COPY --from=build-lab /out/trustfleet /out/trustfleet-lab /usr/local/bin/
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/trustfleet-lab"]
CMD ["--help"]
