//! VMs that boot: images, disks, processes that outlive agents, addresses by DHCP.

use std::io::Write;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use otherix_testkit::wait::wait_for_blocking;
use serde_json::Value;

use crate::lab::{DEADLINE, Lab};

/// The host outside the lab, which serves the image.
pub(crate) const OUTSIDE: &str = "203.0.113.1";

/// How long a guest may take to boot while other tests run.
pub(crate) const BOOT: Duration = Duration::from_secs(90);

/// Serves a folder over HTTP outside the lab.
pub(crate) struct ImageServer(Child);

impl ImageServer {
    pub(crate) fn start(lab: &Lab, folder: &Path) -> Self {
        let server = ["-m", "http.server", "8000", "--bind", OUTSIDE, "--directory"];
        let child = Command::new(env!("CARGO_BIN_EXE_otherix-lab"))
            .args(["--lab", &lab.name, "exec", "outside", "--", "python3"])
            .args(server)
            .arg(folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_for_blocking(DEADLINE, "the server of images", || {
            lab.succeeds(&["exec", "outside", "--", "bash", "-c", &format!("echo >/dev/tcp/{OUTSIDE}/8000")])
        });
        Self(child)
    }
}

impl Drop for ImageServer {
    fn drop(&mut self) {
        // It has ended, or it ends now.
        let (_ended, _reaped) = (self.0.kill(), self.0.wait());
    }
}

impl Lab {
    pub(crate) fn vm(&self, name: &str) -> Value {
        self.ok(&["vm", "get", name])
    }

    /// Process ids of QEMU for this VM, as `ps` has them.
    pub(crate) fn processes(&self, vm: &Value) -> Vec<u32> {
        let id = vm["id"].as_str().unwrap();
        let shown = Command::new("ps").args(["-eo", "pid=,stat=,args="]).output().unwrap();
        let shown = String::from_utf8(shown.stdout).unwrap();
        let ours = shown.lines().filter(|line| line.contains("qemu-system") && line.contains(id));
        ours.map(|line| line.split_whitespace().next().unwrap().parse().unwrap()).collect()
    }

    /// The node has told what it offers and what executes guests; the machine of one VM takes some of it.
    fn assert_node_tells_what_it_offers(&self) {
        let node = wait_for_blocking(DEADLINE, "what the node offers", || {
            let node = self.ok(&["node", "get", "node-1"]);
            if node["capacity"]["reason"].is_string() { Ok(node) } else { Err(node.to_string()) }
        });
        assert!(["kvm", "tcg"].map(Value::from).contains(&node["capacity"]["accelerator"]), "{node}");
        assert_eq!((&node["allocated"]["vcpus"], &node["allocated"]["memory_mb"]), (&1.into(), &128.into()));
    }

