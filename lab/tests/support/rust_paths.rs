//! The paths that Rust code names, found from its text alone: comments, texts, characters and lifetimes do not count.

/// `controller/src/db/tx.rs` is `crate::db::tx`; a `mod.rs` is its folder.
pub(crate) fn module_of(file: &str) -> Vec<String> {
    let below = file.split_once("/src/").map_or("lib.rs", |(_, below)| below);
    let below = below.strip_suffix(".rs").unwrap_or(below);
    let parts = below.split('/').filter(|part| !matches!(*part, "lib" | "main" | "mod"));
    std::iter::once("crate").chain(parts).map(str::to_owned).collect()
}

/// All paths with their lines, `self` and `super` resolved against the file's module.
pub(crate) fn paths(source: &str, module: &[String]) -> Vec<(usize, Vec<String>)> {
    let tokens = tokens(source);
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at].text == "use" {
            at = use_tree(&tokens, at + 1, &[], &mut found);
        } else if is_word(&tokens[at].text) {
            let begin = at;
            let mut path = vec![tokens[at].text.clone()];
            while at + 2 < tokens.len() && tokens[at + 1].text == "::" && is_word(&tokens[at + 2].text) {
                path.push(tokens[at + 2].text.clone());
                at += 2;
            }
            let before = begin.checked_sub(1).map_or("", |before| tokens[before].text.as_str());
            // `x.der::<T>()` is a method, `Vec::<T>::new` goes on after its arguments.
            let goes_on = before == "::"
                && begin.checked_sub(2).is_some_and(|i| is_word(&tokens[i].text) || tokens[i].text == ">");
            let continued = path.len() > 1 || tokens.get(at + 1).is_some_and(|next| next.text == "::");
            if continued && before != "." && !goes_on {
                found.push((tokens[begin].line, path));
            }
            at += 1;
        } else {
            at += 1;
        }
    }
    found.into_iter().map(|(line, path)| (line, resolve(path, module))).collect()
}

/// Reads one tree of a `use` declaration from `at` on; returns where it ends.
fn use_tree(tokens: &[Token], mut at: usize, prefix: &[String], found: &mut Vec<(usize, Vec<String>)>) -> usize {
    let mut path = prefix.to_vec();
    let line = tokens.get(at).map_or(0, |token| token.line);
    while let Some(token) = tokens.get(at) {
        match token.text.as_str() {
            "::" => at += 1,
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token.text != "}") {
                    at = use_tree(tokens, at, &path, found);
                    if tokens.get(at).is_some_and(|token| token.text == ",") {
                        at += 1;
                    }
                }
                return at + 1;
            }
            "as" => at += 2,
            "*" => {
                path.push("*".to_owned());
                at += 1;
            }
            word if is_word(word) => {
                path.push(word.to_owned());
                at += 1;
            }
            _ => break,
        }
    }
    // `a::{self}` is `a`.
    if path.len() > prefix.len().max(1) && path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    found.push((line, path));
    // A path that consumed nothing must still move on.
    if path_is_empty(found) { at + 1 } else { at }
}

fn path_is_empty(found: &[(usize, Vec<String>)]) -> bool {
    found.last().is_none_or(|(_, path)| path.is_empty())
}

fn resolve(path: Vec<String>, module: &[String]) -> Vec<String> {
    let mut base = match path.first().map(String::as_str) {
        Some("self" | "super") => module.to_vec(),
        _ => return path,
    };
    let mut rest = path.into_iter().peekable();
    while let Some(word) = rest.next_if(|word| word == "self" || word == "super") {
        if word == "super" && base.len() > 1 {
            base.pop();
        }
    }
    base.extend(rest);
    base
}

struct Token {
    text: String,
    line: usize,
}

fn is_word(text: &str) -> bool {
    text.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// Words, `::` and single signs; comments, texts, characters and lifetimes are left out.
fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < chars.len() {
        let rest = &chars[at..];
        let length = match rest {
            ['/', '/', ..] => rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()),
            ['/', '*', ..] => block_comment(rest),
            ['r' | 'b' | 'c', ..] if raw_text(rest).is_some() => raw_text(rest).unwrap_or(1),
            ['b' | 'c', '"', ..] => 1 + text(&rest[1..]),
            ['"', ..] => text(rest),
            ['\'', ..] => character_or_lifetime(rest),
            [':', ':', ..] => {
                tokens.push(Token { text: "::".to_owned(), line });
                2
            }
            [first, ..] if first.is_alphabetic() || *first == '_' => {
                let length = rest.iter().position(|c| !c.is_alphanumeric() && *c != '_').unwrap_or(rest.len());
                tokens.push(Token { text: rest[..length].iter().collect(), line });
                length
            }
            [first, ..] => {
                if !first.is_whitespace() {
                    tokens.push(Token { text: first.to_string(), line });
                }
                1
            }
            [] => 1,
        };
        line += rest[..length.min(rest.len())].iter().filter(|c| **c == '\n').count();
        at += length;
    }
    tokens
}

fn block_comment(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match &rest[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// The length of `r"…"`, `r#"…"#`, `br"…"` at the beginning of `rest`.
fn raw_text(rest: &[char]) -> Option<usize> {
    let prefix = rest.iter().position(|c| *c == 'r').filter(|position| *position < 2)? + 1;
    let hashes = rest[prefix..].iter().take_while(|c| **c == '#').count();
    (rest.get(prefix + hashes) == Some(&'"')).then_some(())?;
    let mut at = prefix + hashes + 1;
    while at < rest.len() {
        if rest[at] == '"' && rest[at + 1..].iter().take_while(|c| **c == '#').count() >= hashes {
            return Some(at + 1 + hashes);
        }
        at += 1;
    }
    Some(rest.len())
}

fn text(rest: &[char]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

fn character_or_lifetime(rest: &[char]) -> usize {
    match rest {
        [_, '\\', ..] => rest.iter().skip(3).position(|c| *c == '\'').map_or(rest.len(), |end| end + 4),
        [_, _, '\'', ..] => 3,
        _ => 1 + rest[1..].iter().take_while(|c| c.is_alphanumeric() || **c == '_').count(),
    }
}
