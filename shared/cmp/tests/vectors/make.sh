#!/bin/sh
# Makes the messages of this folder anew with OpenSSL's CMP client and mock server (README.md says how they are used).
# Usage: make.sh FOLDER      (written with OpenSSL 3.0.19)
set -eu
cd "$1"
port=18341

openssl genrsa -out ca.key 2048
openssl req -x509 -new -key ca.key -out ca.crt -days 7000 -subj "/O=Lab/CN=Mock CA" \
    -addext keyUsage=critical,digitalSignature,keyCertSign
printf 'subjectKeyIdentifier=hash\nkeyUsage=critical,digitalSignature\n' >extensions
openssl ecparam -name prime256v1 -genkey -noout -out dev.key
openssl req -new -key dev.key -subj "/CN=dev1" -out dev.csr
openssl x509 -req -in dev.csr -CA ca.crt -CAkey ca.key -days 6900 -extfile extensions -out dev.crt
openssl genrsa -out old.key 2048
openssl req -new -key old.key -subj "/CN=dev1" -out old.csr
openssl x509 -req -in old.csr -CA ca.crt -CAkey ca.key -days 6900 -extfile extensions -out old.crt

# exchange NAME SERVER-ARGUMENTS -- CLIENT-ARGUMENTS: messages go to NAME-q1.der, NAME-r1.der, ...
exchange() {
    name=$1
    shift
    server=
    while [ "$1" != -- ]; do
        server="$server $1"
        shift
    done
    shift
    # shellcheck disable=SC2086
    openssl cmp -config "" -port $port -rsp_cert dev.crt $server >/dev/null 2>&1 &
    pid=$!
    sleep 0.5
    openssl cmp -config "" -server 127.0.0.1:$port -path pkix/ -recipient "/O=Lab/CN=Mock CA" -newkey dev.key \
        -reqout "$name-q1.der $name-q2.der $name-q3.der $name-q4.der" \
        -rspout "$name-r1.der $name-r2.der $name-r3.der $name-r4.der" "$@" || true
    kill $pid
    wait $pid || true
    port=$((port + 1))
}
by_mac="-srv_ref dev1 -srv_secret pass:S3cret-of-dev1"
by_signature="-srv_cert ca.crt -srv_key ca.key -srv_trusted ca.crt"
ir_mac="-cmd ir -ref dev1 -secret pass:S3cret-of-dev1 -subject /CN=dev1 -certout out.crt"

# shellcheck disable=SC2086
{
    exchange ir-mac $by_mac -rsp_capubs ca.crt -- $ir_mac -mac hmacWithSHA256 -days 30 -sans dev1.example
    exchange ir-implicit $by_mac -grant_implicitconf -- $ir_mac -implicit_confirm
    exchange ir-signature $by_signature -- -cmd ir -cert old.crt -key old.key -trusted ca.crt -subject /CN=dev1 \
        -certout out.crt
    exchange cr-signature $by_signature -- -cmd cr -cert old.crt -key old.key -trusted ca.crt -subject /CN=dev1 \
        -certout out.crt
    # the mock server updates only the certificate that it returns
    exchange kur-signature $by_signature -rsp_cert old.crt -- -cmd kur -cert old.crt -key old.key -newkey old.key \
        -trusted ca.crt -certout out.crt
    exchange poll $by_mac -poll_count 2 -check_after 1 -- $ir_mac
    exchange rejected $by_mac -pkistatus 2 -failurebits 68157953 -statusstring no -- $ir_mac
    exchange error $by_mac -send_error -- $ir_mac
    exchange unprotected-error $by_mac -send_error -send_unprotected -- $ir_mac
    exchange genm $by_mac -- -cmd genm -ref dev1 -secret pass:S3cret-of-dev1 -infotype signKeyPairTypes
    exchange rr $by_signature -- -cmd rr -oldcert dev.crt -cert old.crt -key old.key -trusted ca.crt -revreason 4
}
rm -f ./*.key ./*.csr out.crt old.crt extensions
