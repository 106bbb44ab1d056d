//! Which endpoints a process owns.

use std::fmt;
use std::str::FromStr;

use super::endpoint::EndpointId;
use super::timestamp::Timestamp;

/// Share `index` of `count`: an endpoint is owned when `id mod count = index`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Partition {
    index: u32,
    count: u32,
}

/// The text is not `I/N` with `0 <= I < N <= 65536`.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("partition {0:?} is not I/N with 0 <= I < N <= 65536, for example 0/2")]
pub struct PartitionError(pub String);

impl Partition {
    /// Everything.
    pub const ALL: Self = Self { index: 0, count: 1 };

    /// Share `index` of `count`.
    pub fn new(index: u32, count: u32) -> Result<Self, PartitionError> {
        if index < count && count <= 65_536 {
            Ok(Self { index, count })
        } else {
            Err(PartitionError(format!("{index}/{count}")))
        }
    }

    /// Which share, from 0.
    pub const fn index(self) -> u32 {
        self.index
    }

    /// Of how many.
    pub const fn count(self) -> u32 {
        self.count
    }

    /// Whether this process probes `endpoint` at `at`. Static today; asked for every tick, so that ownership may move.
    pub const fn owns(self, endpoint: EndpointId, _at: Timestamp) -> bool {
        endpoint.0.rem_euclid(self.count as i64) == self.index as i64
    }
}

impl FromStr for Partition {
    type Err = PartitionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text
            .split_once('/')
            .and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        match parts {
            Some((index, count)) => {
                Self::new(index, count).map_err(|_| PartitionError(text.to_owned()))
            }
            None => Err(PartitionError(text.to_owned())),
        }
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_has_exactly_one_owner() {
        for count in 1..=7 {
            for id in [i64::MIN, -3, -1, 0, 1, 2, 3, 41, i64::MAX] {
                let owners = (0..count)
                    .filter(|&i| {
                        Partition::new(i, count)
                            .unwrap()
                            .owns(EndpointId(id), Timestamp::default())
                    })
                    .count();
                assert_eq!(owners, 1, "id {id} among {count}");
            }
        }
    }

    #[test]
    fn text_is_index_of_count() {
        assert_eq!("1/2".parse(), Partition::new(1, 2));
        for bad in ["", "1", "2/2", "-1/2", "0/0", "a/b", "0/65537", "0/2/3"] {
            assert_eq!(
                bad.parse::<Partition>(),
                Err(PartitionError(bad.to_owned()))
            );
        }
    }
}
