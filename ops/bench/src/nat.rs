//! The agent's NAT with many networks: replacing and reading the nftables table, and the cost of one more network,
//! compared with the same with few networks, and beside a packet filter of another program.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use otherix_agent::device::nat::action::WriteTable;
use otherix_agent::engine::Step;
use otherix_agent::engine::execute;
use otherix_agent::kernel::Kernel;
use otherix_agent::model::firewall::{Ruleset, TableState};
use otherix_agent::model::ip::Gateway;
use otherix_agent::model::observed::Parts;
use otherix_schemas::network::Egress;
use otherix_schemas::value::{GatewaySubnet, Ipv4Subnet};

use crate::BenchError;
use crate::bridges::{BenchNode, BridgeMeasurements, FEW, PASSES, cluster, name};
use crate::report::{Figures, report_progress, target_result};
use crate::thread::BenchThread;

/// Rules of the other program's chain; none of them concerns a guest.
const FOREIGN_RULES: u32 = 62;

/// Target for replacing the rules of many networks, in milliseconds.
const REPLACE_MS: f64 = 150.0;

/// Measurements of the nftables table alone.
#[derive(Default)]
struct TableMeasurements {
    write: Vec<Duration>,
    read: Vec<Duration>,
}

/// Measures, and returns a table and a line of figures.
pub(crate) async fn run(count: u32) -> Result<String, BenchError> {
    // A separate thread, which can change its namespace.
    BenchThread::start("nat", move || Ok(async move { measure(count).await }))?.result().await
}

async fn measure(count: u32) -> Result<String, BenchError> {
    report_progress(&format!("bench: building {count} networks with NAT egress"));
    let (mut many, built) = BenchNode::build(count, egress_of).await?;
    let (mut beside, _) = BenchNode::build_beside(&foreign_filter(), count, egress_of).await?;
    let (mut few, _) = BenchNode::build(FEW, egress_of).await?;
    // Alternating, so that other load on the machine affects both equally.
    for _ in 0..PASSES {
        few.pass().await?;
        many.pass().await?;
        beside.pass().await?;
    }
    // In a namespace without bridges, which is sufficient: rules refer to them by name.
    let (_empty, _) = BenchNode::build(0, egress_of).await?;
    let mut kernel = Kernel::open()?;
    let (mut few_table, mut many_table) = (TableMeasurements::default(), TableMeasurements::default());
    for turn in 0..PASSES {
        few_table.replace(&mut kernel, FEW + turn % 2)?;
        many_table.replace(&mut kernel, count + turn % 2)?;
    }
    Ok(render(count, built, (&few_table, &few.measured), (&many_table, &many.measured), &beside.measured))
}

impl TableMeasurements {
    fn replace(&mut self, kernel: &mut Kernel, networks: u32) -> Result<(), BenchError> {
        let rules: Result<_, BenchError> = (0..networks).map(|number| Ok((name(number), gateway(number)?))).collect();
        let rules = Ruleset { nat_networks: rules?, ..Ruleset::default() };
        let begin = Instant::now();
        execute(
            kernel,
            &[Step::new(WriteTable { ruleset: rules.clone(), forget_connections: BTreeSet::new() })],
            cluster(),
        )
        .into_iter()
        .collect::<Result<(), _>>()?;
        let written = begin.elapsed();
        let read = kernel.read(Parts { firewall: true, ..Parts::default() })?;
        let whole = begin.elapsed();
        if !read.firewall.is_some_and(|read| read.is_ok_and(|firewall| firewall.table == TableState::Holds(rules))) {
            return Err("the rules read differ from those written".into());
        }
        self.write.push(written);
        self.read.push(whole.saturating_sub(written));
        Ok(())
    }
}

/// The shell command that makes a chain of another program.
fn foreign_filter() -> String {
    let rules: String =
        (1..=FOREIGN_RULES).map(|number| format!("ip saddr 198.51.100.{number} tcp dport {number} drop; ")).collect();
    format!("nft 'table inet foreign {{ chain forward {{ type filter hook forward priority 0; {rules} }}; }}'")
}

fn nat(number: u32) -> Result<GatewaySubnet, BenchError> {
    let [_, _, high, low] = number.to_be_bytes();
    let subnet: Ipv4Subnet = format!("10.{high}.{low}.0/24").parse()?;
    Ok(GatewaySubnet::new(subnet, None)?)
}

fn gateway(number: u32) -> Result<Gateway, BenchError> {
    Ok(Gateway::from(nat(number)?))
}

fn egress_of(number: u32) -> Result<Egress, BenchError> {
    Ok(Egress::Nat(nat(number)?))
}

fn render(
    count: u32,
    built: Duration,
    few: (&TableMeasurements, &BridgeMeasurements),
    many: (&TableMeasurements, &BridgeMeasurements),
    beside: &BridgeMeasurements,
) -> String {
    let p50 = |values: &[Duration]| Figures::of(values.iter().copied()).p50;
    let row =
        |text: &str, few: &[Duration], many: &[Duration]| format!("{text:<52}{:>10.2}{:>10.2}", p50(few), p50(many));
    let ((few_table, few), (many_table, many)) = (few, many);
    let all = |text: &str, part: fn(&BridgeMeasurements) -> &[Duration]| {
        format!("{}{:>10.2}", row(text, part(few), part(many)), p50(part(beside)))
    };
    let write = Figures::of(many_table.write.iter().copied());
    [
        format!("{:<52}{FEW:>10}{count:>10}{:>10}", "p50 ms, by number of networks with NAT", "filtered*"),
        row("the table replaced", &few_table.write, &many_table.write),
        row("the table read", &few_table.read, &many_table.read),
        all("idle pass after a restart", |measured| &measured.read),
        all("idle pass", |measured| &measured.idle),
        all("everything planned again, as a route changed", |measured| &measured.plan),
        all("one more network, from decision to outcome", |measured| &measured.change),
        all("a bridge set down, until it is up again", |measured| &measured.repair),
        format!("* {count} networks beside a chain of another program with {FOREIGN_RULES} rules"),
        String::new(),
        format!(
            "{count} networks built in {:.0} ms; their rules replaced in p50 {:.2} ms, p99 {:.2} ms (p50 at most \
             {REPLACE_MS}: {})",
            built.as_secs_f64() * 1000.0,
            write.p50,
            write.p99,
            target_result(write.p50 <= REPLACE_MS),
        ),
    ]
    .join("\n")
}
