#!/usr/bin/env python3
"""Reads messages of ours with the ASN.1 of RFC 9810 as pyasn1-alt-modules has it, and says what is in them.

Usage: read_pyasn1.py FOLDER SECRET, with pyasn1-alt-modules 0.4.10 from PyPI. For every FOLDER/*.der one member of a JSON
object on standard output. It fails where a message does not decode, has something behind it, or is not the same when
it is encoded again: then it is no DER. The MACs are computed again by Python's hashlib and hmac, over what pyasn1
encodes.
"""
import hashlib
import hmac
import json
import pathlib
import sys

from pyasn1.codec.der import decoder, encoder
from pyasn1.type import char, univ
from pyasn1_alt_modules import rfc5280, rfc8018, rfc9810

FOLDER, SECRET = pathlib.Path(sys.argv[1]), sys.argv[2].encode()
HASHES = {"2.16.840.1.101.3.4.2.1": "sha256", "2.16.840.1.101.3.4.2.2": "sha384", "2.16.840.1.101.3.4.2.3": "sha512",
          "1.2.840.113549.2.9": "sha256", "1.2.840.113549.2.10": "sha384", "1.2.840.113549.2.11": "sha512",
          "1.3.6.1.5.5.8.1.2": "sha1", "1.3.14.3.2.26": "sha1", "1.2.840.113549.2.7": "sha1"}


def read(der, spec):
    """The value, which has to be all of it and the same again."""
    value, rest = decoder.decode(der, asn1Spec=spec)
    assert not rest, f"{len(rest)} octets behind {spec.__class__.__name__}"
    assert encoder.encode(value) == bytes(der), f"another encoding of {spec.__class__.__name__}"
    return value


def text_of(der):
    return str(decoder.decode(der)[0])


def name(rdns):
    return "".join(f"/{attribute['type']}={text_of(attribute['value'])}" for rdn in rdns for attribute in rdn)


def general(names):
    shown = {"directoryName": lambda value: name(value["rdnSequence"])}
    return [f"{one.getName()}:{shown.get(one.getName(), str)(one.getComponent())}" for one in names]


def status(info):
    bits = info["failInfo"]
    return {"status": int(info["status"]), "texts": [str(text) for text in info["statusString"]] if info["statusString"].isValue else [],
            "failInfo": [number for number, bit in enumerate(bits) if bit] if bits.isValue else []}


def serial(certificate):
    return f"{int(certificate['tbsCertificate']['serialNumber']):x}"


def fields(value):
    """Those of a CertTemplate that are there; an absent validity counts as an empty one to pyasn1."""
    dates = value["validity"]
    return [one for one in value if value[one].isValue and (one != "validity" or any(dates[date].isValue for date in dates))]


def template(value):
    shown = {"fields": fields(value)}
    if value["subject"].isValue:
        shown["subject"] = name(value["subject"]["rdnSequence"])
    if value["extensions"].isValue:
        shown["extensions"] = [str(one["extnID"]) for one in value["extensions"]]
    return shown


def controls(value):
    return [[str(one["type"]), bytes(one["value"]).hex()] for one in value] if value.isValue else []


def requests(body):
    shown = []
    for message in body:
        request = message["certReq"]
        shown.append({"certReqId": int(request["certReqId"]), "template": template(request["certTemplate"]),
                      "controls": controls(request["controls"]), "popo": message["popo"].getName()})
    return shown


def encrypted(key):
    if key.getName() == "encryptedValue":
        return "encryptedValue"
    data = key["envelopedData"]
    content = data["encryptedContentInfo"]
    return {"recipients": [one.getName() for one in data["recipientInfos"]], "contentType": str(content["contentType"]),
            "cipher": str(content["contentEncryptionAlgorithm"]["algorithm"])}


def responses(body):
    shown = []
    for response in body["response"]:
        one = {"certReqId": int(response["certReqId"]), **status(response["status"])}
        pair = response["certifiedKeyPair"]
        if pair.isValue:
            choice = pair["certOrEncCert"]
            one["certificate" if choice.getName() == "certificate" else "encrypted"] = (
                serial(choice["certificate"]) if choice.getName() == "certificate" else encrypted(choice["encryptedCert"]))
        shown.append(one)
    return shown


def info_value(oid, der):
    """The value of an InfoTypeAndValue by its type (RFC 9810 section 5.3.19)."""
    number = int(oid.rsplit(".", 1)[1])
    if number in (17, 20):  # caCerts, rootCaCert
        certificates = [decoder.decode(der, asn1Spec=rfc9810.CMPCertificate())[0]] if number == 20 else read(der, rfc9810.CaCertsValue())
        return [serial(one) for one in certificates]
    if number == 18:
        value = read(der, rfc9810.RootCaKeyUpdateContent())
        return {field: serial(value[field]) for field in value if value[field].isValue}
    if number == 19:
        value = read(der, rfc9810.CertReqTemplateContent())
        return {"template": template(value["certTemplate"]), "keySpec": controls(value["keySpec"])}
    if number == 22:
        shown = []
        for one in read(der, rfc9810.CRLStatusListValue()):
            source = one["source"]
            names = source["dpn"]["fullName"] if source.getName() == "dpn" else source["issuer"]
            update = one["thisUpdate"]
            shown.append([source.getName(), general(names), f"{update.getName()}:{update.getComponent()}" if update.isValue else None])
        return shown
    if number == 21:
        return [str(one) for one in read(der, rfc9810.CertProfileValue())]
    if number == 16:
        return [str(one) for one in read(der, rfc9810.SuppLangTagsValue())]
    if number == 13:
        read(der, univ.Null())
        return None
    return bytes(der).hex()


