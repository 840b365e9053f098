//! Secrets come from a file, from stdin or from a variable, and tokens go into files: a command line can be read by every
//! user of the machine.

use std::{
    env,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde_json::Value;
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

/// A new file that only its owner may read, for a token that is shown once. It is made before the token is asked for,
/// so that no token is lost to a folder that cannot be written; one that stays empty is removed again.
#[derive(Debug)]
pub(super) struct NewFile {
    path: PathBuf,
    file: File,
    filled: bool,
}

impl NewFile {
    /// Makes the file; an older one of that name is never touched.
    pub(super) fn create(path: &Path) -> Result<Self, CliError> {
        let options = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        match options {
            Ok(file) => Ok(Self { path: path.to_owned(), file, filled: false }),
            Err(error) => Err(CliError::Usage(format!("{} cannot be made: {error}", path.display()))),
        }
    }

    /// Moves the token out of an answer into the file; gives the file's name.
    pub(super) fn take_token(mut self, answer: &mut Value) -> Result<String, CliError> {
        let token = answer.as_object_mut().and_then(|map| map.remove("token"));
        let token = token.as_ref().and_then(Value::as_str).unwrap_or_default();
        writeln!(self.file, "{token}").and_then(|()| self.file.sync_all()).map_err(CliError::Print)?;
        self.filled = true;
        Ok(self.path.display().to_string())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.filled {
            let _ = fs::remove_file(&self.path);
        }
    }
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