    fn guest_answers(&self, node: &str, address: &str) -> bool {
        self.succeeds(&["exec", node, "--", "ping", "-q", "-c1", "-W2", address])
    }
}

#[test]
fn lab_cluster_vms_boot_and_outlive_their_agent() {
    let lab = Lab::up("machines", 2);
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools/image");
    let _server = ImageServer::start(&lab, &images);
    let network = ["network", "create", "app", "--bridge-name", "br-app", "--managed", "--egress", "nat"];
    lab.ok(&[&network[..], &["--subnet", "10.60.0.0/24", "--dhcp", "--wait"]].concat());
    let image = format!("http://{OUTSIDE}:8000/tiny.img");
    let size = ["--vcpus", "1", "--memory-mb", "128", "--wait", "--wait-timeout", "90s"];
    let create = ["vm", "create", "web", "--image-url", &image, "--arch", "amd64", "--network", "app"];
    let created = lab.ok(&[&create[..], &["--node", "node-1"], &size].concat());
    assert_eq!((&created["status"], &created["machine"]["phase"]), (&"ready".into(), &"running".into()));
    assert_eq!((&created["nic"]["ip"], &created["machine"]["power"]), (&"10.60.0.2".into(), &"running".into()));
    wait_for_blocking(BOOT, "the guest to have its address", || lab.guest_answers("node-1", "10.60.0.2"));
    lab.assert_node_tells_what_it_offers();
    let [process] = lab.processes(&created)[..] else { panic!("one process: {created}") };

    // A killed agent takes nothing with it, and the next one finds the VM again.
    lab.lab(&["kill", "node-1"]);
    assert!(lab.guest_answers("node-1", "10.60.0.2"));
    lab.lab(&["start", "node-1"]);
    lab.ok(&["vm", "pause", "web", "--wait"]);
    assert_eq!((lab.processes(&created), &lab.vm("web")["machine"]["phase"]), (vec![process], &"paused".into()));
    assert!(!lab.guest_answers("node-1", "10.60.0.2"));
    lab.ok(&["vm", "resume", "web", "--wait"]);
    assert!(lab.guest_answers("node-1", "10.60.0.2"));

    // A process that ends by itself is started again, and the status says so meanwhile.
    let events = lab.journal("SELECT count(*) FROM events").concat();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(process.cast_signed()).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    let query = format!(
        "SELECT json_extract(result.value, '$.machine.phase') FROM events, \
         json_each(json_extract(body, '$.data.results')) AS result \
         WHERE position > {events} AND json_extract(result.value, '$.vm_id') IS NOT NULL ORDER BY position"
    );
    // QEMU may be seen not to answer before it is seen to have ended.
    wait_for_blocking(BOOT, "the status of the end", || lab.journal(&query).iter().any(|phase| phase == "starting"));
    wait_for_blocking(BOOT, "the VM to run", || lab.vm("web")["machine"]["phase"] == "running");
    assert_ne!(lab.processes(&created), [process]);
    wait_for_blocking(BOOT, "the guest to answer again", || lab.guest_answers("node-1", "10.60.0.2"));

    // Stopped by its power button; what the guest said last is kept.
    lab.ok(&["vm", "stop", "web", "--wait", "--wait-timeout", "90s"]);
    let stopped = lab.vm("web");
    assert_eq!((&stopped["machine"]["phase"], lab.processes(&created)), (&"stopped".into(), Vec::new()));
    assert!(stopped["machine"]["last_line"].as_str().unwrap().contains("Power down"), "{stopped}");
    assert_eq!(lab.otherix(&["vm", "pause", "web"]).status.code(), Some(4));

    // A disk whose header names another file is not started. QEMU never changes it, so its guest has taken QEMU over.
    let disk = lab.folder().join("node-1/vms").join(stopped["id"].as_str().unwrap()).join("disk.qcow2");
    let file = std::fs::File::options().read(true).write(true).open(&disk).unwrap();
    let mut header = [0; 512];
    file.read_exact_at(&mut header, 0).unwrap();
    let name_at = usize::try_from(u64::from_be_bytes(*header[8..].first_chunk().unwrap())).unwrap();
    file.write_all_at(b"/etc/shadow\0", u64::try_from(name_at).unwrap()).unwrap();
    lab.ok(&["vm", "start", "web"]);
    wait_for_blocking(BOOT, "the refusal of the disk", || {
        lab.vm("web")["error"].as_str().is_some_and(|error| error.contains("restore the disk from a copy"))
    });
    assert_eq!(lab.processes(&created), Vec::<u32>::new());
    file.write_all_at(&header, 0).unwrap();
    wait_for_blocking(BOOT, "the VM to run again", || lab.vm("web")["machine"]["phase"] == "running");
    lab.ok(&["vm", "stop", "web", "--force", "--wait"]);

    // A node that boots runs what was to run, without a control plane.
    lab.ok(&["vm", "start", "web", "--wait", "--wait-timeout", "90s"]);
    lab.lab(&["stop", "nats"]);
    lab.lab(&["kill", "otherixd"]);
    lab.lab(&["kill", "node-1"]);
    lab.lab(&["reboot", "node-1"]);
    wait_for_blocking(BOOT, "the guest after the reboot", || lab.guest_answers("node-1", "10.60.0.2"));
    lab.lab(&["start", "otherixd"]);
    lab.lab(&["start", "nats"]);
    lab.lab(&["start", "node-1"]);

    // Nothing is left of a VM that was deleted.
    lab.ok(&["vm", "delete", "web", "--wait"]);
    assert_eq!(lab.processes(&created), Vec::<u32>::new());
    assert_eq!(std::fs::read_dir(lab.folder().join("node-1/vms")).unwrap().count(), 0);
}

impl Lab {
    /// Types at the console of `web`, and returns what was shown, and the exit code.
    fn types(&self, text: &str, more: &[&str]) -> (String, Option<i32>) {
        let mut console = self.otherix_command(&[&["vm", "console", "web"], more].concat());
        let console = console.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut console = console.spawn().unwrap();
        console.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let ended = console.wait_with_output().unwrap();
        let shown = [ended.stdout, ended.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        (shown, ended.status.code())
    }
}

/// The output of a command that goes on, as a file.
struct Followed(Child, otherix_testkit::TempDir);

impl Followed {
    fn start(lab: &Lab, args: &[&str]) -> Self {
        let folder = otherix_testkit::tempdir().unwrap();
        let file = std::fs::File::create(folder.path().join("output")).unwrap();
        let mut command = lab.otherix_command(args);
        let child = command.stdin(Stdio::null()).stdout(file).stderr(Stdio::null()).spawn().unwrap();
        Self(child, folder)
    }

