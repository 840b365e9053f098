#!/bin/sh
# Makes the certificates of the fuzzers' world, with OpenSSL 3.0 or newer: ./make.sh FOLDER (empty, or it is emptied of *.der).
#
# The Ed25519 keys are the hashes of their names, as in src/world.rs, so no private key is kept but that of the RSA device.
# Once made, the files stay as they are: the corpus holds their bytes.
set -eu
cd "$1"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
rm -f ./*.der

key() { # NAME: an Ed25519 key from its name
    seed="$(printf 'trustfleet fuzz key %s' "$1" | sha256sum | cut -d' ' -f1)"
    printf '%s%s' 302e020100300506032b657004220420 "$seed" | xxd -r -p | openssl pkey -inform DER -out "$work/$1.key"
}

root() { # FILE KEY SUBJECT DAYS: a self-signed CA
    openssl req -x509 -new -key "$work/$2.key" -subj "$3" -days "$4" -set_serial "$5" -config "$work/empty" \
        -extensions ca -outform DER -out "$1.der"
    openssl x509 -inform DER -in "$1.der" -out "$work/$1.crt"
}

issue() { # FILE KEY SUBJECT CA DAYS SERIAL EXTENSIONS: a certificate by a CA (its file and its key have one name)
    openssl req -new -key "$work/$2.key" -subj "$3" -config "$work/empty" -out "$work/csr"
    printf 'subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n%b' "$7" >"$work/extensions"
    openssl x509 -req -in "$work/csr" -CA "$work/$4.crt" -CAkey "$work/$4.key" -days "$5" -set_serial "$6" \
        -extfile "$work/extensions" -outform DER -out "$1.der" 2>/dev/null
    openssl x509 -inform DER -in "$1.der" -out "$work/$1.crt"
}

cat >"$work/empty" <<END
[req]
distinguished_name = dn
[dn]
[ca]
basicConstraints = critical,CA:true
keyUsage = critical,keyCertSign,cRLSign,digitalSignature
subjectKeyIdentifier = hash
END

for name in ca cmp sibling old device other stranger next; do key "$name"; done
openssl genrsa -out "$work/rsa.key" 2048 2>/dev/null
openssl pkcs8 -topk8 -nocrypt -in "$work/rsa.key" -outform DER -out rsa-key.der

END_ENTITY='basicConstraints=critical,CA:false\nkeyUsage=critical,digitalSignature\n'
NAMES='subjectAltName=DNS:dev1.example\n'
CA='/O=Lab/CN=Issuing CA'
root ca ca "$CA" 7300 1
root stranger stranger "$CA" 7300 1
root next next "$CA" 7300 2
issue cmp cmp '/O=Lab/CN=CMP' ca 7300 0x41 "${END_ENTITY}extendedKeyUsage=1.3.6.1.5.5.7.3.27\n"
issue sibling sibling '/CN=dev2' ca 7300 0x42 "$END_ENTITY"
issue old old '/CN=dev1' ca 7300 0x43 "$END_ENTITY$NAMES"
issue issued device '/CN=dev1' ca 7300 0x51 "$END_ENTITY$NAMES"
issue issued-rsa rsa '/CN=dev1' ca 7300 0x52 "basicConstraints=critical,CA:false\nkeyUsage=critical,keyEncipherment\n$NAMES"
issue other-key other '/CN=dev1' ca 7300 0x53 "$END_ENTITY$NAMES"
issue other-subject device '/O=Elsewhere/CN=dev9' ca 7300 0x54 "$END_ENTITY"
issue expired device '/CN=dev1' ca 1 0x55 "$END_ENTITY$NAMES"
issue by-stranger device '/CN=dev1' stranger 7300 0x56 "$END_ENTITY$NAMES"
# a root that follows its root: the new one by the old one and the other way round
issue next-by-ca next "$CA" ca 7300 0x57 'basicConstraints=critical,CA:true\nkeyUsage=critical,keyCertSign,cRLSign\n'
issue ca-by-next ca "$CA" next 7300 0x58 'basicConstraints=critical,CA:true\nkeyUsage=critical,keyCertSign,cRLSign\n'

openssl req -new -key "$work/device.key" -subj '/CN=dev1' -config "$work/empty" -addext 'subjectAltName=DNS:dev1.example' \
    -outform DER -out csr.der

cat >"$work/crl.conf" <<END
[ca]
default_ca = a
[a]
database = $work/index
crlnumber = $work/number
default_md = default
default_crl_days = 30
END
: >"$work/index"
printf 'R\t461121000000Z\t261121000000Z,superseded\t43\tunknown\t/CN=dev1\n' >"$work/index"
echo 01 >"$work/number"
openssl ca -gencrl -config "$work/crl.conf" -cert "$work/ca.crt" -keyfile "$work/ca.key" -out "$work/crl.pem" 2>/dev/null
openssl crl -in "$work/crl.pem" -outform DER -out crl.der

# the certificate for the RSA key, encrypted to that key; EnvelopedData without its ContentInfo
sealed() { # FILE OPTIONS...
    file="$1"; shift
    openssl cms -encrypt -binary -outform DER -in issued-rsa.der -aes128 -recip "$work/issued-rsa.crt" "$@" -out "$work/cms"
    at="$(openssl asn1parse -inform DER -in "$work/cms" | sed -n 's/^ *\([0-9]*\):d=2.*SEQUENCE.*/\1/p' | head -n 1)"
    openssl asn1parse -inform DER -in "$work/cms" -strparse "$at" -noout -out "$file.der"
}
sealed sealed-pkcs1
sealed sealed-oaep -keyopt rsa_padding_mode:oaep -keyopt rsa_oaep_md:sha256
