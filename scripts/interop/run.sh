#!/usr/bin/env bash
# `make interop`: the charts under the real tools, and the programs under the charts. docs/interop.md says what each
# check proves. Everything that it gets or makes lies in target/interop; it changes nothing in the checkout and speaks to
# no cluster.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

target="${CARGO_TARGET_DIR:-target}"
cache="$target/interop"
out="$cache/rendered"
here=scripts/interop
charts=(trustfleet trustfleet-agent)
export KUBECONFIG=/dev/null HELM_CACHE_HOME="$cache/helm-home" HELM_CONFIG_HOME="$cache/helm-home" \
    HELM_DATA_HOME="$cache/helm-home" PYTHONDONTWRITEBYTECODE=1

main() {
    "$here/tools.sh"
    rm -rf "$out" "$cache/charts" "$cache/log"
    mkdir -p "$out" "$cache/charts" "$cache/packages" "$out/crds"
    oldest="$(sed -n 's/^kubeVersion: ">=\([0-9]*\.[0-9]*\)\.0-0"$/\1/p' helm/trustfleet/Chart.yaml)"
    newest="$(python -c 'import kubernetes_validate; print(kubernetes_validate.latest_version())')"

    echo "$(helm3 version --short), $(helm4 version --short), Kubernetes $oldest to $newest"
    step "both charts support the same Kubernetes" same_kubernetes
    step "README tables are the values" each_chart values_tables
    step "value schemas are closed and complete" each_chart schemas
    step "dashboards and rules in the chart are the originals" "$here/dashboards.sh"
    step "charts pass helm lint --strict" lint
    step "charts render, alike with both helms" render
    step "wrong values are refused" refusals
    step "manifests are valid, strictly, and keep what the chart promises" \
        python "$here/manifests.py" "$oldest" "$out/crds" "$out"/*.yaml
    step "kubectl of both releases reads the manifests" kubectl_reads
    step "objects of the Prometheus operator fit its schemas, rules and dashboards come through unchanged" crds
    step "checkov finds nothing that is not excused" \
        python "$here/checkov.py" "$cache/venv-checkov/bin/checkov" "$out"
    step "the programs take the rendered configurations" \
        python "$here/configurations.py" "$target/debug/trustfleet" "$target/debug/trustfleet-agent" "$out"/*.yaml
    step "the release runs: migration, two replicas, first token, an agent" \
        "$target/debug/trustfleet-lab" stack --quiet -- "$cache/venv/bin/python" "$here/release.py" \
        "$cache/helm4/helm" "$cache/helm4/kubectl" "$target/debug/trustfleet" "$target/debug/trustfleet-agent"
    step "systemd's own tools find no fault in the units, the programs keep to their filters" \
        python "$here/systemd.py" "$target/debug/trustfleet" "$target/debug/trustfleet-agent"
    step "compose.yaml fits the schema of the Compose specification" \
        "$cache/venv/bin/check-jsonschema" --builtin-schema vendor.compose-spec compose.yaml
    step "the images are built, and hold one static program each" as_root "$here/images.sh"
    step "compose.yaml comes up: migration, controller, lab CA, two agents, a device enrolled" \
        as_root "$cache/venv/bin/python" "$here/compose.py" "$cache/images/files"
    step "CMP at a newer OpenSSL: ML-DSA, delayed confirmations, profiles, templates, updates of roots and CRLs" \
        "$here/cmp.sh" newer
    step "what is tested with Debian's OpenSSL holds with the newer one" "$here/cmp.sh" again
    step "the messages of tests/vectors, made anew, are read" "$here/cmp.sh" vectors
    step "pyasn1 reads our messages, and computes their MACs" "$here/cmp.sh" asn1
    step "the API keeps to its own OpenAPI document, whatever is sent" \
        "$target/debug/trustfleet-lab" stack --quiet -- "$cache/venv/bin/python" "$here/api.py" \
        "$cache/venv-schemathesis/bin/schemathesis" "$target/debug/trustfleet"
    echo "interop passed: $steps checks"
}

steps=0

# step TITLE COMMAND...: what it says is shown below the title.
step() {
    steps=$((steps + 1))
    printf '\n%2d. %s\n' "$steps" "$1"
    shift
    if ! "$@" >"$cache/log" 2>&1; then
        sed 's/^/    /' "$cache/log"
        echo "interop FAILED at check $steps" >&2
        exit 1
    fi
    sed 's/^/    /' "$cache/log"
}

helm3() { "$cache/helm3/helm" "$@"; }
helm4() { "$cache/helm4/helm" "$@"; }
python() { "$cache/venv/bin/python" "$@"; }

# Root file systems and namespaces are root's.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif sudo -n true 2>/dev/null; then
        sudo -n env PATH="$PATH" HOME="$HOME" CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-}" PYTHONDONTWRITEBYTECODE=1 "$@"
    else
        echo "this check makes root file systems: run make interop as root, or where sudo asks no password"
        return 1
    fi
}

each_chart() {
    local failed=0
    for chart in "${charts[@]}"; do
        "$1" "$chart" || failed=1
    done
    return "$failed"
}

same_kubernetes() {
    grep -h ^kubeVersion: helm/*/Chart.yaml | sort | uniq -c
    [ -n "$oldest" ] && [ "$(grep -h ^kubeVersion: helm/*/Chart.yaml | sort -u | wc -l)" = 1 ]
}

