//! The machine of a VM as the user defines it by flags or in a manifest.

use clap::Args;
use otherix_schemas::violations::Violations;
use otherix_schemas::vm::{CloudInit, MachineDraft};

use crate::resource::args::completes_to;

/// When an image may be fetched.
const POLICIES: &[&str] = &["if-not-present", "always"];

#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MachineDefinition {
    /// Virtual processors, 1 to 64 [default: 2]
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub(crate) vcpus: Option<i64>,

    /// Memory in MiB, 64 to 1048576 [default: 2048]
    #[arg(long, value_name = "MIB", allow_negative_numbers = true)]
    pub(crate) memory_mb: Option<i64>,

    /// Size of the disk in GiB, 1 to 4096; an image that is larger is refused [default: the size of the image]
    #[arg(long, value_name = "GIB", allow_negative_numbers = true)]
    pub(crate) disk_gib: Option<i64>,

    /// The SHA-256 of the image's file, in hexadecimal digits: another image is refused
    #[arg(long, value_name = "HEX")]
    pub(crate) image_sha256: Option<String>,

    /// When the node fetches the image: if-not-present or always [default: if-not-present]
    #[arg(long, value_name = "POLICY", value_parser = completes_to(POLICIES), hide_possible_values = true)]
    pub(crate) pull_policy: Option<String>,

    /// Give the guest no seed disk for cloud-init
    #[arg(long)]
    pub(crate) no_cloud_init: bool,

    /// Do not run the VM: only its NIC and its tap are created, for a machine that you run yourself
    #[arg(long)]
    pub(crate) tap_only: bool,

    /// The texts of files, and of manifests.
    #[arg(skip)]
    pub(crate) cloud_init: CloudInit,
}

impl MachineDefinition {
    /// Adds what cannot be defined together.
    pub(super) fn conflicts(&self, violations: &mut Violations) {
        let Self { vcpus, memory_mb, disk_gib, image_sha256, pull_policy, no_cloud_init, tap_only, cloud_init } = self;
        let CloudInit { user_data, network_config, ssh_keys } = cloud_init;
        let seeds = [
            ("user_data", user_data.is_some()),
            ("network_config", network_config.is_some()),
            ("ssh_keys", !ssh_keys.is_empty()),
        ];
        let machine = [
            ("vcpus", vcpus.is_some()),
            ("memory_mb", memory_mb.is_some()),
            ("disk_gib", disk_gib.is_some()),
            ("image_sha256", image_sha256.is_some()),
            ("pull_policy", pull_policy.is_some()),
            ("no_cloud_init", *no_cloud_init),
        ];
        for (field, _) in seeds.iter().filter(|(_, is_given)| *is_given && *no_cloud_init) {
            violations.add(field, "must be omitted without cloud-init");
        }
        for (field, _) in seeds.iter().chain(&machine).filter(|(_, is_given)| *is_given && *tap_only) {
            violations.add(field, "must be omitted for a VM that is a tap only");
        }
    }

    /// The request's part; `None` if nothing is to run.
    pub(super) fn draft(self) -> Option<MachineDraft> {
        let Self { vcpus, memory_mb, disk_gib, image_sha256, pull_policy, no_cloud_init, tap_only, cloud_init } = self;
        let cloud_init = (!no_cloud_init).then_some(cloud_init);
        (!tap_only).then_some(MachineDraft { vcpus, memory_mb, disk_gib, image_sha256, pull_policy, cloud_init })
    }
}
