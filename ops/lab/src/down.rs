//! Removes a lab in whatever state it is. Failures are collected and reported at the end.

use rustix::process::Signal;

use crate::error::LabError;
use crate::lab::Lab;
use crate::lock::Lock;
use crate::namespace;
use crate::output::say;
use crate::process;

/// Kills every process of the lab and removes its namespaces and files.
pub(crate) fn down(lab: &Lab) -> Result<(), LabError> {
    let _changing = Lock::of(lab)?;
    let mut failures = Vec::new();
    let mut note = |result: Result<(), LabError>| {
        if let Err(error) = result {
            failures.push(format!("  {error}"));
        }
    };
    // Processes that start others come first.
    for name in process::names(lab) {
        note(process::running(lab, &name).and_then(|found| match found {
            Some(process) => process.end(&name, Signal::KILL),
            None => Ok(()),
        }));
    }
    match namespace::list(lab) {
        Ok(names) => {
            for name in names {
                note(namespace::empty(&name).and_then(|()| namespace::remove(&name)));
            }
        }
        Err(error) => note(Err(error)),
    }
    match lab.remove_files() {
        // Another lab may be about to use it.
        Ok(false) => {}
        Ok(true) => namespace::forget_sockets(),
        Err(error) => note(Err(error)),
    }
    if failures.is_empty() {
        say(&format!("lab `{}` is gone", lab.name));
        return Ok(());
    }
    Err(LabError::Left { lab: lab.name.clone(), failures })
}
