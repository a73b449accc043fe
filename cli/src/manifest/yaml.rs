//! Parses YAML into trees with line numbers, independently of manifests. Anchors, aliases and tags are not supported,
//! so that a document is as large as its text and has no hidden meaning. The parser limits nesting.

use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput};

use super::problem::ProblemScope;

/// Deepest nesting, far beyond that of any manifest.
const DEPTH_MAX: usize = 32;

/// A document.
#[derive(Debug)]
pub(super) struct YamlDocument {
    /// Its number in the file, from 1.
    pub(super) number: usize,
    pub(super) root: YamlNode,
}

/// A value, and where it begins.
#[derive(Debug)]
pub(super) struct YamlNode {
    /// From 1. A field's mapping or list has the line of the field.
    pub(super) line: usize,
    pub(super) value: YamlValue,
}

/// A mapping, list or scalar.
#[derive(Debug)]
pub(super) enum YamlValue {
    Map(Vec<YamlEntry>),
    /// Its items are not kept: no field takes a list.
    List,
    Scalar {
        text: String,
        /// Neither quoted nor a block, so that it may be another type than a string.
        plain: bool,
    },
    /// An anchor, alias or tag, which is reported.
    Unsupported,
}

impl YamlValue {
    /// The text of a scalar, and whether it is plain.
    pub(super) fn scalar(&self) -> Option<(&str, bool)> {
        match self {
            Self::Scalar { text, plain } => Some((text, *plain)),
            Self::Map(_) | Self::List | Self::Unsupported => None,
        }
    }
}

/// A field and its value.
#[derive(Debug)]
pub(super) struct YamlEntry {
    pub(super) key: String,
    pub(super) line: usize,
    pub(super) node: YamlNode,
    /// The line of the first occurrence of the same key in the same mapping.
    pub(super) repeats: Option<usize>,
}

/// Parses all documents. One with a syntax error is omitted, and parsing continues at the next `---`.
pub(super) fn documents(text: &str, scope: &mut ProblemScope<'_>) -> Vec<YamlDocument> {
    let options = granit_parser::options! {
        emit_unresolved_aliases: true,
        block_nesting_limit: DEPTH_MAX,
        flow_nesting_limit: DEPTH_MAX,
    };
    let mut reader = Reader { parser: Parser::new_from_str_with_options(text, options), scope, number: 0 };
    let mut documents = Vec::new();
    loop {
        let error = match reader.document() {
            Ok(Some(root)) => {
                documents.push(YamlDocument { number: reader.number, root });
                continue;
            }
            Ok(None) => return documents,
            Err(error) => error,
        };
        let (line, column) = (error.marker().line(), error.marker().col() + 1);
        reader.scope.line(line, format!("invalid YAML: {} (column {column})", error.info()));
        if !reader.parser.proceed_next_document().unwrap_or(false) {
            return documents;
        }
    }
}

struct Reader<'a, 'scope> {
    parser: Parser<'a, StrInput<'a>>,
    scope: &'a mut ProblemScope<'scope>,
    number: usize,
}

impl<'a> Reader<'a, '_> {
    /// Parses the next document.
    fn document(&mut self) -> Result<Option<YamlNode>, ScanError> {
        self.number += 1;
        self.scope.document = Some(self.number);
        while let Some((event, _)) = self.parser.next_event().transpose()? {
            if matches!(event, Event::DocumentStart(..)) {
                return self.next()?.map(|(event, span)| self.node(event, span)).transpose();
            }
        }
        Ok(None)
    }

    fn next(&mut self) -> Result<Option<(Event<'a>, Span)>, ScanError> {
        self.parser.next_event().transpose()
    }

    /// Returns the value that begins with this event.
    fn node(&mut self, event: Event<'a>, span: Span) -> Result<YamlNode, ScanError> {
        let line = span.start.line();
        let unsupported = match (event.anchor_id(), event.tag()) {
            (Some(_), _) => Some("anchors (`&`) are not supported"),
            (None, Some(_)) => Some("tags (`!`) are not supported"),
            (None, None) => None,
        };
        let value = match event {
            Event::MappingStart(..) => YamlValue::Map(self.map(line)?),
            Event::SequenceStart(..) => {
                self.list()?;
                YamlValue::List
            }
            Event::Scalar(text, style, ..) => {
                YamlValue::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain }
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                self.scope.line(line, "aliases (`*`) are not supported: write the value itself");
                YamlValue::Unsupported
            }
            Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(..)
            | Event::DocumentEnd
            | Event::Anchor(..)
            | Event::SequenceEnd
            | Event::MappingEnd
            | _ => YamlValue::Unsupported,
        };
        let Some(unsupported) = unsupported else { return Ok(YamlNode { line, value }) };
        self.scope.line(line, unsupported);
        Ok(YamlNode { line, value: YamlValue::Unsupported })
    }

    fn map(&mut self, line: usize) -> Result<Vec<YamlEntry>, ScanError> {
        let mut entries: Vec<YamlEntry> = Vec::new();
        let mut seen: HashMap<String, usize> = HashMap::new();
        while let Some((event, span)) = self.next()?.filter(|(event, _)| *event != Event::MappingEnd) {
            let key = self.node(event, span)?;
            let Some((event, span)) = self.next()? else { break };
            let mut node = self.node(event, span)?;
            // A missing field is reported at the line of the field that holds the mapping.
            if matches!(node.value, YamlValue::Map(_) | YamlValue::List) {
                node.line = key.line;
            }
            match key.value {
                YamlValue::Scalar { text, .. } => {
                    let repeats = seen.get(&text).copied();
                    seen.entry(text.clone()).or_insert(key.line);
                    entries.push(YamlEntry { key: text, line: key.line, node, repeats });
                }
                YamlValue::Map(_) | YamlValue::List => {
                    self.scope.line(line.max(key.line), "the name of a field must be a string")
                }
                YamlValue::Unsupported => {}
            }
        }
        Ok(entries)
    }

    fn list(&mut self) -> Result<(), ScanError> {
        while let Some((event, span)) = self.next()?.filter(|(event, _)| *event != Event::SequenceEnd) {
            self.node(event, span)?;
        }
        Ok(())
    }
}
