//! Services in the agent's configuration file, and what is wrong with them: all of it at once, each with its key's name.
//!
//! A service is a command that reloads it, a probe that sees whether it has loaded, and copies of the certificate where it
//! looks for them. Only its name comes from the controller.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use trustfleet_model::field::ObjectName;

use super::accounts::Accounts;
use super::template::Template;
use crate::config::KeysConfig;

/// Longest time of one reload or one probe, seconds.
const SECONDS_MAX: u32 = 600;
/// Most exports of one service, and most words of one command.
const LIST_MAX: usize = 32;

/// One service, as the TOML file has it: the table `[services.NAME]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceConfig {
    /// Program and arguments that make the service load its certificate; no shell. Without it, the service looks by itself.
    #[serde(default)]
    pub reload: Vec<String>,
    /// Longest time of a reload, seconds, 1 to 600.
    #[serde(default = "default_seconds")]
    pub reload_timeout_s: u32,
    /// User that `reload` and `probe.command` run as; by default the agent's own.
    #[serde(default)]
    pub user: Option<String>,
    /// Their group; by default the user's.
    #[serde(default)]
    pub group: Option<String>,
    /// How it is seen that the service uses the new certificate; without it nobody can tell.
    #[serde(default)]
    pub probe: Option<ProbeConfig>,
    /// How it is seen that the service has loaded trust anchors: by the CAs that it names to clients (`tls`), by a file that
    /// holds them, or by a program that prints their SHA-256 fingerprints; without it nobody can tell.
    #[serde(default)]
    pub anchors_probe: Option<ProbeConfig>,
    /// Time within which a probe must see it, seconds, 1 to 600.
    #[serde(default = "default_seconds")]
    pub probe_timeout_s: u32,
    /// Copies for the service, written before the reload.
    #[serde(default)]
    pub exports: Vec<ExportConfig>,
}

/// A probe: one of `tls`, `file` and `command`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeConfig {
    /// `HOST:PORT` that presents the certificate in a TLS handshake.
    #[serde(default)]
    pub tls: Option<String>,
    /// Name to ask for in that handshake; by default the host.
    #[serde(default)]
    pub sni: Option<String>,
    /// File that holds the certificate, PEM or DER.
    #[serde(default)]
    pub file: Option<String>,
    /// Program and arguments that print the serial number in hexadecimal digits.
    #[serde(default)]
    pub command: Vec<String>,
}

/// One copy, or a folder of copies by the names that network devices give them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportConfig {
    /// File to write.
    #[serde(default)]
    pub path: Option<String>,
    /// What it holds: `certificate`, `chain`, `fullchain`, `key`, `ca`, `crl` or `pkcs12`.
    #[serde(default)]
    pub content: Option<String>,
    /// Instead of `path` and `content`: folder that gets `TRUSTPOINT_ir.cer`, `TRUSTPOINT_ca0.cer`, … (S36).
    #[serde(default)]
    pub folder: Option<String>,
    /// `pem` (the default) or `der`.
    #[serde(default)]
    pub format: Option<String>,
    /// File with the password of a `pkcs12`.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// User that the file belongs to; by default the agent's own.
    #[serde(default)]
    pub owner: Option<String>,
    /// Its group.
    #[serde(default)]
    pub group: Option<String>,
    /// Its mode, four octal digits; by default `0600` for `key` and `pkcs12`, `0644` for the rest.
    #[serde(default)]
    pub mode: Option<String>,
}

const fn default_seconds() -> u32 {
    30
}

/// A service that can be worked with.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its name.
    pub name: ObjectName,
    /// What reloads it.
    pub reload: Vec<Template>,
    /// Longest time of that.
    pub reload_timeout: Duration,
    /// User and group of its commands.
    pub run_as: Option<(u32, u32)>,
    /// How it is seen to have loaded.
    pub probe: Option<Probe>,
    /// How it is seen to have loaded trust anchors.
    pub anchors_probe: Option<Probe>,
    /// Time for a probe to see it.
    pub probe_timeout: Duration,
    /// Copies.
    pub exports: Vec<Export>,
}

/// How a service is seen to use a certificate.
#[derive(Clone, Debug)]
pub enum Probe {
    /// By a TLS handshake.
    Tls {
        /// Host and port.
        address: Template,
        /// Name to ask for.
        sni: Option<Template>,
    },
    /// By a file.
    File(Template),
    /// By what a program prints.
    Command(Vec<Template>),
}

