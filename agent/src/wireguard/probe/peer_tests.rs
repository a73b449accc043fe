use super::*;

const OWN: Ipv4Addr = Ipv4Addr::new(10, 42, 0, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 42, 0, 2);
const STEP: Duration = Duration::from_millis(10);

/// Two nodes and the path between them.
struct Path {
    now: Instant,
    nodes: [(PeerProbes, Ipv4Addr); 2],
    schedule: Schedule,
    random: u64,
    /// The largest packet that passes, from the first node and from the second.
    limits: [u16; 2],
    /// Bytes that the first node sent, with all headers: 60 of WireGuard, UDP and IP.
    bytes: u64,
}

impl Path {
    fn new(peers: usize) -> Self {
        let now = Instant::now();
        let nodes = [(PeerProbes::new(OWN, PEER, now), PEER), (PeerProbes::new(PEER, OWN, now), OWN)];
        Self { now, nodes, schedule: Schedule::watched(peers, 1440), random: 0, limits: [1440; 2], bytes: 0 }
    }

    /// Lets time pass; the kernels answer.
    fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            self.now += STEP;
            for from in 0..2 {
                let random = &mut self.random;
                let mut next = || {
                    *random += 1;
                    *random
                };
                for probe in self.nodes[from].0.step(self.now, self.schedule, &mut next) {
                    self.pass(from, probe);
                }
            }
        }
    }

    fn pass(&mut self, from: usize, Probe { size, token, flags }: Probe) {
        let to = 1 - from;
        self.bytes += if from == 0 { u64::from(size) + 60 } else { 0 };
        if size > self.limits[from] {
            return;
        }
        let request = Received { from: self.nodes[to].1, size, message: Message::Request(flags, None) };
        self.nodes[to].0.receive(request, self.now, self.schedule);
        self.bytes += if to == 0 { u64::from(size) + 60 } else { 0 };
        if size <= self.limits[to] {
            let reply = Received { from: self.nodes[from].1, size, message: Message::Reply(token) };
            self.nodes[from].0.receive(reply, self.now, self.schedule);
        }
    }

    fn verdicts(&self) -> [Verdict; 2] {
        [self.nodes[0].0.verdict(), self.nodes[1].0.verdict()]
    }

    /// Lets time pass until both verdicts are these, and returns how long it took.
    fn until(&mut self, wanted: [Verdict; 2]) -> Duration {
        let start = self.now;
        while self.verdicts() != wanted {
            assert!(self.now < start + Duration::from_secs(300), "{:?}", self.verdicts());
            self.run(STEP);
        }
        self.now - start
    }
}

#[test]
fn a_path_is_proven_with_the_first_packets() {
    let mut path = Path::new(3);
    path.run(STEP);
    assert_eq!(path.verdicts(), [Verdict::Proven; 2]);
}

#[test]
fn a_break_in_either_direction_is_found_by_both_nodes_within_two_seconds_and_so_is_its_repair() {
    for limits in [[0, 0], [0, 1440], [1440, 0]] {
        for phase in 0..20 {
            let mut path = Path::new(3);
            path.run(Duration::from_secs(10) + Duration::from_millis(100) * phase);
            path.limits = limits;
            let found = path.until([Verdict::Silent; 2]);
            assert!(found <= Duration::from_millis(1_800), "{limits:?} {phase}: {found:?}");
            path.run(Duration::from_secs(20));
            assert_eq!(path.verdicts(), [Verdict::Silent; 2]);
            path.limits = [1440; 2];
            let repaired = path.until([Verdict::Proven; 2]);
            assert!(repaired <= Duration::from_millis(600), "{limits:?} {phase}: {repaired:?}");
        }
    }
}

