//! Users and groups by name, as `/etc/passwd` and `/etc/group` have them; or by number.
//!
//! Those two files and nothing else: an agent that is linked statically has no name service.

use std::fs;

/// The users and groups of this machine.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    passwd: String,
    group: String,
}

impl Accounts {
    /// Of the running system; without the files there are numbers only.
    pub fn of_system() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self { passwd: read("/etc/passwd"), group: read("/etc/group") }
    }

    /// Of these files' texts.
    #[cfg(test)]
    pub fn of(passwd: &str, group: &str) -> Self {
        Self { passwd: passwd.to_owned(), group: group.to_owned() }
    }

    /// Number of a user, and of its own group where that is known.
    ///
    /// # Errors
    /// A sentence.
    pub fn user(&self, name: &str) -> Result<(u32, Option<u32>), String> {
        let line = |field: usize| find(&self.passwd, field, name);
        if let Ok(number) = name.parse() {
            return Ok((number, line(2).and_then(|line| number_in(line, 3))));
        }
        let line = line(0).ok_or_else(|| format!("there is no user {name} in /etc/passwd"))?;
        let number = number_in(line, 2).ok_or_else(|| format!("/etc/passwd has no number for the user {name}"))?;
        Ok((number, number_in(line, 3)))
    }

    /// Number of a group.
    ///
    /// # Errors
    /// A sentence.
    pub fn group(&self, name: &str) -> Result<u32, String> {
        if let Ok(number) = name.parse() {
            return Ok(number);
        }
        find(&self.group, 0, name)
            .and_then(|line| number_in(line, 2))
            .ok_or_else(|| format!("there is no group {name} in /etc/group"))
    }
}

fn find<'a>(text: &'a str, field: usize, value: &str) -> Option<&'a str> {
    text.lines().find(|line| line.split(':').nth(field) == Some(value))
}

fn number_in(line: &str, field: usize) -> Option<u32> {
    line.split(':').nth(field)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_found() {
        let accounts = Accounts::of("root:x:0:0:root:/root:/bin/sh\nwww:x:33:34::/:/bin/false\n", "ssl:x:110:www\n");
        assert_eq!(accounts.user("www"), Ok((33, Some(34))));
        assert_eq!(accounts.user("33"), Ok((33, Some(34))));
        assert_eq!(accounts.user("4711"), Ok((4711, None)));
        assert_eq!(accounts.group("ssl"), Ok(110));
        assert!(accounts.user("ww").is_err() && accounts.group("www").is_err());
    }
}
