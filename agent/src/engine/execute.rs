//! Executes steps on the kernel.

use otherix_schemas::id::ClusterId;

use super::step::Step;
use crate::kernel::{Kernel, KernelError};

/// Most steps that are executed together. Each creation has two replies, which take at most 4 KiB of the socket's
/// receive buffer.
const BATCH: usize = 16;

/// Executes the steps in order, and returns the result of each. Consecutive steps of the same type are executed
/// together. After a failure the others are still executed.
pub fn execute(kernel: &mut Kernel, steps: &[Step], cluster: ClusterId) -> Vec<Result<(), KernelError>> {
    let mut results = Vec::with_capacity(steps.len());
    for batch in steps.chunk_by(Step::is_like).flat_map(|alike| alike.chunks(BATCH)) {
        results.extend(batch.first().map(|first| first.execute_all(batch, kernel, cluster)).unwrap_or_default());
    }
    results
}
