//! YAML read into trees that know their lines. It knows nothing of manifests, and takes less than YAML offers: no anchors,
//! aliases and tags, so that a document is as large as it looks and means what it shows. Nesting is bounded by the parser.

use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput};

use super::problem::Scope;

/// Deepest nesting, far beyond any manifest's.
const DEEPEST: usize = 32;

/// A document.
#[derive(Debug)]
pub(super) struct Document {
    /// From 1.
    pub(super) number: usize,
    /// All of it.
    pub(super) root: Node,
}

/// A value, and where it begins.
#[derive(Debug)]
pub(super) struct Node {
    /// From 1; that of the field if it is a field's map or list.
    pub(super) line: usize,
    pub(super) value: Value,
}

/// What there can be.
#[derive(Debug)]
pub(super) enum Value {
    Map(Vec<Entry>),
    /// What is in it matters to nobody: no field takes a list.
    List,
    Scalar {
        text: String,
        /// Neither quoted nor a block, so that it may be something else than a text.
        plain: bool,
    },
    /// Something that is not taken, which was said.
    Broken,
}

impl Value {
    /// The text of a scalar, and whether it is plain.
    pub(super) fn scalar(&self) -> Option<(&str, bool)> {
        match self {
            Self::Scalar { text, plain } => Some((text, *plain)),
            Self::Map(_) | Self::List | Self::Broken => None,
        }
    }
}

/// A field and its value.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: usize,
    pub(super) node: Node,
    /// The line where the same map has the same key for the first time.
    pub(super) repeats: Option<usize>,
}

/// Reads all documents. One with an error in it is left out, and reading goes on at the next `---`.
pub(super) fn documents(text: &str, scope: &mut Scope<'_>) -> Vec<Document> {
    let options = granit_parser::options! {
        emit_unresolved_aliases: true,
        block_nesting_limit: DEEPEST,
        flow_nesting_limit: DEEPEST,
    };
    let mut reader = Reader { parser: Parser::new_from_str_with_options(text, options), scope, number: 0 };
    let mut documents = Vec::new();
    loop {
        let error = match reader.document() {
            Ok(Some(root)) => {
                documents.push(Document { number: reader.number, root });
                continue;
            }
            Ok(None) => return documents,
            Err(error) => error,
        };
        let (line, column) = (error.marker().line(), error.marker().col() + 1);
        reader.scope.place(line, format!("is not valid YAML: {} (column {column})", error.info()));
        if !reader.parser.proceed_next_document().unwrap_or(false) {
            return documents;
        }
    }
}

struct Reader<'a, 'scope> {
    parser: Parser<'a, StrInput<'a>>,
    scope: &'a mut Scope<'scope>,
    number: usize,
}

impl<'a> Reader<'a, '_> {
    /// The next document.
    fn document(&mut self) -> Result<Option<Node>, ScanError> {
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

    /// The value that begins with this event.
    fn node(&mut self, event: Event<'a>, span: Span) -> Result<Node, ScanError> {
        let line = span.start.line();
        let decorated = match (event.anchor_id(), event.tag()) {
            (Some(_), _) => Some("anchors (`&`) are not taken"),
            (None, Some(_)) => Some("tags (`!`) are not taken"),
            (None, None) => None,
        };
        let value = match event {
            Event::MappingStart(..) => Value::Map(self.map(line)?),
            Event::SequenceStart(..) => {
                self.list()?;
                Value::List
            }
            Event::Scalar(text, style, ..) => {
                Value::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain }
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                self.scope.place(line, "aliases (`*`) are not taken: write the value itself");
                Value::Broken
            }
            Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(..)
            | Event::DocumentEnd
            | Event::Anchor(..)
            | Event::SequenceEnd
            | Event::MappingEnd
            | _ => Value::Broken,
        };
        let Some(decorated) = decorated else { return Ok(Node { line, value }) };
        self.scope.place(line, decorated);
        Ok(Node { line, value: Value::Broken })
    }

    fn map(&mut self, line: usize) -> Result<Vec<Entry>, ScanError> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut seen: HashMap<String, usize> = HashMap::new();
        while let Some((event, span)) = self.next()?.filter(|(event, _)| *event != Event::MappingEnd) {
            let key = self.node(event, span)?;
            let Some((event, span)) = self.next()? else { break };
            let mut node = self.node(event, span)?;
            // What a map lacks is missing where the map is named.
            if matches!(node.value, Value::Map(_) | Value::List) {
                node.line = key.line;
            }
            match key.value {
                Value::Scalar { text, .. } => {
                    let repeats = seen.get(&text).copied();
                    seen.entry(text.clone()).or_insert(key.line);
                    entries.push(Entry { key: text, line: key.line, node, repeats });
                }
                Value::Map(_) | Value::List => {
                    self.scope.place(line.max(key.line), "the name of a field must be a text")
                }
                Value::Broken => {}
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
