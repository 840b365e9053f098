#!/usr/bin/env python3
"""Makes the messages pyasn1-pbmac1-*.der: protected by PBMAC1, which no OpenSSL knows in CMP.

Usage: make_pbmac1.py FOLDER, with pyasn1-alt-modules 0.4.10 from PyPI (rfc9480 and rfc8018) for the encoding, and hashlib and
hmac of Python for the key and the MAC. The secret is S3cret-of-dev1, named dev1.
"""
import hashlib
import hmac
import pathlib
import sys

from pyasn1.codec.der import encoder
from pyasn1.type import char, univ
from pyasn1_alt_modules import rfc5280, rfc8018, rfc9480

folder = pathlib.Path(sys.argv[1])
SECRET = b"S3cret-of-dev1"
HMACS = {"sha1": rfc8018.id_hmacWithSHA1, "sha256": rfc8018.id_hmacWithSHA256, "sha384": rfc8018.id_hmacWithSHA384,
         "sha512": rfc8018.id_hmacWithSHA512}


def name(text):
    attribute = rfc5280.AttributeTypeAndValue()
    attribute["type"] = rfc5280.id_at_commonName
    attribute["value"] = encoder.encode(char.UTF8String(text))
    relative = rfc5280.RelativeDistinguishedName()
    relative[0] = attribute
    sequence = rfc5280.RDNSequence()
    sequence[0] = relative
    general = rfc5280.GeneralName()
    general["directoryName"]["rdnSequence"] = sequence
    return general


def make(prf, mac, salt, rounds, length, null):
    derivation = rfc8018.PBKDF2_params()
    derivation["salt"]["specified"] = salt
    derivation["iterationCount"] = rounds
    if length is not None:
        derivation["keyLength"] = length
    if prf != "sha1":
        derivation["prf"]["algorithm"] = HMACS[prf]
        derivation["prf"]["parameters"] = univ.Null("")
        if not null:
            derivation["prf"]["parameters"] = univ.noValue
    parameters = rfc8018.PBMAC1_params()
    parameters["keyDerivationFunc"]["algorithm"] = rfc8018.id_PBKDF2
    parameters["keyDerivationFunc"]["parameters"] = univ.Any(encoder.encode(derivation))
    parameters["messageAuthScheme"]["algorithm"] = HMACS[mac]
    if null:
        parameters["messageAuthScheme"]["parameters"] = univ.Any(encoder.encode(univ.Null("")))

    message = rfc9480.PKIMessage()
    header = message["header"]
    header["pvno"] = 2
    header["sender"] = name("dev1")
    header["recipient"] = name("server")
    header["messageTime"] = "20261121120000Z"
    header["protectionAlg"]["algorithm"] = rfc8018.id_PBMAC1
    header["protectionAlg"]["parameters"] = univ.Any(encoder.encode(parameters))
    for field, octets in [("senderKID", b"dev1"), ("transactionID", bytes(range(16))),
                          ("senderNonce", bytes(range(16, 32))), ("recipNonce", bytes(range(32, 48)))]:
        header[field] = bytes(octets)
    info = message["body"]["error"]["pKIStatusInfo"]
    info["status"] = 2
    info["statusString"].append(char.UTF8String(f"{prf} {mac}"))
    message["body"].setComponentByName("error", message["body"]["error"])

    covered = rfc9480.ProtectedPart()
    covered["header"] = header
    covered["body"] = message["body"]
    key = hashlib.pbkdf2_hmac(prf, SECRET, salt, rounds, length or hashlib.new(mac).digest_size)
    value = hmac.new(key, encoder.encode(covered), mac).digest()
    message["protection"] = "'" + "".join(f"{octet:08b}" for octet in value) + "'B"
    return encoder.encode(message)


for file, arguments in {
    "sha256": ("sha256", "sha256", bytes(range(100, 116)), 10_000, 32, True),
    "mixed": ("sha512", "sha384", bytes(range(8)), 1_000, 20, False),
    "long-key": ("sha384", "sha512", bytes(range(200, 232)), 2_048, 100, True),
    "sha1": ("sha1", "sha1", bytes(range(16)), 1_000, 20, True),
    "no-keylength": ("sha256", "sha256", bytes(range(16)), 1_000, None, True),
}.items():
    (folder / f"pyasn1-pbmac1-{file}.der").write_bytes(make(*arguments))
    print(file)
