//! Queries without a control plane: from a folder that `otherix audit replay` has written (`--offline`).

use std::path::Path;

use otherix_projections::offline::OfflineModels;
use otherix_runtime::SystemRuntime;
use otherix_schemas::error::ErrorCode;
use otherix_schemas::value::UserId;

use crate::audit::replayed_models;
use crate::client::GlobalArgs;
use crate::exit::Exit;
use crate::failure::{self, Failure};

/// As whom read models are queried.
const USER: &str = "offline";

/// The folder that is to be queried, if there is one.
pub(crate) fn folder(global: &GlobalArgs) -> Option<&Path> {
    global.offline.as_deref().filter(|folder| !folder.as_os_str().is_empty())
}

/// Opens the read models in a folder.
pub(crate) fn open(folder: &Path) -> Result<OfflineModels, Failure> {
    open_file(&replayed_models(folder)?)
}

/// Opens a file with read models.
pub(crate) fn open_file(path: &Path) -> Result<OfflineModels, Failure> {
    let unusable = |text: String| Failure::new(Exit::Unexpected, ErrorCode::Conflict, text);
    let user: UserId =
        USER.parse().map_err(|error: otherix_schemas::value::UserIdError| unusable(error.to_string()))?;
    OfflineModels::open(path, user, SystemRuntime::shared()).map_err(|error| unusable(failure::causes(&error)))
}

/// A control plane is named, and none is to be asked.
pub(crate) fn names_control_plane(flag: &str) -> Failure {
    let text = format!("{flag} names a control plane, and none is asked with --offline (or OTHERIX_OFFLINE)");
    Failure::new(Exit::Usage, ErrorCode::ValidationFailed, text)
        .hint(format!("leave out {flag}, or --offline, and `unset OTHERIX_OFFLINE`"))
}

/// What `--offline` cannot do.
pub(crate) fn takes_control_plane() -> Failure {
    let text = "this takes a control plane, and none is asked with --offline (or OTHERIX_OFFLINE)";
    Failure::new(Exit::Usage, ErrorCode::ValidationFailed, text).hint(
        "read models alone answer `get` and `list` of networks, VMs, nodes and users, as of the position that they \
         were made for, and without --watch",
    )
}
