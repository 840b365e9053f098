//! Which form of an answer a client wants, by its `Accept` header (RFC 9110 section 12.5.1).

/// A certificate in PEM.
pub(super) const PEM: &str = "application/x-pem-file";
/// A certificate in DER (RFC 2585).
pub(super) const PKIX_CERT: &str = "application/pkix-cert";
/// JSON, which is what clients get that say nothing else.
pub(super) const JSON: &str = "application/json";

/// Of `offered` (the first one is preferred) the one that the header likes best; none: it takes none of them.
pub(super) fn choose<'a>(accept: Option<&str>, offered: &[&'a str]) -> Option<&'a str> {
    let Some(accept) = accept else { return offered.first().copied() };
    let ranges: Vec<(String, f32)> = accept.split(',').filter_map(range).collect();
    let weight = |media: &str| {
        let fits = |(range, _): &&(String, f32)| {
            range == "*/*" || range == media || range.strip_suffix('*').is_some_and(|kind| media.starts_with(kind))
        };
        // The most exact range says how much.
        ranges
            .iter()
            .filter(fits)
            .max_by_key(|(range, _)| (!range.ends_with('*'), range.len()))
            .map_or(0.0, |(_, q)| *q)
    };
    let mut best = None;
    for media in offered {
        let weight = weight(media);
        if weight > best.map_or(0.0, |(_, so_far)| so_far) {
            best = Some((*media, weight));
        }
    }
    best.map(|(media, _)| media)
}

fn range(text: &str) -> Option<(String, f32)> {
    let mut parts = text.split(';').map(str::trim);
    let media = parts.next().filter(|media| media.contains('/'))?.to_ascii_lowercase();
    let weight = parts.find_map(|part| part.strip_prefix("q=")).map_or(Some(1.0), |q| q.parse::<f32>().ok())?;
    (0.0..=1.0).contains(&weight).then_some((media, weight))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_gets_the_form_that_it_likes_best_and_json_when_it_does_not_care() {
        let offered = [JSON, PEM, PKIX_CERT];
        for (accept, chosen) in [
            (None, Some(JSON)),
            (Some("*/*"), Some(JSON)),
            (Some("application/*"), Some(JSON)),
            (Some("application/x-pem-file"), Some(PEM)),
            (Some("Application/PKIX-Cert; q=0.5"), Some(PKIX_CERT)),
            (Some("application/x-pem-file;q=0.2, application/pkix-cert;q=0.8"), Some(PKIX_CERT)),
            (Some("application/json;q=0, */*;q=0.1"), Some(PEM)),
            (Some("text/html, */*;q=0.1"), Some(JSON)),
            (Some("text/html"), None),
            (Some("application/json;q=0"), None),
            (Some("application/json;q=2"), None),
            (Some(""), None),
            (Some("rubbish"), None),
        ] {
            assert_eq!(choose(accept, &offered), chosen, "{accept:?}");
        }
    }
}
