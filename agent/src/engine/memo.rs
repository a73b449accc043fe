//! What kinds remember from plan to plan: results that take long to compute, each with everything that it follows from.
//! A plan is the same with and without them.

use std::any::{Any, TypeId};
use std::collections::BTreeMap;

/// What kinds remember, by type.
#[derive(Default)]
pub struct Memos(BTreeMap<TypeId, Box<dyn Any + Send>>);

impl Memos {
    /// Uses what is remembered as this type; the default at first.
    pub fn with<T: Default + Send + 'static, R>(&mut self, compute: impl FnOnce(&mut T) -> R) -> R {
        let known = self.0.remove(&TypeId::of::<T>()).and_then(|known| known.downcast::<T>().ok());
        let mut known = known.unwrap_or_default();
        let result = compute(&mut known);
        self.0.insert(TypeId::of::<T>(), known);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_is_remembered() {
        let mut memos = Memos::default();
        assert_eq!(memos.with(|numbers: &mut Vec<u32>| numbers.len()), 0);
        memos.with(|numbers: &mut Vec<u32>| numbers.push(1));
        memos.with(|text: &mut String| text.push('x'));
        assert_eq!(memos.with(|numbers: &mut Vec<u32>| numbers.clone()), [1]);
        assert_eq!(memos.with(|text: &mut String| text.clone()), "x");
    }
}