/// Copies to be written.
#[derive(Clone, Debug)]
pub struct Export {
    /// Where, and what.
    pub what: What,
    /// In which form.
    pub format: Format,
    /// Who owns them.
    pub owner: Option<u32>,
    /// Which group.
    pub group: Option<u32>,
    /// Their mode.
    pub mode: u32,
}

/// What is written where.
#[derive(Clone, Debug)]
pub enum What {
    /// One file.
    File {
        /// Its path.
        path: Template,
        /// What it holds.
        content: Content,
    },
    /// Certificate and CA certificates by the names of network devices (S36).
    Folder(Template),
}

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// The certificate.
    Certificate,
    /// The CA certificates between it and the root, the issuer first.
    Chain,
    /// The certificate, then the chain.
    Fullchain,
    /// The private key, PKCS #8.
    Key,
    /// Every CA certificate that verifies others of the same CA: the trust anchors, then the chain.
    Ca,
    /// The CRL of the certificate's CA; no file as long as there is none.
    Crl,
    /// Key, certificate and chain, PKCS #12.
    Pkcs12 {
        /// File with the password.
        password_file: PathBuf,
    },
}

/// How certificates and keys are written (S15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Base64 between lines.
    Pem,
    /// Plain.
    Der,
}

/// Reads all services; on error everything that is wrong, each with its key.
pub(super) fn read(
    services: &BTreeMap<String, ServiceConfig>,
    keys: &KeysConfig,
    accounts: &Accounts,
) -> Result<Vec<Service>, Vec<String>> {
    let mut reader = Reader { keys, accounts, places: BTreeMap::new(), problems: Vec::new() };
    let read = services.iter().filter_map(|(name, config)| reader.service(name, config)).collect();
    if reader.problems.is_empty() { Ok(read) } else { Err(reader.problems) }
}

struct Reader<'a> {
    keys: &'a KeysConfig,
    accounts: &'a Accounts,
    /// Where copies go, with the key that says so.
    places: BTreeMap<String, String>,
    problems: Vec<String>,
}

