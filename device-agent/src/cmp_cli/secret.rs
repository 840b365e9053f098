//! Secrets and passphrases as options: where they come from, never what they are.

use std::fs;
use std::path::Path;

use zeroize::Zeroizing;

use super::fault::Fault;

/// Longest secret, bytes.
const SECRET_MAX: usize = 4096;

/// A secret that was read.
pub(super) struct Given {
    /// Without its line end.
    pub(super) bytes: Zeroizing<Vec<u8>>,
    /// It stands on the command line, where others on the machine can see it.
    pub(super) visible: bool,
}

/// Reads `file:PATH` (its first line), `env:NAME` or `pass:TEXT`.
///
/// # Errors
/// Another form, nothing there, or it cannot be read; the value itself is in no message.
pub(super) fn read(option: &str, source: &str) -> Result<Given, Fault> {
    let usage = |why: String| Fault::usage(format!("{option}: {why}"));
    let (bytes, visible) = if let Some(path) = source.strip_prefix("file:") {
        let text = Zeroizing::new(fs::read(path).map_err(|error| usage(format!("{path}: {error}")))?);
        let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
        (Zeroizing::new(line.strip_suffix(b"\r").unwrap_or(line).to_vec()), false)
    } else if let Some(name) = source.strip_prefix("env:") {
        let text = std::env::var(name).map_err(|_| usage(format!("the environment has no {name}")))?;
        (Zeroizing::new(text.into_bytes()), false)
    } else if let Some(text) = source.strip_prefix("pass:") {
        (Zeroizing::new(text.as_bytes().to_vec()), true)
    } else {
        return Err(usage("say where it is: file:PATH, env:NAME, or pass:TEXT (which others can see)".to_owned()));
    };
    match bytes.len() {
        0 => Err(usage("it is empty".to_owned())),
        length if length > SECRET_MAX => Err(usage(format!("it is longer than {SECRET_MAX} bytes"))),
        _ => Ok(Given { bytes, visible }),
    }
}

/// The same where it may be left out.
///
/// # Errors
/// As [`read`].
pub(super) fn read_optional(option: &str, source: Option<&str>) -> Result<Option<Given>, Fault> {
    source.map(|source| read(option, source)).transpose()
}

/// Says so when others on the machine can read a file that should be private.
pub(super) fn open_to_others(path: &Path) -> Option<String> {
    crate::store::check_private(path, 0o600).err().map(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_comes_from_where_it_is_said_to_be_and_is_in_no_message() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        fs::write(&path, "hush-hush\r\nsecond line\n").unwrap();
        let from_file = read("--secret", &format!("file:{}", path.display())).unwrap();
        assert_eq!((from_file.bytes.as_slice(), from_file.visible), (b"hush-hush".as_slice(), false));
        let from_text = read("--secret", "pass:a:b").unwrap();
        assert_eq!((from_text.bytes.as_slice(), from_text.visible), (b"a:b".as_slice(), true));
        for wrong in ["hush-hush", "pass:", "env:NO_SUCH_VARIABLE_HERE", "file:/nowhere"] {
            let fault = read("--secret", wrong).err().unwrap();
            assert!(!fault.text.contains("hush-hush"), "{}", fault.text);
        }
    }
}
