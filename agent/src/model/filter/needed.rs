//! Which chains and sets have to be read and kept.

use std::collections::{BTreeMap, BTreeSet};

use super::expression::{Expression, Field, LookupResult, Verdict};
use super::{Chain, ForeignFilter, ForeignTable};

/// Removes the base chains that lose no packet, and what only these need.
///
/// Chains that set marks, or exempt packets from connection tracking, stay if others read marks.
#[must_use]
pub fn needed(filter: ForeignFilter) -> ForeignFilter {
    let reached: Vec<_> = filter.tables.iter().map(ForeignTable::reached_by_bases).collect();
    let reads_marks = reached.iter().flatten().any(|base| base.traits.may_drop && base.traits.reads_marks);
    let is_kept = |base: &&Reached<'_>| {
        let Traits { may_drop, untracks, sets_marks, reads_marks: _ } = base.traits;
        may_drop || untracks || (reads_marks && sets_marks)
    };
    let kept: Vec<BTreeSet<String>> = reached
        .iter()
        .map(|bases| {
            bases.iter().filter(is_kept).flat_map(|base| &base.chains).map(|name| (*name).to_owned()).collect()
        })
        .collect();
    let tables = filter.tables.into_iter().zip(kept).filter_map(|(table, kept)| {
        let ForeignTable { family, name, chains, sets } = table;
        // The names of the other chains remain: they tell which program made the table.
        let chains: BTreeMap<_, _> = chains
            .into_iter()
            .map(|(name, chain)| if kept.contains(&name) { (name, chain) } else { (name, Chain::default()) })
            .collect();
        (!kept.is_empty()).then_some(ForeignTable { family, name, chains, sets })
    });
    ForeignFilter { tables: tables.collect() }
}

/// The chains that packets in a base chain may reach, with it.
struct Reached<'a> {
    chains: BTreeSet<&'a str>,
    /// What one of them does.
    traits: Traits,
}

/// What a chain does with packets that it matches.
#[derive(Clone, Copy, Default)]
struct Traits {
    may_drop: bool,
    untracks: bool,
    sets_marks: bool,
    reads_marks: bool,
}

/// What a chain does, and where it leads.
struct Summary<'a> {
    traits: Traits,
    leads_to: BTreeSet<&'a str>,
    /// A map of verdicts, whose elements have not been read, may lead to any chain that is no base chain.
    leads_anywhere: bool,
}

impl ForeignTable {
    /// Returns the names of the sets that its rules look up.
    pub fn used_sets(&self) -> BTreeSet<&str> {
        let rules = self.chains.values().flat_map(|chain| &chain.rules);
        rules.flatten().filter_map(Expression::set).collect()
    }

    /// Each rule is looked at once, and each base chain follows each other chain once.
    fn reached_by_bases(&self) -> Vec<Reached<'_>> {
        let summaries: BTreeMap<_, _> =
            self.chains.iter().map(|(name, chain)| (name.as_str(), chain.summary())).collect();
        let bases = self.chains.iter().filter(|(_, chain)| chain.base.is_some());
        bases.map(|(name, _)| self.reached(name, &summaries)).collect()
    }

    fn reached<'a>(&'a self, base: &'a str, summaries: &BTreeMap<&'a str, Summary<'a>>) -> Reached<'a> {
        let mut reached = Reached { chains: BTreeSet::new(), traits: Traits::default() };
        let (mut waiting, mut is_anywhere) = (vec![base], false);
        while let Some(name) = waiting.pop() {
            let Some(summary) = summaries.get(name) else { continue };
            if !reached.chains.insert(name) {
                continue;
            }
            reached.traits.add(summary.traits);
            waiting.extend(&summary.leads_to);
            if summary.leads_anywhere && !std::mem::replace(&mut is_anywhere, true) {
                waiting.extend(
                    self.chains.iter().filter(|(_, chain)| chain.base.is_none()).map(|(name, _)| name.as_str()),
                );
            }
        }
        reached
    }
}

impl Traits {
    fn add(&mut self, other: Self) {
        self.may_drop |= other.may_drop;
        self.untracks |= other.untracks;
        self.sets_marks |= other.sets_marks;
        self.reads_marks |= other.reads_marks;
    }
}

impl Chain {
    fn summary(&self) -> Summary<'_> {
        let traits = Traits { may_drop: self.base.as_ref().is_some_and(|base| base.drops), ..Traits::default() };
        let mut summary = Summary { traits, leads_to: BTreeSet::new(), leads_anywhere: false };
        for expression in self.rules.iter().flatten() {
            summary.traits.add(Traits {
                may_drop: expression.may_drop(),
                untracks: matches!(expression, Expression::Untrack),
                sets_marks: expression.sets_marks(),
                reads_marks: expression.reads_marks(),
            });
            if let Expression::Verdict(Verdict::Jump(to) | Verdict::Goto(to)) = expression {
                summary.leads_to.insert(to.as_str());
            }
            summary.leads_anywhere |= matches!(expression, Expression::Lookup { result: LookupResult::Verdict, .. });
        }
        summary
    }
}

