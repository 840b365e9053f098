//! JSON out of a request's bytes, with bounded nesting.

use actix_web::http::StatusCode;
use serde_json::Value;

use super::problem::Problem;

/// Deepest nesting of lists and objects: more than twice what any body here needs.
const DEPTH_MAX: usize = 16;

/// Reads a body.
///
/// # Errors
/// 400 when it is not JSON, or nested too deep.
pub(super) fn parse(bytes: &[u8]) -> Result<Value, Problem> {
    if is_deeper_than(bytes, DEPTH_MAX) {
        let detail = format!("the body's lists and objects are nested deeper than {DEPTH_MAX} levels");
        return Err(Problem::http(StatusCode::BAD_REQUEST, "too_deep", detail));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        let detail = format!("the body is not JSON: {error}");
        Problem::http(StatusCode::BAD_REQUEST, "malformed", detail)
    })
}

/// Counts brackets outside of strings: what is no JSON may be counted wrong, and is refused anyway.
fn is_deeper_than(bytes: &[u8], most: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => {
                depth += 1;
                if depth > most {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(levels: usize) -> String {
        "[".repeat(levels) + &"]".repeat(levels)
    }

    #[test]
    fn sixteen_levels_are_read_and_one_more_is_refused_by_its_own_code() {
        assert!(parse(nested(DEPTH_MAX).as_bytes()).is_ok());
        for deep in [nested(DEPTH_MAX + 1), "{\"a\":".repeat(100_000)] {
            let problem = parse(deep.as_bytes()).unwrap_err();
            assert!(problem.to_string().starts_with("too_deep"), "{problem}");
        }
    }

    #[test]
    fn brackets_in_strings_and_behind_others_do_not_count() {
        let strings = format!("[\"{}\\\"[[[[[[[[[[[[[[[[[\", \"\\\\\"]", "{".repeat(100));
        assert!(parse(strings.as_bytes()).is_ok());
        let row = format!("[{}]", vec!["[{}]"; 1000].join(","));
        assert!(parse(row.as_bytes()).is_ok());
    }
}
