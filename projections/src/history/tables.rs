//! The tables in which the history keeps every version of each row of the read models: made from the read models' own
//! schemas, so that a new read model has a history without further code.
//!
//! The table `t` has the table `t_versions` with the same columns and `valid_from` (the position of the event that made
//! the row what it is) and `valid_to` (the position of the event that changed or removed it; [`CURRENT`] while there is
//! none). Triggers fill it, whatever statements the projections execute. A connection that reads has a view named `t`
//! of the rows that are valid at one position, which hides the table: the queries are those of the read models.

use rusqlite::Connection;

use crate::projection::Projection;

/// `valid_to` of a row that is in the read model now: the largest integer of SQLite.
const CURRENT: &str = "9223372036854775807";

/// A table of a read model.
#[derive(Debug)]
pub(super) struct Table {
    name: String,
    columns: Vec<Column>,
    /// The columns of the primary key.
    key: Vec<String>,
    /// The columns of the key and of each index, each with its collation. One that begins another is kept: the
    /// positions of the versions follow right after its columns.
    indexes: Vec<Vec<String>>,
}

#[derive(Debug)]
struct Column {
    name: String,
    data_type: String,
}

/// The tables of these read models.
pub(super) fn of_read_models(projections: &[&dyn Projection]) -> Result<Vec<Table>, rusqlite::Error> {
    let db = Connection::open_in_memory()?;
    for projection in projections {
        db.execute_batch(projection.schema())?;
    }
    let tables = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name";
    texts(&db, tables, "")?.into_iter().map(|name| Table::read(&db, name)).collect()
}

/// The texts in the first column of a query with one parameter, which may be unused.
fn texts(db: &Connection, sql: &str, parameter: &str) -> Result<Vec<String>, rusqlite::Error> {
    let mut statement = db.prepare(sql)?;
    let used = statement.parameter_count();
    statement.query_map(rusqlite::params_from_iter([parameter].iter().take(used)), |row| row.get(0))?.collect()
}

impl Table {
    fn read(db: &Connection, name: String) -> Result<Self, rusqlite::Error> {
        let mut statement = db.prepare("SELECT name, type FROM pragma_table_info(?1) ORDER BY cid")?;
        let column = |row: &rusqlite::Row<'_>| Ok(Column { name: quoted(row.get(0)?), data_type: row.get(1)? });
        let columns = statement.query_map([&name], column)?.collect::<Result<_, _>>()?;
        let key = "SELECT name FROM pragma_table_info(?1) WHERE pk > 0 ORDER BY pk";
        let key: Vec<String> = texts(db, key, &name)?.into_iter().map(quoted).collect();
        let mut all = vec![key.clone()];
        for index in texts(db, "SELECT name FROM pragma_index_list(?1) ORDER BY name", &name)? {
            // An expression has no name; the history is then read without that index.
            let columns = "SELECT '\"' || name || '\" COLLATE ' || coll FROM pragma_index_xinfo(?1)
                WHERE key AND name IS NOT NULL ORDER BY seqno";
            let plain = |column: String| column.trim_end_matches(" COLLATE BINARY").to_owned();
            all.push(texts(db, columns, &index)?.into_iter().map(plain).collect());
        }
        let mut indexes: Vec<Vec<String>> = Vec::new();
        for columns in all {
            if !columns.is_empty() && !indexes.contains(&columns) {
                indexes.push(columns);
            }
        }
        Ok(Self { name, columns, key, indexes })
    }

    fn versions(&self) -> String {
        format!("{}_versions", self.name)
    }

    fn columns(&self, prefix: &str) -> String {
        let columns: Vec<String> = self.columns.iter().map(|column| format!("{prefix}{}", column.name)).collect();
        columns.join(", ")
    }

    /// The statements that create the table of versions.
    pub(super) fn creation(&self) -> String {
        let versions = self.versions();
        let columns: String =
            self.columns.iter().map(|Column { name, data_type }| format!("{name} {data_type}, ")).collect();
        let table = format!(
            "CREATE TABLE {versions} ({columns}valid_from INTEGER NOT NULL, valid_to INTEGER NOT NULL) STRICT;\n"
        );
        let index = |(number, columns): (usize, &Vec<String>)| {
            let columns = columns.join(", ");
            // With the end first, a look at a recent position reads recent versions only.
            format!("CREATE INDEX {versions}_{number} ON {versions} ({columns}, valid_to, valid_from);\n")
        };
        table + &self.indexes.iter().enumerate().map(index).collect::<String>()
    }

    /// The statements that create the triggers of a connection that writes. The position of the event that is being
    /// applied is in the temporary table `applying`.
    pub(super) fn triggers(&self) -> String {
        let (name, versions) = (&self.name, self.versions());
        let (old, new, columns) = (self.columns("old."), self.columns("new."), self.columns(""));
        let is_old: Vec<String> = self.key.iter().map(|column| format!("{column} = old.{column}")).collect();
        let is_old = is_old.join(" AND ");
        let at = "(SELECT position FROM applying)";
        // A version that an event makes and ends itself was never valid.
        let end = format!(
            "DELETE FROM {versions} WHERE {is_old} AND valid_to = {CURRENT} AND valid_from = {at};
             UPDATE {versions} SET valid_to = {at} WHERE {is_old} AND valid_to = {CURRENT};"
        );
        let begin = format!(
            "INSERT INTO {versions} ({columns}, valid_from, valid_to) SELECT {new}, position, {CURRENT} FROM applying;"
        );
        format!(
            "CREATE TEMP TRIGGER {name}_inserted AFTER INSERT ON main.{name} BEGIN {begin} END;
             CREATE TEMP TRIGGER {name}_deleted AFTER DELETE ON main.{name} BEGIN {end} END;
             CREATE TEMP TRIGGER {name}_updated AFTER UPDATE ON main.{name} WHEN ({old}) IS NOT ({new})
             BEGIN {end} {begin} END;\n"
        )
    }

    /// The statement that creates the view of a connection that reads, at the position in the temporary table `as_of`.
    pub(super) fn view(&self) -> String {
        let (name, versions, columns) = (&self.name, self.versions(), self.columns(""));
        format!(
            "CREATE TEMP VIEW {name} AS SELECT {columns} FROM main.{versions}
             WHERE valid_to > (SELECT position FROM temp.as_of) AND valid_from <= (SELECT position FROM temp.as_of);\n"
        )
    }
}

fn quoted(name: String) -> String {
    format!("\"{name}\"")
}
