//! Secrets come from a file, from stdin or from a variable: a command line can be read by every user of the machine.

use std::{
    env, fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use trustfleet_model::secret::SecretText;

use super::error::CliError;

/// The variable that may hold a MAC secret.
pub(super) const MAC_SECRET_VARIABLE: &str = "TRUSTFLEET_MAC_SECRET";

/// The MAC secret: from the file (`-` is stdin), else from the variable. One newline at the end is not part of it.
pub(super) fn mac_secret(file: Option<&Path>) -> Result<Option<SecretText>, CliError> {
    let text = match file {
        Some(path) if path == Path::new("-") => {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text).map_err(|source| CliError::File { path: "stdin".into(), source })?;
            text
        }
        Some(path) => {
            fs::read_to_string(path).map_err(|source| CliError::File { path: PathBuf::from(path), source })?
        }
        None => match env::var(MAC_SECRET_VARIABLE) {
            Ok(text) => text,
            Err(_) => return Ok(None),
        },
    };
    Ok(Some(SecretText::new(without_newline(&text).to_owned())))
}

fn without_newline(text: &str) -> &str {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_suffix('\r').unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newline_that_an_editor_adds_is_taken_away() {
        assert_eq!(without_newline("geheim \n"), "geheim ");
        assert_eq!(without_newline("geheim\r\n"), "geheim");
        assert_eq!(without_newline("a\n\n"), "a\n");
    }
}
