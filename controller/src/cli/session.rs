//! One run of a verb: the connection, the tenant, and how answers are printed.

use std::{env, fs, path::PathBuf};

use jiff::Timestamp;
use serde_json::{Value, json};
use trustfleet_model::{
    clock::{Clock as _, SystemClock},
    secret::SecretText,
};
use ureq::http::Method;

use super::{
    args::{Connection, Output, Page},
    client::{Call, Client},
    error::CliError,
    output::{self, Column},
};

/// Items asked for at once when the whole list is wanted.
const PAGE_MAX: u16 = 1_000;

/// Everything a verb needs.
pub(super) struct Session {
    client: Client,
    tenant: Option<String>,
    output: Output,
}

impl Session {
    /// Reads the token and checks the URL; nothing is sent yet.
    pub(super) fn open(connection: Connection) -> Result<Self, CliError> {
        let token = token(&connection, |name| env::var(name).ok())?;
        let client = Client::new(&connection, token)?;
        Ok(Self { client, tenant: connection.tenant, output: connection.output })
    }

    fn tenant(&self) -> Result<&str, CliError> {
        let missing = || CliError::Usage("no tenant: give --tenant NAME or set TRUSTFLEET_TENANT".to_owned());
        self.tenant.as_deref().ok_or_else(missing)
    }

    /// Whether answers are for programs: then nothing but JSON is printed.
    pub(super) fn is_json(&self) -> bool {
        self.output == Output::Json
    }

    /// The present moment, for relative times.
    pub(super) fn now(&self) -> Timestamp {
        SystemClock.now()
    }

    /// Sends a call outside of tenants.
    pub(super) fn platform(&self, method: Method, path: &[&str], body: Option<&Value>) -> Result<Value, CliError> {
        let path: Vec<_> = ["v1"].into_iter().chain(path.iter().copied()).collect();
        self.client.send(&Call { body, ..Call::new(method, &path) })
    }

    /// Sends a call outside of tenants, with a query.
    pub(super) fn platform_with(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
    ) -> Result<Value, CliError> {
        let path: Vec<_> = ["v1"].into_iter().chain(path.iter().copied()).collect();
        self.client.send(&Call { query, ..Call::new(method, &path) })
    }

    /// Sends a call inside the tenant.
    pub(super) fn call(&self, method: Method, path: &[&str], body: Option<&Value>) -> Result<Value, CliError> {
        self.call_with(method, path, body, &[], &[])
    }

    /// Reads one object of the tenant.
    pub(super) fn read(&self, path: &[&str]) -> Result<Value, CliError> {
        self.call(Method::GET, path, None)
    }

