//! From `--server`, `--path` and `--well-known` to the one URL of the transaction (T6, T7).

use url::Url;

use super::fault::Fault;

/// The URL that messages are posted to.
///
/// `server` is a URL, or `host:port` with perhaps a path, as openssl takes it. A path that is given stays as it is, its
/// query included (S6).
///
/// # Errors
/// What cannot be a URL, or two paths.
pub(super) fn url(server: &str, path: Option<&str>, well_known: Option<&str>, tls: bool) -> Result<Url, Fault> {
    let text = if server.contains("://") {
        server.to_owned()
    } else {
        format!("{}://{server}", if tls { "https" } else { "http" })
    };
    let wrong = |why: &str| Fault::usage(format!("--server {server:?}: {why}"));
    let mut url = Url::parse(&text).map_err(|error| wrong(&error.to_string()))?;
    match url.scheme() {
        "http" if tls => return Err(wrong("--tls-used and http: write https")),
        "http" | "https" => {}
        other => return Err(wrong(&format!("{other} is neither http nor https"))),
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(wrong("there is no host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("credentials in a URL would be logged on the way"));
    }
    let path = match (path, well_known) {
        (Some(_), Some(_)) => return Err(Fault::usage("--path and --well-known are two paths: give one")),
        (Some(path), None) => Some(format!("/{}", path.trim_start_matches('/'))),
        (None, Some("")) => Some("/.well-known/cmp".to_owned()),
        (None, Some(below)) => Some(format!("/.well-known/cmp/{}", below.trim_matches('/'))),
        (None, None) => None,
    };
    if let Some(path) = path {
        url = url.join(&path).map_err(|error| Fault::usage(format!("the path {path:?}: {error}")))?;
    }
    url.set_fragment(None);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t6_a_full_path_stays_as_it_is_and_well_known_ones_are_made() {
        for (server, path, well_known, tls, expected) in [
            ("ca.example:8080", None, None, false, "http://ca.example:8080/"),
            ("ca.example:8080/pkix/", None, None, false, "http://ca.example:8080/pkix/"),
            ("ca.example:8443", Some("pkix/?profile=ap"), None, true, "https://ca.example:8443/pkix/?profile=ap"),
            ("https://ca.example/x?y=z", None, None, false, "https://ca.example/x?y=z"),
            ("http://ca.example/old", Some("/new"), None, false, "http://ca.example/new"),
            ("http://ca.example", None, Some(""), false, "http://ca.example/.well-known/cmp"),
            ("http://ca.example", None, Some("p/ap"), false, "http://ca.example/.well-known/cmp/p/ap"),
            (
                "http://ca.example",
                None,
                Some("initialization"),
                false,
                "http://ca.example/.well-known/cmp/initialization",
            ),
            ("[::1]:829", Some("pkix"), None, false, "http://[::1]:829/pkix"),
        ] {
            assert_eq!(url(server, path, well_known, tls).unwrap().as_str(), expected, "{server}");
        }
    }

    #[test]
    fn servers_that_cannot_be_are_refused_by_name() {
        for (server, path, well_known, tls) in [
            ("ftp://ca.example", None, None, false),
            ("http://ca.example", None, None, true),
            ("http://me:secret@ca.example", None, None, false),
            ("", None, None, false),
            ("http://ca.example", Some("a"), Some("b"), false),
        ] {
            let fault = url(server, path, well_known, tls).unwrap_err();
            assert_eq!(fault.exit, super::super::exit::Exit::Usage);
        }
    }
}
