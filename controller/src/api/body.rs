//! Reads request bodies so that one answer names everything that is wrong with them.
//!
//! serde stops at its first complaint. Here each complaint is noted, the offending value is replaced by a neutral one,
//! and reading goes on; a body that was repaired is never acted upon, it only lets the rules behind the first mistake
//! speak too. No message repeats a value: it might be a secret in the wrong field.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;

use actix_web::http::StatusCode;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::web::{Bytes, BytesMut, Payload};
use actix_web::{FromRequest, HttpRequest, dev, web};
use futures_util::StreamExt as _;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use serde_path_to_error::Segment;
use trustfleet_model::field::Violations;

use super::auth::Api;
use super::bounds::{body_max, body_timeout};
use super::json;
use super::problem::Problem;
use super::timing::operation;

/// How much of a body that is too long is still read, so that the client gets to see the answer, bytes.
const DRAIN_MAX: usize = 1024 * 1024;
/// How often one body is repaired before reading ends.
const REPAIRS_MAX: usize = 200;

/// A JSON body, with whatever is wrong with its shape.
#[derive(Debug)]
pub struct Body<T> {
    value: Option<T>,
    shape: Violations,
}

impl<T: DeserializeOwned> Body<T> {
    /// Reads the body's bytes.
    ///
    /// # Errors
    /// 400 when it is not JSON at all, or nested too deep.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, Problem> {
        let (value, shape) = read(json::parse(bytes)?);
        Ok(Self { value, shape })
    }

    /// The body, if enough of it could be read, and where to note what else is wrong.
    pub fn open(self) -> (Option<T>, Findings) {
        (self.value, Findings { shape: self.shape, rules: Violations::new() })
    }

    /// Turns the body into something valid.
    ///
    /// # Errors
    /// 422 with everything that is wrong, in shape and by the rules of `check`.
    pub fn check<O>(self, check: impl FnOnce(T, &mut Violations) -> Option<O>) -> Result<O, Problem> {
        let (value, mut findings) = self.open();
        let checked = value.and_then(|value| check(value, &mut findings.rules));
        findings.finish(checked)
    }
}

/// What is wrong with a body: its shape, and the rules broken by what could be read.
#[derive(Debug)]
pub struct Findings {
    shape: Violations,
    /// Broken rules.
    pub rules: Violations,
}

impl Findings {
    /// Notes broken rules that were found elsewhere.
    pub fn add(&mut self, found: Violations) {
        for violation in found.into_vec() {
            self.rules.add(violation.field, violation.rule, violation.message);
        }
    }

    /// `checked`, when nothing is wrong.
    ///
    /// # Errors
    /// 422 with everything found; a field whose shape is wrong already is not judged twice.
    pub fn finish<O>(self, checked: Option<O>) -> Result<O, Problem> {
        let mut all = self.shape.clone();
        for violation in self.rules.into_vec() {
            if !is_noted(&all, &violation.field) && !is_in_repaired_element(&self.shape, &violation.field) {
                all.add(violation.field, violation.rule, violation.message);
            }
        }
        all.into_result()?;
        checked.ok_or_else(|| crate::error::AppError::internal("a body without violations was not accepted").into())
    }
}

impl<T: DeserializeOwned + 'static> FromRequest for Body<T> {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, payload: &mut dev::Payload) -> Self::Future {
        let received = receive(request, payload);
        Box::pin(async move {
            let (content_type, bytes) = received.await?;
            if let Some(content_type) = content_type {
                check_content_type(&content_type)?;
            }
            Self::from_slice(&bytes)
        })
    }
}

/// A body that is no JSON document, with its media type (lower case, without parameters).
#[derive(Debug)]
pub struct Text {
    /// The media type; empty: none was given.
    pub media: String,
    /// The body.
    pub bytes: Bytes,
}

impl FromRequest for Text {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, payload: &mut dev::Payload) -> Self::Future {
        let received = receive(request, payload);
        Box::pin(async move {
            let (content_type, bytes) = received.await?;
            Ok(Self { media: content_type.as_deref().map(media_type).unwrap_or_default(), bytes })
        })
    }
}

