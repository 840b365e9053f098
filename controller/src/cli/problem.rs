//! The API's problem documents (RFC 9457), as a person reads them.

use std::fmt;

use serde::Deserialize;

use super::output::plain;

/// A refusal by the controller.
#[derive(Debug, Deserialize)]
pub(super) struct Problem {
    /// HTTP status.
    pub(super) status: u16,
    /// Stable code of the error.
    #[serde(default)]
    pub(super) code: String,
    /// What kind of refusal it is.
    #[serde(default)]
    pub(super) title: String,
    /// What exactly was refused.
    #[serde(default)]
    pub(super) detail: Option<String>,
    /// Every broken rule of the input.
    #[serde(default)]
    pub(super) violations: Vec<Violation>,
    /// Seconds after which to try again, from the answer's header.
    #[serde(skip)]
    pub(super) retry_after: Option<u64>,
}

/// One broken rule.
#[derive(Debug, Deserialize)]
pub(super) struct Violation {
    field: String,
    rule: String,
    message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = self.detail.as_deref().filter(|detail| !detail.is_empty()).unwrap_or(&self.title);
        write!(f, "{} ({} {})", plain(said), self.status, plain(&self.code))?;
        for violation in &self.violations {
            let Violation { field, rule, message } = violation;
            write!(f, "\n  {}: {} ({})", plain(field), plain(message), plain(rule))?;
        }
        Ok(())
    }
}

impl Problem {
    /// What to do about it.
    pub(super) fn next(&self) -> Option<String> {
        let next = match self.status {
            401 => {
                "give a valid token by --token-file, TRUSTFLEET_TOKEN_FILE or TRUSTFLEET_TOKEN; the first one lies in \
                    the file that the controller's configuration names as first_token_file"
            }
            403 if self.code == "own_change" => {
                "let another administrator approve it, or take it back with `change reject`"
            }
            403 if self.code == "missing_scope" => "use a token that has this scope, or one without scopes",
            403 => {
                "use a token with a higher role: viewer reads, operator enrols and registers devices, admin may all \
                    in its tenant, platform_admin makes tenants"
            }
            404 => "check the name, --tenant and the token's tenant; the `list` verbs show what there is",
            409 => "look at the object's present state with the `show` verb, then decide",
            412 => "somebody changed it in the meantime: look at it with `show` and repeat the update",
            413 => "the input is too large",
            422 => "correct the fields named above and repeat; nothing was changed",
            429 | 503 => {
                return Some(match self.retry_after {
                    Some(seconds) => format!("try again in {seconds} s; nothing acknowledged is lost"),
                    None => "try again in a moment; nothing acknowledged is lost".to_owned(),
                });
            }
            500.. => "look at the controller's log",
            _ => return None,
        };
        Some(next.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_violation_is_shown_with_its_field_and_rule() {
        let json = r#"{"type":"urn:trustfleet:error:invalid","title":"Invalid input","status":422,"code":"invalid",
            "detail":"2 fields are invalid","violations":[
              {"field":"subject","rule":"S18","message":"is empty; give 1 to 512 characters"},
              {"field":"sans[0].value","rule":"S22","message":"has 200 characters; at most 128 are allowed"}]}"#;
        let problem: Problem = serde_json::from_str(json).unwrap();
        assert_eq!(
            problem.to_string(),
            "2 fields are invalid (422 invalid)\n  subject: is empty; give 1 to 512 characters (S18)\n  \
             sans[0].value: has 200 characters; at most 128 are allowed (S22)"
        );
    }

    #[test]
    fn an_answer_cannot_steer_the_terminal() {
        let json = r#"{"title":"x","status":404,"code":"not_found","detail":"\u001b[2Jgone\u0000"}"#;
        let problem: Problem = serde_json::from_str(json).unwrap();
        assert!(!problem.to_string().contains('\u{1b}'));
    }
}
