//! File names of certificates as network devices give them (S36): `NAME_ir.cer`, `NAME_ca0.cer`, `NAME_ca1.cer`, …

/// Name of the certificate's file, also after updates.
pub(super) fn certificate(trustpoint: &str) -> String {
    format!("{trustpoint}_ir.cer")
}

/// Name of the file of a CA certificate.
pub(super) fn ca(trustpoint: &str, number: usize) -> String {
    format!("{trustpoint}_ca{number}.cer")
}

/// The number in the name of a CA certificate's file.
pub(super) fn number_of(trustpoint: &str, file: &str) -> Option<usize> {
    file.strip_prefix(trustpoint)?.strip_prefix("_ca")?.strip_suffix(".cer")?.parse().ok()
}

/// Numbers for CA certificates with these subjects, in their order. A CA keeps the number that it has (S46), others take
/// the lowest that are free.
pub(super) fn numbers(subjects: &[String], known: &[(usize, String)]) -> Vec<usize> {
    let mut taken: Vec<usize> = Vec::new();
    let kept: Vec<Option<usize>> = subjects
        .iter()
        .map(|subject| {
            let mut own = known.iter().filter(|(_, of)| of == subject).map(|(number, _)| *number);
            let number = own.find(|number| !taken.contains(number))?;
            taken.push(number);
            Some(number)
        })
        .collect();
    let mut free = 0;
    kept.into_iter()
        .map(|kept| {
            kept.unwrap_or_else(|| {
                while taken.contains(&free) {
                    free += 1;
                }
                taken.push(free);
                free
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn s36_files_are_named_after_the_trustpoint() {
        assert_eq!(certificate("radius"), "radius_ir.cer");
        assert_eq!(ca("radius", 1), "radius_ca1.cer");
        assert_eq!(number_of("radius", "radius_ca12.cer"), Some(12));
        for other in ["radius_ir.cer", "radius_ca.cer", "radius_cax.cer", "other_ca1.cer"] {
            assert_eq!(number_of("radius", other), None, "{other}");
        }
    }

    #[test]
    fn s46_a_ca_keeps_its_file_name_whatever_comes_in_whatever_order() {
        assert_eq!(numbers(&texts(&["issuing", "root"]), &[]), [0, 1]);
        let known = [(0, "issuing".to_owned()), (1, "root".to_owned())];
        assert_eq!(numbers(&texts(&["root", "issuing"]), &known), [1, 0]);
        assert_eq!(numbers(&texts(&["new issuing", "root"]), &known), [0, 1]);
        assert_eq!(numbers(&texts(&["new issuing", "issuing", "root"]), &known), [2, 0, 1]);
        // One CA with two certificates: old key and new key.
        let twice = [(0, "root".to_owned()), (1, "root".to_owned())];
        assert_eq!(numbers(&texts(&["root", "root", "root"]), &twice), [0, 1, 2]);
    }
}
