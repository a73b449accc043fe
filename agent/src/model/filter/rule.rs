//! What a rule does with a packet.

use super::ForeignTable;
use super::expression::{Comparison, Expression, Field, LookupResult, Register, Verdict};
use super::packet::{Tracking, View};
use super::set::ElementValue;
use super::value::{Answer, Byte, Bytes, Data, Mark, is, is_within};

/// What a map of verdicts that is not known may do with a packet, if it matches.
const ANY_VERDICT: [Verdict; 2] = [Verdict::Accept, Verdict::Drop];

/// The length of all registers.
const REGISTERS: usize = 64;
const UNKNOWN: [Byte; REGISTERS] = [Byte::UNKNOWN; REGISTERS];

/// What rules change of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) mark: Mark,
    pub(super) connection_mark: Mark,
    pub(super) tracking: Tracking,
}

impl State {
    /// What is known of a packet that is in one of the two states.
    pub(super) fn joined(self, other: Self) -> Self {
        let tracking = if self.tracking == other.tracking { self.tracking } else { Tracking::Unknown };
        Self {
            mark: self.mark.joined(other.mark),
            connection_mark: self.connection_mark.joined(other.connection_mark),
            tracking,
        }
    }
}

/// What a rule does with a packet that it matches, or may match.
pub(super) struct Effect {
    pub(super) is_certain: bool,
    /// Those that it may give; not any, if it goes on with the next rule.
    pub(super) verdicts: Vec<Verdict>,
    pub(super) state: State,
}

/// Applies a rule to a packet. Returns nothing if it does not match.
pub(super) fn apply(rule: &[Expression], table: &ForeignTable, view: View<'_>, state: State) -> Option<Effect> {
    let mut run = Run { table, view, registers: UNKNOWN, state };
    let mut is_certain = true;
    for expression in rule {
        let (answer, verdicts) = run.execute(expression);
        match answer {
            Answer::No => return None,
            Answer::Maybe => is_certain = false,
            Answer::Yes => {}
        }
        if !verdicts.is_empty() {
            return Some(Effect { is_certain, verdicts, state: run.state });
        }
    }
    Some(Effect { is_certain, verdicts: Vec::new(), state: run.state })
}

struct Run<'a> {
    table: &'a ForeignTable,
    view: View<'a>,
    registers: [Byte; REGISTERS],
    state: State,
}

