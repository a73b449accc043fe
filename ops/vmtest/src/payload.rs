//! The part of the initramfs that differs between tests: the test binary, programs, and their shared libraries.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cpio;

/// The folder of the script that the guest runs, and of the programs on its `PATH`.
const FOLDER: &str = "test";

/// Writes the base initramfs followed by the payload into an unlinked file. Of two entries with the same name
/// the later is used: a library of the host replaces an older one of the base.
pub(crate) fn initrd(base: &Path, script: &str, programs: &[PathBuf]) -> io::Result<File> {
    let mut file = tempfile::tempfile()?;
    io::copy(&mut File::open(base)?, &mut file)?;
    let mut archive = Archive { out: io::BufWriter::new(&mut file), folders: BTreeSet::new() };
    archive.folders_of(&format!("{FOLDER}/bin/x"))?;
    cpio::program(&mut archive.out, &format!("{FOLDER}/run"), script.as_bytes())?;
    let test = std::env::current_exe()?;
    let mut libraries = libraries(&test)?;
    cpio::program(&mut archive.out, &format!("{FOLDER}/bin/this-test"), &read(&test)?)?;
    for path in programs {
        let path = std::path::absolute(path)?;
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("program");
        archive.copy(&path)?;
        cpio::link(&mut archive.out, &format!("{FOLDER}/bin/{name}"), &path.to_string_lossy())?;
        libraries.extend(self::libraries(&path)?);
    }
    for library in &libraries {
        archive.copy(library)?;
    }
    cpio::end(&mut archive.out)?;
    archive.out.flush()?;
    drop(archive);
    Ok(file)
}

struct Archive<W: Write> {
    out: W,
    folders: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    /// Appends a file of the host under its path; `/usr/lib` becomes `/lib`.
    fn copy(&mut self, path: &Path) -> io::Result<()> {
        let text = path.to_string_lossy();
        let name = text.strip_prefix("/usr/lib").map_or_else(|| text.to_string(), |rest| format!("/lib{rest}"));
        let name = name.trim_start_matches('/');
        self.folders_of(name)?;
        cpio::program(&mut self.out, name, &read(path)?)
    }

    /// Appends the folders above a file, each once.
    fn folders_of(&mut self, name: &str) -> io::Result<()> {
        for (end, _) in name.match_indices('/') {
            let folder = name.get(..end).unwrap_or(name);
            if self.folders.insert(folder.to_owned()) {
                cpio::folder(&mut self.out, folder)?;
            }
        }
        Ok(())
    }
}

/// The shared libraries of a program with the dynamic linker; none for a static program or a script.
fn libraries(program: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let output = Command::new("ldd")
        .arg(program)
        .output()
        .map_err(|error| io::Error::other(format!("cannot run `ldd`: {error}")))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if let Some(line) = text.lines().find(|line| line.contains("not found")) {
        return Err(io::Error::other(format!("`{}` lacks a library: {}", program.display(), line.trim())));
    }
    // Either `name => /path (0x..)` or `/path (0x..)`.
    let path = |line: &str| {
        let (path, _) = line.split_once(" (0x")?;
        let (_, path) = path.split_at(path.find('/')?);
        Some(PathBuf::from(path))
    };
    Ok(text.lines().filter_map(path).collect())
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| io::Error::other(format!("cannot read `{}`: {error}", path.display())))
}
