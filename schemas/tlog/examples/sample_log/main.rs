//! Writes a log to a folder, for other programs to verify: `sample_log FOLDER SIZE…`, with a checkpoint at each size.

use std::error::Error;
use std::path::Path;

mod log;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let folder = args.next().ok_or("usage: sample_log FOLDER SIZE…")?;
    let sizes: Vec<u64> = args.map(|size| size.parse()).collect::<Result<_, _>>()?;
    log::write(Path::new(&folder), &sizes)
}
