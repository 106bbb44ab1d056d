//! What a set of endpoints needs of cores, memory and disk, by arithmetic over what was measured.

use std::time::Duration;

/// Of a core, what probes may take: above that starts are late, and the latency reported is the agent's own.
pub const CORE_SHARE_MAX: f64 = 0.65;
/// Descriptors of a process that are not sockets of probes.
pub const DESCRIPTORS_BESIDE: u64 = 64;
/// Bytes of one sample in the spool: measured, 49, with room for its batch's head.
pub const SPOOL_BYTES_PER_SAMPLE: f64 = 52.0;
/// A month, as prices count it.
pub const MONTH: Duration = Duration::from_secs(730 * 3_600);
const DAY_S: f64 = 86_400.0;

/// What is to be probed at one location.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Load {
    /// Endpoints.
    pub endpoints: u64,
    /// Probes that fall due a second.
    pub probes_per_s: f64,
    /// Probes under way if every one took its whole timeout.
    pub in_flight_worst: f64,
}

impl Load {
    /// With `count` more endpoints of one interval and timeout.
    pub fn with(self, count: u64, interval: Duration, timeout: Duration) -> Self {
        let rate = count as f64 / interval.as_secs_f64();
        Self {
            endpoints: self.endpoints + count,
            probes_per_s: self.probes_per_s + rate,
            in_flight_worst: self.in_flight_worst + rate * timeout.as_secs_f64(),
        }
    }
}

/// What one probe takes, by measurement.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ProbeCost {
    /// Of the whole agent: CPU time of its processes by the probes they made, µs.
    pub cpu_us: f64,
    /// How long one takes, s.
    pub duration_s: f64,
    /// Of its row in the table, index included, before compression.
    pub stored_bytes: f64,
    /// On the wire.
    pub sent_bytes: f64,
    /// On the wire.
    pub received_bytes: f64,
}

/// What there is at one location, or is meant to be.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Room {
    /// Agent processes, one a core.
    pub processes: u32,
    /// Probes under way at most in one process.
    pub in_flight_max: u64,
    /// Open files that one process may have.
    pub descriptors: u64,
    /// Size of one process's spool at most.
    pub spool_bytes: u64,
}

/// What it comes to.
#[derive(Clone, PartialEq, Debug)]
pub struct Plan {
    /// Cores that the probes keep busy.
    pub cores: f64,
    /// Processes that keep each core below [`CORE_SHARE_MAX`].
    pub processes_wanted: u32,
    /// Probes under way as a rule.
    pub in_flight: f64,
    /// Probes under way if every one took its whole timeout.
    pub in_flight_worst: f64,
    /// Open files of one process then.
    pub descriptors_worst: u64,
    /// Rows a day.
    pub rows_per_day: f64,
    /// Growth of the table in a month, bytes, before compression.
    pub stored_bytes_per_month: f64,
    /// Traffic of a month, both ways, bytes.
    pub traffic_bytes_per_month: f64,
    /// How long an outage of the database the spools hold.
    pub spool_holds: Duration,
    /// Limits that are met, or nearly.
    pub warnings: Vec<Warning>,
}

/// A limit that is met, or nearly.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Warning {
    /// Each process would use more of its core than [`CORE_SHARE_MAX`].
    Cores {
        /// Of one core.
        share: f64,
    },
    /// More probes under way than allowed, as a rule: many will be skipped.
    InFlight {
        /// As a rule.
        usual: f64,
        /// At most, all processes.
        max: u64,
    },
    /// More probes under way than allowed when all targets hang at once: some will be skipped.
    InFlightWorst {
        /// If every probe took its whole timeout.
        worst: f64,
        /// At most, all processes.
        max: u64,
    },
    /// Fewer open files than the probes allowed under way need.
    Descriptors {
        /// One process may have.
        limit: u64,
        /// It may come to need.
        needed: u64,
    },
    /// The spools are full after less than an hour without the database.
    Spool {
        /// After this.
        holds: Duration,
    },
}

