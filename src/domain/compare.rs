//! How far two arms lie apart, and how sure that is.
//!
//! What is given: the samples of both arms of the same endpoints over the same time, each taken as its distance from the
//! middle of its endpoint (half-way between the arms' medians, the same for both arms), so that a fast and a slow endpoint can be put into one pool;
//! and weighted so that every endpoint has the same weight in both arms. What is told: the difference of the pools'
//! medians, 95th and 99th percentiles, and of shares and means, each with a 95 % interval.
//!
//! Samples are not independent: a bad minute hits many endpoints, and an endpoint has its own habits. So whole groups of
//! endpoints and whole blocks of time are resampled (cluster bootstrap: Davison and Hinkley, Bootstrap Methods and their
//! Application, 1997, 3.8), and the variances are put together as for two-way clustering, `V = V_groups + V_blocks −
//! V_cells`, never below either of the first two (Cameron, Gelbach and Miller, Robust Inference With Multiway Clustering,
//! J. Business & Economic Statistics 29, 2011). The interval is `difference ± t · sqrt(V)` with one degree of freedom
//! fewer than there are groups or blocks, whichever are fewer. Where endpoints are too few to resample, blocks alone are:
//! the interval then speaks of these endpoints only. The random numbers are the same in every run.

mod paired;

use std::collections::HashMap;

pub use self::paired::{Cell, Paired, Probes};

/// Groups of endpoints and blocks of time, at most: more would narrow the interval by less than 3 % (t at 39 degrees of
/// freedom is 2.02, at any number 1.96).
pub const CLUSTERS_MAX: usize = 40;
/// Fewer say nothing of chance.
pub const CLUSTERS_MIN: usize = 8;
/// A block is no shorter than the shortest interval of an endpoint, in seconds.
pub const BLOCK_S_MIN: f64 = 5.0;
/// The quantiles that are compared.
pub const QUANTILES: [f64; 3] = [0.5, 0.95, 0.99];

/// Samples beyond a quantile, at least, in each arm.
const BEYOND_MIN: f64 = 5.0;
const SAMPLES_MIN: f64 = 20.0;
/// Resamplings: the deviation of 999 is known to some 2 %.
const RESAMPLES: usize = 999;
/// Of cells, which are many and alike, and whose variance is only taken off.
const CELL_RESAMPLES: usize = 299;

/// One of the two arms.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The first.
    A,
    /// The second.
    B,
}

/// Samples of one side, of a group of endpoints in a block of time, in one bin.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Mass {
    /// Which endpoints.
    pub group: u32,
    /// Which time.
    pub block: u32,
    /// Whose.
    pub side: Side,
    /// How far from the middle of the endpoint: see [`bin_middle`].
    pub bin: i32,
    /// How many, weighted.
    pub weight: f64,
}

/// A numerator and a denominator of one side, of a group of endpoints in a block of time.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Part {
    /// Which endpoints.
    pub group: u32,
    /// Which time.
    pub block: u32,
    /// Whose.
    pub side: Side,
    /// What is shared out or averaged, weighted.
    pub sum: f64,
    /// Over what, weighted.
    pub of: f64,
}

/// What was found of one figure.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Difference {
    /// Of the first arm.
    pub a: f64,
    /// Of the second.
    pub b: f64,
    /// The lower end of the 95 % interval of `b − a`.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

impl Difference {
    /// The second arm's less the first's.
    pub fn difference(&self) -> f64 {
        self.b - self.a
    }

    /// Whether the interval leaves out zero.
    pub fn is_clear(&self) -> bool {
        self.low > 0.0 || self.high < 0.0
    }
}

/// Why nothing can be told.
#[derive(Clone, Copy, PartialEq, Debug, thiserror::Error)]
pub enum TooLittle {
    /// Samples of the arm that has fewer.
    #[error("{found:.0} samples in one arm, {needed:.0} are needed")]
    Samples {
        /// There are so many.
        found: f64,
        /// So many are needed.
        needed: f64,
    },
    /// Blocks of time in which both arms have samples.
    #[error("both arms have samples in {found} blocks of time, in {CLUSTERS_MIN} they need to")]
    Blocks {
        /// There are so many.
        found: usize,
    },
}

