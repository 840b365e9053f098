#!/bin/sh
# A device behind each agent, once it has joined, with one trustpoint. What is there already stays.
set -eu
export TRUSTFLEET_TENANT=acme TRUSTFLEET_TOKEN_FILE=/run/trustfleet/acme-admin.token

there() {
    trustfleet "$@" >/dev/null 2>&1
}

for agent in ap-1 ap-2; do
    until there agent show "$agent"; do
        sleep 1
    done
    there device show "$agent" || trustfleet device create "$agent" --agent "$agent" --serial "SN-$agent"
    there trustpoint show "$agent" radius ||
        trustfleet trustpoint create "$agent" radius --entity access-points --ca-server lab --policy p256 \
            --mac-reference "$agent" --mac-secret-file "/run/ca/$agent.secret"
done
trustfleet agent list
echo 'two agents are there; next: docker compose run --rm operator trustpoint enroll ap-1 radius --wait'