/// Puts load, costs and room together.
pub fn plan(load: Load, cost: ProbeCost, room: Room) -> Plan {
    let processes = u64::from(room.processes.max(1));
    let cores = load.probes_per_s * cost.cpu_us / 1e6;
    let in_flight = load.probes_per_s * cost.duration_s;
    let in_flight_max = room.in_flight_max.saturating_mul(processes);
    let worst_of_one = (load.in_flight_worst / processes as f64).ceil() as u64;
    let descriptors_worst = worst_of_one.min(room.in_flight_max) + DESCRIPTORS_BESIDE;
    let spool_s =
        (room.spool_bytes * processes) as f64 / (load.probes_per_s * SPOOL_BYTES_PER_SAMPLE);
    // More than a century is no plan.
    let spool_holds = Duration::try_from_secs_f64(spool_s)
        .unwrap_or(Duration::MAX)
        .min(MONTH * 1_200);
    let share = cores / processes as f64;

    let mut warnings = Vec::new();
    if share > CORE_SHARE_MAX {
        warnings.push(Warning::Cores { share });
    }
    if in_flight > in_flight_max as f64 {
        warnings.push(Warning::InFlight {
            usual: in_flight,
            max: in_flight_max,
        });
    } else if load.in_flight_worst > in_flight_max as f64 {
        warnings.push(Warning::InFlightWorst {
            worst: load.in_flight_worst,
            max: in_flight_max,
        });
    }
    if descriptors_worst > room.descriptors {
        warnings.push(Warning::Descriptors {
            limit: room.descriptors,
            needed: descriptors_worst,
        });
    }
    if room.spool_bytes > 0 && load.probes_per_s > 0.0 && spool_holds < Duration::from_secs(3_600) {
        warnings.push(Warning::Spool { holds: spool_holds });
    }
    Plan {
        cores,
        processes_wanted: ((cores / CORE_SHARE_MAX).ceil() as u32).max(1),
        in_flight,
        in_flight_worst: load.in_flight_worst,
        descriptors_worst,
        rows_per_day: load.probes_per_s * DAY_S,
        stored_bytes_per_month: load.probes_per_s * cost.stored_bytes * MONTH.as_secs_f64(),
        traffic_bytes_per_month: load.probes_per_s
            * (cost.sent_bytes + cost.received_bytes)
            * MONTH.as_secs_f64(),
        spool_holds,
        warnings,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COST: ProbeCost = ProbeCost {
        cpu_us: 100.0,
        duration_s: 0.2,
        stored_bytes: 150.0,
        sent_bytes: 100.0,
        received_bytes: 900.0,
    };
    const ROOM: Room = Room {
        processes: 2,
        in_flight_max: 4_000,
        descriptors: 65_536,
        spool_bytes: 1 << 30,
    };

    fn load(count: u64) -> Load {
        let (interval, timeout) = (Duration::from_secs(5), Duration::from_secs(5));
        Load::default().with(count, interval, timeout)
    }

    #[test]
    fn rates_follow_from_intervals() {
        let plan = plan(load(10_000), COST, ROOM);
        assert_eq!(plan.cores, 0.2);
        assert_eq!(plan.processes_wanted, 1);
        assert_eq!(plan.in_flight, 400.0);
        assert_eq!(plan.rows_per_day, 172_800_000.0);
        assert_eq!(plan.stored_bytes_per_month, 2_000.0 * 150.0 * 2_628_000.0);
        assert_eq!(plan.spool_holds.as_secs(), 20_648);
    }

    #[test]
    fn each_limit_warns_before_it_is_met() {
        let of = |count, cost, room| plan(load(count), cost, room).warnings;
        assert_eq!(of(1_000, COST, ROOM), []);
        let warnings = of(70_000, COST, ROOM);
        assert!(matches!(warnings[..], [Warning::Cores { share: 0.7 }, ..]));
        let hanging = of(10_000, COST, ROOM);
        assert!(matches!(hanging[..], [Warning::InFlightWorst { .. }]));
        let slow = ProbeCost {
            duration_s: 4.5,
            ..COST
        };
        assert!(matches!(
            of(10_000, slow, ROOM)[..],
            [Warning::InFlight {
                usual: 9_000.0,
                max: 8_000
            }]
        ));
        let few = Room {
            descriptors: 256,
            ..ROOM
        };
        assert!(matches!(
            of(1_000, COST, few)[..],
            [Warning::Descriptors {
                limit: 256,
                needed: 564
            }]
        ));
        let small = Room {
            spool_bytes: 1 << 20,
            ..ROOM
        };
        assert!(matches!(
            of(1_000, COST, small)[..],
            [Warning::Spool { .. }]
        ));
    }

    #[test]
    fn nothing_to_probe_needs_nothing() {
        let plan = plan(Load::default(), COST, ROOM);
        assert_eq!((plan.cores, plan.processes_wanted), (0.0, 1));
        assert_eq!(plan.warnings, []);
    }
}
