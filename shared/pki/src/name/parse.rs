//! From the text of a person to attributes, in both spellings; every refusal names its position and the rule.

use der::{Decode, Tag, Tagged, asn1::AnyRef};

use super::{
    MAX_TEXT_CHARS, NameError,
    attribute::{Attribute, Encoding, Kind},
    text::disturbs,
};
use crate::oid;

/// The RDNs in the order of the DER.
pub(super) fn parse(text: &str) -> Result<Vec<Vec<Attribute>>, NameError> {
    let chars: Vec<char> = text.chars().collect();
    if chars.len() > MAX_TEXT_CHARS {
        return Err(NameError::TooLong { chars: chars.len() });
    }
    match chars.as_slice() {
        [] => Err(NameError::Empty),
        ['/'] => Ok(Vec::new()),
        ['/', ..] => Parser { chars: &chars, at: 1, spelling: Spelling::Slash }.rdns(),
        _ => {
            let mut rdns = Parser { chars: &chars, at: 0, spelling: Spelling::Rfc4514 }.rdns()?;
            rdns.reverse();
            Ok(rdns)
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Spelling {
    Slash,
    Rfc4514,
}

struct Parser<'a> {
    chars: &'a [char],
    at: usize,
    spelling: Spelling,
}

/// A value as it was written.
enum Value {
    Text(String),
    /// `#` and hexadecimal digits: the DER of the value (RFC 4514 section 2.4).
    Encoded(Vec<u8>),
}

impl Parser<'_> {
    fn rdns(mut self) -> Result<Vec<Vec<Attribute>>, NameError> {
        let mut rdns = Vec::new();
        let mut rdn = Vec::new();
        loop {
            let at = self.at;
            let attribute = self.attribute()?;
            if rdn.iter().any(|other: &Attribute| other.oid == attribute.oid) {
                // X.501 section 9.3: an RDN has at most one value of each type
                self.at = at;
                return Err(
                    self.syntax("this type stands in the same RDN already (+ joins attributes of different types)")
                );
            }
            rdn.push(attribute);
            match self.next() {
                Some('+') => {}
                Some(_) => rdns.push(std::mem::take(&mut rdn)),
                None => {
                    rdns.push(rdn);
                    return Ok(rdns);
                }
            }
        }
    }

    fn attribute(&mut self) -> Result<Attribute, NameError> {
        if self.spelling == Spelling::Rfc4514 {
            self.skip_spaces();
        }
        let type_at = self.at;
        while self.peek().is_some_and(|c| c.is_ascii_alphanumeric() || c == '.' || c == '-') {
            self.at += 1;
        }
        let type_name: String = self.chars[type_at..self.at].iter().collect();
        if self.spelling == Spelling::Rfc4514 {
            self.skip_spaces();
        }
        if type_name.is_empty() || self.peek() != Some('=') {
            return Err(self.syntax(match self.spelling {
                Spelling::Slash => "expected TYPE=VALUE (write \\/ for a slash and \\+ for a plus inside a value)",
                Spelling::Rfc4514 => "expected TYPE=VALUE (write \\, for a comma and \\+ for a plus inside a value)",
            }));
        }
        self.at += 1;
        if self.spelling == Spelling::Rfc4514 {
            self.skip_spaces();
        }
        let value_at = self.at;
        let value = if self.peek() == Some('#') { self.encoded_value()? } else { self.text_value()? };
        attribute(&type_name, type_at + 1, value, value_at + 1)
    }

    fn text_value(&mut self) -> Result<Value, NameError> {
        let begin = self.at;
        let mut bytes = Vec::new();
        let mut kept = 0; // spaces at the end count only when escaped
        while let Some(c) = self.peek() {
            match c {
                '+' => break,
                '/' if self.spelling == Spelling::Slash => break,
                ',' if self.spelling == Spelling::Rfc4514 => break,
                '"' | ';' | '<' | '>' if self.spelling == Spelling::Rfc4514 => {
                    return Err(self.syntax("this character must be escaped with \\"));
                }
                '\\' => {
                    self.at += 1;
                    bytes.extend(self.escaped()?);
                    kept = bytes.len();
                    continue;
                }
                c if disturbs(c) => return Err(self.syntax("control characters are not allowed in a name")),
                c => {
                    let mut buffer = [0; 4];
                    bytes.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes());
                    if c != ' ' || self.spelling == Spelling::Slash {
                        kept = bytes.len();
                    }
                }
            }
            self.at += 1;
        }
        bytes.truncate(kept);
        let position = begin + 1;
        let text = String::from_utf8(bytes)
            .map_err(|_| NameError::Syntax { position, rule: "the escaped bytes of this value are not UTF-8" })?;
        if text.chars().any(disturbs) {
            return Err(NameError::Syntax { position, rule: "control characters are not allowed in a name" });
        }
        Ok(Value::Text(text))
    }

    /// After a backslash: two hexadecimal digits are a byte, any other character is itself.
    fn escaped(&mut self) -> Result<Vec<u8>, NameError> {
        let high = self.next().ok_or_else(|| self.syntax("nothing follows the escape character \\"))?;
        if let (Some(high), Some(low)) = (high.to_digit(16), self.peek().and_then(|low| low.to_digit(16))) {
            self.at += 1;
            return Ok(vec![u8::try_from(high * 16 + low).unwrap_or(0)]);
        }
        Ok(high.to_string().into_bytes())
    }

    fn encoded_value(&mut self) -> Result<Value, NameError> {
        let rule = "after # comes the DER of a value in hexadecimal (write \\# for the character itself)";
        self.at += 1;
        let begin = self.at;
        while self.peek().is_some_and(|c| c.is_ascii_hexdigit()) {
            self.at += 1;
        }
        let digits: String = self.chars[begin..self.at].iter().collect();
        while self.spelling == Spelling::Rfc4514 && self.peek() == Some(' ') {
            self.at += 1;
        }
        let separator = if self.spelling == Spelling::Slash { '/' } else { ',' };
        if self.peek().is_some_and(|c| c != '+' && c != separator) {
            return Err(self.syntax(rule));
        }
        hex::decode(digits).map(Value::Encoded).map_err(|_| NameError::Syntax { position: begin, rule })
    }

    fn skip_spaces(&mut self) {
        while self.peek() == Some(' ') {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek();
        self.at += usize::from(next.is_some());
        next
    }

    const fn syntax(&self, rule: &'static str) -> NameError {
        NameError::Syntax { position: self.at + 1, rule }
    }
}

fn attribute(type_name: &str, type_at: usize, value: Value, value_at: usize) -> Result<Attribute, NameError> {
    let kind = Kind::by_name(type_name);
    let oid = match kind {
        Some(kind) => kind.oid,
        None => oid::parse(type_name).ok_or_else(|| NameError::UnknownType {
            position: type_at,
            attribute: type_name.chars().take(40).collect(),
        })?,
    };
    let refuse = |rule: String| NameError::Value { position: value_at, attribute: type_name.to_owned(), rule };
    let text = match value {
        Value::Text(text) => text,
        Value::Encoded(der) => {
            let any = AnyRef::from_der(&der).map_err(|_| refuse("is not the DER of one value".to_owned()))?;
            return Ok(Attribute::new(oid, any.tag(), any.value()));
        }
    };
    let chars = text.chars().count();
    if chars == 0 {
        return Err(refuse("is empty".to_owned()));
    }
    let Some(kind) = kind.or_else(|| Kind::by_oid(oid)) else {
        return Ok(Attribute::new(oid, Tag::Utf8String, text.as_bytes()));
    };
    if chars > kind.max || chars < kind.min {
        return Err(refuse(if kind.min == kind.max {
            format!("has {chars} characters, it must have {}", kind.max)
        } else {
            format!("has {chars} characters, at most {} are allowed", kind.max)
        }));
    }
    let tag = match kind.encoding {
        Encoding::Utf8 => Tag::Utf8String,
        Encoding::Ia5 if text.is_ascii() => Tag::Ia5String,
        Encoding::Ia5 => return Err(refuse("may only have ASCII characters".to_owned())),
        Encoding::Printable if text.bytes().all(is_printable) => Tag::PrintableString,
        Encoding::Printable => {
            return Err(refuse("may only have letters, digits, space and ' ( ) + , - . / : = ?".to_owned()));
        }
    };
    Ok(Attribute::new(oid, tag, text.as_bytes()))
}

/// X.680 section 41.4.
const fn is_printable(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b' ' | b'\'' | b'(' | b')' | b'+' | b',' | b'-' | b'.' | b'/' | b':' | b'=' | b'?')
}