    fn has(&self, text: &str) -> bool {
        String::from_utf8_lossy(&std::fs::read(self.1.path().join("output")).unwrap()).contains(text)
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        // It has ended, or it ends now.
        let (_ended, _reaped) = (self.0.kill(), self.0.wait());
    }
}

#[test]
fn lab_cluster_consoles_are_read_by_all_and_typed_at_by_one() {
    let lab = Lab::up("consoles", 1);
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools/image");
    let _server = ImageServer::start(&lab, &images);
    let image = format!("http://{OUTSIDE}:8000/tiny.img");
    let size = ["--vcpus", "1", "--memory-mb", "128", "--wait", "--wait-timeout", "90s"];
    lab.ok(&[&["vm", "create", "web", "--image-url", &image, "--arch", "amd64"], &size[..]].concat());
    let logs = || String::from_utf8_lossy(&lab.otherix(&["vm", "logs", "web"]).stdout).into_owned();
    wait_for_blocking(BOOT, "the guest to be ready", || logs().contains("guest: ready"));

    let (followed, reader) = (
        Followed::start(&lab, &["vm", "logs", "web", "-f"]),
        Followed::start(&lab, &["vm", "console", "web", "--read-only"]),
    );
    let (shown, code) = lab.types("echo typed-$((40+2))\n", &["--timeout", "60s"]);
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("typed-42"), "{shown}");
    for (name, reading) in [("logs", &followed), ("console", &reader)] {
        wait_for_blocking(DEADLINE, name, || reading.has("typed-42"));
    }
    let opened = "SELECT count(*) FROM events WHERE type LIKE '%vm.console-opened%'";
    assert_eq!(lab.journal(opened), ["1"]);

    // One types; another one is told who, and may take over.
    let mut typing = lab.otherix_command(&["vm", "console", "web"]);
    let mut typing = typing.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for_blocking(DEADLINE, "the session", || lab.journal(opened) == ["2"]);
    let (refused, code) = lab.types("", &[]);
    assert_eq!(code, Some(4), "{refused}");
    assert!(refused.contains("--read-only") && refused.contains("`admin`"), "{refused}");
    let (shown, code) = lab.types("echo taken-$((1+1))\n", &["--take-over", "--timeout", "60s"]);
    assert_eq!((code, shown.contains("taken-2")), (Some(0), true), "{shown}");
    drop(typing.stdin.take());
    typing.wait().unwrap();

    // Readers go on when agent and control plane come back.
    lab.lab(&["kill", "node-1"]);
    lab.lab(&["kill", "otherixd"]);
    lab.lab(&["start", "otherixd"]);
    lab.lab(&["start", "node-1"]);
    wait_for_blocking(BOOT, "the console after the kills", || {
        lab.types("echo again-$((2+1))\n", &["--timeout", "20s"]).0.contains("again-3")
    });
    for (name, reading) in [("logs", &followed), ("console", &reader)] {
        wait_for_blocking(DEADLINE, name, || reading.has("again-3"));
    }

    let listed = lab.ok(&["image", "list"]);
    let image = &listed["data"][0]["images"][0];
    assert_eq!((&image["state"], &image["vms"][0]), (&"ready".into(), &lab.vm("web")["id"]));
    lab.lab(&["kill", "node-1"]);
    assert_eq!(lab.otherix(&["vm", "logs", "web"]).status.code(), Some(7), "the node is away");
    assert_eq!(lab.otherix(&["image", "list"]).status.code(), Some(7));
    lab.lab(&["start", "node-1"]);
    lab.ok(&["vm", "delete", "web", "--wait"]);
    assert_eq!(lab.otherix(&["vm", "logs", "web"]).status.code(), Some(3));
}

#[test]
fn lab_cluster_an_image_that_cannot_be_used_is_a_failure_with_advice() {
    let lab = Lab::up("images", 1);
    let create = |name: &str, url: &str, more: &[&str]| {
        let vm = ["vm", "create", name, "--image-url", url, "--arch", "amd64", "--wait", "--wait-timeout", "90s"];
        let output = lab.otherix(&[&vm[..], more].concat());
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let images = otherix_testkit::tempdir().unwrap();
    std::fs::write(images.path().join("page.html"), "<html>not an image</html>".repeat(100)).unwrap();
    let _server = ImageServer::start(&lab, images.path());
    let page = format!("http://{OUTSIDE}:8000/page.html");
    for (name, url, more, expected) in [
        ("page", page.as_str(), &[][..], "the image is not used"),
        ("gone", &format!("http://{OUTSIDE}:8000/none.img"), &[], "404"),
        ("own", "http://127.0.0.1:8000/page.html", &[], "127.0.0.1"),
        ("digest", &page, &["--image-sha256", &"00".repeat(32)], "SHA-256"),
    ] {
        let (code, stderr) = create(name, url, more);
        assert_eq!(code, Some(8), "{name}: {stderr}");
        assert!(stderr.contains(expected), "{name}: {stderr}");
        assert_eq!(lab.vm(name)["machine"]["phase"], "failed");
        lab.ok(&["vm", "delete", name, "--wait"]);
    }
    assert_eq!(std::fs::read_dir(lab.folder().join("node-1/vms")).unwrap().count(), 0);
}
