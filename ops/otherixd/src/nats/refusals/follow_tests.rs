use std::fs::OpenOptions;
use std::io::Write;

use otherix_testkit::{TempDir, tempdir};

use super::*;

struct Log {
    folder: TempDir,
    follower: LogFollower,
}

impl Log {
    /// A log with one line, which is followed from its end.
    fn new() -> Self {
        let folder = tempdir().unwrap();
        let path = folder.path().join("nats.log");
        fs::write(&path, "earlier\n").unwrap();
        let follower = LogFollower::new(path.clone(), LogPosition::end_of(&path));
        Self { folder, follower }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("nats.log")
    }

    fn append(&self, text: &str) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.path()).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn rename(&self, number: u32) {
        fs::rename(self.path(), self.folder.path().join(format!("nats.log.{number}"))).unwrap();
    }

    /// The new lines, and the bytes that were skipped.
    fn read(&mut self) -> (Vec<String>, u64) {
        let mut lines = Vec::new();
        let skipped = self.follower.read(|line| lines.push(line.head.to_owned())).unwrap();
        (lines, skipped)
    }
}

fn lines(lines: &[&str]) -> (Vec<String>, u64) {
    (lines.iter().map(|&line| line.to_owned()).collect(), 0)
}

#[test]
fn lines_are_read_once_when_they_are_complete() {
    let mut log = Log::new();
    assert_eq!(log.read(), lines(&[]));
    log.append("one\ntw");
    assert_eq!(log.read(), lines(&["one"]));
    log.append("o\n\nthree\n");
    assert_eq!(log.read(), lines(&["two", "", "three"]));
    assert_eq!(log.read(), lines(&[]));
}

#[test]
fn a_renamed_log_is_read_to_its_end_and_its_successor_from_the_beginning() {
    let mut log = Log::new();
    log.append("one\n");
    log.rename(1);
    assert_eq!(log.read(), lines(&[]), "there is no log, and the one before was not opened");
    log.append("two\n");
    assert_eq!(log.read(), lines(&["two"]));
    log.append("three\n");
    log.rename(2);
    log.append("four\n");
    assert_eq!(log.read(), lines(&["three", "four"]));
}

#[test]
fn a_truncated_log_is_read_from_the_beginning() {
    let mut log = Log::new();
    log.append("one\n");
    assert_eq!(log.read(), lines(&["one"]));
    fs::write(log.path(), "two\n").unwrap();
    assert_eq!(log.read(), lines(&["two"]));
}

#[test]
fn what_is_too_much_is_skipped_and_the_rest_is_read_little_by_little() {
    let mut log = Log::new();
    assert_eq!(log.read(), lines(&[]));
    let line = format!("{}\n", "x".repeat(99));
    log.append(&line.repeat(15_000));
    let mut found = 0;
    for _ in 0..5 {
        let (lines, skipped) = log.read();
        assert!(lines.len() * 100 <= usize::try_from(READ_MAX).unwrap() + 100 && skipped == 0, "{}", lines.len());
        found += lines.len();
    }
    assert_eq!((found, log.read().0.len()), (13_107, 1_893), "1.5 MB in pieces");

    log.append(&line.repeat(200_000));
    let (found, skipped) = log.read();
    assert!(skipped > 19_000_000 && skipped < 20_000_000, "{skipped}");
    assert!(found[0].is_empty() && found[1..].iter().all(|line| line.len() == 99), "a line's end is no line");
    log.append("last\n");
    assert!(log.read().0.contains(&"last".to_owned()));
}

#[test]
fn of_a_long_line_beginning_and_end_are_kept() {
    let mut log = Log::new();
    log.append(&format!("begin{}end\nnext\n", " ".repeat(200_000)));
    let mut found = Vec::new();
    log.follower
        .read(|line| found.push((line.head.trim().to_owned(), line.tail.trim().to_owned(), line.tail.len())))
        .unwrap();
    let text = |text: &str| text.to_owned();
    assert_eq!(found, [(text("begin"), text("end"), 32 << 10), (text("next"), text("next"), 4)]);
}

#[test]
fn the_end_of_a_line_is_not_taken_for_that_of_the_one_before() {
    let mut log = Log::new();
    log.append("begin");
    assert_eq!(log.read(), lines(&[]));
    log.append(&format!("end\n{}end\n", " ".repeat(5_000_000)));
    let mut found = Vec::new();
    let skipped = log.follower.read(|line| found.push((line.head.to_owned(), line.tail.trim().to_owned()))).unwrap();
    assert_eq!((found, skipped > 4_000_000), (vec![(String::new(), "end".to_owned())], true));
}

#[test]
fn a_log_that_does_not_exist_yet_is_read_from_the_beginning() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("nats.log");
    let mut log = Log { follower: LogFollower::new(path.clone(), LogPosition::end_of(&path)), folder };
    assert_eq!(log.read(), lines(&[]));
    log.append("one\n");
    assert_eq!(log.read(), lines(&["one"]));
}