    /// Sends a call inside the tenant, with a query and further headers.
    pub(super) fn call_with(
        &self,
        method: Method,
        path: &[&str],
        body: Option<&Value>,
        query: &[(&str, String)],
        headers: &[(&'static str, String)],
    ) -> Result<Value, CliError> {
        let tenant = self.tenant()?;
        let path: Vec<_> = ["v1", "tenants", tenant].into_iter().chain(path.iter().copied()).collect();
        self.client.send(&Call { query, body, headers, ..Call::new(method, &path) })
    }

    /// Sends a call inside the tenant, or with `platform` beside all tenants.
    pub(super) fn call_at(
        &self,
        platform: bool,
        method: Method,
        path: &[&str],
        body: Option<&Value>,
    ) -> Result<Value, CliError> {
        if !platform {
            return self.call(method, path, body);
        }
        let path: Vec<_> = std::iter::once("v1").chain(path.iter().copied()).collect();
        self.client.send(&Call { body, ..Call::new(method, &path) })
    }

    /// Reads a text, such as JSON lines, of the tenant or with `platform` beside all tenants.
    pub(super) fn text_at(&self, platform: bool, path: &[&str], query: &[(&str, String)]) -> Result<String, CliError> {
        let path =
            if platform { [&["v1"], path].concat() } else { [&["v1", "tenants", self.tenant()?], path].concat() };
        self.client.send_for_text(&Call { query, ..Call::new(Method::GET, &path) })
    }

    /// Copies lines of the tenant to `writer` as they come.
    pub(super) fn copy_lines(
        &self,
        path: &[&str],
        query: &[(&str, String)],
        writer: &mut dyn std::io::Write,
    ) -> Result<(), CliError> {
        let path = [&["v1", "tenants", self.tenant()?], path].concat();
        self.client.copy(&Call { query, ..Call::new(Method::GET, &path) }, writer)
    }

    /// Sends lines (their media type, and they) inside the tenant; the answer is a line of JSON for each.
    pub(super) fn post_lines(
        &self,
        path: &[&str],
        content: (&'static str, &str),
        query: &[(&str, String)],
    ) -> Result<Vec<Value>, CliError> {
        let path = [&["v1", "tenants", self.tenant()?], path].concat();
        let call = Call { query, content: Some(content), ..Call::new(Method::POST, &path) };
        let answer = self.client.send_for_text(&call)?;
        answer.lines().map(|line| self.client.line(&call, line)).collect()
    }

    /// Reads a list of the tenant, or with `platform` one beside all tenants: one page, or all of them.
    pub(super) fn list_at(
        &self,
        platform: bool,
        path: &[&str],
        page: &Page,
        filters: &[(&str, String)],
    ) -> Result<Value, CliError> {
        if !platform {
            return self.list(path, page, filters);
        }
        let path: Vec<_> = std::iter::once("v1").chain(path.iter().copied()).collect();
        collect(page, |query| {
            let query: Vec<_> = filters.iter().cloned().chain(query).collect();
            self.client.send(&Call { query: &query, ..Call::new(Method::GET, &path) })
        })
    }

    /// Reads a list of the tenant: one page, or all of them.
    pub(super) fn list(&self, path: &[&str], page: &Page, filters: &[(&str, String)]) -> Result<Value, CliError> {
        collect(page, |query| {
            let query: Vec<_> = filters.iter().cloned().chain(query).collect();
            self.call_with(Method::GET, path, None, &query, &[])
        })
    }

    /// Reads a list outside of tenants: one page, or all of them.
    pub(super) fn list_platform(&self, noun: &str, page: &Page) -> Result<Value, CliError> {
        collect(page, |query| self.client.send(&Call { query: &query, ..Call::new(Method::GET, &["v1", noun]) }))
    }

    /// Prints a list as a table with the given columns, or as JSON.
    pub(super) fn print_list(&self, list: &Value, columns: &[Column], next: &str) -> Result<(), CliError> {
        if self.is_json() {
            return output::print_json(list);
        }
        let items = list["items"].as_array().map_or(&[][..], Vec::as_slice);
        output::print(&output::table(items, columns, self.now()))?;
        if let Some(cursor) = list["next"].as_str() {
            eprintln!("there are more: add --all, or --after {}", output::plain(cursor));
        }
        self.hint(next);
        Ok(())
    }

    /// Prints one object as a list of its fields, the given ones first, or as JSON.
    pub(super) fn print_object(&self, object: &Value, first: &[&str], next: &str) -> Result<(), CliError> {
        if self.is_json() {
            return output::print_json(object);
        }
        output::print(&output::fields(object, first, self.now()))?;
        self.hint(next);
        Ok(())
    }

    /// Prints that something is gone.
    pub(super) fn print_deleted(&self, what: &str, name: &str) -> Result<(), CliError> {
        if self.is_json() {
            return Ok(());
        }
        output::print(&format!("{what} {name} is deleted"))
    }

    /// The warnings in an answer, on stderr; programs find them in the answer itself.
    pub(super) fn warn(&self, answer: &Value) {
        if self.is_json() {
            return;
        }
        for warning in answer["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            eprintln!("warning: {}", output::plain(warning));
        }
    }

    /// The line that says what to do next; programs do not get it.
    pub(super) fn hint(&self, next: &str) {
        if !self.is_json() && !next.is_empty() {
            eprintln!("next: {next}");
        }
    }
}

/// Follows the pages of a list as far as they are wanted.
fn collect(
    page: &Page,
    mut fetch: impl FnMut(Vec<(&'static str, String)>) -> Result<Value, CliError>,
) -> Result<Value, CliError> {
    let limit = if page.all { PAGE_MAX } else { page.limit };
    let mut after = page.after.clone();
    let mut items = Vec::new();
    loop {
        let mut query = vec![("limit", limit.to_string())];
        query.extend(after.take().map(|after| ("after", after)));
        let mut answer = fetch(query)?;
        if let Some(more) = answer["items"].as_array_mut() {
            items.append(more);
        }
        match answer["next"].as_str() {
            Some(next) if page.all => after = Some(next.to_owned()),
            next => return Ok(json!({ "items": items, "next": next })),
        }
    }
}

/// The token: what the command line names goes before the environment.
fn token(connection: &Connection, env: impl Fn(&str) -> Option<String>) -> Result<Option<SecretText>, CliError> {
    let from_file = |path: PathBuf| match fs::read_to_string(&path) {
        Ok(text) => Ok(text),
        Err(source) => Err(CliError::File { path, source }),
    };
    let text = if let Some(token) = &connection.token {
        token.clone()
    } else if let Some(path) = &connection.token_file {
        from_file(path.clone())?
    } else if let Some(token) = env("TRUSTFLEET_TOKEN") {
        token
    } else if let Some(path) = env("TRUSTFLEET_TOKEN_FILE") {
        from_file(path.into())?
    } else {
        return Ok(None);
    };
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(CliError::Usage("the token is empty or holds characters that no token has".to_owned()));
    }
    Ok(Some(SecretText::new(token.to_owned())))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        connection: Connection,
    }

    fn connection(line: &[&str]) -> Connection {
        Line::try_parse_from(std::iter::once(&"trustfleet").chain(line)).unwrap().connection
    }

    #[test]
    fn the_command_line_goes_before_the_environment() {
        let env = |name: &str| (name == "TRUSTFLEET_TOKEN").then(|| "from-env".to_owned());
        let read = |line: &[&str]| token(&connection(line), env).unwrap().unwrap().expose().clone();
        assert_eq!(read(&["--token", "from-line"]), "from-line");
        assert_eq!(read(&[]), "from-env");
        assert!(token(&connection(&[]), |_| None).unwrap().is_none());
    }

    #[test]
    fn a_token_that_would_break_the_header_is_refused_without_being_shown() {
        let error = token(&connection(&["--token", "abc\r\nX: y"]), |_| None).err().unwrap();
        assert!(!error.to_string().contains("abc"));
    }

    #[test]
    fn all_pages_become_one_list() {
        let page = Page { limit: 100, after: None, all: true };
        let list = collect(&page, |query| {
            let after = query.iter().find(|(name, _)| *name == "after").map(|(_, value)| value.clone());
            Ok(match after.as_deref() {
                None => json!({"items": [1, 2], "next": "c2"}),
                Some("c2") => json!({"items": [3], "next": null}),
                Some(other) => panic!("asked for {other}"),
            })
        });
        assert_eq!(list.unwrap(), json!({"items": [1, 2, 3], "next": null}));
    }
}
