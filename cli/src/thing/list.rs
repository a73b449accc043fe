//! `list`: one page.

use clap::ValueEnum;
use otherix_schemas::request::{PAGE_MAX, PageRequest};
use otherix_schemas::violations::Violations;
use serde::Serialize;

use super::Thing;
use crate::args::{Global, ListArgs, ListFormat};
use crate::client::Client;
use crate::failure::Failure;
use crate::number;
use crate::output::text::clean;
use crate::output::{Printer, table, yaml};

/// A page for programs.
#[derive(Serialize)]
struct Page<'a, T> {
    data: &'a [T],
    meta: PageMeta<'a>,
}

/// Where the next page begins, or `null`.
#[derive(Serialize)]
struct PageMeta<'a> {
    next_cursor: Option<&'a str>,
}

/// How a page is to be shown.
pub(crate) struct Form {
    output: ListFormat,
    show_ids: bool,
    stale: bool,
}

/// Carries out a `list` that takes nothing of its own.
pub(crate) async fn run<T: Thing>(
    global: &Global,
    args: ListArgs<impl ValueEnum + Into<ListFormat> + Send + Sync>,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let mut violations = Violations::default();
    let (question, form) = read(args, &mut violations);
    if !violations.is_empty() {
        return Err(violations.into());
    }
    show::<T>(global, &question, form, printer).await
}

/// What is asked, and how the answer is to be shown.
pub(crate) fn read(
    args: ListArgs<impl ValueEnum + Into<ListFormat> + Send + Sync>,
    violations: &mut Violations,
) -> (PageRequest, Form) {
    let ListArgs { limit, cursor, output, show_ids, stale } = args;
    let limit = number::read("limit", limit.as_deref(), violations);
    if let Some(limit) = limit
        && !u64::try_from(limit).is_ok_and(|limit| (1..=PAGE_MAX).contains(&limit))
    {
        violations.add("limit", format!("must be 1 to {PAGE_MAX}, not {limit}"));
    }
    (PageRequest { limit, cursor }, Form { output: output.into(), show_ids, stale })
}

/// Asks, and shows the answer.
pub(crate) async fn show<T: Thing>(
    global: &Global,
    question: &(impl Serialize + Sync),
    form: Form,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let Form { output, show_ids, stale } = form;
    let mut client = Client::connect(global).await?.content_with_stale(stale);
    let answer = client.call::<_, Vec<T>>(T::LIST, question).await?;
    let next_cursor = answer.meta.next_cursor.as_deref();
    match output {
        ListFormat::Json => return printer.data(&Page { data: &answer.data, meta: PageMeta { next_cursor } }),
        ListFormat::Table => printer.text(&rows(&answer.data, show_ids))?,
        ListFormat::Yaml => printer.text(&yaml::documents(answer.data.iter().filter_map(Thing::manifest)))?,
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

fn rows<T: Thing>(views: &[T], show_ids: bool) -> String {
    let heading: Vec<&str> = show_ids.then_some("ID").into_iter().chain(T::COLUMNS.iter().copied()).collect();
    let row = |view: &T| show_ids.then(|| view.id().to_string()).into_iter().chain(view.row()).collect();
    table::table(&heading, &views.iter().map(row).collect::<Vec<_>>())
}
