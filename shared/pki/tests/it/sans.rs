use trustfleet_pki::{
    Name, San,
    san::{MAX_VALUE_CHARS, extension_value},
};

use crate::openssl::{END_ENTITY, OpenSsl};

#[test]
fn s21_each_kind_is_read_from_what_openssl_encodes_and_encoded_alike() {
    let openssl = OpenSsl::new();
    openssl.root("ca", "");
    let extensions = format!(
        "{END_ENTITY}subjectAltName=DNS:ap1.example.org,IP:192.0.2.1,IP:2001:db8::1,email:a@example.org,\
         URI:urn:dev:mac:001122,otherName:1.3.6.1.4.1.311.20.2.3;UTF8:ap1@corp,dirName:dir\n[dir]\nO=x\nCN=y\n"
    );
    let certificate = openssl.issued("ap1", "ca", &extensions, "");
    let sans = certificate.sans();
    assert_eq!(
        sans,
        [
            San::parse("dns", "ap1.example.org").unwrap(),
            San::parse("ip", "192.0.2.1").unwrap(),
            San::parse("ip", "2001:db8::1").unwrap(),
            San::parse("email", "a@example.org").unwrap(),
            San::parse("uri", "urn:dev:mac:001122").unwrap(),
            San::parse("upn", "ap1@corp").unwrap(),
            San::DirectoryName(Name::parse("/O=x/CN=y").unwrap()),
        ]
    );
    assert_eq!(
        certificate.subject_alt_names(),
        [
            "dns:ap1.example.org",
            "ip:192.0.2.1",
            "ip:2001:db8::1",
            "email:a@example.org",
            "uri:urn:dev:mac:001122",
            "upn:ap1@corp",
            "dn:CN=y,O=x"
        ]
    );
    let made = extension_value(&sans).unwrap();
    assert!(certificate.as_der().windows(made.len()).any(|window| window == made), "byte for byte as OpenSSL");
}

#[test]
fn names_of_other_kinds_are_shown_and_do_not_stop_the_reading() {
    let openssl = OpenSsl::new();
    openssl.root("ca", "");
    let extensions = format!("{END_ENTITY}subjectAltName=RID:1.2.3.4,DNS:a.b\n");
    let certificate = openssl.issued("x", "ca", &extensions, "");
    assert_eq!(certificate.subject_alt_names(), ["other:88032a0304", "dns:a.b"]);
    assert_eq!(certificate.sans().len(), 1);
}

#[test]
fn s22_every_limit_and_type_has_its_error() {
    let cases = [
        ("fqdn", "x", "unknown kind of alternative name \"fqdn\": use dns, ip, email, uri, dn or upn"),
        ("dns", "", "alternative name is empty"),
        ("dns", "a..b", "alternative name is not a domain name (letters, digits and hyphens between dots)"),
        ("dns", "-a", "alternative name is not a domain name (letters, digits and hyphens between dots)"),
        ("dns", "ü.example", "alternative name is not a domain name (letters, digits and hyphens between dots)"),
        ("ip", "192.0.2.256", "alternative name is not an IPv4 or IPv6 address"),
        ("email", "a.example", "alternative name is not an e-mail address of the form name@domain"),
        ("email", "a b@example", "alternative name is not an e-mail address of the form name@domain"),
        ("uri", "no scheme", "alternative name is not a URI with a scheme, in ASCII and without spaces"),
        ("uri", "http://a b", "alternative name is not a URI with a scheme, in ASCII and without spaces"),
        ("upn", "a\u{1b}b", "alternative name has control characters"),
        ("dn", "/C=DEU", "alternative name of kind dn: name, position 4: value of C has 3 characters, it must have 2"),
    ];
    for (kind, value, message) in cases {
        assert_eq!(San::parse(kind, value).unwrap_err().to_string(), message, "{kind} {value:?}");
    }
    assert!(San::parse("upn", &"ü".repeat(MAX_VALUE_CHARS)).is_ok());
    assert_eq!(
        San::parse("upn", &"ü".repeat(MAX_VALUE_CHARS + 1)).unwrap_err().to_string(),
        "alternative name has 129 characters, at most 128 are allowed"
    );
    assert!(San::parse("dns", "*.example.org").is_ok());
    assert!(San::parse("dns", &format!("{}.org", "a".repeat(64))).is_err(), "a label has 63 characters at most");
    assert_eq!(extension_value(&[]).unwrap_err().to_string(), "alternative name is empty");
}
