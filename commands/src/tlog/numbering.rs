//! Which leaf an event is: its position, less the positions that no event has.

use otherix_schemas::position::Position;

use crate::store::Gap;

/// The gaps of a journal. They do not change while a control plane runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeafNumbering(Vec<Gap>);

impl LeafNumbering {
    /// The numbering of a journal with these gaps, oldest first.
    pub fn new(gaps: Vec<Gap>) -> Self {
        Self(gaps)
    }

    /// The number of events up to a position, which is the size of the tree that has them all.
    pub fn size_at(&self, position: Position) -> u64 {
        let missing = self.0.iter().filter(|gap| gap.kept < position).map(|gap| {
            let last = gap.next.get() - 1;
            last.min(position.get()) - gap.kept.get()
        });
        position.get() - missing.sum::<u64>()
    }

    /// The position of the last event in a tree of this size.
    pub fn position_of(&self, size: u64) -> Position {
        let mut position = size;
        for gap in &self.0 {
            if position > gap.kept.get() {
                position += gap.positions();
            }
        }
        Position::new(position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(kept: u64, next: u64) -> Gap {
        Gap { kept: Position::new(kept), next: Position::new(next) }
    }

    #[test]
    fn gaps_are_left_out() {
        let numbering = LeafNumbering::new(vec![gap(3, 10), gap(12, 20)]);
        for (position, size) in [(0, 0), (1, 1), (3, 3), (10, 4), (12, 6), (20, 7), (21, 8)] {
            assert_eq!(numbering.size_at(Position::new(position)), size, "{position}");
            assert_eq!(numbering.position_of(size), Position::new(position), "{size}");
        }
        assert_eq!((numbering.size_at(Position::new(7)), numbering.size_at(Position::new(19))), (3, 6));
        let from_the_start = LeafNumbering::new(vec![gap(0, 5)]);
        assert_eq!(from_the_start.size_at(Position::new(5)), 1);
        assert_eq!((from_the_start.position_of(1), from_the_start.position_of(0)), (Position::new(5), Position::ZERO));
    }
}
