//! Processor time of processes and threads, as the kernel counts it.

use std::path::Path;

use crate::BenchError;

/// Processor time of a process and all its threads so far, in seconds, without its children.
pub(crate) fn processor_time(id: u32) -> Result<f64, BenchError> {
    stat_time(Path::new(&format!("/proc/{id}/stat")))
}

/// Processor time of a process or thread so far, in seconds, from its file `stat`.
pub(crate) fn stat_time(file: &Path) -> Result<f64, BenchError> {
    let text = std::fs::read_to_string(file)?;
    let (_, rest) = text.rsplit_once(')').ok_or("no process status")?;
    let ticks: Vec<f64> = rest.split_whitespace().skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
    let ticks_per_second = u32::try_from(rustix::param::clock_ticks_per_second())?;
    Ok(ticks.iter().sum::<f64>() / f64::from(ticks_per_second))
}

/// Processor time of a process, and of those that it has started, in seconds.
pub(crate) fn processor_time_of_all(id: u32) -> Result<f64, BenchError> {
    let mut total = processor_time(id)?;
    for thread in std::fs::read_dir(format!("/proc/{id}/task"))? {
        let children = std::fs::read_to_string(thread?.path().join("children"))?;
        for child in children.split_whitespace() {
            total += processor_time(child.parse()?)?;
        }
    }
    Ok(total)
}
