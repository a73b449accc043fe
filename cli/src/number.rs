//! Whole numbers on the command line. One that is none is a broken rule like any other, so that it is told together with
//! the others.

use std::num::IntErrorKind;

use otherix_schemas::violations::Violations;

/// The number that `text` is. What is none is noted.
pub(crate) fn read(field: &str, text: Option<&str>, violations: &mut Violations) -> Option<i64> {
    let text = text?;
    let number = text.parse::<i64>().map_err(|error| {
        if *error.kind() == IntErrorKind::PosOverflow {
            format!("must not be as large as {text}")
        } else if *error.kind() == IntErrorKind::NegOverflow {
            format!("must not be as small as {text}")
        } else {
            format!("must be a whole number, not `{text}`")
        }
    });
    violations.check(field, number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_is_noted() {
        let mut violations = Violations::default();
        assert_eq!(read("mtu", None, &mut violations), None);
        assert_eq!(read("mtu", Some("-68"), &mut violations), Some(-68));
        assert!(violations.is_empty());
        for (bad, rule) in [
            ("", "must be a whole number, not ``"),
            ("1e3", "must be a whole number, not `1e3`"),
            ("٣", "must be a whole number, not `٣`"),
            ("9223372036854775808", "must not be as large as 9223372036854775808"),
            ("-9223372036854775809", "must not be as small as -9223372036854775809"),
        ] {
            let mut violations = Violations::default();
            assert_eq!(read("mtu", Some(bad), &mut violations), None);
            assert_eq!(violations, Violations::one("mtu", rule));
        }
    }
}
