//! `list`: one page.

use clap::ValueEnum;
use otherix_schemas::request::{PAGE_MAX, PageRequest, RequestType};
use otherix_schemas::violations::Violations;
use serde::Serialize;

use super::Resource;
use super::args::ListArgs;
use crate::client::{ControlPlaneClient, GlobalArgs};
use crate::failure::Failure;
use crate::number;
use crate::output::format::ListFormat;
use crate::output::text::clean;
use crate::output::{Printer, table, yaml};

/// A page in JSON.
#[derive(Serialize)]
struct JsonPage<'a, R> {
    data: &'a [R],
    meta: JsonPageMeta<'a>,
}

#[derive(Serialize)]
struct JsonPageMeta<'a> {
    /// `null` on the last page.
    next_cursor: Option<&'a str>,
}

/// How a page is printed.
pub(crate) struct ListStyle {
    output: ListFormat,
    show_ids: bool,
    stale: bool,
}

/// Carries out a `list` without filters.
pub(crate) async fn run<R: Resource<List: RequestType<Body = PageRequest>>>(
    global: &GlobalArgs,
    args: ListArgs<impl ValueEnum + Into<ListFormat> + Send + Sync>,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let mut violations = Violations::default();
    let (query, style) = parse(args, &mut violations);
    if !violations.is_empty() {
        return Err(violations.into());
    }
    show::<R>(global, &query, style, printer).await
}

/// Validates the arguments: the query, and how its result is printed.
pub(crate) fn parse(
    args: ListArgs<impl ValueEnum + Into<ListFormat> + Send + Sync>,
    violations: &mut Violations,
) -> (PageRequest, ListStyle) {
    let ListArgs { limit, cursor, output, show_ids, stale } = args;
    let limit = number::parse("limit", limit.as_deref(), violations);
    if let Some(limit) = limit
        && !u64::try_from(limit).is_ok_and(|limit| (1..=PAGE_MAX).contains(&limit))
    {
        violations.add("limit", format!("must be 1 to {PAGE_MAX}, not {limit}"));
    }
    (PageRequest { limit, cursor }, ListStyle { output: output.into(), show_ids, stale })
}

/// Queries a page and prints it.
pub(crate) async fn show<R: Resource>(
    global: &GlobalArgs,
    query: &<R::List as RequestType>::Body,
    style: ListStyle,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let ListStyle { output, show_ids, stale } = style;
    let mut client = ControlPlaneClient::connect(global).await?.accept_stale(stale);
    let answer = client.call::<R::List>(query).await?;
    let next_cursor = answer.meta.next_cursor.as_deref();
    match output {
        ListFormat::Json => return printer.data(&JsonPage { data: &answer.data, meta: JsonPageMeta { next_cursor } }),
        ListFormat::Table => printer.text(&table(&answer.data, show_ids))?,
        ListFormat::Yaml => printer.text(&yaml::documents(answer.data.iter().filter_map(Resource::manifest)))?,
        ListFormat::Name => {
            let names: String = answer.data.iter().map(|view| format!("{}\n", clean(view.name()))).collect();
            printer.text(&names)?;
        }
    }
    if let Some(cursor) = next_cursor {
        printer.note(&format!("next cursor: {cursor}"));
    }
    Ok(())
}

fn table<R: Resource>(views: &[R], show_ids: bool) -> String {
    let heading: Vec<&str> = show_ids.then_some("ID").into_iter().chain(R::COLUMNS.iter().copied()).collect();
    let row = |view: &R| show_ids.then(|| view.id().to_string()).into_iter().chain(view.row()).collect();
    table::table(&heading, &views.iter().map(row).collect::<Vec<_>>())
}