impl Reader<'_> {
    fn wrong(&mut self, key: &str, what: impl std::fmt::Display) {
        self.problems.push(format!("{key}: {what}"));
    }

    fn good<T, E: std::fmt::Display>(&mut self, key: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.wrong(key, error)).ok()
    }

    fn service(&mut self, name: &str, config: &ServiceConfig) -> Option<Service> {
        let key = format!("services.{name}");
        let read_name = self.good(&key, name.parse::<ObjectName>());
        if config.reload.is_empty() && config.probe.is_none() && config.exports.is_empty() {
            self.wrong(&key, "has neither reload nor probe nor exports: nothing would ever happen");
        }
        let reload = self.command(&format!("{key}.reload"), &config.reload);
        let probe = config.probe.as_ref().and_then(|probe| self.probe(&format!("{key}.probe"), probe));
        let anchors_probe = config.anchors_probe.as_ref();
        let anchors_probe = anchors_probe.and_then(|probe| self.probe(&format!("{key}.anchors_probe"), probe));
        if config.exports.len() > LIST_MAX {
            self.wrong(
                &format!("{key}.exports"),
                format!("are {}; at most {LIST_MAX} are allowed", config.exports.len()),
            );
        }
        let exports = config.exports.iter().enumerate();
        let exports = exports.filter_map(|(i, export)| self.export(&format!("{key}.exports[{i}]"), export)).collect();
        let run_as = self.run_as(&key, config);
        let reload_timeout = self.seconds(&format!("{key}.reload_timeout_s"), config.reload_timeout_s);
        let probe_timeout = self.seconds(&format!("{key}.probe_timeout_s"), config.probe_timeout_s);
        Some(Service { name: read_name?, reload, reload_timeout, run_as, probe, anchors_probe, probe_timeout, exports })
    }

    fn seconds(&mut self, key: &str, seconds: u32) -> Duration {
        if !(1..=SECONDS_MAX).contains(&seconds) {
            self.wrong(key, format!("is {seconds}; it must be 1 to {SECONDS_MAX}"));
        }
        Duration::from_secs(seconds.into())
    }

    fn run_as(&mut self, key: &str, config: &ServiceConfig) -> Option<(u32, u32)> {
        let user = config.user.as_ref().and_then(|user| self.good(&format!("{key}.user"), self.accounts.user(user)));
        let group =
            config.group.as_ref().and_then(|name| self.good(&format!("{key}.group"), self.accounts.group(name)));
        match (&config.user, user, group) {
            (Some(_), Some((user, own_group)), group) => match group.or(own_group) {
                Some(group) => Some((user, group)),
                None => {
                    self.wrong(&format!("{key}.user"), "is a number without a name in /etc/passwd: set group as well");
                    None
                }
            },
            (None, _, Some(_)) => {
                self.wrong(&format!("{key}.group"), "is set without user: set both");
                None
            }
            _ => None,
        }
    }

    /// A program by its whole path, and its arguments.
    fn command(&mut self, key: &str, words: &[String]) -> Vec<Template> {
        if words.len() > LIST_MAX {
            self.wrong(key, format!("has {} words; at most {LIST_MAX} are allowed", words.len()));
            return Vec::new();
        }
        if words.first().is_some_and(|program| !program.starts_with('/')) {
            self.wrong(
                &format!("{key}[0]"),
                "must be the program's whole path, such as /usr/sbin/nginx: there is no shell",
            );
        }
        let words = words.iter().enumerate();
        words.filter_map(|(i, word)| self.good(&format!("{key}[{i}]"), Template::read(word))).collect()
    }

    fn probe(&mut self, key: &str, probe: &ProbeConfig) -> Option<Probe> {
        let named = [probe.tls.is_some(), probe.file.is_some(), !probe.command.is_empty()];
        if named.iter().filter(|set| **set).count() != 1 {
            self.wrong(key, "needs exactly one of tls, file and command");
            return None;
        }
        if probe.sni.is_some() && probe.tls.is_none() {
            self.wrong(&format!("{key}.sni"), "belongs to tls");
        }
        if let Some(address) = &probe.tls {
            let key = format!("{key}.tls");
            let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty());
            if !port.is_some_and(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0)) {
                self.wrong(&key, format!("is {address:?}; give HOST:PORT, such as 127.0.0.1:443"));
            }
            let sni = probe.sni.as_ref().and_then(|name| self.good(&key.replace(".tls", ".sni"), Template::read(name)));
            return self.good(&key, Template::read(address)).map(|address| Probe::Tls { address, sni });
        }
        if let Some(file) = &probe.file {
            return self.path(&format!("{key}.file"), file).map(Probe::File);
        }
        Some(Probe::Command(self.command(&format!("{key}.command"), &probe.command)))
    }

    fn path(&mut self, key: &str, text: &str) -> Option<Template> {
        if !text.starts_with('/') || text.ends_with('/') || text.split('/').any(|part| part == "..") {
            self.wrong(key, format!("is {text:?}; it must be an absolute path without '..'"));
        }
        self.good(key, Template::read(text))
    }

    fn export(&mut self, key: &str, export: &ExportConfig) -> Option<Export> {
        let what = match (&export.path, &export.content, &export.folder) {
            (Some(path), Some(content), None) => {
                let content = self.content(key, content, export);
                if let Some(other) = self.places.insert(path.clone(), format!("{key}.path")) {
                    self.wrong(&format!("{key}.path"), format!("is {path:?}, which {other} is as well"));
                }
                let path = self.path(&format!("{key}.path"), path);
                path.zip(content).map(|(path, content)| What::File { path, content })
            }
            (None, None, Some(folder)) => self.path(&format!("{key}.folder"), folder).map(What::Folder),
            _ => {
                self.wrong(key, "needs either path and content, or folder");
                None
            }
        };
        let format = match export.format.as_deref() {
            None | Some("pem") => Format::Pem,
            Some("der") => Format::Der,
            Some(other) => {
                self.wrong(&format!("{key}.format"), format!("is {other:?}; known are pem and der"));
                Format::Pem
            }
        };
        if let Some(What::File { content, .. }) = &what {
            let many = matches!(content, Content::Chain | Content::Fullchain | Content::Ca);
            if many && format == Format::Der {
                let message = "der holds one certificate, and these can be several: use pem, or folder";
                self.wrong(&format!("{key}.format"), message);
            }
            if matches!(content, Content::Pkcs12 { .. }) && export.format.is_some() {
                self.wrong(&format!("{key}.format"), "does not go with pkcs12, which has one form");
            }
        }
        let secret = matches!(export.content.as_deref(), Some("key" | "pkcs12"));
        let owner = export.owner.as_ref().and_then(|name| self.good(&format!("{key}.owner"), self.accounts.user(name)));
        let group =
            export.group.as_ref().and_then(|name| self.good(&format!("{key}.group"), self.accounts.group(name)));
        let mode = self.mode(&format!("{key}.mode"), export.mode.as_deref(), secret);
        Some(Export { what: what?, format, owner: owner.map(|(user, _)| user), group, mode })
    }

    fn mode(&mut self, key: &str, mode: Option<&str>, secret: bool) -> u32 {
        let Some(text) = mode else { return if secret { 0o600 } else { 0o644 } };
        match u32::from_str_radix(text, 8) {
            Ok(mode) if text.len() == 4 && mode & !0o777 == 0 && mode & 0o400 != 0 => {
                if secret && mode & 0o007 != 0 {
                    self.wrong(key, format!("is {text}: everybody could get at the private key"));
                }
                mode
            }
            _ => {
                self.wrong(
                    key,
                    format!("is {text:?}; give four octal digits that let the owner read, such as \"0640\""),
                );
                0o600
            }
        }
    }

    fn content(&mut self, key: &str, word: &str, export: &ExportConfig) -> Option<Content> {
        if export.password_file.is_some() && word != "pkcs12" {
            self.wrong(&format!("{key}.password_file"), "belongs to content = \"pkcs12\"");
        }
        let in_token = self.keys.pkcs11_module.is_some();
        let key = format!("{key}.content");
        if in_token && matches!(word, "key" | "pkcs12") {
            self.wrong(&key, "is a private key, and keys.pkcs11_module keeps those in the token");
        }
        if word == "pkcs12" && !cfg!(feature = "pkcs12") {
            self.wrong(&key, "pkcs12 is not in this agent: it is built without the feature pkcs12");
        }
        if word == "pkcs12" && self.keys.passphrase_file.is_some() {
            self.wrong(&key, "pkcs12 needs keys that are not encrypted by keys.passphrase_file");
        }
        match word {
            "certificate" => Some(Content::Certificate),
            "chain" => Some(Content::Chain),
            "fullchain" => Some(Content::Fullchain),
            "key" => Some(Content::Key),
            "ca" => Some(Content::Ca),
            "crl" => Some(Content::Crl),
            "pkcs12" => match &export.password_file {
                Some(file) => Some(Content::Pkcs12 { password_file: file.clone() }),
                None => {
                    self.wrong(&key, "pkcs12 needs password_file");
                    None
                }
            },
            other => {
                let known = "certificate, chain, fullchain, key, ca and pkcs12";
                self.wrong(&key, format!("is {other:?}; known are {known}"));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Result<Vec<Service>, Vec<String>> {
        let services: BTreeMap<String, ServiceConfig> =
            toml::from_str(text).map_err(|error| vec![error.to_string()])?;
        let accounts = Accounts::of("root:x:0:0::/:/bin/sh\nwww:x:33:34::/:/bin/sh\n", "www:x:34:\nssl:x:110:\n");
        read(&services, &KeysConfig::default(), &accounts)
    }

    #[test]
    fn a_whole_service_is_read() {
        let services = all(
            "[https]\nreload = [\"/usr/sbin/nginx\", \"-s\", \"reload\"]\nuser = \"www\"\n\
             [https.probe]\ntls = \"[::1]:443\"\nsni = \"{device}.example\"\n\
             [[https.exports]]\npath = \"/etc/{device}/{trustpoint}.key\"\ncontent = \"key\"\ngroup = \"ssl\"\nmode = \"0640\"\n\
             [[https.exports]]\nfolder = \"/flash/pki\"\nformat = \"der\"\n",
        )
        .unwrap();
        let https = &services[0];
        assert_eq!(https.run_as, Some((33, 34)));
        assert_eq!((https.reload.len(), https.reload_timeout.as_secs(), https.probe_timeout.as_secs()), (3, 30, 30));
        assert_eq!((https.exports[0].mode, https.exports[0].group, https.exports[0].owner), (0o640, Some(110), None));
        assert!(matches!(https.exports[1].what, What::Folder(_)));
        assert_eq!((https.exports[1].mode, https.exports[1].format), (0o644, Format::Der));
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once_with_its_key() {
        let problems = all("[\"../x\"]\nreload = [\"nginx\"]\nreload_timeout_s = 0\nuser = \"nobody-here\"\n\
             probe = { tls = \"localhost\", file = \"/x\" }\n\
             [[\"../x\".exports]]\npath = \"relative\"\ncontent = \"everything\"\n\
             [[\"../x\".exports]]\npath = \"/a/{serial}\"\ncontent = \"key\"\nmode = \"0644\"\n\
             [[\"../x\".exports]]\npath = \"/b\"\ncontent = \"ca\"\nformat = \"der\"\nowner = \"ghost\"\n\
             [[\"../x\".exports]]\npath = \"/c\"\ncontent = \"pkcs12\"\n\
             [[\"../x\".exports]]\nfolder = \"/a/../b\"\npath = \"/a\"\n\
             [empty]\n[bad]\nprobe = { tls = \"localhost\" }\n")
        .unwrap_err();
        let expected = [
            "services.../x: contains '.'",
            "services.../x.reload[0]: must be the program's whole path",
            "services.../x.probe: needs exactly one",
            "services.../x.exports[0].content: is \"everything\"",
            "services.../x.exports[0].path: is \"relative\"",
            "services.../x.exports[1].path: has the placeholder {serial}",
            "services.../x.exports[1].mode: is 0644: everybody",
            "services.../x.exports[2].format: der holds one",
            "services.../x.exports[2].owner: there is no user ghost",
            "services.../x.exports[3].content: pkcs12 needs password_file",
            "services.../x.exports[4]: needs either",
            "services.../x.user: there is no user nobody-here",
            "services.../x.reload_timeout_s: is 0",
            "services.empty: has neither",
            "services.bad.probe.tls: is \"localhost\"",
        ];
        for beginning in expected {
            assert!(
                problems.iter().any(|problem| problem.starts_with(beginning)),
                "{beginning} is not in {problems:#?}"
            );
        }
        assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    }

    #[test]
    fn two_copies_in_one_place_are_refused() {
        let export = "path = \"/a\"\ncontent = \"ca\"\n";
        let problems = all(&format!("[[x.exports]]\n{export}[[y.exports]]\n{export}")).unwrap_err();
        assert_eq!(problems, ["services.y.exports[0].path: is \"/a\", which services.x.exports[0].path is as well"]);
    }

    #[test]
    fn an_unknown_key_is_refused() {
        assert!(all("[https]\nreloads = []\n").unwrap_err()[0].contains("reloads"));
        assert!(all("[https]\n[https.probe]\nhttp = \"x\"\n").unwrap_err()[0].contains("http"));
    }

    #[test]
    fn keys_that_never_leave_their_token_are_not_exported() {
        let services: BTreeMap<String, ServiceConfig> =
            toml::from_str("[x]\n[[x.exports]]\npath = \"/a\"\ncontent = \"key\"\n").unwrap();
        let token = KeysConfig { pkcs11_module: Some("/lib/p.so".into()), ..KeysConfig::default() };
        let problems = read(&services, &token, &Accounts::of("", "")).unwrap_err();
        assert!(problems[0].starts_with("services.x.exports[0].content: is a private key"), "{problems:?}");
    }

    #[test]
    fn the_examples_of_the_documentation_are_good_configurations() {
        let text = include_str!("../../../docs/services.md");
        let examples: Vec<&str> = text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
        assert!(examples.len() >= 5, "{} examples", examples.len());
        let accounts = Accounts::of("freerad:x:105:108::/:/bin/false\n", "freerad:x:108:\n");
        for example in examples {
            #[derive(Deserialize)]
            struct File {
                services: BTreeMap<String, ServiceConfig>,
            }
            let file: File = toml::from_str(example).unwrap_or_else(|error| panic!("{error}\n{example}"));
            read(&file.services, &KeysConfig::default(), &accounts)
                .unwrap_or_else(|wrong| panic!("{wrong:?}\n{example}"));
        }
    }
}
