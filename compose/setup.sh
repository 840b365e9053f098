#!/bin/sh
# What an operator does first at a new installation, by the operator's verbs: a tenant with its admin, CA server, entity
# and policy, and a one-time join token for each agent. What is there already stays.
set -eu
export TRUSTFLEET_TENANT=acme
platform=/etc/trustfleet/platform.token
admin=/run/trustfleet/acme-admin.token

# Exit code 3: the controller cannot be reached, yet.
until trustfleet tenant list --token-file "$platform" >/dev/null; do
    [ $? = 3 ] || exit 1
    sleep 1
done

there() {
    trustfleet "$@" >/dev/null 2>&1
}

there tenant show acme --token-file "$platform" ||
    trustfleet tenant create acme --display-name Acme --token-file "$platform"
[ -e "$admin" ] ||
    trustfleet token create --role admin --description compose --token-file "$platform" --write-to "$admin"
export TRUSTFLEET_TOKEN_FILE="$admin"

# The lab CA is a new one after each start of its own, so its root is told again.
until [ -s /var/lib/trustfleet-ca/root.pem ]; do
    sleep 1
done
verb=create
if there ca-server show lab; then
    verb=update
fi
trustfleet ca-server "$verb" lab --ca-name '/O=Trustfleet Lab/CN=Lab Issuing CA' \
    --primary-url http://127.0.0.1:8082/pkix/ --trust-anchor /var/lib/trustfleet-ca/root.pem
there entity show access-points ||
    trustfleet entity create access-points --subject '/O=Acme/CN={device.name}' --san 'dns:{device.name}.acme.example'
there policy show p256 || trustfleet policy create p256 --key ecdsa-p256

for agent in ap-1 ap-2; do
    there agent show "$agent" && continue
    # One that was not used in time is worth nothing any more.
    rm -f "/run/join/$agent.join-token"
    trustfleet join-token create --agent-name "$agent" --write-to "/run/join/$agent.join-token"
done
