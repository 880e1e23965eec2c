//! Texts that are the same, in the same place.
//!
//! A configuration names few kinds, namespaces and Services many times, and each object by its own name in several places:
//! one allocation for each text costs less memory, and less work, than one for each time it is said.

use std::{cell::RefCell, sync::Arc};

/// Texts that are remembered per thread: bounded, whatever passes by.
const SLOTS: usize = 512;

/// Longer texts are seldom said twice.
const LONGEST: usize = 128;

thread_local! {
    /// By hash; a text drives out what was in its slot.
    static RECENT: RefCell<Vec<Option<Arc<str>>>> = const { RefCell::new(Vec::new()) };
}

/// `text`, in the allocation it had when it was lately asked for by this thread.
pub fn intern(text: &str) -> Arc<str> {
    if text.len() > LONGEST {
        return text.into();
    }
    // FNV-1a: short texts, and no harm done when two of them meet.
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    RECENT.with_borrow_mut(|recent| {
        if recent.is_empty() {
            recent.resize(SLOTS, None);
        }
        // The upper bits are the better mixed.
        let at = usize::try_from(hash >> 40).map_or(0, |hash| hash % SLOTS);
        let Some(slot) = recent.get_mut(at) else {
            return text.into();
        };
        match slot {
            Some(known) if **known == *text => Arc::clone(known),
            _ => {
                let new: Arc<str> = text.into();
                *slot = Some(Arc::clone(&new));
                new
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_again_is_the_same_allocation() {
        let (first, second) = (intern("HTTPRoute"), intern("HTTPRoute"));
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!(&*intern(""), "");
    }

    #[test]
    fn texts_that_drive_each_other_out_stay_themselves() {
        for round in 0..3 {
            for number in 0..4 * SLOTS {
                let text = format!("name-{number}");
                assert_eq!(*intern(&text), *text, "round {round}");
            }
        }
        RECENT.with_borrow(|recent| assert_eq!(recent.len(), SLOTS));
    }

    #[test]
    fn long_texts_are_not_kept() {
        let long = "x".repeat(LONGEST + 1);
        assert!(!Arc::ptr_eq(&intern(&long), &intern(&long)));
    }
}
