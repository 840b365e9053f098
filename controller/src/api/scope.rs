//! Scopes: what of its role a token may use, as `<noun>:read` or `<noun>:write`. Writing includes reading.
//!
//! The noun of a route is the last part of its path that is one, so that a route of a new kind of object is in no scope
//! by accident: a test demands that its noun stands here.

use std::fmt;
use std::str::FromStr;

use super::Route;

/// Every noun, as it stands in paths.
pub const NOUNS: [&str; 22] = [
    "tenants",
    "tokens",
    "blocked-subjects",
    "join-tokens",
    "agents",
    "factory-cas",
    "expected-agents",
    "applicants",
    "entities",
    "ca-endpoints",
    "ca-servers",
    "policies",
    "bindings",
    "campaigns",
    "freezes",
    "changes",
    "devices",
    "trustpoints",
    "jobs",
    "certificates",
    "dead-letters",
    "audit",
];

/// One scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    noun: &'static str,
    write: bool,
}

impl Scope {
    /// What a token with scopes needs for a route.
    pub fn needed(route: &Route) -> Self {
        let known = |part: &str| NOUNS.into_iter().find(|noun| *noun == part);
        let noun = route.path.split('/').rev().find_map(known).unwrap_or(NOUNS[0]);
        Self { noun, write: route.method != "GET" }
    }

    /// Whether whoever has this scope may use `needed`.
    pub fn covers(self, needed: Self) -> bool {
        self.noun == needed.noun && (self.write || !needed.write)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.noun, if self.write { "write" } else { "read" })
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once(':');
        let noun = parts.and_then(|(noun, _)| NOUNS.into_iter().find(|known| *known == noun));
        match (noun, parts.map(|(_, right)| right)) {
            (Some(noun), Some("read")) => Ok(Self { noun, write: false }),
            (Some(noun), Some("write")) => Ok(Self { noun, write: true }),
            _ => Err(format!("is no scope: write NOUN:read or NOUN:write, with one of {}", NOUNS.join(", "))),
        }
    }
}

/// What a caller may use of its role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scopes(Vec<Scope>);

impl Scopes {
    /// All of the role.
    pub const fn all() -> Self {
        Self(Vec::new())
    }

    /// These and nothing else; none at all means [`Scopes::all`].
    pub const fn only(scopes: Vec<Scope>) -> Self {
        Self(scopes)
    }

    /// Whether `needed` may be used.
    pub fn allow(&self, needed: Scope) -> bool {
        self.0.is_empty() || self.0.iter().any(|scope| scope.covers(needed))
    }

    /// Whether whoever has these may give `others` away: nobody gives more than he has.
    pub fn include(&self, others: &Self) -> bool {
        self.0.is_empty() || !others.0.is_empty() && others.0.iter().all(|other| self.allow(*other))
    }

    /// The words in the API and in SQL.
    pub fn words(&self) -> Vec<String> {
        self.0.iter().map(Scope::to_string).collect()
    }

    /// The scopes of stored words; none when a word is unknown to this program.
    pub fn from_words(words: &[String]) -> Option<Self> {
        words.iter().map(|word| word.parse().ok()).collect::<Option<_>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::super::ROUTES;
    use super::super::access::Access;
    use super::*;

    fn scopes(words: &[&str]) -> Scopes {
        Scopes(words.iter().map(|word| word.parse().unwrap()).collect())
    }

    #[test]
    fn every_route_that_needs_a_token_belongs_to_a_noun_of_its_own_path() {
        for route in ROUTES.iter().filter(|route| route.access != Access::Public) {
            let first = route.path.strip_prefix("/v1/tenants/{tenant}/").or_else(|| route.path.strip_prefix("/v1/"));
            let first = first.and_then(|rest| rest.split('/').next()).filter(|part| !part.starts_with('{'));
            if let Some(first) = first {
                let of_tenant = ["suspend", "resume", "restore", "quota", "statistics"];
                assert!(
                    NOUNS.contains(&first) || of_tenant.contains(&first),
                    "{first} of {} is no noun in scope.rs",
                    route.path
                );
            }
            assert!(scopes(&[&Scope::needed(route).to_string()]).allow(Scope::needed(route)), "{}", route.path);
        }
    }

    #[test]
    fn the_last_noun_of_a_path_decides_and_writing_includes_reading() {
        let needed = |operation| Scope::needed(ROUTES.iter().find(|route| route.operation == operation).unwrap());
        assert_eq!(needed("trustpoint_enroll").to_string(), "trustpoints:write");
        assert_eq!(needed("device_trustpoint_list").to_string(), "trustpoints:read");
        assert_eq!(needed("tenant_create").to_string(), "tenants:write");
        let writer = scopes(&["devices:write"]);
        assert!(writer.allow(needed("device_show")) && writer.allow(needed("device_create")));
        assert!(!writer.allow(needed("trustpoint_enroll")) && !writer.allow(needed("tenant_show")));
        assert!(!scopes(&["devices:read"]).allow(needed("device_create")));
        assert!(Scopes::all().allow(needed("tenant_create")));
    }

    #[test]
    fn nobody_gives_away_more_than_he_has() {
        let some = scopes(&["tokens:write", "devices:read"]);
        assert!(some.include(&scopes(&["devices:read"])) && some.include(&scopes(&["tokens:read"])));
        assert!(!some.include(&scopes(&["devices:write"])) && !some.include(&Scopes::all()));
        assert!(Scopes::all().include(&some) && Scopes::all().include(&Scopes::all()));
    }

    #[test]
    fn an_unknown_word_is_no_scope() {
        for bad in ["", "devices", "devices:", "devices:delete", "colours:read", "Devices:read", "*:read"] {
            assert!(bad.parse::<Scope>().is_err(), "{bad}");
        }
        assert_eq!(Scopes::from_words(&["devices:read".to_owned(), "x:read".to_owned()]), None);
    }
}
