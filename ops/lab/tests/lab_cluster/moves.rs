//! VMs that move to another node, with their disks and addresses, whoever is killed meanwhile.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use otherix_testkit::wait::wait_for_blocking;
use serde_json::Value;

use crate::lab::{DEADLINE, Lab};
use crate::machines::{BOOT, ImageServer, OUTSIDE};

/// Writes something to the disk that is no part of the image, or finds it there.
const MARKS: &str = "#!/bin/sh
if dd if=/dev/vda bs=1M skip=600 count=1 2>/dev/null | head -c 11 | grep -q marker-4711; then
    echo 'guest: marker found'
else
    dd if=/dev/urandom of=/dev/vda bs=1M seek=601 count=48 conv=notrunc 2>/dev/null
    printf marker-4711 | dd of=/dev/vda bs=1M seek=600 conv=notrunc 2>/dev/null
    sync
    echo 'guest: marker written'
fi
";

/// Says each time that `web` begins to answer.
const ASKS: &str = "#!/bin/sh
number=0; answers=no
while :; do
    if ping -q -c 1 -W 1 web >/dev/null 2>&1; then
        [ $answers = yes ] || { number=$((number + 1)); echo \"guest: web answers, $number\"; }
        answers=yes
    else
        answers=no
    fi
    sleep 0.2
done
";

/// Looks for two processes of a VM until it is dropped.
struct Watch {
    ended: Arc<AtomicBool>,
    looks: Arc<AtomicU64>,
    thread: Option<JoinHandle<Vec<String>>>,
}

impl Watch {
    fn start(id: &str) -> Self {
        let (ended, looks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (id, own, counted) = (id.to_owned(), Arc::clone(&ended), Arc::clone(&looks));
        let watch = move || {
            let mut found = Vec::new();
            while !own.load(Ordering::SeqCst) {
                let processes = processes(&id);
                // One that is just ending is gone at a second look.
                if processes.len() > 1 && crate::moves::processes(&id).len() > 1 {
                    found.push(format!("{processes:?}"));
                }
                counted.fetch_add(1, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(20));
            }
            found
        };
        Self { ended, looks, thread: Some(thread::spawn(watch)) }
    }

    fn end(mut self) -> u64 {
        self.ended.store(true, Ordering::SeqCst);
        let found = self.thread.take().unwrap().join().unwrap();
        assert!(found.is_empty(), "two processes: {found:?}");
        self.looks.load(Ordering::SeqCst)
    }
}

/// Process ids of QEMU for the VM of this id, as `/proc` has them.
fn processes(id: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let is_its = |path: &Path| {
        let command = std::fs::read(path.join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).into_owned();
        command.split('\0').next().is_some_and(|program| program.contains("qemu-system")) && command.contains(id)
    };
    entries.filter(|entry| is_its(&entry.path())).map(|entry| entry.file_name().into_string().unwrap()).collect()
}

impl Lab {
    fn folder_on(&self, node: u32, vm: &Value) -> PathBuf {
        self.folder().join(format!("node-{node}/vms")).join(vm["id"].as_str().unwrap())
    }

    fn said_on(&self, node: u32, vm: &Value, text: &str) -> bool {
        let log = std::fs::read(self.folder_on(node, vm).join("console.log"));
        log.is_ok_and(|log| String::from_utf8_lossy(&log).contains(text))
    }

    /// The VM is on this node, with what it had, and nothing of it is on the other one.
    fn assert_is_on(&self, node: u32, other: u32, before: &Value) {
        wait_for_blocking(BOOT, "the VM to run on its new node", || {
            let vm = self.vm("web");
            let is_there = vm["node_name"] == format!("node-{node}") && vm["machine"]["phase"] == "running";
            // A guest that was told to shut down does so, and is started again, if its move is cancelled meanwhile.
            let has_process = self.processes(&vm).len() == 1;
            if is_there && vm["status"] == "ready" && has_process { Ok(()) } else { Err(vm.to_string()) }
        });
        let vm = self.vm("web");
        for field in ["id", "mac", "ip", "tap"] {
            assert_eq!(vm["nic"][field], before["nic"][field], "{field}");
        }
        let has_tap = |node| self.link(node, before["nic"]["tap"].as_str().unwrap()).is_some();
        wait_for_blocking(DEADLINE, "the removal from the old node", || {
            let folder = self.folder_on(other, &vm).exists();
            if folder || has_tap(other) { Err(format!("folder: {folder}, tap: {}", has_tap(other))) } else { Ok(()) }
        });
        assert!(has_tap(node));
        let warnings = || self.vm("web")["warnings"].as_array().unwrap().len();
        wait_for_blocking(DEADLINE, "the report of the removal", || warnings() == 0);
        let ports = self.lab(&["exec", &format!("node-{other}"), "--", "ss", "-Hltn"]);
        assert!(!ports.contains(":1006 "), "a port is open: {ports}");
    }
}

impl Lab {
    /// Kills both agents, QEMU and the control plane at any moment, until the VM is on the node.
    fn kill_until_it_is_on(&self, node: &str, id: &str) -> u32 {
        let mut kills = 0;
        wait_for_blocking(Duration::from_secs(180), "the move", || {
            let target = ["node-1", "node-2", "otherixd", "qemu"][usize::try_from(random(4)).unwrap()];
            let pause = random(1_500);
            println!("after {pause} ms: kill {target}");
            thread::sleep(Duration::from_millis(pause));
            if target == "qemu" {
                for process in processes(id) {
                    Command::new("kill").args(["-9", &process]).status().unwrap();
                }
            } else {
                self.lab(&["kill", target]);
                self.lab(&["start", target]);
            }
            kills += 1;
            self.vm("web")["node_name"] == node
        });
        kills
    }
}

fn random(most: u64) -> u64 {
    RandomState::new().build_hasher().finish() % most
}

#[test]
fn lab_cluster_a_vm_moves_with_its_disk_and_its_addresses() {
    let lab = Lab::up("moves", 2);
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools/image");
    let server = ImageServer::start(&lab, &images);
    let overlay = ["network", "create", "span", "--type", "overlay", "--subnet", "10.50.0.0/24", "--dhcp", "--wait"];
    lab.ok(&overlay);
    let (image, folder) = (format!("http://{OUTSIDE}:8000/tiny.img"), otherix_testkit::tempdir().unwrap());
    let create = |name: &str, node: &str, script: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, script).unwrap();
        let vm = ["vm", "create", name, "--image-url", &image, "--arch", "amd64", "--network", "span", "--node", node];
        let size = ["--vcpus", "1", "--memory-mb", "128", "--disk-gib", "1", "--wait", "--wait-timeout", "90s"];
        lab.ok(&[&vm[..], &size, &["--user-data", path.to_str().unwrap()]].concat())
    };
    let web = create("web", "node-1", MARKS);
    wait_for_blocking(BOOT, "the marker", || lab.said_on(1, &web, "guest: marker written"));
    let asking = create("asking", "node-2", ASKS);
    let answers = |number: u32| lab.said_on(2, &asking, &format!("guest: web answers, {number}"));
    wait_for_blocking(BOOT, "a ping by name", || answers(1));
    // The image cannot be fetched again: its other node has it from the first.
    drop(server);
    let watch = Watch::start(web["id"].as_str().unwrap());

    let moved = lab.ok(&["vm", "move", "web", "--node", "node-2", "--wait", "--wait-timeout", "120s"]);
    assert_eq!((&moved["node_name"], &moved["status"]), (&"node-2".into(), &"ready".into()), "{moved}");
    lab.assert_is_on(2, 1, &web);
    wait_for_blocking(BOOT, "the marker on the other node", || lab.said_on(2, &web, "guest: marker found"));
    wait_for_blocking(BOOT, "a ping by name after the move", || answers(2));
    let output = lab.otherix(&["vm", "move", "web", "--node", "node-2"]);
    assert_eq!(output.status.code(), Some(4), "it is there already");

    lab.ok(&["vm", "move", "web", "--node", "node-1"]);
    let kills = lab.kill_until_it_is_on("node-1", web["id"].as_str().unwrap());
    lab.assert_is_on(1, 2, &web);
    wait_for_blocking(BOOT, "the marker again", || lab.said_on(1, &web, "guest: marker found"));
    wait_for_blocking(BOOT, "a ping by name again", || answers(3));

    // Cancelled, it goes on where it was.
    lab.ok(&["vm", "move", "web", "--node", "node-2"]);
    let refused = lab.otherix(&["vm", "stop", "web"]);
    assert_eq!(refused.status.code(), Some(4), "{}", String::from_utf8_lossy(&refused.stderr));
    lab.ok(&["vm", "move", "web", "--cancel", "--wait", "--wait-timeout", "90s"]);
    lab.assert_is_on(1, 2, &web);
    let looks = watch.end();
    println!("{kills} kills, {looks} looks for a second process");
    assert!(looks > 100);

    // One node is drained.
    let plan = lab.ok(&["node", "drain", "node-1", "--dry-run"]);
    assert_eq!((&plan["moved"][0]["node"], &plan["stay"]), (&"node-2".into(), &Value::Array(Vec::new())));
    let drained = lab.ok(&["node", "drain", "node-1", "--force"]);
    assert_eq!(drained["moved"][0]["name"], "web", "{drained}");
    lab.assert_is_on(2, 1, &web);
    let output = lab.otherix(&["node", "drain", "node-2", "--force"]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(5), "no node is left: {stderr}");
    assert!(stderr.contains("web: ") && stderr.contains("no other node"), "{stderr}");
    for name in ["web", "asking"] {
        lab.ok(&["vm", "delete", name, "--wait"]);
    }
    for node in [1, 2] {
        let left = std::fs::read_dir(lab.folder().join(format!("node-{node}/vms"))).unwrap().count();
        assert_eq!(left, 0, "node-{node}");
    }
}
