use trustfleet_pki::{Name, NameError, name::MAX_TEXT_CHARS};

use crate::openssl::OpenSsl;

#[test]
fn s5_the_slash_spelling_is_the_der_that_openssl_makes_of_it() {
    let openssl = OpenSsl::new();
    openssl.key("k");
    for subject in ["/C=DE/O=Example~GmbH/OU=Net/CN=AP~1", "/CN=a/C=DE/DC=org/DC=example/O=x", "/serialNumber=7/CN=ü"]
    {
        openssl.run(&format!("req -x509 -new -utf8 -key k.key -subj {subject} -out c.pem"));
        let made = openssl.certificate("c").subject();
        let parsed = Name::parse(&subject.replace('~', " ")).unwrap();
        assert_eq!(parsed.as_der(), made.as_der(), "{subject}");
        assert_eq!(made.to_slash(), subject.replace('~', " "));
    }
}

#[test]
fn s5_a_multi_valued_rdn_is_encoded_as_openssl_does() {
    let openssl = OpenSsl::new();
    openssl.key("k");
    openssl.run("req -x509 -new -multivalue-rdn -key k.key -subj /O=x/CN=b+UID=1 -out c.pem");
    let made = openssl.certificate("c").subject();
    assert_eq!(Name::parse("/O=x/CN=b+UID=1").unwrap(), made);
    assert_eq!(Name::parse("/O=x/UID=1+CN=b").unwrap(), made, "a set has no order of its own");
    assert_eq!(Name::parse("UID=1+CN=b,O=x").unwrap(), made);
}

#[test]
fn one_type_twice_in_an_rdn_is_refused_as_text_and_read_as_it_comes() {
    let refused = Name::parse("/O=x/CN=ap-1+UID=1+CN=ap-2").unwrap_err().to_string();
    assert!(refused.starts_with("name, position 20: this type stands in the same RDN already"), "{refused}");
    let received = b"\x30\x16\x31\x14\x30\x08\x06\x03\x55\x04\x03\x0c\x01a\x30\x08\x06\x03\x55\x04\x03\x0c\x01a";
    assert_eq!(Name::from_der(received).unwrap().as_der(), received);
}

#[test]
fn s5_the_two_spellings_are_opposite_orders_of_one_name() {
    let slash = Name::parse("/C=DE/O=Example/CN=CA").unwrap();
    let rfc4514 = Name::parse("CN=CA,O=Example,C=DE").unwrap();
    assert_eq!(slash, rfc4514);
    assert_eq!(slash.to_slash(), "/C=DE/O=Example/CN=CA");
    assert_eq!(slash.to_string(), "CN=CA,O=Example,C=DE");
    assert_ne!(slash, Name::parse("/CN=CA/O=Example/C=DE").unwrap(), "another order is another name");
}

#[test]
fn s5_a_received_name_keeps_its_bytes_whatever_its_string_types_are() {
    // C as PrintableString "DE", then CN as TeletexString, BMPString and T.61 with a byte above 127
    for der in [
        &b"\x30\x1d\x31\x0b\x30\x09\x06\x03\x55\x04\x06\x13\x02DE\x31\x0e\x30\x0c\x06\x03\x55\x04\x03\x14\x05M\xfcnch"
            [..],
        &b"\x30\x0f\x31\x0d\x30\x0b\x06\x03\x55\x04\x03\x1e\x04\x00a\x00b"[..],
    ] {
        let name = Name::from_der(der).unwrap();
        assert_eq!(name.as_der(), der);
        assert!(name.common_name().is_some());
    }
}

