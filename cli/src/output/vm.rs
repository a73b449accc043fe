//! A VM as people are shown it.

use otherix_schemas::nic::NicView;
use otherix_schemas::vm::VmView;

use super::table::{self, or_nothing};
use super::text;

/// The heading of [`row`].
pub(crate) const COLUMNS: [&str; 6] = ["NAME", "ARCH", "NODE", "NETWORK", "MAC", "STATUS"];

/// A VM in a list.
pub(crate) fn row(view: &VmView) -> Vec<String> {
    let nic = view.nic.as_ref();
    vec![
        view.name.to_string(),
        view.arch.to_string(),
        view.node_name.to_string(),
        or_nothing(nic.map(|nic| &nic.network_name)),
        or_nothing(nic.map(|nic| &nic.mac)),
        status(view),
    ]
}

/// All that is known of a VM.
pub(crate) fn details(view: &VmView) -> String {
    let mut lines = vec![("name", view.name.to_string())];
    lines.extend(fields(view));
    if let Some(at) = view.deleted_at {
        lines.push(("deleted", at.to_string()));
    }
    lines.push(("status", status(view)));
    if let Some(error) = &view.error {
        lines.push(("error", error.clone()));
    }
    table::fields(&lines) + &text::warnings(&view.warnings)
}

/// The fields of a VM, its name aside.
pub(crate) fn fields(view: &VmView) -> Vec<(&'static str, String)> {
    let mut lines = vec![
        ("id", view.id.to_string()),
        ("image", view.image_url.to_string()),
        ("arch", view.arch.to_string()),
        ("node", view.node_name.to_string()),
        ("network", or_nothing(view.nic.as_ref().map(|nic| &nic.network_name))),
    ];
    if let Some(NicView { bridge_name, mac, tap, .. }) = &view.nic {
        lines.extend([("bridge", bridge_name.clone()), ("mac", mac.to_string()), ("tap", tap.clone())]);
    }
    lines.push(("created", view.created_at.to_string()));
    lines
}

/// Its status, with what one must know to believe it.
fn status(view: &VmView) -> String {
    let unreachable = if view.node_reachable { "" } else { " (node unreachable)" };
    format!("{}{unreachable}", view.status.as_str())
}
