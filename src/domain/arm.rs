//! Arms of a comparison: variants of settings that divide the ticks of every endpoint between them.
//!
//! A tick has room for one row, so two arms cannot both probe it. Arm `j` of `m` owns tick `k` of endpoint `id` when
//! `(k + id) mod m = j`: each arm takes every `m`-th tick of each endpoint, and neighbouring endpoints begin with
//! different arms, so that no arm is always the one at the full minute. The same formula is in SQL
//! (`migrations/V9__arms.sql`).

use super::endpoint::{EndpointId, Interval};
use super::grid::Grid;
use super::timestamp::Timestamp;

/// Arms of one comparison at most: the audit keeps books for every combination of the numbers of arms in use at a
/// location, up to their least common multiple (840).
pub const ARMS_MAX: usize = 8;
/// Bytes of a name at most, as for locations.
const NAME_BYTES_MAX: usize = 63;

/// Ticks of arm `index` of `count`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ArmShare {
    index: u32,
    count: u32,
}

impl ArmShare {
    /// Every tick.
    pub const ALL: Self = Self { index: 0, count: 1 };

    /// Which arm, from 0.
    pub const fn index(self) -> u32 {
        self.index
    }

    /// Of how many.
    pub const fn count(self) -> u32 {
        self.count
    }

    /// Whether this arm owns the tick at `at` of an endpoint.
    pub const fn owns(self, id: EndpointId, interval: Interval, at: Timestamp) -> bool {
        if self.count == 1 {
            return true;
        }
        let count = self.count as i64;
        let tick = Grid::new(id, interval).tick(at);
        // Reduced first: an id may be as large as it likes.
        (tick.rem_euclid(count) + id.0.rem_euclid(count)) % count == self.index as i64
    }
}

/// The name of a variant of settings, and the arms that it shares the ticks with, if any.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Arm {
    name: Box<str>,
    /// All of them, in order of the alphabet, this one included; empty when the ticks are not shared.
    arms: Box<[Box<str>]>,
}

/// Why names of arms are not usable.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ArmError {
    /// The name itself.
    #[error("{0:?} is no name of an arm: write 1 to 63 bytes without white space, comma or slash")]
    Name(String),
    /// The same name twice.
    #[error("{0:?} is named twice; give each arm a name of its own")]
    Twice(String),
    /// Too few or too many.
    #[error("{0} arms; name 2 to {ARMS_MAX}, or none")]
    Count(usize),
    /// The arm is not among them.
    #[error("the arm {name:?} is none of the arms {}; set the arm (--arm, WATCHER_ARM) to one of them", .arms.join(","))]
    Stranger {
        /// The arm.
        name: String,
        /// The arms.
        arms: Vec<String>,
    },
}

impl Arm {
    /// The arm `name` of `arms`, whose order does not matter: each process sorts them. Without `arms`, a label alone: its
    /// process owns every tick.
    pub fn new(name: &str, arms: &[String]) -> Result<Self, ArmError> {
        check_name(name)?;
        for (at, arm) in arms.iter().enumerate() {
            check_name(arm)?;
            if arms[..at].contains(arm) {
                return Err(ArmError::Twice(arm.clone()));
            }
        }
        if arms.len() == 1 || arms.len() > ARMS_MAX {
            return Err(ArmError::Count(arms.len()));
        }
        if !arms.is_empty() && !arms.iter().any(|arm| arm == name) {
            return Err(ArmError::Stranger {
                name: name.to_owned(),
                arms: arms.to_vec(),
            });
        }
        let mut arms: Box<[Box<str>]> = arms.iter().map(|arm| arm.as_str().into()).collect();
        arms.sort_unstable();
        Ok(Self {
            name: name.into(),
            arms,
        })
    }