/// The bin of a distance in µs: see [`bin_middle`].
pub fn bin_of(distance: f64) -> i32 {
    let from_zero = distance.abs();
    if from_zero < 256.0 {
        return distance.round_ties_even() as i32;
    }
    (distance.signum() * (256.0 + ((from_zero / 256.0).ln() * 256.0).floor())) as i32
}

/// The middle and the width of a bin, µs. A bin is 1 µs within 256 µs of zero, and from there on 1/256 of the distance.
pub fn bin_middle(bin: i32) -> (f64, f64) {
    let from_zero = f64::from(bin.unsigned_abs());
    if from_zero < 256.0 {
        return (f64::from(bin), 1.0);
    }
    let lower = 256.0 * ((from_zero - 256.0) / 256.0).exp();
    let upper = 256.0 * ((from_zero - 255.0) / 256.0).exp();
    (
        f64::from(bin.signum()) * (lower + upper) / 2.0,
        upper - lower,
    )
}

/// The differences of [`QUANTILES`].
pub fn quantiles(masses: &[Mass]) -> [Result<Difference, TooLittle>; QUANTILES.len()] {
    let both = |side| -> f64 {
        let of_side = masses.iter().filter(|mass| mass.side == side);
        of_side.map(|mass| mass.weight).sum()
    };
    let found = both(Side::A).min(both(Side::B));
    if found < 0.5 {
        // Of blocks there is nothing to say either.
        let needed = SAMPLES_MIN;
        return QUANTILES.map(|_| Err(TooLittle::Samples { found, needed }));
    }
    let places = masses.iter().map(|m| (m.group, m.block, m.side));
    let design = match Design::of(places) {
        Ok(design) => design,
        Err(shortage) => return QUANTILES.map(|_| Err(shortage)),
    };
    let pool = |by| Pool::of(masses, &design, by);
    let at = pool(By::Block).quantiles(&vec![1.0; design.count(By::Block)]);
    let Some(at) = at else {
        return QUANTILES.map(|_| {
            Err(TooLittle::Samples {
                found,
                needed: SAMPLES_MIN,
            })
        });
    };
    let errors = design.errors(|by| {
        let pool = pool(by);
        move |times: &[f64]| {
            let found = pool.quantiles(times)?;
            Some(found.map(|[a, b]| bin_middle(b).0 - bin_middle(a).0))
        }
    });
    std::array::from_fn(|i| {
        let needed = (BEYOND_MIN / (1.0 - QUANTILES[i])).max(SAMPLES_MIN);
        // Weights are counts but for rounding.
        if found + 0.5 < needed {
            return Err(TooLittle::Samples { found, needed });
        }
        let [(a, a_width), (b, b_width)] = at[i].map(bin_middle);
        // A bin does not say where in it a sample lies.
        let half = errors[i] + (a_width + b_width) / 2.0;
        Ok(Difference {
            a,
            b,
            low: b - a - half,
            high: b - a + half,
        })
    })
}

/// The difference of a share, or of a mean: `sum / of`.
pub fn ratio(parts: &[Part]) -> Result<Difference, TooLittle> {
    let design = Design::of(parts.iter().map(|p| (p.group, p.block, p.side)))?;
    let of = |by| {
        let mut sums = vec![[[0.0; 2]; 2]; design.count(by)];
        for part in parts {
            let sum = &mut sums[design.cluster(by, part.group, part.block)][part.side as usize];
            sum[0] += part.sum;
            sum[1] += part.of;
        }
        sums
    };
    let both = |sums: &[[[f64; 2]; 2]], times: &[f64]| {
        let mut all = [[0.0; 2]; 2];
        for (sum, times) in sums.iter().zip(times) {
            for side in 0..2 {
                all[side][0] += sum[side][0] * times;
                all[side][1] += sum[side][1] * times;
            }
        }
        let is_known = all.iter().all(|side| side[1] > 0.0);
        is_known.then(|| all.map(|[sum, of]| sum / of))
    };
    let found = [Side::A, Side::B].map(|side| {
        let of_side = parts.iter().filter(|part| part.side == side);
        of_side.map(|part| part.of).sum::<f64>()
    });
    let found = found[0].min(found[1]);
    let known = both(&of(By::Block), &vec![1.0; design.count(By::Block)]);
    let Some([a, b]) = known.filter(|_| found + 0.5 >= SAMPLES_MIN) else {
        return Err(TooLittle::Samples {
            found,
            needed: SAMPLES_MIN,
        });
    };
    let [half] = design.errors(|by| {
        let sums = of(by);
        move |times: &[f64]| both(&sums, times).map(|[a, b]| [b - a])
    });
    Ok(Difference {
        a,
        b,
        low: b - a - half,
        high: b - a + half,
    })
}