/// The body's Content-Type and bytes, within the operation's bounds of time and size.
fn receive(
    request: &HttpRequest,
    payload: &mut dev::Payload,
) -> impl Future<Output = Result<(Option<String>, Bytes), Problem>> + use<> {
    let content_type = request.headers().get(CONTENT_TYPE).map(|value| value.to_str().unwrap_or("").to_owned());
    let payload = Payload::from_request(request, payload).into_inner();
    let longest = body_max(operation(request.method().as_str(), request.match_pattern().as_deref()));
    let api = request.app_data::<web::Data<Api>>();
    let within = body_timeout(api.map_or(60, |api| api.services.config.http.request_timeout_s));
    async move {
        let unreadable = |_| Problem::http(StatusCode::BAD_REQUEST, "malformed", "the body cannot be read");
        let collected = tokio::time::timeout(within, collect(payload.map_err(unreadable)?, longest)).await;
        let bytes = collected.map_err(|_| {
            Problem::http(StatusCode::REQUEST_TIMEOUT, "request_timeout", "the body did not come in time")
        })??;
        Ok((content_type, bytes))
    }
}

fn media_type(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase()
}

fn check_content_type(text: &str) -> Result<(), Problem> {
    let media = media_type(text);
    if media == "application/json" || (media.starts_with("application/") && media.ends_with("+json")) {
        return Ok(());
    }
    Err(Problem::unsupported_media_type("send the body as application/json"))
}

async fn collect(mut payload: Payload, longest: usize) -> Result<Bytes, Problem> {
    let mut body = BytesMut::new();
    let mut length = 0;
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|_| {
            Problem::http(StatusCode::BAD_REQUEST, "malformed", "the body ended before its announced length")
        })?;
        length += chunk.len();
        if length <= longest {
            body.extend_from_slice(&chunk);
        } else if length > DRAIN_MAX {
            break;
        }
    }
    if length > longest {
        let detail = format!("the body is longer than {longest} bytes, the most that this path takes");
        return Err(Problem::http(StatusCode::PAYLOAD_TOO_LARGE, "body_too_long", detail));
    }
    Ok(body.freeze())
}

/// Reads `T`, noting and repairing what is wrong until it can be read or no repair is known.
fn read<T: DeserializeOwned>(mut value: Value) -> (Option<T>, Violations) {
    let mut violations = Violations::new();
    if !value.is_object() {
        violations.add("", "type", format!("the body is {}; a JSON object is expected", word(&value)));
        return (None, violations);
    }
    refuse_nul(&mut value, &mut Vec::new(), &mut violations);
    let mut attempts = HashMap::new();
    for _ in 0..REPAIRS_MAX {
        let error = match serde_path_to_error::deserialize::<_, T>(&value) {
            Ok(read) => return (Some(read), violations),
            Err(error) => error,
        };
        let path: Vec<Segment> = error.path().iter().cloned().collect();
        if !repair(&mut value, path, &error.inner().to_string(), &mut attempts, &mut violations) {
            break;
        }
    }
    if violations.is_empty() {
        violations.add("", "type", "the body cannot be read as what this path expects; see /openapi.json");
    }
    (None, violations)
}

/// PostgreSQL keeps no NUL in texts and JSON, and no field of ours has a use for it.
fn refuse_nul(value: &mut Value, path: &mut Vec<Segment>, violations: &mut Violations) {
    match value {
        Value::String(text) if text.contains('\0') => {
            // No more than repairs: noting one costs more with every one before it.
            if violations.as_slice().len() < REPAIRS_MAX {
                note(violations, &field(path), "nul", "contains the character NUL".to_owned());
            }
            text.clear();
        }
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                path.push(Segment::Seq { index });
                refuse_nul(item, path, violations);
                path.pop();
            }
        }
        Value::Object(object) => {
            for (key, item) in object.iter_mut() {
                path.push(Segment::Map { key: key.clone() });
                refuse_nul(item, path, violations);
                path.pop();
            }
        }
        _ => {}
    }
}

