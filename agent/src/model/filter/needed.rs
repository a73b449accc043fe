//! Which chains and sets have to be read and kept.

use std::collections::{BTreeMap, BTreeSet};

use super::expression::{Expression, Field, LookupResult, Verdict};
use super::{Chain, ForeignFilter, ForeignTable};

/// Removes the base chains that lose no packet, and what only these need.
///
/// Chains that set marks, or exempt packets from connection tracking, stay if others read marks.
#[must_use]
pub fn needed(filter: ForeignFilter) -> ForeignFilter {
    let reads_marks = filter.tables.iter().any(|table| {
        let loses = |name: &&String| table.reach(name).iter().any(|chain| chain.may_drop());
        let losing = base_names(table).filter(loses).collect::<Vec<_>>();
        losing.iter().any(|name| table.reach(name).iter().any(|chain| chain.reads_marks()))
    });
    let tables = filter.tables.into_iter().filter_map(|table| {
        let is_kept = |name: &&String| {
            let reached = table.reach(name);
            reached.iter().any(|chain| chain.may_drop() || chain.untracks() || (reads_marks && chain.sets_marks()))
        };
        let kept: BTreeSet<_> = base_names(&table).filter(is_kept).flat_map(|name| table.reached(name)).collect();
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

fn base_names(table: &ForeignTable) -> impl Iterator<Item = &String> {
    table.chains.iter().filter(|(_, chain)| chain.base.is_some()).map(|(name, _)| name)
}

impl ForeignTable {
    /// Returns the names of the sets that its rules look up.
    pub fn used_sets(&self) -> BTreeSet<&str> {
        let rules = self.chains.values().flat_map(|chain| &chain.rules);
        rules.flatten().filter_map(Expression::set).collect()
    }

    /// Returns the names of the chains that packets in this one may reach.
    fn reached(&self, name: &str) -> BTreeSet<String> {
        let (mut reached, mut waiting) = (BTreeSet::new(), vec![name.to_owned()]);
        while let Some(name) = waiting.pop() {
            let Some(chain) = self.chains.get(&name) else { continue };
            if !reached.insert(name) {
                continue;
            }
            for expression in chain.rules.iter().flatten() {
                if let Expression::Verdict(Verdict::Jump(to) | Verdict::Goto(to)) = expression {
                    waiting.push(to.clone());
                }
                // The elements of a map, which have not been read, may lead anywhere.
                if let Expression::Lookup { result: LookupResult::Verdict, .. } = expression {
                    let others = self.chains.iter().filter(|(_, chain)| chain.base.is_none());
                    waiting.extend(others.map(|(name, _)| name.clone()));
                }
            }
        }
        reached
    }

    fn reach(&self, name: &str) -> Vec<&Chain> {
        self.reached(name).iter().filter_map(|name| self.chains.get(name)).collect()
    }
}

impl Chain {
    fn has(&self, is_so: impl Fn(&Expression) -> bool) -> bool {
        self.rules.iter().flatten().any(is_so)
    }

    fn may_drop(&self) -> bool {
        self.base.as_ref().is_some_and(|base| base.drops) || self.has(Expression::may_drop)
    }

    fn untracks(&self) -> bool {
        self.has(|expression| matches!(expression, Expression::Untrack))
    }

    fn sets_marks(&self) -> bool {
        self.has(Expression::sets_marks)
    }

    fn reads_marks(&self) -> bool {
        self.has(Expression::reads_marks)
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
