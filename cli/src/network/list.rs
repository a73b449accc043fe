//! `otherix network list`: one page.

use otherix_schemas::network::NetworkKind;
use otherix_schemas::request::{ListNetworks, PAGE_MAX};
use otherix_schemas::subject::Request;
use otherix_schemas::view::NetworkView;
use otherix_schemas::violations::Violations;
use serde::Serialize;

use crate::args::{Global, ListArgs, ListFormat};
use crate::client::Client;
use crate::failure::Failure;
use crate::number;
use crate::output::text::clean;
use crate::output::{self, Printer};

/// A page for programs.
#[derive(Serialize)]
struct Page<'a> {
    data: &'a [NetworkView],
    meta: PageMeta<'a>,
}

/// Where the next page begins, or `null`.
#[derive(Serialize)]
struct PageMeta<'a> {
    next_cursor: Option<&'a str>,
}

pub(super) async fn run(global: &Global, args: ListArgs, printer: &mut Printer) -> Result<(), Failure> {
    let ListArgs { kind, limit, cursor, output, show_ids, stale } = args;
    let question = question(kind, limit, cursor)?;
    let mut client = Client::connect(global).await?.content_with_stale(stale);
    let answer = client.call::<_, Vec<NetworkView>>(Request::NetworkList, &question).await?;
    let next_cursor = answer.meta.next_cursor.as_deref();
    match output {
        ListFormat::Json => return printer.data(&Page { data: &answer.data, meta: PageMeta { next_cursor } }),
        ListFormat::Table => printer.text(&output::network::list(&answer.data, show_ids))?,
        ListFormat::Yaml => printer.text(&output::yaml::manifests(&answer.data))?,
        ListFormat::Name => {
            let names: String = answer.data.iter().map(|view| format!("{}\n", clean(view.name.as_str()))).collect();
            printer.text(&names)?;
        }
    }
    if let Some(cursor) = next_cursor {
        printer.note(&format!("next cursor: {cursor}"));
    }
    Ok(())
}

fn question(kind: Option<String>, limit: Option<String>, cursor: Option<String>) -> Result<ListNetworks, Failure> {
    let mut violations = Violations::default();
    if let Some(kind) = &kind {
        violations.check("type", kind.parse::<NetworkKind>());
    }
    let limit = number::read("limit", limit.as_deref(), &mut violations);
    if let Some(limit) = limit
        && !u64::try_from(limit).is_ok_and(|limit| (1..=PAGE_MAX).contains(&limit))
    {
        violations.add("limit", format!("must be 1 to {PAGE_MAX}, not {limit}"));
    }
    if violations.is_empty() { Ok(ListNetworks { kind, limit, cursor }) } else { Err(violations.into()) }
}
