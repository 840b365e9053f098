//! Objects by flags and by file: `--file SPEC.json` or `.toml` gives the whole, flags go over it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use figment::{
    Figment,
    providers::{Format as _, Toml},
};
use serde_json::{Map, Value};

use super::error::CliError;

/// What the controller adds to an object and never takes back.
const MADE_BY_THE_CONTROLLER: [&str; 5] = ["id", "name", "revision", "created_at", "updated_at"];

/// The object that is sent, while it is put together.
#[derive(Debug, Default)]
pub(super) struct Draft(Map<String, Value>);

impl Draft {
    /// An object from a file; TOML when its name ends so, else JSON. `name` and the like in it are left out, so that
    /// what `show --output json` printed can be edited and sent back.
    pub(super) fn from_file(path: &Path) -> Result<Self, CliError> {
        let text = fs::read_to_string(path).map_err(|source| CliError::File { path: path.to_owned(), source })?;
        let is_toml = path.extension().is_some_and(|extension| extension == "toml");
        Self::from_text(&text, is_toml)
            .map_err(|error| CliError::Usage(format!("{} cannot be understood: {error}", path.display())))
    }

    fn from_text(text: &str, is_toml: bool) -> Result<Self, String> {
        let value: Value = if is_toml {
            Figment::from(Toml::string(text)).extract().map_err(|error| error.to_string())?
        } else {
            serde_json::from_str(text).map_err(|error| error.to_string())?
        };
        match value {
            Value::Object(map) => Ok(Self::from_map(map)),
            _ => Err("it is not an object".to_owned()),
        }
    }

    /// The present object of the controller, to be changed.
    pub(super) fn from_object(object: &Value) -> Self {
        Self::from_map(object.as_object().cloned().unwrap_or_default())
    }

    fn from_map(mut map: Map<String, Value>) -> Self {
        for name in MADE_BY_THE_CONTROLLER {
            map.remove(name);
        }
        Self(map)
    }

    /// Sets a field (`a.b` for a field of an inner object) when a flag gave a value.
    pub(super) fn set(&mut self, path: &str, value: Option<impl Into<Value>>) {
        let Some(value) = value else { return };
        let mut map = &mut self.0;
        let mut rest = path;
        while let Some((outer, inner)) = rest.split_once('.') {
            let entry = map.entry(outer).or_insert_with(|| Value::Object(Map::new()));
            if !entry.is_object() {
                *entry = Value::Object(Map::new());
            }
            match entry {
                Value::Object(inner_map) => map = inner_map,
                _ => return,
            }
            rest = inner;
        }
        map.insert(rest.to_owned(), value.into());
    }

    /// Sets a field when a flag gave at least one value.
    pub(super) fn set_list(&mut self, path: &str, values: Vec<Value>) {
        self.set(path, (!values.is_empty()).then_some(values));
    }

    /// The body of a `PUT`.
    pub(super) fn body(self) -> Value {
        Value::Object(self.0)
    }

    /// The body of a `POST`.
    pub(super) fn body_named(mut self, name: &str) -> Value {
        self.set("name", Some(name));
        self.body()
    }
}

/// The certificates of PEM files, one text each, as the API wants them.
pub(super) fn certificates(files: &[PathBuf]) -> Result<Vec<Value>, CliError> {
    const END: &str = "-----END CERTIFICATE-----";
    let mut found = Vec::new();
    for path in files {
        let text = fs::read_to_string(path).map_err(|source| CliError::File { path: path.clone(), source })?;
        let before = found.len();
        for part in text.split_inclusive(END) {
            if let (Some(begin), true) = (part.find("-----BEGIN CERTIFICATE-----"), part.ends_with(END)) {
                found.push(Value::String(format!("{}\n", &part[begin..])));
            }
        }
        if found.len() == before {
            return Err(CliError::Usage(format!(
                "{} holds no certificate in PEM; convert DER by `openssl x509 -inform DER`",
                path.display()
            )));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn flags_go_over_the_file_and_what_the_controller_adds_is_left_out() {
        let text = r#"{"id":"x","name":"old","revision":3,"key":{"algorithm":"rsa-2048"},"message_timeout_s":30}"#;
        let mut draft = Draft::from_text(text, false).unwrap();
        draft.set("key.regenerate", Some(false));
        draft.set("mac.algorithm", Some("hmac-sha256"));
        draft.set("total_timeout_s", None::<u32>);
        assert_eq!(
            draft.body_named("p1"),
            json!({"name": "p1", "key": {"algorithm": "rsa-2048", "regenerate": false}, "message_timeout_s": 30,
                   "mac": {"algorithm": "hmac-sha256"}})
        );
    }

    #[test]
    fn toml_and_json_say_the_same() {
        let toml = Draft::from_text("subject = \"CN=x\"\n[[sans]]\nkind = \"dns\"\nvalue = \"y\"\n", true).unwrap();
        let json = Draft::from_text(r#"{"subject":"CN=x","sans":[{"kind":"dns","value":"y"}]}"#, false).unwrap();
        assert_eq!(toml.body(), json.body());
        assert!(Draft::from_text("[1]", false).is_err());
    }
}
