#!/usr/bin/env python3
"""Makes the messages pyasn1-*.der: what OpenSSL 3.0 cannot make, encoded by an independent ASN.1 implementation.

Usage: make_pyasn1.py FOLDER, with pyasn1-alt-modules 0.4.10 from PyPI (its module rfc9480 is the ASN.1 of RFC 9480).
They carry no valid protection: they are about encoding only.
"""
import base64
import pathlib
import sys

from pyasn1.codec.der import decoder, encoder
from pyasn1.type import char, tag, univ, useful
from pyasn1_alt_modules import rfc5280, rfc5652, rfc9480

folder = pathlib.Path(sys.argv[1])


def explicit(value, number, constructed=True):
    form = tag.tagFormatConstructed if constructed else tag.tagFormatSimple
    return value.subtype(explicitTag=tag.Tag(tag.tagClassContext, form, number))


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


def algorithm(oid):
    value = rfc5280.AlgorithmIdentifier()
    value["algorithm"] = univ.ObjectIdentifier(oid)
    return value


def message(pvno, kind, fill):
    made = rfc9480.PKIMessage()
    header = made["header"]
    header["pvno"] = pvno
    header["sender"] = name("server")
    header["recipient"] = name("dev1")
    header["messageTime"] = "20261121120000Z"
    for field, octets in [("senderKID", b"kid"), ("recipKID", b"another"), ("transactionID", bytes(range(16))),
                          ("senderNonce", bytes(range(16, 32))), ("recipNonce", bytes(range(32, 48)))]:
        header[field] = bytes(octets)
    header["freeText"].append(char.UTF8String("ünïcode"))
    wait = rfc9480.InfoTypeAndValue()
    wait["infoType"] = rfc9480.id_it_confirmWaitTime
    wait["infoValue"] = encoder.encode(useful.GeneralizedTime("20261121130000Z"))
    header["generalInfo"].append(wait)
    fill(made["body"][kind])
    made["body"].setComponentByName(kind, made["body"][kind])
    return made


def cert_conf(body):
    status = rfc9480.CertStatus()
    status["certHash"] = bytes(32)
    status["certReqId"] = -1
    status["statusInfo"]["status"] = 0
    hash_algorithm = status["hashAlg"]
    hash_algorithm["algorithm"] = univ.ObjectIdentifier("2.16.840.1.101.3.4.2.1")
    body.append(status)


def error(body):
    info = body["pKIStatusInfo"]
    info["status"] = 2
    info["statusString"].append(char.UTF8String("one"))
    info["statusString"].append(char.UTF8String("zwei"))
    info["failInfo"] = rfc9480.PKIFailureInfo((1,) + (0,) * 25 + (1,))
    body["errorCode"] = -5
    body["errorDetails"].append(char.UTF8String("details"))


def encrypted(body, form):
    response = rfc9480.CertResponse()
    response["certReqId"] = 0
    response["status"]["status"] = 1
    key = response["certifiedKeyPair"]["certOrEncCert"]["encryptedCert"]
    if form == "encryptedValue":
        value = key["encryptedValue"]
        value["symmAlg"]["algorithm"] = univ.ObjectIdentifier("2.16.840.1.101.3.4.1.2")
        value["encSymmKey"] = "'0110101101100101'B"
        value["encValue"] = univ.BitString.fromOctetString(b"value")
    else:
        value = key["envelopedData"]
        value["version"] = 2
        recipient = rfc5652.RecipientInfo()
        kekri = recipient["kekri"]
        kekri["version"] = 4
        kekri["kekid"]["keyIdentifier"] = b"kek"
        kekri["keyEncryptionAlgorithm"]["algorithm"] = univ.ObjectIdentifier("2.16.840.1.101.3.4.1.5")
        kekri["encryptedKey"] = b"encrypted"
        value["recipientInfos"].append(recipient)
        content = value["encryptedContentInfo"]
        content["contentType"] = rfc5652.id_data
        content["contentEncryptionAlgorithm"]["algorithm"] = univ.ObjectIdentifier("2.16.840.1.101.3.4.1.2")
        content["encryptedContent"] = b"content"
    body["response"].append(response)


def poll_rep(body):
    one = body.componentType.clone()
    one["certReqId"] = -1
    one["checkAfter"] = 300
    one["reason"].append(char.UTF8String("a human decides"))
    body.append(one)