def infos(values):
    return [[str(one["infoType"]), info_value(str(one["infoType"]), one["infoValue"]) if one["infoValue"].isValue else None] for one in values]


def revocations(body):
    shown = []
    for one in body:
        details, reason = one["certDetails"], None
        for extension in one["crlEntryDetails"]:
            if str(extension["extnID"]) == "2.5.29.21":
                reason = int(decoder.decode(extension["extnValue"], asn1Spec=rfc5280.CRLReason())[0])
        shown.append({"fields": fields(details), "issuer": name(details["issuer"]["rdnSequence"]),
                      "serial": f"{int(details['serialNumber']):x}", "reason": reason})
    return shown


CONTENT = {
    **dict.fromkeys(["ir", "cr", "kur"], requests),
    **dict.fromkeys(["ip", "cp", "kup"], responses),
    **dict.fromkeys(["genm", "genp"], infos),
    "rr": revocations,
    "rp": lambda body: {"status": [status(one) for one in body["status"]], "revCerts": [f"{int(one['serialNumber']):x}" for one in body["revCerts"]],
                        "crls": len(body["crls"]) if body["crls"].isValue else 0},
    "certConf": lambda body: [{"certReqId": int(one["certReqId"]), "hashAlg": str(one["hashAlg"]["algorithm"]) if one["hashAlg"].isValue else None,
                               "certHash": bytes(one["certHash"]).hex(), "status": status(one["statusInfo"]) if one["statusInfo"].isValue else None}
                              for one in body],
    "pollReq": lambda body: [int(one["certReqId"]) for one in body],
    "pollRep": lambda body: [[int(one["certReqId"]), int(one["checkAfter"]), [str(text) for text in one["reason"]] if one["reason"].isValue else []]
                             for one in body],
    "error": lambda body: {**status(body["pKIStatusInfo"]), "code": int(body["errorCode"]) if body["errorCode"].isValue else None,
                           "details": [str(text) for text in body["errorDetails"]] if body["errorDetails"].isValue else []},
    "nested": lambda body: [show(read(bytes(one), rfc9810.PKIMessage())) for one in body],  # left as Any there
    "p10cr": lambda body: name(body["certificationRequestInfo"]["subject"]["rdnSequence"]),
    "pkiconf": lambda body: None,
}


def mac(message):
    """By what a message is protected; a MAC is computed again."""
    algorithm = message["header"]["protectionAlg"]
    if not algorithm.isValue:
        return None
    oid = str(algorithm["algorithm"])
    covered = rfc9810.ProtectedPart()
    covered["header"], covered["body"] = message["header"], message["body"]
    covered = encoder.encode(covered)
    if oid == "1.2.840.113533.7.66.13":
        parameters = read(algorithm["parameters"], rfc9810.PBMParameter())
        key = SECRET + bytes(parameters["salt"])
        for _ in range(int(parameters["iterationCount"])):
            key = hashlib.new(HASHES[str(parameters["owf"]["algorithm"])], key).digest()
        kind, digest = "pbm", HASHES[str(parameters["mac"]["algorithm"])]
    elif oid == "1.2.840.113549.1.5.14":
        parameters = read(algorithm["parameters"], rfc8018.PBMAC1_params())
        derivation = read(parameters["keyDerivationFunc"]["parameters"], rfc8018.PBKDF2_params())
        key = hashlib.pbkdf2_hmac(HASHES[str(derivation["prf"]["algorithm"])], SECRET, bytes(derivation["salt"]["specified"]),
                                  int(derivation["iterationCount"]), int(derivation["keyLength"]))
        kind, digest = "pbmac1", HASHES[str(parameters["messageAuthScheme"]["algorithm"])]
    else:
        return oid
    value = hmac.new(key, covered, digest).digest()
    return f"{kind} {digest} {'good' if value == message['protection'].asOctets() else 'BAD'}"


def show(message):
    header, body = message["header"], message["body"]
    kind = body.getName()
    return {"pvno": int(header["pvno"]), "body": kind, "content": CONTENT[kind](body[kind]), "protection": mac(message),
            "sender": general([header["sender"]])[0], "senderKID": bytes(header["senderKID"]).hex() if header["senderKID"].isValue else None,
            "generalInfo": infos(header["generalInfo"]) if header["generalInfo"].isValue else [],
            "extraCerts": len(message["extraCerts"]) if message["extraCerts"].isValue else 0}


shown = {}
for path in sorted(FOLDER.glob("*.der")):
    try:
        shown[path.stem] = show(read(path.read_bytes(), rfc9810.PKIMessage()))
    except Exception as problem:
        raise SystemExit(f"{path.name}: {problem!r}"[:2000])
json.dump(shown, sys.stdout)
