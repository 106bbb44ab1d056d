//! Samples of two arms, put together endpoint by endpoint.

use super::{CLUSTERS_MAX, Mass, Part, Random, Side, bin_of};

/// Masses are put together when so many have come since the last time: 24 MB.
const COMPACT_AT: usize = 1_000_000;

/// What one arm measured at one endpoint in one block of time.
#[derive(Clone, PartialEq, Debug)]
pub struct Cell {
    /// Which arm.
    pub side: Side,
    /// Which block.
    pub block: u32,
    /// Probes: all that was not skipped.
    pub probed: f64,
    /// Of these, those that were down.
    pub down: f64,
    /// CPU time of them all, µs.
    pub cpu_us: f64,
    /// What is compared, µs: of what was up or degraded and not suspect.
    pub values: Vec<i32>,
}

/// Probes of one side, of a group of endpoints in a block of time.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Probes {
    group: u32,
    block: u32,
    side: Side,
    probed: f64,
    down: f64,
    cpu_us: f64,
}

impl Probes {
    /// For the share that is down.
    pub fn failures(&self) -> Part {
        self.part(self.down)
    }

    /// For the mean CPU time.
    pub fn cost(&self) -> Part {
        self.part(self.cpu_us)
    }

    fn part(&self, sum: f64) -> Part {
        Part {
            group: self.group,
            block: self.block,
            side: self.side,
            sum,
            of: self.probed,
        }
    }
}

/// The endpoints that both arms probed.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Paired {
    /// The values, for quantiles. Each is there once for its group, block, side and bin after [`Paired::finish`].
    pub masses: Vec<Mass>,
    /// Probes, those that were down, and their CPU time.
    pub probes: Vec<Probes>,
    /// How many endpoints (at a location) there are.
    pub endpoints: u32,
    /// The median of the endpoints' middles, µs.
    pub middle: f64,
    /// At how many each arm has the lower median.
    pub lower_at: [i64; 2],
    middles: Vec<f64>,
    compacted: usize,
    groups: Vec<u32>,
    random: Random,
}

impl Paired {
    /// Adds an endpoint (at a location), with all its cells.
    ///
    /// It is to weigh the same in both arms: as much as in the arm that has less of it. Its middle lies half-way between
    /// the arms' medians: the median of both together would be now the one's, now the other's where they lie apart.
    pub fn add(&mut self, cells: &[Cell]) {
        let probed = both(cells, |cell| cell.probed);
        if probed.contains(&0.0) {
            return;
        }
        self.endpoints += 1;
        let group = self.next_group();
        let weights = probed.map(|of_side| probed[0].min(probed[1]) / of_side);
        for cell in cells.iter().filter(|cell| cell.probed > 0.0) {
            let weight = weights[cell.side as usize];
            self.probes.push(Probes {
                group,
                block: cell.block,
                side: cell.side,
                probed: cell.probed * weight,
                down: cell.down * weight,
                cpu_us: cell.cpu_us * weight,
            });
        }
        let [Some(a), Some(b)] = [Side::A, Side::B].map(|side| median(cells, side)) else {
            return;
        };
        let middle = f64::midpoint(a.into(), b.into());
        self.middles.push(middle);
        self.lower_at[0] += i64::from(a < b);
        self.lower_at[1] += i64::from(b < a);
        let usable = both(cells, |cell| cell.values.len() as f64);
        let weights = usable.map(|of_side| usable[0].min(usable[1]) / of_side);
        for cell in cells {
            self.masses.extend(cell.values.iter().map(|&value| Mass {
                group,
                block: cell.block,
                side: cell.side,
                bin: bin_of(f64::from(value) - middle),
                weight: weights[cell.side as usize],
            }));
        }
        if self.masses.len() >= self.compacted + COMPACT_AT {
            self.compact();
        }
    }

    /// After the last endpoint.
    pub fn finish(&mut self) {
        self.compact();
        self.probes
            .sort_by_key(|of| (of.group, of.block, of.side as u8));
        self.probes.dedup_by(|next, kept| {
            let same = (next.group, next.block, next.side) == (kept.group, kept.block, kept.side);
            if same {
                kept.probed += next.probed;
                kept.down += next.down;
                kept.cpu_us += next.cpu_us;
            }
            same
        });
        self.middles.sort_unstable_by(f64::total_cmp);
        self.middle = lower_middle(&self.middles).unwrap_or_default();
    }