#[test]
fn the_largest_size_that_passes_is_measured_to_the_byte() {
    for limit in [480, 481, 1339, 1340, 1341, 1400, 1438, 1439] {
        let mut path = Path::new(3);
        path.limits = [1440, limit];
        let found = path.until([Verdict::Narrow { largest: Some(limit) }; 2]);
        assert!(found <= Duration::from_millis(1_700), "{limit}: {found:?}");
        path.run(Duration::from_secs(100));
        assert_eq!(path.verdicts(), [Verdict::Narrow { largest: Some(limit) }; 2]);
        path.limits = [1440; 2];
        assert!(path.until([Verdict::Proven; 2]) <= Duration::from_millis(1_300));
    }
    let mut path = Path::new(3);
    path.limits = [479; 2];
    path.until([Verdict::Narrow { largest: None }; 2]);
}

#[test]
fn a_narrowing_is_found_while_idle_and_sooner_under_traffic_or_after_a_change() {
    let mut path = Path::new(3);
    path.run(Duration::from_secs(5));
    path.limits = [1340; 2];
    let narrow = [Verdict::Narrow { largest: Some(1340) }; 2];
    let found = path.until(narrow);
    assert!(found <= Duration::from_secs(63), "{found:?}");
    for event in [PeerProbes::is_busy, PeerProbes::recheck] {
        path.limits = [1440; 2];
        path.until([Verdict::Proven; 2]);
        path.run(Duration::from_secs(5));
        path.limits = [1340; 2];
        let now = path.now;
        // One node notices; the other one learns of it by the flags of its probes.
        event(&mut path.nodes[1].0, now);
        path.run(Duration::from_millis(700));
        assert_eq!(path.verdicts()[1], Verdict::Unmeasured);
        let found = path.until(narrow);
        assert!(found <= Duration::from_millis(3_000), "{found:?}");
    }
}

#[test]
fn an_idle_peer_costs_less_than_a_kilobit_per_second() {
    let rate = |peers| {
        let mut path = Path::new(peers);
        path.run(Duration::from_secs(5));
        path.bytes = 0;
        path.run(Duration::from_secs(600));
        assert_eq!(path.verdicts(), [Verdict::Proven; 2]);
        path.bytes * 8 / 600
    };
    assert!((900..1_000).contains(&rate(3)), "{}", rate(3));
    assert!(rate(1_000) < 300, "{}", rate(1_000));
}

#[test]
fn replies_to_other_probes_prove_nothing() {
    let (now, schedule) = (Instant::now(), Schedule::watched(3, 1440));
    let mut probes = PeerProbes::new(OWN, PEER, now);
    let sent = probes.step(now, schedule, &mut || 7);
    assert_eq!(sent.iter().map(|probe| probe.size).collect::<Vec<_>>(), [SMALLEST, 1440]);
    let reply = |size, token| Received { from: PEER, size, message: Message::Reply(Token::new(token)) };
    probes.receive(reply(1440, 8), now, schedule);
    // The token of the first probe, but another size.
    probes.receive(reply(1440, 7), now, schedule);
    let all = Flags { small_passes: true, full_passes: true, full_fails: false };
    probes.receive(Received { from: PEER, size: SMALLEST, message: Message::Request(all, None) }, now, schedule);
    assert_eq!(probes.verdict(), Verdict::Open);
}

#[test]
fn a_path_that_takes_long_is_no_fault() {
    let (mut now, schedule) = (Instant::now(), Schedule::watched(3, 1440));
    let mut probes = PeerProbes::new(OWN, PEER, now);
    let (mut random, mut on_the_way) = (0, VecDeque::new());
    let mut verdicts = Vec::new();
    for _ in 0..3_000 {
        now += STEP;
        let mut next = || {
            random += 1;
            random
        };
        on_the_way.extend(probes.step(now, schedule, &mut next).into_iter().map(|probe| (now, probe)));
        while let Some((sent, Probe { size, token, .. })) = on_the_way.front().copied()
            && now.duration_since(sent) >= Duration::from_millis(700)
        {
            on_the_way.pop_front();
            probes.receive(Received { from: PEER, size, message: Message::Reply(token) }, now, schedule);
        }
        if probes.verdict() != Verdict::Open && verdicts.last() != Some(&probes.verdict()) {
            verdicts.push(probes.verdict());
        }
    }
    assert_eq!(verdicts, [Verdict::Silent, Verdict::Proven]);
}
