//! Images on nodes: `otherix image …`.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use futures::StreamExt;
use futures::stream;
use otherix_schemas::error::{ErrorCode, ErrorInfo};
use otherix_schemas::id::{NodeId, VmId};
use otherix_schemas::image::{ImageState, ImagesOfNode, ListImages, NodeImage};
use otherix_schemas::node::NodeView;
use otherix_schemas::request::Request;
use otherix_schemas::vm::VmView;
use otherix_transport::request::CallOptions;
use serde::Serialize;

use crate::client::{ControlPlaneClient, GlobalArgs};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Printer;
use crate::output::format::Format;
use crate::output::table;
use crate::resource::list::all_pages;
use crate::resource::{NameOrId, Resource};

/// Show the disk images that nodes keep
#[derive(Debug, Subcommand)]
#[command(after_help = "Example:\n  otherix image list")]
pub(crate) enum ImageSubcommand {
    /// List the images of all nodes, or of one
    #[command(after_help = LIST_HELP)]
    List(ListImagesArgs),
}

const LIST_HELP: &str = "\
Each node is asked. STATE is `ready`, or how much of the image was fetched; SIZE is that of its file; VMS are those \
whose disks are made of it, or that wait for it. An image that no VM uses stays until its space is needed. A node that \
does not answer is named on stderr, the others are listed, and the exit code is 7.

Examples:
  otherix image list
  otherix image list --node node-1
  otherix image list -o json";

/// How long a node may take.
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// Nodes that are asked at the same time.
const AT_ONCE: usize = 16;

#[derive(Debug, Args)]
pub(crate) struct ListImagesArgs {
    /// The node, by name (not case-sensitive) or UUID [default: all nodes]
    #[arg(long, value_name = "NAME|UUID")]
    node: Option<String>,

    /// Output format
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

/// What a node has answered, for programs.
#[derive(Serialize)]
struct OfNode {
    node_id: String,
    node_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    images: Option<Vec<NodeImage>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_truncated: bool,
    /// Why it has not.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorInfo>,
}

#[derive(Serialize)]
struct Listed {
    data: Vec<OfNode>,
}

/// Carries out a command.
pub(crate) async fn run(global: &GlobalArgs, command: ImageSubcommand, printer: &mut Printer) -> Result<(), Failure> {
    let ImageSubcommand::List(ListImagesArgs { node, output: _ }) = command;
    let mut client = ControlPlaneClient::connect(global).await?;
    let nodes = match node {
        Some(node) => vec![NameOrId::new(&node).look_up_live::<NodeView>(&mut client).await?],
        None => all_pages::<NodeView>(&mut client, |page| page).await?,
    };
    let connection = client.lasting().await?;
    let asked = stream::iter(nodes).map(|node| {
        let connection = connection.clone();
        async move {
            let options = CallOptions { timeout: TIMEOUT, idempotency_key: None };
            let answer =
                connection.call::<ListImages>(&ImagesOfNode { node_id: NodeId::new(node.id()) }, options).await;
            let (node_id, node_name) = (node.id().to_string(), node.name().to_owned());
            match answer {
                Ok(answer) => {
                    let (images, is_truncated) = (Some(answer.data.images), answer.data.is_truncated);
                    OfNode { node_id, node_name, images, is_truncated, error: None }
                }
                Err(error) => {
                    let error = Some(Failure::call(error, Request::of::<ListImages>()).body.error);
                    OfNode { node_id, node_name, images: None, is_truncated: false, error }
                }
            }
        }
    });
    let data: Vec<OfNode> = asked.buffered(AT_ONCE).collect().await;
    let failed: Vec<String> = data.iter().filter(|node| node.error.is_some()).map(|n| n.node_name.clone()).collect();
    if printer.is_json() {
        printer.data(&Listed { data })?;
    } else {
        let vms = all_pages::<VmView>(&mut client, |page| page).await?;
        let names: BTreeMap<VmId, String> = vms.iter().map(|vm| (vm.id, vm.name.to_string())).collect();
        printer.text(&table(&data, &names))?;
        for OfNode { node_name, error, is_truncated, .. } in &data {
            if let Some(error) = error {
                printer.note(&format!("node {node_name}: {}", error.message));
            }
            if *is_truncated {
                printer.note(&format!("node {node_name} has more images, which are not listed"));
            }
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    let text = format!("not all nodes have answered: {}", failed.join(", "));
    Err(Failure::new(Exit::Unreachable, ErrorCode::Unavailable, text))
}

fn table(nodes: &[OfNode], names: &BTreeMap<VmId, String>) -> String {
    let rows = nodes.iter().flat_map(|node| {
        node.images.iter().flatten().map(|image| {
            let vms = image.vms.iter().map(|id| names.get(id).cloned().unwrap_or_else(|| id.to_string()));
            vec![
                node.node_name.clone(),
                image.digest.as_ref().map_or_else(|| "-".to_owned(), |digest| digest.chars().take(12).collect()),
                state(image),
                image.file_size.map_or_else(|| "-".to_owned(), mib),
                vms.collect::<Vec<_>>().join(","),
                table::optional(image.last_used_at.as_ref()),
                image.urls.join(","),
            ]
        })
    });
    let rows: Vec<Vec<String>> = rows.collect();
    table::table(&["NODE", "DIGEST", "STATE", "SIZE", "VMS", "LAST USED", "URLS"], &rows)
}

fn state(image: &NodeImage) -> String {
    match (image.state, image.received, image.rate) {
        (ImageState::Ready, _, _) => ImageState::Ready.as_str().to_owned(),
        (ImageState::Fetching, Some(received), Some(rate)) => format!("{}, {}/s", mib(received), mib(rate)),
        (ImageState::Fetching, _, _) => ImageState::Fetching.as_str().to_owned(),
    }
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}