#[test]
fn escapes_mean_what_rfc_4514_says() {
    let dangling = Name::parse("CN=a\\").unwrap_err();
    assert_eq!(dangling.to_string(), "name, position 6: nothing follows the escape character \\");
    let name = Name::parse(r"CN=a\,b\+c\\d\C3\BC\ ,O=x").unwrap();
    assert_eq!(name.common_name().unwrap(), "a,b+c\\dü ");
    assert_eq!(name.to_string(), r"CN=a\,b\+c\\dü\ ,O=x");
    assert_eq!(name.to_slash(), r"/O=x/CN=a,b\+c\\dü ");
    assert_eq!(Name::parse(" CN = a b  , O = x ").unwrap(), Name::parse("/O=x/CN=a b").unwrap());
    assert_eq!(Name::parse(r"/O=a\/b/CN=x").unwrap().to_string(), "CN=x,O=a/b");
    assert_eq!(Name::parse("2.5.4.3=#0c0161").unwrap(), Name::parse("/CN=a").unwrap());
    assert_eq!(Name::parse(r"CN=\#a").unwrap().common_name().unwrap(), "#a");
    assert_eq!(Name::parse(r"/CN=\#a").unwrap().to_slash(), r"/CN=\#a");
}

#[test]
fn what_is_shown_can_be_read_back() {
    for text in [
        "/C=DE/ST=BW/L=Ulm/STREET=A 1/O=x/OU=y/CN=z/DC=org/UID=u/serialNumber=1/emailAddress=a@b/title=t/SN=s/GN=g",
        "/1.3.6.1.4.1.99999.1=free text/CN=x",
        r"/CN= leading\+and\/",
        "/CN=a+UID=b/O=c",
        "/",
    ] {
        let name = Name::parse(text).unwrap();
        assert_eq!(Name::parse(&name.to_slash()).unwrap(), name, "{text}");
        if !name.is_null() {
            assert_eq!(Name::parse(&name.to_string()).unwrap(), name, "{name}");
            assert_eq!(der_of(&name), name.as_der(), "x509-cert agrees");
        }
    }
}

fn der_of(name: &Name) -> Vec<u8> {
    use der::Encode;
    name.to_x509().unwrap().to_der().unwrap()
}

#[test]
fn the_null_dn_is_a_single_slash() {
    assert_eq!(Name::parse("/").unwrap(), Name::null());
    assert!(Name::null().is_null());
    assert_eq!(Name::null().to_slash(), "/");
    assert_eq!(Name::null().as_der(), [0x30, 0x00]);
    assert_eq!(Name::parse("").unwrap_err(), NameError::Empty);
}

#[test]
fn s18_a_text_of_512_characters_is_read_and_of_513_refused() {
    let many = |chars: usize| {
        let mut text = "/O=x".repeat(chars / 4);
        text.push_str(&"x".repeat(chars - text.chars().count()));
        text
    };
    assert!(Name::parse(&many(MAX_TEXT_CHARS)).is_ok());
    assert_eq!(
        Name::parse(&many(MAX_TEXT_CHARS + 1)).unwrap_err().to_string(),
        "name has 513 characters, at most 512 are allowed"
    );
    assert!(Name::of_common_name(&"r".repeat(256)).is_ok(), "S12: a reference may have 256 characters");
}

#[test]
fn every_refusal_names_the_position_and_the_rule() {
    let cases = [
        ("CN", "name, position 3: expected TYPE=VALUE (write \\, for a comma and \\+ for a plus inside a value)"),
        ("/CN=a/b", "name, position 8: expected TYPE=VALUE (write \\/ for a slash and \\+ for a plus inside a value)"),
        ("/CN=a/", "name, position 7: expected TYPE=VALUE (write \\/ for a slash and \\+ for a plus inside a value)"),
        (
            "/FOO=a",
            "name, position 2: unknown attribute type \"FOO\": use C, ST, L, STREET, O, OU, CN, DC, UID, serialNumber, \
             emailAddress, title, SN, GN or a dotted OID",
        ),
        ("/C=DEU/CN=x", "name, position 4: value of C has 3 characters, it must have 2"),
        ("/CN=", "name, position 5: value of CN is empty"),
        ("CN=a;b", "name, position 5: this character must be escaped with \\"),
        ("/CN=a\nb", "name, position 6: control characters are not allowed in a name"),
        (r"/CN=a\0ab", "name, position 5: control characters are not allowed in a name"),
        (r"/CN=\ff", "name, position 5: the escaped bytes of this value are not UTF-8"),
        (
            "CN=#0c0",
            "name, position 4: after # comes the DER of a value in hexadecimal (write \\# for the character itself)",
        ),
        ("CN=#0c05", "name, position 4: value of CN is not the DER of one value"),
        ("/emailAddress=ü@x", "name, position 15: value of emailAddress may only have ASCII characters"),
        (
            "/serialNumber=a*b",
            "name, position 15: value of serialNumber may only have letters, digits, space and ' ( ) + , - . / : = ?",
        ),
    ];
    for (text, message) in cases {
        assert_eq!(Name::parse(text).unwrap_err().to_string(), message, "{text:?}");
    }
    for (kind, max) in [("CN", 64), ("O", 64), ("OU", 64), ("title", 64), ("L", 128), ("ST", 128), ("STREET", 128)] {
        assert!(Name::parse(&format!("/{kind}={}", "x".repeat(max))).is_ok());
        let message = Name::parse(&format!("/{kind}={}", "x".repeat(max + 1))).unwrap_err().to_string();
        assert!(message.ends_with(&format!("has {} characters, at most {max} are allowed", max + 1)), "{message}");
    }
}