/// The difference of a share: as [`ratio`], and no surer than so many independent samples would be. Where nothing was
/// down, or all of it, every resampling says the same, which is not to say that there is no chance in it: the interval
/// then is that of Agresti and Caffo (Simple and Effective Confidence Intervals for Proportions and Differences of
/// Proportions, The American Statistician 54, 2000), one success and one failure more in each arm.
pub fn share(parts: &[Part]) -> Result<Difference, TooLittle> {
    let found = ratio(parts)?;
    let variance: f64 = [Side::A, Side::B]
        .iter()
        .map(|side| {
            let of_side = || parts.iter().filter(|part| part.side == *side);
            let of = of_side().map(|part| part.of).sum::<f64>() + 2.0;
            let share = (of_side().map(|part| part.sum).sum::<f64>() + 1.0) / of;
            share * (1.0 - share) / of
        })
        .sum();
    let half = NORMAL * variance.sqrt();
    let difference = found.difference();
    Ok(Difference {
        low: found.low.min(difference - half),
        high: found.high.max(difference + half),
        ..found
    })
}

/// What is resampled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum By {
    Group,
    Block,
    Cell,
}

/// Which groups, blocks and cells there are, numbered without holes.
struct Design {
    groups: HashMap<u32, usize>,
    blocks: HashMap<u32, usize>,
    cells: HashMap<(u32, u32), usize>,
}

impl Design {
    fn of(places: impl Iterator<Item = (u32, u32, Side)>) -> Result<Self, TooLittle> {
        let mut design = Self {
            groups: HashMap::new(),
            blocks: HashMap::new(),
            cells: HashMap::new(),
        };
        let mut sides: HashMap<u32, [bool; 2]> = HashMap::new();
        for (group, block, side) in places {
            let next = design.groups.len();
            design.groups.entry(group).or_insert(next);
            let next = design.blocks.len();
            design.blocks.entry(block).or_insert(next);
            let next = design.cells.len();
            design.cells.entry((group, block)).or_insert(next);
            sides.entry(block).or_default()[side as usize] = true;
        }
        let found = sides.values().filter(|has| has[0] && has[1]).count();
        if found < CLUSTERS_MIN {
            return Err(TooLittle::Blocks { found });
        }
        Ok(design)
    }

    fn count(&self, by: By) -> usize {
        match by {
            By::Group => self.groups.len(),
            By::Block => self.blocks.len(),
            By::Cell => self.cells.len(),
        }
    }

    fn cluster(&self, by: By, group: u32, block: u32) -> usize {
        match by {
            By::Group => self.groups[&group],
            By::Block => self.blocks[&block],
            By::Cell => self.cells[&(group, block)],
        }
    }

    /// Half the length of the 95 % interval of each statistic. `of` prepares, for what is resampled, the function from how
    /// often each cluster was drawn to the statistics.
    fn errors<const N: usize, F>(&self, of: impl Fn(By) -> F) -> [f64; N]
    where
        F: Fn(&[f64]) -> Option<[f64; N]>,
    {
        let variance = |by| resample(self.count(by), resamples(by), of(by));
        let by_block: [f64; N] = variance(By::Block);
        let (blocks, groups) = (self.count(By::Block), self.count(By::Group));
        if groups < CLUSTERS_MIN {
            return by_block.map(|v| student(blocks - 1) * v.sqrt());
        }
        let by_group: [f64; N] = variance(By::Group);
        let by_cell: [f64; N] = variance(By::Cell);
        std::array::from_fn(|i| {
            let both = by_group[i] + by_block[i] - by_cell[i];
            let variance = both.max(by_group[i]).max(by_block[i]);
            student(blocks.min(groups) - 1) * variance.sqrt()
        })
    }
}

fn resamples(by: By) -> usize {
    match by {
        By::Cell => CELL_RESAMPLES,
        By::Group | By::Block => RESAMPLES,
    }
}