impl Run<'_> {
    /// Returns whether the rule goes on, and the verdicts that may end it.
    fn execute(&mut self, expression: &Expression) -> (Answer, Vec<Verdict>) {
        let answer = match expression {
            Expression::Load { field, to } => match self.load(*field) {
                Some(bytes) => self.store(*to, &bytes),
                None => Answer::No,
            },
            Expression::Constant { data, to } => self.store(*to, &Bytes::known(&data.0)),
            Expression::Compare { from, comparison, data } => self.compare(*from, *comparison, data),
            Expression::Range { from, low, high, inverted } => {
                is_within(self.bytes(*from, low.0.len()), &low.0, &high.0).inverted(*inverted)
            }
            Expression::Mask { from, mask, xor, to } => {
                let masked = self.value(*from, mask.0.len()).masked(&mask.0, &xor.0);
                self.store(*to, &masked)
            }
            Expression::Swap { from, size, length, to } => {
                let swapped = self.value(*from, *length).swapped(*size);
                self.store(*to, &swapped)
            }
            Expression::Lookup { set, from, result, inverted } => return self.look_up(set, *from, *result, *inverted),
            Expression::SetMark { from } => self.set_mark(Mark::of(self.bytes(*from, 4))),
            Expression::SetConnectionMark { from } => self.set_connection_mark(Mark::of(self.bytes(*from, 4))),
            Expression::ChangeMark { mask, xor } => self.set_mark(self.state.mark.changed(*mask, *xor)),
            Expression::ChangeConnectionMark { mask, xor } => {
                self.set_connection_mark(self.state.connection_mark.changed(*mask, *xor))
            }
            Expression::SaveMark { connection_mask, packet_mask } => {
                let State { mark, connection_mark, .. } = self.state;
                self.set_connection_mark(connection_mark.combined(*connection_mask, mark, *packet_mask))
            }
            Expression::RestoreMark { connection_mask, packet_mask } => {
                let State { mark, connection_mark, .. } = self.state;
                self.set_mark(mark.combined(*packet_mask, connection_mark, *connection_mask))
            }
            Expression::ScrambleMarks => {
                self.set_connection_mark(Mark::UNKNOWN);
                self.set_mark(Mark::UNKNOWN)
            }
            Expression::Untrack => {
                self.state.tracking = Tracking::Exempt;
                Answer::Yes
            }
            Expression::Xt(xt) => xt.matches(&self.view()),
            Expression::Never => Answer::No,
            Expression::Unknown => Answer::Maybe,
            Expression::Scramble => {
                self.registers = UNKNOWN;
                Answer::Yes
            }
            Expression::Verdict(verdict) => return (Answer::Yes, vec![verdict.clone()]),
        };
        (answer, Vec::new())
    }

    /// The packet as the rules before have changed it.
    fn view(&self) -> View<'_> {
        let State { mark, connection_mark, tracking } = self.state;
        View { mark, connection_mark, tracking, ..self.view }
    }

    fn load(&self, field: Field) -> Option<Bytes> {
        self.view().load(field)
    }

    /// Returns what a register has; nothing beyond the last one.
    fn bytes(&self, from: Register, length: usize) -> &[Byte] {
        self.registers.get(from..).map(|rest| rest.get(..length).unwrap_or(rest)).unwrap_or_default()
    }

    fn value(&self, from: Register, length: usize) -> Bytes {
        let mut bytes = Bytes::default();
        bytes.extend(self.bytes(from, length).iter().copied());
        bytes.slice(0, length)
    }

    fn store(&mut self, to: Register, bytes: &Bytes) -> Answer {
        let bytes = bytes.as_slice();
        // The kernel clears the rest of the last four bytes.
        let padding = bytes.len().next_multiple_of(4) - bytes.len();
        let stored = bytes.iter().copied().chain(std::iter::repeat_n(Byte::new(0), padding));
        let registers = self.registers.get_mut(to..).unwrap_or_default();
        registers.iter_mut().zip(stored).for_each(|(register, byte)| *register = byte);
        Answer::Yes
    }

    fn compare(&self, from: Register, comparison: Comparison, data: &Data) -> Answer {
        let value = self.bytes(from, data.0.len());
        let least = || vec![0; data.0.len()];
        let greatest = || vec![u8::MAX; data.0.len()];
        match comparison {
            Comparison::Equal => is(value, &data.0),
            Comparison::Unequal => is(value, &data.0).inverted(true),
            Comparison::AtMost => is_within(value, &least(), &data.0),
            Comparison::Greater => is_within(value, &least(), &data.0).inverted(true),
            Comparison::AtLeast => is_within(value, &data.0, &greatest()),
            Comparison::Less => is_within(value, &data.0, &greatest()).inverted(true),
        }
    }

    fn look_up(&mut self, set: &str, from: Register, result: LookupResult, inverted: bool) -> (Answer, Vec<Verdict>) {
        let table = self.table;
        let Some(set) = table.sets.get(set) else {
            self.registers = UNKNOWN;
            let is_verdict = matches!(result, LookupResult::Verdict);
            return (Answer::Maybe, if is_verdict { ANY_VERDICT.to_vec() } else { Vec::new() });
        };
        let found = set.find(&self.value(from, set.length));
        let answer = found.answer.inverted(inverted);
        match result {
            LookupResult::Nothing => (answer, Vec::new()),
            LookupResult::Verdict => {
                let verdicts = found.values.into_iter().filter_map(|value| match value {
                    ElementValue::Verdict(verdict) => Some(verdict.clone()),
                    ElementValue::Nothing | ElementValue::Data(_) => None,
                });
                let verdicts: Vec<_> = verdicts.collect();
                let is_unknown = verdicts.is_empty() && answer == Answer::Maybe;
                (answer, if is_unknown { ANY_VERDICT.to_vec() } else { verdicts })
            }
            LookupResult::Load(to) => {
                let data = found.values.into_iter().map(|value| match value {
                    ElementValue::Data(Data(data)) => Bytes::known(data),
                    ElementValue::Nothing | ElementValue::Verdict(_) => Bytes::unknown(16),
                });
                let data = data.reduce(|one, other| one.joined(&other)).unwrap_or_default();
                self.store(to, &data);
                (answer, Vec::new())
            }
        }
    }

    fn set_mark(&mut self, mark: Mark) -> Answer {
        self.state.mark = mark;
        Answer::Yes
    }

    fn set_connection_mark(&mut self, mark: Mark) -> Answer {
        self.state.connection_mark = mark;
        Answer::Yes
    }
}