def nested(body):
    inner = message(2, "pkiconf", lambda value: None)
    body.append(decoder.decode(encoder.encode(inner), asn1Spec=rfc9480.PKIMessage())[0])


def certificate(file):
    text = (folder / file).read_text()
    der = base64.b64decode("".join(line for line in text.splitlines() if not line.startswith("-----")))
    return decoder.decode(der, asn1Spec=rfc9480.CMPCertificate())[0]


def information(body, kind, value):
    info = rfc9480.InfoTypeAndValue()
    info["infoType"] = kind
    info["infoValue"] = encoder.encode(value)
    body.append(info)


def root_update(body):
    value = rfc9480.RootCaKeyUpdateContent()
    value["newWithNew"] = certificate("ca.crt")
    for field, number in [("newWithOld", 0), ("oldWithNew", 1)]:
        tagged = decoder.decode(encoder.encode(certificate("dev.crt")), asn1Spec=rfc9480.CMPCertificate())[0]
        value[field] = explicit(tagged, number)
        value[field].clear()
        for name_ in tagged:
            value[field][name_] = tagged[name_]
    information(body, univ.ObjectIdentifier("1.3.6.1.5.5.7.4.18"), value)


def request_template(body):
    value = rfc9480.CertReqTemplateContent()
    template = value["certTemplate"]
    names = rfc5280.RDNSequence()
    for index, (kind, text) in enumerate([(rfc5280.id_at_organizationName, "Example"), (rfc5280.id_at_commonName, "")]):
        attribute = rfc5280.AttributeTypeAndValue()
        attribute["type"] = kind
        attribute["value"] = encoder.encode(char.UTF8String(text))
        relative = rfc5280.RelativeDistinguishedName()
        relative[0] = attribute
        names[index] = relative
    template["subject"]["rdnSequence"] = names
    usage = rfc5280.Extension()
    usage["extnID"] = univ.ObjectIdentifier("2.5.29.15")
    usage["critical"] = True
    usage["extnValue"] = bytes([3, 2, 7, 0x80])
    template["extensions"].append(usage)
    for kind, content in [("1.3.6.1.5.5.7.5.1.11", encoder.encode(algorithm("1.3.101.112"))),
                          ("1.3.6.1.5.5.7.5.1.12", encoder.encode(univ.Integer(3072)))]:
        control = rfc9480.AttributeTypeAndValue() if hasattr(rfc9480, "AttributeTypeAndValue") else None
        control = control if control is not None else value["keySpec"].componentType.clone()
        control["type"] = univ.ObjectIdentifier(kind)
        control["value"] = univ.Any(content)
        value["keySpec"].append(control)
    information(body, univ.ObjectIdentifier("1.3.6.1.5.5.7.4.19"), value)


def crl_status(body):
    value = rfc9480.CRLStatusListValue()
    point = rfc9480.CRLStatus()
    uri = rfc5280.GeneralName()
    uri["uniformResourceIdentifier"] = "http://ca.example/ca.crl"
    point["source"]["dpn"]["fullName"].append(uri)
    point["thisUpdate"]["utcTime"] = "261120000000Z"
    issuer = rfc9480.CRLStatus()
    issuer["source"]["issuer"].append(name("CA"))
    value.append(point)
    value.append(issuer)
    information(body, univ.ObjectIdentifier("1.3.6.1.5.5.7.4.22"), value)


makers = {
    "genp-root-update": (3, "genp", root_update),
    "genp-request-template": (3, "genp", request_template),
    "genm-crl-status-list": (3, "genm", crl_status),
    "certconf-hashalg": (3, "certConf", cert_conf),
    "error-all-fields": (2, "error", error),
    "cp-encrypted-value": (2, "cp", lambda body: encrypted(body, "encryptedValue")),
    "kup-enveloped-data": (3, "kup", lambda body: encrypted(body, "envelopedData")),
    "pollrep-reason": (3, "pollRep", poll_rep),
    "nested": (2, "nested", nested),
}
for file, (pvno, kind, fill) in makers.items():
    try:
        (folder / f"pyasn1-{file}.der").write_bytes(encoder.encode(message(pvno, kind, fill)))
        print(file)
    except Exception as problem:  # one kind that does not work must not hide the others
        print(file, "FAILED", repr(problem)[:300], file=sys.stderr)
