//! What this node offers to the machines of VMs.

use std::io;
use std::path::Path;

use otherix_schemas::node::{NodeAccelerator, NodeCapacity, Resources};
use otherix_vm::accelerator::Choice;
use otherix_vm::spec::Accelerator;

/// Virtual processors for each processor, unless it is configured: guests rarely use all of theirs at the same time.
const VCPUS_PER_PROCESSOR: u64 = 4;
/// How much of the memory is offered unless it is configured, in hundredths. The rest is for the node itself, and for
/// QEMU, which takes some 100 MiB for each VM.
const MEMORY_PERCENT: u64 = 80;
/// The same of the disk, without what the cache of images may take.
const DISK_PERCENT: u64 = 90;

/// Longest reason, in characters.
const REASON_MAX: usize = 512;

/// What is offered to machines together; found out where it is not given.
#[derive(Clone, Copy, Debug, Default)]
pub struct Offer {
    pub vcpus: Option<u32>,
    /// Memory in MiB.
    pub memory_mb: Option<u32>,
    /// Disk in GiB.
    pub disk_gib: Option<u32>,
}

/// What executes guests, or why nothing does.
pub(super) fn gather(offer: Offer, state: &Path, image_budget: u64, runs: Result<&Choice, &str>) -> NodeCapacity {
    let (accelerator, reason) = match runs {
        Ok(Choice { accelerator: Accelerator::Kvm, reason }) => (Some(NodeAccelerator::Kvm), reason.as_str()),
        Ok(Choice { accelerator: Accelerator::Tcg, reason }) => (Some(NodeAccelerator::Tcg), reason.as_str()),
        Err(reason) => (None, reason),
    };
    let reason = reason.chars().map(|c| if c.is_control() { ' ' } else { c }).take(REASON_MAX).collect();
    let resources = Resources {
        vcpus: offer.vcpus.map_or_else(vcpus, u64::from),
        memory_mb: offer.memory_mb.map_or_else(|| found(memory_mb(), "memory"), u64::from),
        disk_gib: offer.disk_gib.map_or_else(|| found(disk_gib(state, image_budget), "disk"), u64::from),
    };
    NodeCapacity { accelerator, reason, resources }
}

fn vcpus() -> u64 {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    u64::try_from(processors).unwrap_or(1) * VCPUS_PER_PROCESSOR
}

/// What cannot be found out is nothing: VMs are placed elsewhere, and the log says why.
fn found(number: io::Result<u64>, what: &str) -> u64 {
    number.unwrap_or_else(|error| {
        tracing::error!(%error, "cannot find out how much {what} this node has: none is offered to VMs");
        0
    })
}

fn memory_mb() -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let total = total_kib(&text).ok_or_else(|| io::Error::other("/proc/meminfo has no line `MemTotal`"))?;
    Ok(total / 1024 * MEMORY_PERCENT / 100)
}

/// The memory that `/proc/meminfo` names.
fn total_kib(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

fn disk_gib(state: &Path, image_budget: u64) -> io::Result<u64> {
    let found = rustix::fs::statvfs(state)?;
    let bytes = found.f_blocks.saturating_mul(found.f_frsize).saturating_sub(image_budget);
    Ok((bytes >> 30) * DISK_PERCENT / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_is_that_of_meminfo() {
        assert_eq!(total_kib("MemTotal:       24576000 kB\nMemFree:  1 kB\n"), Some(24_576_000));
        assert_eq!(total_kib("MemFree:  1 kB\n"), None);
        assert!(memory_mb().unwrap() > 100);
    }

    #[test]
    fn what_is_configured_is_offered_and_what_is_not_is_found_out() {
        let folder = std::env::temp_dir();
        let offer = Offer { vcpus: Some(3), memory_mb: Some(1000), disk_gib: Some(7) };
        let capacity = gather(offer, &folder, 0, Err("no\nQEMU"));
        assert_eq!(capacity.resources, Resources { vcpus: 3, memory_mb: 1000, disk_gib: 7 });
        assert_eq!((capacity.accelerator, capacity.reason.as_str()), (None, "no QEMU"));
        let choice = Choice { accelerator: Accelerator::Tcg, reason: "configured".to_owned() };
        let found = gather(Offer::default(), &folder, 0, Ok(&choice));
        assert!(found.resources.vcpus >= 4 && found.resources.disk_gib > 0, "{found:?}");
        assert_eq!(found.accelerator, Some(NodeAccelerator::Tcg));
        assert_eq!(gather(Offer::default(), &folder, u64::MAX, Ok(&choice)).resources.disk_gib, 0);
    }
}
