//! How fast a download is, beside `curl | sha256sum`. Run by hand:
//! `cargo nextest run --release -p otherix-image --run-ignored only -E 'test(measure)' --no-capture`.

use std::io::Write;
use std::process::Command;
use std::time::Instant;

use crate::server::Server;
use crate::{Download, content, digest, settings};

const LENGTH: usize = 400_000_000;
const RUNS: usize = 5;

#[test]
#[ignore = "a measurement"]
fn measure_beside_curl() {
    let image = content(LENGTH);
    let expected = digest(&image);
    let server = Server::start(move |_, connection| connection.respond("200 OK", "ETag: \"1\"\r\n", &image));
    let url = server.url("image");
    let megabytes_per_second = |started: Instant| LENGTH as f64 / 1e6 / started.elapsed().as_secs_f64();
    let mut output = std::io::stdout();
    for _ in 0..RUNS {
        let started = Instant::now();
        let download = Download::new(settings());
        assert_eq!(download.fetch(&url).unwrap().digest(), expected);
        let ours = megabytes_per_second(started);
        let file = download.folder.path().join("curl");
        let started = Instant::now();
        let script = format!("curl --silent --fail {url} | tee {} | sha256sum && sync {0}", file.display());
        let curl = Command::new("sh").args(["-c", &script]).output().unwrap();
        let theirs = megabytes_per_second(started);
        assert!(curl.stdout.starts_with(expected.to_string().as_bytes()));
        writeln!(output, "fetch {ours:.0} MB/s, curl | tee | sha256sum {theirs:.0} MB/s").unwrap();
    }
}
