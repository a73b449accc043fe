//! How the agent's way out fares with many networks: the packet filter's table replaced whole and read back, and what one
//! network more costs, beside the same with few.

use std::time::{Duration, Instant};

use otherix_agent::device::nat::action::WriteTable;
use otherix_agent::engine::Step;
use otherix_agent::engine::execute;
use otherix_agent::kernel::Kernel;
use otherix_agent::model::firewall::{Ruleset, TableState};
use otherix_agent::model::ip::Gateway;
use otherix_agent::model::observed::Parts;
use otherix_schemas::network::Egress;
use otherix_schemas::value::{Ipv4Subnet, Nat};

use crate::Failure;
use crate::bridges::{FEW, Measured, Node, PASSES, cluster, name};
use crate::part::Part;
use crate::report::{Figures, say};

/// Target: the rules of many networks in one replacement, in milliseconds.
const REPLACE_MS: f64 = 150.0;

/// What was measured of the table alone.
#[derive(Default)]
struct Table {
    /// It is replaced whole.
    write: Vec<Duration>,
    /// It is read back whole.
    read: Vec<Duration>,
}

/// Measures, and gives the table and a line of figures.
pub(crate) async fn run(count: u32) -> Result<String, Failure> {
    // A thread of its own, which may go from namespace to namespace.
    Part::start("nat", move || Ok(async move { measure(count).await }))?.result().await
}

async fn measure(count: u32) -> Result<String, Failure> {
    say(&format!("bench: building {count} networks with NAT egress"));
    let (mut many, built) = Node::build(count, way_out).await?;
    let (mut few, _) = Node::build(FEW, way_out).await?;
    // By turns, so that whatever else the machine does falls on both alike.
    for _ in 0..PASSES {
        few.pass().await?;
        many.pass().await?;
    }
    // In a namespace without bridges: the table goes by names.
    let (_empty, _) = Node::build(0, way_out).await?;
    let mut kernel = Kernel::open()?;
    let (mut few_table, mut many_table) = (Table::default(), Table::default());
    for turn in 0..PASSES {
        few_table.replace(&mut kernel, FEW + turn % 2)?;
        many_table.replace(&mut kernel, count + turn % 2)?;
    }
    Ok(render(count, built, (&few_table, &few.measured), (&many_table, &many.measured)))
}

impl Table {
    fn replace(&mut self, kernel: &mut Kernel, networks: u32) -> Result<(), Failure> {
        let rules: Result<_, Failure> = (0..networks).map(|number| Ok((name(number), gateway(number)?))).collect();
        let rules = Ruleset { nat_networks: rules?, ..Ruleset::default() };
        let begin = Instant::now();
        execute(kernel, &[Step::new(WriteTable(rules.clone()))], cluster()).into_iter().collect::<Result<(), _>>()?;
        let written = begin.elapsed();
        let read = kernel.read(Parts { firewall: true, ..Parts::default() })?;
        let whole = begin.elapsed();
        if !read.firewall.is_some_and(|read| read.is_ok_and(|firewall| firewall.table == TableState::Holds(rules))) {
            return Err("what was read back is not what was written".into());
        }
        self.write.push(written);
        self.read.push(whole.saturating_sub(written));
        Ok(())
    }
}

fn nat(number: u32) -> Result<Nat, Failure> {
    let [_, _, high, low] = number.to_be_bytes();
    let subnet: Ipv4Subnet = format!("10.{high}.{low}.0/24").parse()?;
    Ok(Nat::new(subnet, None)?)
}

fn gateway(number: u32) -> Result<Gateway, Failure> {
    Ok(Gateway::from(nat(number)?))
}

fn way_out(number: u32) -> Result<Egress, Failure> {
    Ok(Egress::Nat(nat(number)?))
}

fn render(count: u32, built: Duration, few: (&Table, &Measured), many: (&Table, &Measured)) -> String {
    let p50 = |values: &[Duration]| Figures::of(values.iter().copied()).p50;
    let row =
        |text: &str, few: &[Duration], many: &[Duration]| format!("{text:<52}{:>10.2}{:>10.2}", p50(few), p50(many));
    let ((few_table, few), (many_table, many)) = (few, many);
    let write = Figures::of(many_table.write.iter().copied());
    [
        format!("{:<52}{FEW:>10}{count:>10}", "p50 ms, with so many networks with NAT egress"),
        row("the table replaced whole", &few_table.write, &many_table.write),
        row("the table read back whole", &few_table.read, &many_table.read),
        row("pass with nothing to do, all read anew", &few.read, &many.read),
        row("pass with nothing to do", &few.idle, &many.idle),
        row("one network more, from decision to outcome", &few.change, &many.change),
        row("a bridge set down, until it is up", &few.repair, &many.repair),
        String::new(),
        format!(
            "{count} networks from nothing in {:.0} ms; their rules replaced in p50 {:.2} ms, p99 {:.2} ms (at most {REPLACE_MS}: {})",
            built.as_secs_f64() * 1000.0,
            write.p50,
            write.p99,
            if write.p50 <= REPLACE_MS { "met" } else { "missed" },
        ),
    ]
    .join("\n")
}
