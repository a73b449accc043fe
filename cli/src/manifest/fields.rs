//! The fields of one map of a document, each read as what it must be. Whatever is not so is a problem, with its line.

use std::collections::{BTreeMap, BTreeSet};

use otherix_schemas::violations::Violations;

use super::problem::Scope;
use super::suggest::nearest;
use super::yaml::{Entry, Node, Value};
use crate::number;

/// Longest piece of somebody's text that is quoted in a message, in characters.
const QUOTED: usize = 60;

/// The fields of a map.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    /// Where the map is in the document: empty, or `spec.` and the like.
    path: &'static str,
    /// Where it begins.
    line: usize,
    given: BTreeMap<&'static str, &'a Node>,
    /// Fields about which something was said already.
    spoken_of: BTreeSet<&'static str>,
}

impl<'a> Fields<'a> {
    /// The fields of a map at `path` that may have the `known` ones; `elsewhere` are fields of other maps, with their paths.
    pub(super) fn of(
        node: &'a Node,
        path: &'static str,
        known: &[&'static str],
        elsewhere: &[&'static str],
        scope: &mut Scope<'_>,
    ) -> Self {
        let mut fields = Self { path, line: node.line, given: BTreeMap::new(), spoken_of: BTreeSet::new() };
        let name = path.trim_end_matches('.');
        match &node.value {
            Value::Map(entries) => entries.iter().for_each(|entry| fields.take(entry, known, elsewhere, scope)),
            Value::Broken => fields.spoken_of.extend(known),
            Value::List | Value::Scalar { .. } => {
                fields.spoken_of.extend(known);
                let message = format!("must have fields: {}", list(known));
                if name.is_empty() { scope.place(node.line, message) } else { scope.field(node.line, name, message) }
            }
        }
        fields
    }

    fn take(&mut self, entry: &'a Entry, known: &[&'static str], elsewhere: &[&'static str], scope: &mut Scope<'_>) {
        let Entry { key, line, node, repeats } = entry;
        let path = format!("{}{}", self.path, quoted(key));
        if let Some(first) = repeats {
            scope.field(*line, &path, format!("is given twice, first on line {first}"));
            return;
        }
        if let Some(known) = known.iter().find(|known| *known == key) {
            self.given.insert(known, node);
            return;
        }
        let near = nearest(key, known);
        self.spoken_of.extend(near);
        let last = |path: &'static str| path.rsplit('.').next().unwrap_or(path);
        let far = elsewhere.iter().find(|path| nearest(key, &[last(path)]).is_some());
        let meant = match near.or(far.copied()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("the fields are {}", list(known)),
        };
        scope.field(*line, &path, format!("is not a field here; {meant}"));
    }

    /// A field's value, unless it is missing or null.
    pub(super) fn node(&self, name: &str) -> Option<&'a Node> {
        self.given.get(name).copied().filter(|node| !is_null(node))
    }

    /// The line of a field, or of the map that lacks it.
    pub(super) fn line(&self, name: &str) -> usize {
        self.given.get(name).map_or(self.line, |node| node.line)
    }

    /// A field that must be there.
    pub(super) fn required(&mut self, name: &'static str, scope: &mut Scope<'_>) -> Option<&'a Node> {
        let node = self.node(name);
        if node.is_none() {
            self.say(name, "is required", scope);
        }
        node
    }

    /// A text.
    pub(super) fn text(&mut self, name: &'static str, scope: &mut Scope<'_>) -> Option<String> {
        let value = &self.node(name)?.value;
        match value.scalar() {
            Some((text, true)) if is_bool(text).is_some() || is_number(text) => {
                self.say(name, format!("must be a text: put it in quotes, `\"{}\"`", quoted(text)), scope);
                None
            }
            Some((text, _)) => Some(text.to_owned()),
            None => self.mistaken(name, value, "must be a text", scope),
        }
    }

    /// `true` or `false`.
    pub(super) fn truth(&mut self, name: &'static str, scope: &mut Scope<'_>) -> Option<bool> {
        let value = &self.node(name)?.value;
        match value.scalar() {
            Some((text, true)) if is_bool(text).is_some() => is_bool(text),
            Some(_) | None => self.mistaken(name, value, "must be `true` or `false`", scope),
        }
    }

    /// A whole number, in decimal digits: other notations mean other numbers to other readers of YAML.
    pub(super) fn number(&mut self, name: &'static str, scope: &mut Scope<'_>) -> Option<i64> {
        let value = &self.node(name)?.value;
        match value.scalar() {
            Some((text, true)) if !has_leading_zero(text) => {
                let mut violations = Violations::default();
                let number = number::read(name, Some(&quoted(text)), &mut violations);
                violations.iter().for_each(|(_, rule)| self.say(name, rule, scope));
                number
            }
            Some(_) | None => self.mistaken(name, value, "must be a whole number", scope),
        }
    }

    fn mistaken<T>(&mut self, name: &'static str, value: &Value, rule: &str, scope: &mut Scope<'_>) -> Option<T> {
        let what = match value {
            Value::Map(_) => "a map".to_owned(),
            Value::List => "a list".to_owned(),
            Value::Scalar { text, plain: true } => format!("`{}`", quoted(text)),
            Value::Scalar { text, plain: false } => format!("the text `{}`", quoted(text)),
            Value::Broken => {
                self.spoken_of.insert(name);
                return None;
            }
        };
        self.say(name, format!("{rule}, not {what}"), scope);
        None
    }

    /// Notes a problem of a field, the first time; what follows from a first mistake helps nobody.
    fn say(&mut self, name: &'static str, message: impl Into<String>, scope: &mut Scope<'_>) {
        if self.spoken_of.insert(name) {
            self.breaks(name, message, scope);
        }
    }

    /// Notes that a field breaks a rule, unless something else was said about it before.
    pub(super) fn breaks(&self, name: &str, message: impl Into<String>, scope: &mut Scope<'_>) {
        scope.field(self.line(name), &format!("{}{name}", self.path), message);
    }

    /// Whether something was said about a field.
    pub(super) fn has_spoken_of(&self, name: &str) -> bool {
        self.spoken_of.contains(name)
    }
}

/// Somebody's text, not too long for a message.
pub(super) fn quoted(text: &str) -> String {
    let mut short: String = text.chars().take(QUOTED).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

// Plain scalars are read by YAML 1.2's core schema (section 10.3.2).

/// Whether there is nothing.
pub(super) fn is_null(node: &Node) -> bool {
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
    // Rust reads all that the schema calls a float, and words, which have no digit where these must have one.
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
