//! `list`: a page in the table, or all pages where programs read the list.

use std::ops::ControlFlow;

use clap::ValueEnum;
use otherix_schemas::request::{AsOf, PAGE_MAX, PageRequest, RequestType};
use otherix_schemas::violations::Violations;
use serde::Serialize;

use super::args::{AtArgs, ListArgs};
use super::watch::WatchedList;
use super::{Resource, watch};
use crate::client::{ControlPlaneClient, GlobalArgs};
use crate::failure::Failure;
use crate::number;
use crate::output::format::ListFormat;
use crate::output::text::clean;
use crate::output::{Printer, table, yaml};

/// A list in JSON.
#[derive(Serialize)]
struct JsonPage<'a, R> {
    data: &'a [R],
    meta: JsonPageMeta<'a>,
}

#[derive(Serialize)]
struct JsonPageMeta<'a> {
    /// `null` if the list is complete or the page the last one.
    next_cursor: Option<&'a str>,
}

/// How a list is printed.
pub(crate) struct ListStyle {
    output: ListFormat,
    /// Whether all pages are printed instead of one.
    complete: bool,
    show_ids: bool,
    stale: bool,
    watch: bool,
    at: Option<AsOf>,
}

/// Carries out a `list` without filters.
pub(crate) async fn run<R: Resource<List: RequestType<Body = PageRequest>>>(
    global: &GlobalArgs,
    args: ListArgs<impl ValueEnum + Into<ListFormat> + Send + Sync>,
    at: AtArgs,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let mut violations = Violations::default();
    let (query, style) = parse(args, at, &mut violations);
    if !violations.is_empty() {
        return Err(violations.into());
    }
    show::<R>(global, query, |page| page, style, printer).await
}

/// Validates the arguments: the query, and how its result is printed.
pub(crate) fn parse(
    args: ListArgs<impl ValueEnum + Into<ListFormat> + Send + Sync>,
    at: AtArgs,
    violations: &mut Violations,
) -> (PageRequest, ListStyle) {
    let ListArgs { limit, cursor, output, show_ids, stale, watch } = args;
    let output = output.into();
    let complete = limit.is_none() && cursor.is_none() && output != ListFormat::Table;
    let limit = number::parse("limit", limit.as_deref(), violations);
    if let Some(limit) = limit
        && !u64::try_from(limit).is_ok_and(|limit| (1..=PAGE_MAX).contains(&limit))
    {
        violations.add("limit", format!("must be 1 to {PAGE_MAX}, not {limit}"));
    }
    if watch && !matches!(output, ListFormat::Table | ListFormat::Json) {
        violations.add("output", "must be table or json with --watch");
    }
    (PageRequest { limit, cursor }, ListStyle { output, complete, show_ids, stale, watch, at: at.parse(violations) })
}

/// Queries a page, or all pages, and prints them. `request` adds filters to a page. Nothing is printed unless all pages
/// were received: a program that reads the list must not take a part of it for all.
pub(crate) async fn show<R: Resource>(
    global: &GlobalArgs,
    page: PageRequest,
    request: impl Fn(PageRequest) -> <R::List as RequestType>::Body,
    style: ListStyle,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let ListStyle { output, complete, show_ids, stale, watch, at } = style;
    let mut client = ControlPlaneClient::connect(global).await?.accept_stale(stale);
    client.look_at(at);
    if watch {
        let mut list = WatchedList::new(output == ListFormat::Json, show_ids);
        let show = |views: Vec<R>, printer: &mut Printer| {
            let changes = list.changes(&views);
            if changes.is_empty() { Ok(ControlFlow::Continue(())) } else { printer.stream(&changes) }
        };
        return watch::run(&mut client, printer, async |client| all_pages::<R>(client, &request).await, show).await;
    }
    let (views, next_cursor) = if complete {
        (all_pages::<R>(&mut client, request).await?, None)
    } else {
        let answer = client.call::<R::List>(&request(page)).await?;
        (answer.data, answer.meta.next_cursor)
    };
    let next_cursor = next_cursor.as_deref();
    match output {
        ListFormat::Json => return printer.data(&JsonPage { data: &views, meta: JsonPageMeta { next_cursor } }),
        ListFormat::Table => printer.text(&table(&views, show_ids))?,
        ListFormat::Yaml => printer.text(&yaml::documents(live(&views).filter_map(Resource::manifest)))?,
        ListFormat::Name => {
            let names: String = live(&views).map(|view| format!("{}\n", clean(view.name()))).collect();
            printer.text(&names)?;
        }
    }
    if let Some(cursor) = next_cursor {
        printer.note(&format!("next cursor: {cursor}"));
    }
    Ok(())
}

/// The resources that are not deleted: what is done with manifests and names cannot be done with others.
fn live<R: Resource>(views: &[R]) -> impl Iterator<Item = &R> {
    views.iter().filter(|view| !view.is_deleted())
}

/// All of a list, page by page.
pub(crate) async fn all_pages<R: Resource>(
    client: &mut ControlPlaneClient,
    request: impl Fn(PageRequest) -> <R::List as RequestType>::Body,
) -> Result<Vec<R>, Failure> {
    let limit = i64::try_from(PAGE_MAX).ok();
    let mut views = Vec::new();
    let mut cursor = None;
    loop {
        client.renew();
        let answer = client.call::<R::List>(&request(PageRequest { limit, cursor })).await?;
        views.extend(answer.data);
        cursor = answer.meta.next_cursor;
        if cursor.is_none() {
            return Ok(views);
        }
    }
}

fn table<R: Resource>(views: &[R], show_ids: bool) -> String {
    let heading: Vec<&str> = show_ids.then_some("ID").into_iter().chain(R::COLUMNS.iter().copied()).collect();
    let row = |view: &R| show_ids.then(|| view.id().to_string()).into_iter().chain(view.row()).collect();
    table::table(&heading, &views.iter().map(row).collect::<Vec<_>>())
}