    /// A label that shares its ticks with nobody.
    pub fn label(name: &str) -> Self {
        Self {
            name: name.into(),
            arms: Box::default(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The arms that share the ticks, in order; none when the ticks are not shared.
    pub fn arms(&self) -> &[Box<str>] {
        &self.arms
    }

    /// The ticks that it owns.
    pub fn share(&self) -> ArmShare {
        match self.arms.iter().position(|arm| *arm == self.name) {
            Some(index) => ArmShare {
                index: index as u32,
                count: self.arms.len() as u32,
            },
            None => ArmShare::ALL,
        }
    }
}

/// Names stand in lists with commas and, after a slash, in names of agents.
fn check_name(name: &str) -> Result<(), ArmError> {
    let fits = (1..=NAME_BYTES_MAX).contains(&name.len())
        && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == ',' || c == '/');
    if fits {
        Ok(())
    } else {
        Err(ArmError::Name(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(text: &str) -> Vec<String> {
        text.split(',').map(str::to_owned).collect()
    }

    proptest! {
        #[test]
        fn every_tick_has_exactly_one_owner_and_ticks_go_round(
            id in any::<i64>(), seconds in 5i64..=300, at in -4_000_000_000_000_000i64..4_000_000_000_000_000,
            count in 2usize..=ARMS_MAX
        ) {
            let id = EndpointId(id);
            let interval = Interval::from_secs(seconds).unwrap();
            let all: Vec<String> = (0..count).map(|i| format!("arm{i}")).collect();
            let first = Grid::new(id, interval).at_or_after(Timestamp::from_micros(at));
            let owners: Vec<usize> = (0..2 * count as i64)
                .map(|n| {
                    let tick = Timestamp::from_millis(first + n * seconds * 1_000);
                    let owners: Vec<usize> = (0..count)
                        .filter(|&arm| Arm::new(&all[arm], &all).unwrap().share().owns(id, interval, tick))
                        .collect();
                    assert_eq!(owners.len(), 1, "{owners:?}");
                    owners[0]
                })
                .collect();
            for pair in owners.windows(2) {
                prop_assert_eq!((pair[0] + 1) % count, pair[1]);
            }
            prop_assert!(ArmShare::ALL.owns(id, interval, Timestamp::from_millis(first)));
        }
    }

    #[test]
    fn neighbouring_endpoints_begin_with_different_arms() {
        let arms = names("a,b,c");
        let share = Arm::new("a", &arms).unwrap().share();
        let interval = Interval::from_secs(60).unwrap();
        let of = |id: i64| {
            // The tick number 10 of each.
            let phase = i64::from(Grid::new(EndpointId(id), interval).phase_ms());
            share.owns(
                EndpointId(id),
                interval,
                Timestamp::from_millis(600_000 + phase),
            )
        };
        let owned: Vec<i64> = (1..=9).filter(|&id| of(id)).collect();
        assert_eq!(owned, [2, 5, 8]);
    }

    #[test]
    fn the_order_of_the_arms_does_not_matter_and_what_is_wrong_is_named() {
        let forth = Arm::new("b", &names("a,b")).unwrap();
        let back = Arm::new("b", &names("b,a")).unwrap();
        assert_eq!(forth, back);
        assert_eq!((forth.share().index(), forth.share().count()), (1, 2));
        assert_eq!(
            Arm::new("default", &[]).unwrap().share(),
            Arm::label("default").share()
        );
        let wrong = |name: &str, arms: &str| {
            let arms = if arms.is_empty() {
                Vec::new()
            } else {
                names(arms)
            };
            Arm::new(name, &arms).unwrap_err().to_string()
        };
        assert_eq!(
            wrong("default", "a,b"),
            "the arm \"default\" is none of the arms a,b; set the arm (--arm, WATCHER_ARM) to one of them"
        );
        assert_eq!(
            wrong("a", "a,b,a"),
            "\"a\" is named twice; give each arm a name of its own"
        );
        assert_eq!(wrong("a", "a"), "1 arms; name 2 to 8, or none");
        assert_eq!(
            wrong("a", "a,b,c,d,e,f,g,h,i"),
            "9 arms; name 2 to 8, or none"
        );
        for bad in ["", "a b", "a,b", "n/0", "a\n", &"x".repeat(64)] {
            assert!(wrong(bad, "").contains("is no name of an arm"), "{bad:?}");
        }
        assert!(wrong("a", "a,").contains("is no name of an arm"));
    }
}
