//! Aligned tables and field lists. Cells are escaped here, because their width is measured here.

use otherix_schemas::value::{Description, Labels};

use super::text::{clean, pad, width};

/// The cell for an absent value.
const ABSENT: &str = "-";

/// The cell for an optional value.
pub(crate) fn optional(value: Option<impl ToString>) -> String {
    value.map_or_else(|| ABSENT.to_owned(), |value| value.to_string())
}

/// The cell for a truth value.
pub(crate) fn yes_no(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}

/// A table: two spaces between columns, no trailing spaces.
pub(crate) fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    Rows::new(heading, rows).1
}

/// A table that gets more rows while it is printed. Its columns become wider where a row needs it.
pub(crate) struct Rows {
    widths: Vec<usize>,
}

impl Rows {
    /// Begins a table; returns its first lines, too.
    pub(crate) fn new(heading: &[&str], rows: &[Vec<String>]) -> (Self, String) {
        let mut table = Self { widths: Vec::new() };
        let heading = heading.iter().map(|&cell| cell.to_owned()).collect();
        let rows: Vec<Vec<String>> = std::iter::once(heading).chain(rows.iter().cloned()).collect();
        let text = table.more(&rows);
        (table, text)
    }

    /// The lines of further rows.
    pub(crate) fn more(&mut self, rows: &[Vec<String>]) -> String {
        let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| clean(cell)).collect()).collect();
        for row in &rows {
            self.widths.resize(self.widths.len().max(row.len()), 0);
            for (widest, cell) in self.widths.iter_mut().zip(row) {
                *widest = width(cell).max(*widest);
            }
        }
        rows.iter().map(|row| line(row, &self.widths)).collect()
    }
}

/// A table, or nothing if there are no rows.
pub(crate) fn table_unless_empty(heading: &[&str], rows: &[Vec<String>]) -> String {
    if rows.is_empty() { String::new() } else { table(heading, rows) }
}

fn line(row: &[String], widths: &[usize]) -> String {
    let cells: Vec<String> = row.iter().zip(widths).map(|(cell, &columns)| pad(cell, columns)).collect();
    format!("{}\n", cells.join("  ").trim_end())
}

/// `key: value` lines with aligned values.
pub(crate) fn fields(fields: &[(&str, String)]) -> String {
    let widest = fields.iter().map(|(key, _)| width(key)).max().unwrap_or(0);
    fields.iter().map(|(key, value)| format!("{} {}\n", pad(&format!("{key}:"), widest + 1), clean(value))).collect()
}

/// The fields with what people say about a resource, if they do.
pub(crate) fn metadata(description: Option<&Description>, labels: &Labels) -> Vec<(&'static str, String)> {
    let mut lines: Vec<_> = description.map(|text| ("description", text.to_string())).into_iter().collect();
    if !labels.is_empty() {
        let labels: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        lines.push(("labels", labels.join(" ")));
    }
    lines
}

/// The warnings of a resource under a heading; nothing if there are none.
pub(crate) fn warnings(warnings: &[String]) -> String {
    let lines: String = warnings.iter().map(|text| format!("  {}\n", clean(text))).collect();
    if lines.is_empty() { lines } else { format!("warnings:\n{lines}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligns_wide_and_escaped_cells() {
        let rows = [vec!["网络".to_owned(), "x".to_owned()], vec!["\u{7}".to_owned(), String::new()]];
        assert_eq!(table(&["A", "B"], &rows), "A      B\n网络   x\n\\u{7}\n");
    }
}
