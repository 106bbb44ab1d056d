//! What is known about names, and what is being asked.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::{Addresses, ResolveError};
use crate::domain::IpFamily;

/// Names remembered. At some 150 bytes each this is 10 MB; a process that probes more names asks more often.
const NAMES_MAX: usize = 65_536;
/// An answer is asked for again after an hour, whatever its TTL.
const TTL_MAX: Duration = Duration::from_secs(3_600);
/// That a name does not exist is believed for no longer than the shortest interval: its birth is news.
const NEGATIVE_TTL_MAX: Duration = Duration::from_secs(5);

/// An answer and how long it holds. Failures of name servers hold for no time.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// The addresses.
    pub(super) result: Result<Addresses, ResolveError>,
    /// For how long it may be reused.
    pub(super) ttl: Duration,
}

#[derive(Debug)]
struct Entry {
    result: Result<Addresses, ResolveError>,
    until: Instant,
}

/// Answers by name and family, and the questions under way. `Q` is how one joins a question.
#[derive(Debug)]
pub(super) struct Cache<Q> {
    answers: [HashMap<Box<str>, Entry>; 3],
    questions: [HashMap<Box<str>, Q>; 3],
}

impl<Q> Default for Cache<Q> {
    fn default() -> Self {
        Self {
            answers: Default::default(),
            questions: Default::default(),
        }
    }
}

impl<Q: Clone> Cache<Q> {
    /// The answer for `name`, if there is one that still holds.
    pub(super) fn answer(
        &self,
        name: &str,
        family: IpFamily,
        now: Instant,
    ) -> Option<Result<Addresses, ResolveError>> {
        let entry = self.answers[index(family)].get(name)?;
        (now < entry.until).then(|| entry.result.clone())
    }

    /// The question for `name`, if it is being asked.
    pub(super) fn question(&self, name: &str, family: IpFamily) -> Option<Q> {
        self.questions[index(family)].get(name).cloned()
    }

    /// `name` is now being asked for. As many questions as probes in flight at most.
    pub(super) fn asking(&mut self, name: &str, family: IpFamily, question: Q) {
        self.questions[index(family)].insert(name.into(), question);
    }

    /// The question for `name` has its answer.
    pub(super) fn answered(&mut self, name: &str, family: IpFamily, answer: &Answer, now: Instant) {
        self.questions[index(family)].remove(name);
        let ttl = match answer.result {
            Ok(_) => answer.ttl.min(TTL_MAX),
            Err(_) => answer.ttl.min(NEGATIVE_TTL_MAX),
        };
        let answers = &mut self.answers[index(family)];
        if ttl.is_zero() {
            answers.remove(name);
            return;
        }
        if answers.len() >= NAMES_MAX && !answers.contains_key(name) {
            answers.retain(|_, entry| now < entry.until);
            if answers.len() >= NAMES_MAX {
                // All of them still hold: which half is asked for again does not matter.
                let mut keep = false;
                answers.retain(|_, _| {
                    keep = !keep;
                    keep
                });
            }
        }
        let entry = Entry {
            result: answer.result.clone(),
            until: now + ttl,
        };
        answers.insert(name.into(), entry);
    }

    /// The name servers have changed: what the old ones said no longer holds.
    pub(super) fn forget_answers(&mut self) {
        self.answers.iter_mut().for_each(HashMap::clear);
    }
}

const fn index(family: IpFamily) -> usize {
    match family {
        IpFamily::Any => 0,
        IpFamily::V4 => 1,
        IpFamily::V6 => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    fn found(ttl_s: u64) -> Answer {
        Answer {
            result: Ok(Rc::new([std::net::IpAddr::from([127, 0, 0, 1])])),
            ttl: Duration::from_secs(ttl_s),
        }
    }

    fn not_found(ttl_s: u64) -> Answer {
        Answer {
            result: Err(ResolveError::NotFound("nxdomain".into())),
            ttl: Duration::from_secs(ttl_s),
        }
    }

    fn held_for(answer: &Answer) -> u64 {
        let now = Instant::now();
        let mut cache = Cache::<()>::default();
        cache.answered("a", IpFamily::Any, answer, now);
        (0..10_000)
            .find(|&s| {
                cache
                    .answer("a", IpFamily::Any, now + Duration::from_secs(s))
                    .is_none()
            })
            .unwrap()
    }

    #[test]
    fn answers_hold_for_their_ttl_within_bounds() {
        assert_eq!(held_for(&found(0)), 0);
        assert_eq!(held_for(&found(60)), 60);
        assert_eq!(held_for(&found(86_400)), 3_600);
        assert_eq!(held_for(&not_found(3)), 3);
        assert_eq!(held_for(&not_found(900)), 5);
    }

    #[test]
    fn families_are_kept_apart() {
        let now = Instant::now();
        let mut cache = Cache::<()>::default();
        cache.answered("a", IpFamily::V4, &found(60), now);
        assert!(cache.answer("a", IpFamily::V4, now).is_some());
        assert!(cache.answer("a", IpFamily::Any, now).is_none());
    }

    #[test]
    fn a_question_ends_with_its_answer() {
        let mut cache = Cache::default();
        cache.asking("a", IpFamily::Any, 7);
        assert_eq!(cache.question("a", IpFamily::Any), Some(7));
        cache.answered("a", IpFamily::Any, &found(0), Instant::now());
        assert_eq!(cache.question("a", IpFamily::Any), None);
    }

    #[test]
    fn the_number_of_names_is_bounded() {
        let now = Instant::now();
        let mut cache = Cache::<()>::default();
        for n in 0..=NAMES_MAX {
            cache.answered(&n.to_string(), IpFamily::Any, &found(60), now);
        }
        let len = cache.answers[0].len();
        assert!((NAMES_MAX / 2..=NAMES_MAX).contains(&len), "{len}");
    }
}