impl Expression {
    fn set(&self) -> Option<&str> {
        if let Self::Lookup { set, .. } = self { Some(set) } else { None }
    }

    fn may_drop(&self) -> bool {
        match self {
            Self::Verdict(verdict) => verdict.may_drop(),
            Self::Lookup { result, .. } => matches!(result, LookupResult::Verdict),
            Self::Load { .. }
            | Self::Constant { .. }
            | Self::Compare { .. }
            | Self::Range { .. }
            | Self::Mask { .. }
            | Self::Swap { .. }
            | Self::SetMark { .. }
            | Self::SetConnectionMark { .. }
            | Self::ChangeMark { .. }
            | Self::ChangeConnectionMark { .. }
            | Self::SaveMark { .. }
            | Self::RestoreMark { .. }
            | Self::ScrambleMarks
            | Self::Untrack
            | Self::Xt(_)
            | Self::Never
            | Self::Unknown
            | Self::Scramble => false,
        }
    }

    fn sets_marks(&self) -> bool {
        matches!(
            self,
            Self::SetMark { .. }
                | Self::SetConnectionMark { .. }
                | Self::ChangeMark { .. }
                | Self::ChangeConnectionMark { .. }
                | Self::SaveMark { .. }
                | Self::RestoreMark { .. }
                | Self::ScrambleMarks
        )
    }

    fn reads_marks(&self) -> bool {
        use super::xtables::XtMatch;
        matches!(
            self,
            Self::Load { field: Field::MARK | Field::Connection { key: 3, .. }, .. }
                | Self::Xt(XtMatch::Mark { .. } | XtMatch::ConnectionMark { .. })
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::filter::{Base, Family, Hook};

    fn base(drops: bool) -> Option<Base> {
        Some(Base { hook: Hook::Forward, priority: 0, nat: false, drops, devices: Vec::new() })
    }

    fn table(chains: impl IntoIterator<Item = (String, Chain)>) -> ForeignFilter {
        let chains = chains.into_iter().collect();
        let table = ForeignTable { family: Family::Inet, name: "t".to_owned(), chains, sets: BTreeMap::new() };
        ForeignFilter { tables: vec![table] }
    }

    fn verdict_map() -> Vec<Expression> {
        let result = LookupResult::Verdict;
        vec![Expression::Lookup { set: "m".to_owned(), from: 0, result, inverted: false }]
    }

    fn verdict(verdict: Verdict) -> Vec<Expression> {
        vec![Expression::Verdict(verdict)]
    }

    fn kept(filter: ForeignFilter) -> Vec<String> {
        let chains = needed(filter).tables.into_iter().flat_map(|table| table.chains);
        chains.filter(|(_, chain)| *chain != Chain::default()).map(|(name, _)| name).collect()
    }

    #[test]
    fn what_loses_packets_is_kept_with_what_it_leads_to() {
        let chain = |base, rules| Chain { base, rules };
        let jump = |to: &str| verdict(Verdict::Jump(to.to_owned()));
        let chains = |rules| {
            [
                ("lead".to_owned(), chain(base(false), vec![rules])),
                ("middle".to_owned(), chain(None, vec![jump("end"), jump("missing"), jump("middle")])),
                ("end".to_owned(), chain(None, vec![verdict(Verdict::Drop)])),
                ("accepts".to_owned(), chain(base(false), vec![verdict(Verdict::Accept)])),
                ("unused".to_owned(), chain(None, vec![verdict(Verdict::Drop)])),
            ]
        };
        assert_eq!(kept(table(chains(jump("middle")))), ["end", "lead", "middle"]);
        assert_eq!(kept(table(chains(verdict(Verdict::Accept)))), [""; 0]);
        assert_eq!(kept(table(chains(verdict_map()))), ["end", "lead", "middle", "unused"], "anywhere");
        assert_eq!(kept(table([("c".to_owned(), chain(base(true), vec![]))])), ["c"], "its policy drops");
    }

    /// As in clusters with many services: a map of verdicts in each of very many chains. If each of them led to all
    /// chains again, this would not end within the test's time.
    #[test]
    fn many_maps_of_verdicts_take_no_longer_than_their_rules() {
        let chains = (0..20_000).map(|number| {
            let base = if number % 1000 == 0 { base(false) } else { None };
            (format!("chain-{number}"), Chain { base, rules: vec![verdict_map()] })
        });
        assert_eq!(kept(table(chains)).len(), 20_000);
    }
}
