//! Reads the fields of a mapping, each as a value of its type. A value of another type is a problem.

use std::collections::{BTreeMap, BTreeSet};

use otherix_schemas::violations::Violations;

use super::problem::ProblemScope;
use super::suggest::nearest;
use super::yaml::{YamlEntry, YamlNode, YamlValue};
use crate::number;

/// Longest text from a file that a message quotes, in characters.
const QUOTED_MAX: usize = 60;

/// The fields of a mapping.
#[derive(Debug)]
pub(crate) struct MappingFields<'a> {
    /// The prefix of its fields' paths in the document: empty, or `spec.` and the like.
    path: &'static str,
    /// Where it begins.
    line: usize,
    /// The fields that it may have.
    known: &'static [&'static str],
    given: BTreeMap<&'static str, &'a YamlNode>,
    /// Fields with a reported problem. No further ones are reported, as they might follow from the first.
    reported: BTreeSet<&'static str>,
}

impl<'a> MappingFields<'a> {
    /// The fields of the mapping at `path`, which may have the `known` ones. `paths` are those of all fields of the
    /// document, for suggestions.
    pub(super) fn of(
        node: &'a YamlNode,
        path: &'static str,
        known: &'static [&'static str],
        paths: &[String],
        scope: &mut ProblemScope<'_>,
    ) -> Self {
        let mut fields = Self { path, line: node.line, known, given: BTreeMap::new(), reported: BTreeSet::new() };
        let name = path.trim_end_matches('.');
        match &node.value {
            YamlValue::Map(entries) => entries.iter().for_each(|entry| fields.take(entry, paths, scope)),
            YamlValue::Unsupported => fields.reported.extend(known),
            YamlValue::List | YamlValue::Scalar { .. } => {
                fields.reported.extend(known);
                let message = format!("must be a mapping with the fields {}", list(known));
                if name.is_empty() { scope.line(node.line, message) } else { scope.field(node.line, name, message) }
            }
        }
        fields
    }

    fn take(&mut self, entry: &'a YamlEntry, paths: &[String], scope: &mut ProblemScope<'_>) {
        let YamlEntry { key, line, node, repeats } = entry;
        let path = format!("{}{}", self.path, quoted(key));
        if let Some(first) = repeats {
            scope.field(*line, &path, format!("is given twice, first on line {first}"));
            return;
        }
        if let Some(known) = self.known.iter().find(|known| *known == key) {
            self.given.insert(known, node);
            return;
        }
        let similar = nearest(key, self.known);
        self.reported.extend(similar);
        let last = |path: &str| path.rsplit('.').next().map(str::to_owned).unwrap_or_default();
        let elsewhere = paths.iter().find(|path| nearest(key, &[&last(path)]).is_some());
        let suggestion = match similar.or(elsewhere.map(String::as_str)) {
            Some(intended) => format!("did you mean `{intended}`?"),
            None => format!("the fields are {}", list(self.known)),
        };
        scope.field(*line, &path, format!("unknown field; {suggestion}"));
    }

    /// The value of a field, unless it is absent or null.
    fn node(&self, name: &str) -> Option<&'a YamlNode> {
        self.given.get(name).copied().filter(|node| !is_null(node))
    }

    /// The line of a field, or of the mapping that lacks it.
    pub(super) fn line(&self, name: &str) -> usize {
        self.given.get(name).map_or(self.line, |node| node.line)
    }

    /// The value of a field that must be present.
    pub(super) fn required(&mut self, name: &'static str, scope: &mut ProblemScope<'_>) -> Option<&'a YamlNode> {
        let node = self.node(name);
        if node.is_none() {
            self.report(name, "is required", scope);
        }
        node
    }

    /// A string.
    pub(crate) fn string(&mut self, name: &'static str, scope: &mut ProblemScope<'_>) -> Option<String> {
        let value = &self.node(name)?.value;
        match value.scalar() {
            Some((text, true)) if is_bool(text).is_some() || is_number(text) => {
                self.report(name, format!("must be a string: put it in quotes, `\"{}\"`", quoted(text)), scope);
                None
            }
            Some((text, _)) => Some(text.to_owned()),
            None => self.wrong_type(name, value, "must be a string", scope),
        }
    }

    /// A string on which other fields depend. If it has a problem, it is empty instead of absent: an absent one would
    /// have a default, and violations could follow from that.
    pub(crate) fn keyword(&mut self, name: &'static str, scope: &mut ProblemScope<'_>) -> Option<String> {
        self.string(name, scope).or_else(|| self.is_reported(name).then(String::new))
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&mut self, name: &'static str, scope: &mut ProblemScope<'_>) -> Option<bool> {
        let value = &self.node(name)?.value;
        match value.scalar() {
            Some((text, true)) if is_bool(text).is_some() => is_bool(text),
            Some(_) | None => self.wrong_type(name, value, "must be `true` or `false`", scope),
        }
    }

    /// A whole number in decimal digits: YAML readers disagree on other notations.
    pub(crate) fn number(&mut self, name: &'static str, scope: &mut ProblemScope<'_>) -> Option<i64> {
        let value = &self.node(name)?.value;
        match value.scalar() {
            Some((text, true)) if !has_leading_zero(text) => {
                let mut violations = Violations::default();
                let number = number::parse(name, Some(&quoted(text)), &mut violations);
                violations.iter().for_each(|(_, rule)| self.report(name, rule, scope));
                number
            }
            Some(_) | None => self.wrong_type(name, value, "must be a whole number", scope),
        }
    }

    /// A mapping of labels to their values.
    pub(super) fn labels(
        &mut self,
        name: &'static str,
        scope: &mut ProblemScope<'_>,
    ) -> Option<BTreeMap<String, String>> {
        let value = &self.node(name)?.value;
        let YamlValue::Map(entries) = value else {
            return self.wrong_type(name, value, "must be a mapping of keys to values", scope);
        };
        let mut labels = BTreeMap::new();
        for YamlEntry { key, line, node, repeats } in entries {
            let path = format!("{}{name}.{}", self.path, quoted(key));
            let rule = match (node.value.scalar(), repeats) {
                (_, Some(first)) => format!("is given twice, first on line {first}"),
                (Some((text, true)), None) if is_bool(text).is_some() || is_number(text) || is_null(node) => {
                    format!("must be a string: put it in quotes, `\"{}\"`", quoted(text))
                }
                (Some((text, _)), None) => {
                    labels.insert(key.clone(), text.to_owned());
                    continue;
                }
                (None, None) => "must be a string".to_owned(),
            };
            self.reported.insert(name);
            scope.field(*line, &path, rule);
        }
        Some(labels).filter(|_| !self.is_reported(name))
    }

    fn wrong_type<T>(
        &mut self,
        name: &'static str,
        value: &YamlValue,
        rule: &str,
        scope: &mut ProblemScope<'_>,
    ) -> Option<T> {
        let what = match value {
            YamlValue::Map(_) => "a mapping".to_owned(),
            YamlValue::List => "a list".to_owned(),
            YamlValue::Scalar { text, plain: true } => format!("`{}`", quoted(text)),
            YamlValue::Scalar { text, plain: false } => format!("the string `{}`", quoted(text)),
            YamlValue::Unsupported => {
                self.reported.insert(name);
                return None;
            }
        };
        self.report(name, format!("{rule}, not {what}"), scope);
        None
    }

    /// Adds a problem of a field, if it is the first.
    fn report(&mut self, name: &'static str, message: impl Into<String>, scope: &mut ProblemScope<'_>) {
        if self.reported.insert(name) {
            self.violates(name, message, scope);
        }
    }

    /// Adds a problem of a field.
    pub(super) fn violates(&self, name: &str, message: impl Into<String>, scope: &mut ProblemScope<'_>) {
        scope.field(self.line(name), &format!("{}{name}", self.path), message);
    }

    /// Adds the rules that the request violates, except for fields with a problem already.
    pub(crate) fn report_violations(&self, violations: &Violations, scope: &mut ProblemScope<'_>) {
        for (field, rule) in violations.iter() {
            let name = self.name_of(field);
            if !self.is_reported(name) {
                self.violates(name, rule, scope);
            }
        }
    }

    /// The manifest's name of a request's field: `bridgeName` for `bridge_name`.
    fn name_of<'n>(&self, field: &'n str) -> &'n str {
        let plain = field.replace('_', "");
        self.known.iter().find(|name| name.eq_ignore_ascii_case(&plain)).copied().unwrap_or(field)
    }

    /// Whether a field has a problem.
    pub(crate) fn is_reported(&self, name: &str) -> bool {
        self.reported.contains(name)
    }
}

/// A text from a file, shortened for a message.
pub(super) fn quoted(text: &str) -> String {
    let mut short: String = text.chars().take(QUOTED_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

// Plain scalars are resolved by YAML 1.2's core schema (section 10.3.2).

/// Whether a value is null.
pub(super) fn is_null(node: &YamlNode) -> bool {
    matches!(node.value.scalar(), Some(("" | "~" | "null" | "Null" | "NULL", true)))
}

fn is_bool(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

fn is_number(text: &str) -> bool {
    let of = |digits: &str, base: u32| !digits.is_empty() && digits.chars().all(|c| c.is_digit(base));
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let special = [".inf", ".Inf", ".INF"].contains(&unsigned) || [".nan", ".NaN", ".NAN"].contains(&text);
    // Rust parses every float of the schema, and words such as `nan`, which do not begin with a digit.
    let digit = unsigned.trim_start_matches('.').starts_with(|c: char| c.is_ascii_digit());
    special
        || text.strip_prefix("0x").is_some_and(|digits| of(digits, 16))
        || text.strip_prefix("0o").is_some_and(|digits| of(digits, 8))
        || (digit && text.parse::<f64>().is_ok())
}

fn has_leading_zero(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    digits.len() > 1 && digits.starts_with('0')
}
