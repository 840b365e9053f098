#!/bin/sh
# Makes every secret of compose.yaml, and the configurations that hold one, once: each into the volume of whoever needs it.
# Users: 999 in the images of PostgreSQL and RabbitMQ, 65532 in ours.
set -eu
umask 077

if [ -e /made/operator/done ]; then
    echo 'all secrets are there'
    exit 0
fi

random() {
    od -An -N24 -tx1 /dev/urandom | tr -d ' \n'
}

superuser="$(random)" owner="$(random)" api="$(random)" system="$(random)" broker="$(random)"

printf %s "$superuser" >/made/postgres/superuser
printf %s "$owner" >/made/postgres/owner
printf %s "$api" >/made/postgres/api
printf %s "$system" >/made/postgres/system

rm -rf /made/controller/keys /made/controller/platform.token
trustfleet keys init --dir /made/controller/keys
trustfleet keys first-token --write-to /made/controller/platform.token
cp /made/controller/keys/broker-token.pub.pem /made/rabbitmq/
sed "s/@BROKER@/$broker/" /compose/rabbitmq.conf >/made/rabbitmq/rabbitmq.conf

sed "s/@API@/$api/; s/@SYSTEM@/$system/; s/@BROKER@/$broker/; /@OWNER@/d" \
    /compose/controller.toml >/made/controller/controller.toml
# Only the migration sees the owner's password.
sed "s/@API@/$api/; s/@SYSTEM@/$system/; s/@BROKER@/$broker/; s/@OWNER@/$owner/" \
    /compose/controller.toml >/made/migrate/migrate.toml

echo '[secrets]' >/made/ca-secrets/secrets.toml
for device in ap-1 ap-2; do
    secret="$(random)"
    printf %s "$secret" >"/made/ca-secrets/$device.secret"
    printf '%s = "%s"\n' "$device" "$secret" >>/made/ca-secrets/secrets.toml
done

chown -R 999:999 /made/postgres /made/rabbitmq
chown -R 65532:65532 /made/controller /made/migrate /made/ca-secrets /made/ca-files /made/join /made/operator
touch /made/operator/done
echo 'all secrets are made'