#[test]
fn a_hostile_name_cannot_disturb_a_terminal() {
    let der = b"\x30\x16\x31\x14\x30\x12\x06\x03\x55\x04\x03\x0c\x0ba\x1b[2J\x00\xe2\x80\xaeb\n";
    let name = Name::from_der(der).unwrap();
    for text in [name.to_string(), name.to_slash(), format!("{name:?}")] {
        assert!(text.contains(r"a\1B[2J\00\E2\80\AEb\0A"), "{text:?}");
    }
}

#[test]
fn a_name_that_x509_cert_would_reorder_is_not_given_to_it() {
    let unsorted = b"\x30\x18\x31\x16\x30\x09\x06\x03\x55\x04\x0a\x0c\x02xx\x30\x09\x06\x03\x55\x04\x03\x0c\x02yy";
    let name = Name::from_der(unsorted).unwrap();
    assert_eq!(name.as_der(), unsorted);
    assert_eq!(name.to_x509().unwrap_err(), NameError::NotCanonical);
}

#[test]
fn names_say_the_same_whatever_their_string_types_but_not_with_other_characters_or_another_order() {
    let text = Name::parse("/O=Lab/CN=dev1").unwrap();
    // PrintableString, TeletexString and BMPString of the same characters
    for same in ["/O=#13034c6162/CN=#130464657631", "/O=#14034c6162/CN=dev1", "/O=#1e06004c00610062/CN=dev1"] {
        let same = Name::parse(same).unwrap();
        assert_ne!(same, text, "not the same bytes");
        assert!(same.says_the_same_as(&text) && text.says_the_same_as(&same));
    }
    for other in
        ["/O=Lab/CN=Dev1", "/O=Lab/CN=dev1 ", "/CN=dev1/O=Lab", "/O=Lab", "/O=Lab+CN=dev1", "/O=Lab/OU=dev1", "/"]
    {
        let other = Name::parse(other).unwrap();
        assert!(!other.says_the_same_as(&text) && !text.says_the_same_as(&other), "{other}");
    }
    let [twice, both] = [b'a', b'b'].map(|second| {
        let common_name = |letter| [0x30, 0x08, 0x06, 0x03, 0x55, 0x04, 0x03, 0x0c, 0x01, letter];
        Name::from_der(&[&[0x30, 0x16, 0x31, 0x14][..], &common_name(b'a'), &common_name(second)].concat()).unwrap()
    });
    assert!(!twice.says_the_same_as(&both) && !both.says_the_same_as(&twice));
    // each with each is bounded: an RDN as long as this is only the same byte for byte
    let others: String = (0..8).map(|n| format!("1.3.6.1.4.1.99999.{n}=#0c0161+")).collect();
    let long = |last: &str| Name::parse(&format!("/{others}CN={last}")).unwrap();
    assert!(long("b").says_the_same_as(&long("b")) && !long("b").says_the_same_as(&long("#130162")));
    // values that are no strings only by their bytes
    let bits = |value: &str| Name::parse(&format!("/1.3.6.1.4.1.99999.1=#{value}")).unwrap();
    assert!(bits("0401ff").says_the_same_as(&bits("0401ff")) && !bits("0401ff").says_the_same_as(&bits("0401fe")));
}