/// Notes one complaint of serde and makes the value a little better; `false` when it does not know how.
fn repair(
    value: &mut Value,
    mut path: Vec<Segment>,
    complaint: &str,
    attempts: &mut HashMap<String, usize>,
    violations: &mut Violations,
) -> bool {
    if let Some(name) = complaint.strip_prefix("missing field `").and_then(|rest| rest.split('`').next()) {
        path.push(Segment::Map { key: name.to_owned() });
        note(violations, &field(&path), "required", "is missing".to_owned());
        return put(value, &path, json!(""));
    }
    let name = field(&path);
    if complaint.starts_with("unknown field `") {
        let known = complaint.split_once(", expected ").map_or_else(
            || "is not a field of this object".to_owned(),
            |(_, known)| format!("is not a field of this object; it takes {}", list(known)),
        );
        note(violations, &name, "unknown_field", known);
        return remove(value, &path);
    }
    let expected = complaint.split_once(", expected ").map_or("another value", |(_, expected)| expected);
    if complaint.starts_with("unknown variant `") {
        note(violations, &name, "choice", format!("is not one of the allowed words; allowed are {}", list(expected)));
        let first = expected.split('`').nth(1).unwrap_or_default();
        return put(value, &path, json!(first));
    }
    let Some(present) = at(value, &path) else { return false };
    note(violations, &name, "type", format!("is {}; expected is {}", word(present), in_words(expected)));
    let attempt = attempts.entry(name).or_insert(0);
    let fillers = [json!(""), Value::Object(Map::new()), json!([]), json!(1), json!(false), Value::Null];
    let filler = fillers.into_iter().nth(*attempt);
    *attempt += 1;
    filler.is_some_and(|filler| put(value, &path, filler))
}

fn note(violations: &mut Violations, field: &str, rule: &str, message: String) {
    if !is_noted(violations, field) {
        violations.add(field, rule, message);
    }
}

/// Whether the field or something around it is noted already.
fn is_noted(violations: &Violations, field: &str) -> bool {
    violations.as_slice().iter().any(|v| {
        field.strip_prefix(v.field.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    })
}

/// Whether another field of the same element of a list had a wrong shape: what the element means is unknown then.
fn is_in_repaired_element(shape: &Violations, field: &str) -> bool {
    let Some(end) = field.rfind(']') else { return false };
    let element = &field[..=end];
    shape.as_slice().iter().any(|v| v.rule != "unknown_field" && v.field.strip_prefix(element).is_some())
}

fn field(path: &[Segment]) -> String {
    let mut text = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => text.push_str(&format!("[{index}]")),
            Segment::Map { key } | Segment::Enum { variant: key } => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(key);
            }
            Segment::Unknown => {}
        }
    }
    text
}

fn at<'a>(value: &'a Value, path: &[Segment]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, segment| match segment {
        Segment::Seq { index } => value.get(index),
        Segment::Map { key } => value.get(key),
        Segment::Enum { .. } | Segment::Unknown => Some(value),
    })
}

fn parent<'a>(value: &'a mut Value, path: &[Segment]) -> Option<&'a mut Value> {
    path.iter().try_fold(value, |value, segment| match segment {
        Segment::Seq { index } => value.get_mut(index),
        Segment::Map { key } => value.get_mut(key),
        Segment::Enum { .. } | Segment::Unknown => Some(value),
    })
}

fn put(value: &mut Value, path: &[Segment], new: Value) -> bool {
    let Some((last, before)) = path.split_last() else { return false };
    match (parent(value, before), last) {
        (Some(Value::Object(object)), Segment::Map { key }) => {
            object.insert(key.clone(), new);
            true
        }
        (Some(Value::Array(array)), Segment::Seq { index }) => array.get_mut(*index).map(|item| *item = new).is_some(),
        _ => false,
    }
}

fn remove(value: &mut Value, path: &[Segment]) -> bool {
    let Some((Segment::Map { key }, before)) = path.split_last() else { return false };
    parent(value, before).and_then(Value::as_object_mut).and_then(|object| object.remove(key)).is_some()
}