    /// Groups are of one size, and say nothing of the order in which endpoints come: neighbours have much in common, and
    /// every other one may be of another kind.
    fn next_group(&mut self) -> u32 {
        if self.groups.is_empty() {
            self.groups = (0..CLUSTERS_MAX as u32).collect();
            for last in (1..CLUSTERS_MAX).rev() {
                let other = self.random.below(last + 1);
                self.groups.swap(last, other);
            }
        }
        self.groups.pop().unwrap_or_default()
    }

    fn compact(&mut self) {
        let key = |mass: &Mass| (mass.group, mass.block, mass.side as u8, mass.bin);
        // Stable, so that sums do not depend on how the sort goes about it.
        self.masses.sort_by_key(key);
        self.masses.dedup_by(|next, kept| {
            let same = key(next) == key(kept);
            if same {
                kept.weight += next.weight;
            }
            same
        });
        self.compacted = self.masses.len();
    }
}

fn both(cells: &[Cell], of: impl Fn(&Cell) -> f64) -> [f64; 2] {
    let mut sums = [0.0; 2];
    for cell in cells {
        sums[cell.side as usize] += of(cell);
    }
    sums
}

fn median(cells: &[Cell], side: Side) -> Option<i32> {
    let of_side = cells.iter().filter(|cell| cell.side == side);
    let mut values: Vec<i32> = of_side.flat_map(|cell| &cell.values).copied().collect();
    values.sort_unstable();
    lower_middle(&values)
}

/// The first of the sorted values below or at which half of them lie.
fn lower_middle<T: Copy>(sorted: &[T]) -> Option<T> {
    sorted.get(sorted.len().saturating_sub(1) / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(side: Side, block: u32, values: &[i32]) -> Cell {
        Cell {
            side,
            block,
            probed: values.len() as f64,
            down: 0.0,
            cpu_us: 10.0 * values.len() as f64,
            values: values.to_vec(),
        }
    }

    #[test]
    fn an_endpoint_weighs_as_much_as_in_the_arm_that_has_less_of_it() {
        let mut paired = Paired::default();
        paired.add(&[
            cell(Side::A, 0, &[100, 100]),
            cell(Side::A, 1, &[100, 120]),
            cell(Side::B, 1, &[140]),
        ]);
        paired.finish();
        let bins: Vec<_> = paired
            .masses
            .iter()
            .map(|m| (m.block, m.side, m.bin, m.weight))
            .collect();
        // The middle is 120, half-way between the medians 100 and 140.
        assert_eq!(
            bins,
            [
                (0, Side::A, -20, 0.5),
                (1, Side::A, -20, 0.25),
                (1, Side::A, 0, 0.25),
                (1, Side::B, 20, 1.0)
            ]
        );
        assert_eq!((paired.middle, paired.lower_at), (120.0, [1, 0]));
        let probed: f64 = paired.probes.iter().map(|p| p.failures().of).sum();
        assert_eq!(probed, 2.0);
    }

    #[test]
    fn an_endpoint_of_one_arm_counts_for_nothing_and_one_without_values_for_its_probes() {
        let mut paired = Paired::default();
        paired.add(&[cell(Side::A, 0, &[1, 2, 3])]);
        let down = |side| Cell {
            probed: 3.0,
            down: 3.0,
            ..cell(side, 0, &[])
        };
        paired.add(&[down(Side::A), down(Side::B)]);
        paired.add(&[]);
        paired.finish();
        assert_eq!(
            (paired.endpoints, paired.masses.len(), paired.middle),
            (1, 0, 0.0)
        );
        let failures: Vec<_> = paired
            .probes
            .iter()
            .map(|p| (p.failures().sum, p.failures().of))
            .collect();
        assert_eq!(failures, [(3.0, 3.0), (3.0, 3.0)]);
    }

    #[test]
    fn groups_are_of_one_size_and_in_no_order() {
        let mut paired = Paired::default();
        let groups: Vec<u32> = (0..120).map(|_| paired.next_group()).collect();
        for round in groups.chunks(CLUSTERS_MAX) {
            let mut sorted = round.to_vec();
            sorted.sort_unstable();
            assert!(sorted.into_iter().eq(0..CLUSTERS_MAX as u32));
        }
        assert_ne!(groups[..40], groups[40..80]);
    }
}
