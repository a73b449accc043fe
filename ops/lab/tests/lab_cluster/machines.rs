//! VMs that boot: images, disks, processes that outlive agents, addresses by DHCP.

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
    fn vm(&self, name: &str) -> Value {
        self.ok(&["vm", "get", name])
    }

    /// Process ids of QEMU for this VM, as `ps` has them.
    fn processes(&self, vm: &Value) -> Vec<u32> {
        let id = vm["id"].as_str().unwrap();
        let shown = Command::new("ps").args(["-eo", "pid=,stat=,args="]).output().unwrap();
        let shown = String::from_utf8(shown.stdout).unwrap();
        let ours = shown.lines().filter(|line| line.contains("qemu-system") && line.contains(id));
        ours.map(|line| line.split_whitespace().next().unwrap().parse().unwrap()).collect()
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