values_tables() { python "$here/values_table.py" "helm/$1"; }
schemas() { python "$here/schema.py" "helm/$1"; }

# The chart as it is rendered.
prepare() {
    [ -d "$cache/charts/$1" ] || cp -r "helm/$1" "$cache/charts/$1"
}

lint() {
    for chart in "${charts[@]}"; do
        prepare "$chart"
        for values in "helm/$chart"/ci/*.yaml; do
            for helm in helm3 helm4; do
                "$helm" lint --strict --quiet "$cache/charts/$chart" -f "$values" || return 1
            done
        done
        for helm in helm3 helm4; do
            "$helm" package "$cache/charts/$chart" -d "$cache/packages" >/dev/null || return 1
        done
    done
    echo "${#charts[@]} charts, each with $(find helm/trustfleet/ci -name '*.yaml' | wc -l) sets of values, helm 3 and helm 4; packaged"
}

render() {
    local rendered=0
    for chart in "${charts[@]}"; do
        for values in "helm/$chart"/ci/*-values.yaml; do
            case="$(basename "$values" -values.yaml)"
            for version in "$oldest" "$newest"; do
                for helm in helm3 helm4; do
                    "$helm" template fleet "$cache/charts/$chart" -n "case-$case" --kube-version "$version" -f "$values" \
                        >"$out/$helm-$version" || return 1
                    cmp "$out/$helm-$version" "$out/helm3-$oldest" || return 1
                done
            done
            mv "$out/helm3-$oldest" "$out/$chart-$case.yaml"
            rm -f "$out"/helm[34]-*
            rendered=$((rendered + 1))
        done
    done
    echo "$rendered renderings, each the same by helm 3 and helm 4, for Kubernetes $oldest and $newest"
}

# refused HELM CHART TEXT OPTION...: must fail, and say TEXT.
refused() {
    local helm="$1" chart="$2" text="$3"
    shift 3
    if said="$("$helm" template fleet "$cache/charts/$chart" -f "helm/$chart/ci/1-required-values.yaml" "$@" 2>&1)"; then
        echo "$helm took: $*"
        return 1
    fi
    if ! grep -qi -e "$text" <<<"$said"; then
        echo "$helm refused, but did not say '$text': $* : $said"
        return 1
    fi
}

refusals() {
    for helm in helm3 helm4; do
        refused "$helm" trustfleet colour --set colour=red || return 1
        refused "$helm" trustfleet colour --set config.http.colour=red || return 1
        refused "$helm" trustfleet colour --set networkPolicy.colour=red || return 1
        refused "$helm" trustfleet colour --set image.colour=red || return 1
        refused "$helm" trustfleet replicas --set replicas=1 || return 1
        refused "$helm" trustfleet claim_s --set config.outbox.claim_s=0 || return 1
        refused "$helm" trustfleet agent_url --set config.broker.agent_url=amqps://user:word@broker || return 1
        refused "$helm" trustfleet agent_url --set config.broker.agent_url= || return 1
        refused "$helm" trustfleet image.repository --set image.repository= || return 1
        refused "$helm" trustfleet host --set ingress.enabled=true || return 1
        refused "$helm" trustfleet tlsSecret --set ingress.enabled=true,ingress.host=a.example || return 1
        refused "$helm" trustfleet kubeVersion --kube-version "1.$((${oldest#1.} - 1))" || return 1
        refused "$helm" trustfleet-agent colour --set config.colour=red || return 1
        refused "$helm" trustfleet-agent colour --set joinToken.colour=red || return 1
        refused "$helm" trustfleet-agent sample_ratio --set config.traces.sample_ratio=2 || return 1
        refused "$helm" trustfleet-agent controller_url --set config.controller_url= || return 1
    done
    echo "16 kinds of wrong values, by helm 3 and helm 4"
}

kubectl_reads() {
    for file in "$out"/*.yaml; do
        for kubectl in helm3/kubectl helm4/kubectl; do
            "$cache/$kubectl" annotate --local -f "$file" interop=yes -o name >"$cache/names" || return 1
            [ -s "$cache/names" ] || return 1
        done
    done
    echo "$(find "$out" -name '*.yaml' | wc -l) files"
}

crds() {
    cp "$here/crds.mjs" "$cache/node/crds.mjs"
    node "$cache/node/crds.mjs" "$out/crds" || return 1
    python "$here/verbatim.py" "$out/trustfleet-2-all-on.yaml"
}

main
