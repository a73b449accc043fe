//! Whole numbers on the command line and in manifests. A malformed one is a violation, so that it is reported together
//! with all others.

use std::num::IntErrorKind;

use otherix_schemas::violations::Violations;

/// Parses `text` as a decimal number; adds a violation if it is not one.
pub(crate) fn parse(field: &str, text: Option<&str>, violations: &mut Violations) -> Option<i64> {
    let text = text?;
    let number = text.parse::<i64>().map_err(|error| {
        if matches!(error.kind(), IntErrorKind::PosOverflow | IntErrorKind::NegOverflow) {
            format!("is out of range: {text}")
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
    fn reports_malformed_numbers() {
        let mut violations = Violations::default();
        assert_eq!(parse("mtu", None, &mut violations), None);
        assert_eq!(parse("mtu", Some("-68"), &mut violations), Some(-68));
        assert!(violations.is_empty());
        for (bad, rule) in [
            ("", "must be a whole number, not ``"),
            ("1e3", "must be a whole number, not `1e3`"),
            ("٣", "must be a whole number, not `٣`"),
            ("9223372036854775808", "is out of range: 9223372036854775808"),
            ("-9223372036854775809", "is out of range: -9223372036854775809"),
        ] {
            let mut violations = Violations::default();
            assert_eq!(parse("mtu", Some(bad), &mut violations), None);
            assert_eq!(violations, Violations::one("mtu", rule));
        }
    }
}
