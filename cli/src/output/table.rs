//! Rows whose columns line up. Cells are made harmless here, since their width is counted here.

use super::text::{clean, pad, width};

/// What stands for a value that there is not.
const NOTHING: &str = "-";

/// A value that there may not be.
pub(crate) fn or_nothing(value: Option<impl ToString>) -> String {
    value.map_or_else(|| NOTHING.to_owned(), |value| value.to_string())
}

/// A heading and rows, two spaces between columns, nothing behind the last.
pub(crate) fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let heading: Vec<String> = heading.iter().map(|&cell| cell.to_owned()).collect();
    let cleaned = rows.iter().map(|row| row.iter().map(|cell| clean(cell)).collect());
    let rows: Vec<Vec<String>> = std::iter::once(heading).chain(cleaned).collect();
    let mut widths = Vec::new();
    for row in &rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (widest, cell) in widths.iter_mut().zip(row) {
            *widest = width(cell).max(*widest);
        }
    }
    rows.iter().map(|row| line(row, &widths)).collect()
}

fn line(row: &[String], widths: &[usize]) -> String {
    let cells: Vec<String> = row.iter().zip(widths).map(|(cell, &columns)| pad(cell, columns)).collect();
    format!("{}\n", cells.join("  ").trim_end())
}

/// `key: value` lines whose values line up.
pub(crate) fn fields(fields: &[(&str, String)]) -> String {
    let widest = fields.iter().map(|(key, _)| width(key)).max().unwrap_or(0);
    fields.iter().map(|(key, value)| format!("{} {}\n", pad(&format!("{key}:"), widest + 1), clean(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_whatever_is_in_them() {
        let rows = [vec!["网络".to_owned(), "x".to_owned()], vec!["\u{7}".to_owned(), String::new()]];
        assert_eq!(table(&["A", "B"], &rows), "A      B\n网络   x\n\\u{7}\n");
    }
}