/// The variance of each statistic when `clusters` are drawn anew, with repetition, `times` over, corrected for the draw
/// being from a sample. The variance and not the spread of the middle 95 %: where one bad block makes the tail, a third of
/// the resamplings lack it and the rest have it, and that spread would be far too narrow.
fn resample<const N: usize>(
    clusters: usize,
    times: usize,
    statistic: impl Fn(&[f64]) -> Option<[f64; N]>,
) -> [f64; N] {
    let mut random = Random(0x5EED);
    let mut drawn = vec![0.0; clusters];
    let mut found: Vec<[f64; N]> = Vec::with_capacity(times);
    for _ in 0..times {
        drawn.fill(0.0);
        for _ in 0..clusters {
            drawn[random.below(clusters)] += 1.0;
        }
        // Without one side there is nothing to tell; rare, with eight clusters or more that hold both.
        found.extend(statistic(&drawn));
    }
    std::array::from_fn(|i| {
        let (n, clusters) = (found.len() as f64, clusters as f64);
        let mean = found.iter().map(|row| row[i]).sum::<f64>() / n;
        let squares: f64 = found.iter().map(|row| (row[i] - mean).powi(2)).sum();
        squares / (n - 1.0).max(1.0) * clusters / (clusters - 1.0)
    })
}

/// The normal distribution's 97.5th percentile.
const NORMAL: f64 = 1.959_963_985;

/// Student's, by Fisher's expansion (Abramowitz and Stegun, 26.7.5): to 0.001 from 7 degrees of freedom on.
fn student(freedom: usize) -> f64 {
    let (z, n) = (NORMAL, freedom as f64);
    let power = |p: i32| z.powi(p);
    z + (power(3) + z) / (4.0 * n)
        + (5.0 * power(5) + 16.0 * power(3) + 3.0 * z) / (96.0 * n * n)
        + (3.0 * power(7) + 19.0 * power(5) + 17.0 * power(3) - 15.0 * z) / (384.0 * n * n * n)
}

/// Both sides' samples in order, those of one cluster and bin together.
struct Pool {
    sides: [Vec<Pooled>; 2],
    /// Weight of each cluster.
    totals: [Vec<f64>; 2],
}

struct Pooled {
    bin: i32,
    cluster: u32,
    weight: f64,
}

impl Pool {
    fn of(masses: &[Mass], design: &Design, by: By) -> Self {
        let mut sides = [Vec::new(), Vec::new()];
        let mut totals = [vec![0.0; design.count(by)], vec![0.0; design.count(by)]];
        for mass in masses {
            let cluster = design.cluster(by, mass.group, mass.block);
            totals[mass.side as usize][cluster] += mass.weight;
            sides[mass.side as usize].push(Pooled {
                bin: mass.bin,
                cluster: cluster as u32,
                weight: mass.weight,
            });
        }
        for side in &mut sides {
            side.sort_unstable_by_key(|pooled| (pooled.bin, pooled.cluster));
            side.dedup_by(|next, kept| {
                let same = (next.bin, next.cluster) == (kept.bin, kept.cluster);
                if same {
                    kept.weight += next.weight;
                }
                same
            });
        }
        Self { sides, totals }
    }

    /// The bins of the quantiles of both sides, when each cluster is there so many times; none when a side is empty.
    fn quantiles(&self, times: &[f64]) -> Option<[[i32; 2]; QUANTILES.len()]> {
        let mut found = [[0; 2]; QUANTILES.len()];
        for (side, (pooled, totals)) in self.sides.iter().zip(&self.totals).enumerate() {
            let total: f64 = totals.iter().zip(times).map(|(w, n)| w * n).sum();
            if total <= 0.0 {
                return None;
            }
            let mut sum = 0.0;
            let mut next = 0;
            for item in pooled {
                sum += item.weight * times[item.cluster as usize];
                // Sums of the same numbers in another order differ in their last digits.
                while next < QUANTILES.len() && sum >= total * (QUANTILES[next] - 1e-9) {
                    found[next][side] = item.bin;
                    next += 1;
                }
                if next == QUANTILES.len() {
                    break;
                }
            }
        }
        Some(found)
    }
}

/// SplitMix64 (Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators, 2014).
#[derive(Clone, PartialEq, Debug, Default)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        ((u128::from(self.next()) * limit as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests;