const fn word(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn list(expected: &str) -> String {
    expected.trim_start_matches("one of ").replace('`', "").replace(" or ", ", ")
}

/// serde speaks of Rust types; clients of JSON.
fn in_words(expected: &str) -> &str {
    match expected {
        "u32" => "a whole number from 0 to 4294967295",
        "u64" => "a whole number from 0",
        "i64" => "a whole number",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a map" => "an object",
        "string or map" => "a string",
        text if text.starts_with("struct ") => "an object",
        text => text,
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)] // read by serde only
    struct Sample {
        name: String,
        #[serde(default)]
        parts: Vec<Part>,
        secret: Option<String>,
        size: Option<u32>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)] // read by serde only
    struct Part {
        kind: Kind,
        value: String,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Kind {
        Ip,
        Dns,
    }

    fn fields(text: &str) -> Vec<(String, String)> {
        let (_, findings) = Body::<Sample>::from_slice(text.as_bytes()).unwrap().open();
        findings.shape.into_vec().into_iter().map(|v| (v.field, v.rule)).collect()
    }

    #[test]
    fn every_wrong_shape_is_named_at_once() {
        let found = fields(
            r#"{"colour":1,"parts":[{"kind":"x","value":1},{"kind":"ip","valu":"a"},7],"secret":[],"size":-1,"flavour":2}"#,
        );
        for (field, rule) in [
            ("colour", "unknown_field"),
            ("flavour", "unknown_field"),
            ("parts[0].kind", "choice"),
            ("parts[0].value", "type"),
            ("parts[1].valu", "unknown_field"),
            ("parts[1].value", "required"),
            ("parts[2]", "type"),
            ("secret", "type"),
            ("size", "type"),
            ("name", "required"),
        ] {
            assert!(found.contains(&(field.to_owned(), rule.to_owned())), "{field} {rule} not in {found:?}");
        }
        assert_eq!(found.len(), 10, "{found:?}");
    }

    #[test]
    fn rules_speak_even_when_the_shape_is_wrong_but_no_field_is_judged_twice() {
        let body = Body::<Sample>::from_slice(br#"{"colour":1,"size":3}"#).unwrap();
        let problem = body
            .check(|sample, violations| {
                violations.add("name", "S1", "is empty");
                violations.add("size", "range", "is too small");
                Some(sample.name)
            })
            .unwrap_err();
        let text = format!("{problem:?}");
        assert!(text.contains("is too small") && text.contains("colour") && text.contains("is missing"), "{text}");
        assert!(!text.contains("is empty"), "{text}");
    }

    #[test]
    fn a_value_in_the_wrong_place_is_never_repeated() {
        for text in [r#"{"name":"a","secret":4711}"#, r#"{"name":"a","parts":[{"kind":"4711","value":"v"}]}"#] {
            let problem = Body::<Sample>::from_slice(text.as_bytes()).unwrap().check(|s, _| Some(s.name)).unwrap_err();
            assert!(!format!("{problem:?}").contains("4711"), "{problem:?}");
        }
    }

    #[test]
    fn no_nul_gets_as_far_as_the_database() {
        let found = fields(r#"{"name":"a\u0000","parts":[{"kind":"ip","value":"\u0000"}]}"#);
        assert_eq!(found, [("name", "nul"), ("parts[0].value", "nul")].map(|(f, r)| (f.to_owned(), r.to_owned())));
    }

    #[test]
    fn a_body_full_of_mistakes_is_refused_with_the_first_of_them() {
        let many = vec!["\\u0000"; 25_000].iter().map(|text| format!("\"{text}\"")).collect::<Vec<_>>().join(",");
        let found = fields(&format!("{{\"name\":\"a\",\"colours\":[{many}]}}"));
        assert!((REPAIRS_MAX..=2 * REPAIRS_MAX).contains(&found.len()), "{}", found.len());
    }

    #[test]
    fn a_body_that_is_no_object_is_refused_with_a_sentence() {
        assert_eq!(fields("[]"), [(String::new(), "type".to_owned())]);
        assert!(Body::<Sample>::from_slice(b"{").is_err());
    }
}
