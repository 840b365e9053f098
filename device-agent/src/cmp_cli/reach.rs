//! How the server is reached, by the options: TLS, proxy, local side.

use std::path::Path;

use trustfleet_pki::certificate::Certificate as OurCertificate;
use ureq::tls::{Certificate, ClientCert, RootCerts};
use ureq::{Proxy, ProxyProtocol};
use url::Url;

use super::args::ServerArgs;
use super::fault::Fault;
use super::files;
use crate::ca_tls::client_cert;
use crate::cmp_http::{CmpHttp, Reach, Source};
use crate::config::SYSTEM_CA_FILES;

/// The HTTP client for this server.
///
/// # Errors
/// A file or proxy that cannot be used; nothing has been sent.
pub(super) fn http(args: &ServerArgs, url: &Url) -> Result<CmpHttp, Fault> {
    let https = url.scheme() == "https";
    if https || args.proxy.is_some() {
        // Another part of the process may have installed it already: all the same to us.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    }
    let roots = if https { roots(args)? } else { Vec::new() };
    let roots = roots.iter().map(|root| Certificate::from_der(root.as_der()).to_owned()).collect::<Vec<_>>();
    let client = match (&args.tls_cert, &args.tls_key) {
        (Some(_), Some(_)) if !https => {
            return Err(Fault::usage("--tls-cert is for https: write https://… or add --tls-used"));
        }
        (Some(cert), Some(key)) => Some(client(cert, key)?),
        _ => None,
    };
    let proxy = args.proxy.as_deref().map(|text| proxy(text, args.no_proxy.as_deref())).transpose()?;
    let source = Source { address: args.source_address, interface: args.interface.clone() };
    Ok(CmpHttp::reaching(Reach { roots: RootCerts::from(roots), client, proxy, source }))
}

fn roots(args: &ServerArgs) -> Result<Vec<OurCertificate>, Fault> {
    if !args.tls_trusted.is_empty() {
        return files::all_certificates("--tls-trusted", &args.tls_trusted);
    }
    let system = SYSTEM_CA_FILES.iter().map(Path::new).find(|path| path.is_file());
    let system = system.ok_or_else(|| Fault::usage("https needs roots: give them by --tls-trusted"))?;
    // A root in it that is too odd for us is no reason to trust none.
    let text = files::read("the system's roots", system)?;
    let text = String::from_utf8_lossy(&text);
    let parts = text.split_inclusive("-----END CERTIFICATE-----");
    let found: Vec<_> = parts.filter_map(|part| OurCertificate::from_pem(part).ok()).collect();
    if found.is_empty() { Err(Fault::usage("https needs roots: give them by --tls-trusted")) } else { Ok(found) }
}

fn client(cert: &Path, key: &Path) -> Result<ClientCert, Fault> {
    let chain = files::certificates("--tls-cert", cert)?;
    let bytes = files::read("--tls-key", key)?;
    client_cert(&chain, &bytes).map_err(|error| Fault::usage(format!("--tls-key {}: {error}", key.display())))
}

fn proxy(text: &str, no_proxy: Option<&str>) -> Result<Proxy, Fault> {
    let wrong = |why: &str| Fault::usage(format!("--proxy: {why}")); // the text may hold a password
    let with_scheme = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let url = Url::parse(&with_scheme).map_err(|error| wrong(&error.to_string()))?;
    let protocol = match url.scheme() {
        "http" => ProxyProtocol::Http,
        "https" => ProxyProtocol::Https,
        other => return Err(wrong(&format!("{other} is neither http nor https"))),
    };
    let mut builder = Proxy::builder(protocol).host(url.host_str().unwrap_or_default());
    if let Some(port) = url.port_or_known_default() {
        builder = builder.port(port);
    }
    if !url.username().is_empty() {
        builder = builder.username(url.username());
    }
    if let Some(password) = url.password() {
        builder = builder.password(password);
    }
    for host in no_proxy.into_iter().flat_map(|hosts| hosts.split(',')).map(str::trim).filter(|host| !host.is_empty()) {
        builder = builder.no_proxy(host);
    }
    builder.build().map_err(|error| wrong(&error.to_string()))
}
