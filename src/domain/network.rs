//! Whether our own network is down: then a target that cannot be reached says nothing about the target.
//!
//! Two witnesses are heard. The kernel, about the way to one address: without a route, or over a link without a
//! carrier, it is ours, whatever else is reached another way. And the other targets: when nothing is reached any more, and
//! several that were reached lately, in networks apart from each other, all fall silent within seconds, it is ours too.
//! Where they are few, or close together, their silence is believed: one dead host, one dead rack, is what the operator
//! wants to know.
//!
//! The first to fail are as innocent as the rest, so a failure that may be the network's is held for a moment, until
//! something else is reached, or the case is clear.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use super::sample::{Failure, Reason, Sample, SkipReason};
use super::timestamp::Timestamp;

/// A failure is held at most so long: the shortest interval, within which every other endpoint that is probed as often
/// has had its say.
pub const HOLD: Duration = Duration::from_secs(5);
/// Failures held at most; beyond it the oldest goes as it is. 8 192 = what 1 600 probes a second all fail in the hold,
/// in 2 MiB.
const HELD_MAX: usize = 8_192;
/// So many hosts that were reached lately have to fall silent...
const HOSTS_MIN: usize = 4;
/// ...in so many networks (the first 16 bits of an IPv4 address, 32 of an IPv6 one: seldom one site).
const NETWORKS_MIN: usize = 2;
/// Reached within this time is lately: twice the longest interval.
const LATELY: Duration = Duration::from_secs(600);
/// A probe that began so soon after the network came back may still have lost its first packets: TCP sends them again after
/// 1 and after 3 s.
const AFTERMATH: Duration = Duration::from_secs(3);
/// Hosts remembered at most; beyond it those not reached lately are forgotten, and then no more are learnt.
const HOSTS_MAX: usize = 100_000;

/// The kernel's view of the way to one address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// There is one.
    Open,
    /// No route, or its link has no carrier.
    Closed,
    /// No way to anything: no interface but the machine's own is up.
    Offline,
}

/// What a sample says about the network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Said {
    /// Something answered.
    Reached,
    /// Nothing did.
    Silent,
    /// Nothing: it is about this machine, or about ourselves.
    Nothing,
}

/// What `sample` says about the network. A target on this machine says nothing.
pub fn said(sample: &Sample) -> Said {
    if sample.remote_ip.is_some_and(|ip| ip.is_loopback()) {
        return Said::Nothing;
    }
    use Failure::{
        AddressDenied, ConnectError, ConnectTimeout, ConnectUnreachable, DnsError, DnsNotFound,
        DnsTimeout, ProcessingTimeout, TlsTimeout, TransferTimeout,
    };
    match sample.reason {
        Some(Reason::Failed(failure)) => match failure {
            DnsTimeout | ConnectUnreachable | ConnectTimeout => Said::Silent,
            // The way may have closed after the connection stood.
            TlsTimeout | ProcessingTimeout | TransferTimeout => Said::Silent,
            DnsNotFound | DnsError | ConnectError | AddressDenied => Said::Nothing,
            _ => Said::Reached,
        },
        Some(Reason::Skipped(_)) => Said::Nothing,
        _ if sample.remote_ip.is_some() => Said::Reached,
        _ => Said::Nothing,
    }
}

/// What changed in what the guard believes; each is to be said once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// The network is down, so many hosts say.
    Down {
        /// Those that fell silent; 0 when the kernel said it.
        hosts: usize,
    },
    /// It is up again.
    Up,
}

/// Believes, doubts, and holds what is in doubt. All times are since a fixed point of the monotonic clock.
#[derive(Default, Debug)]
pub struct NetworkGuard {
    /// When a host was last reached.
    reached: HashMap<IpAddr, Duration>,
    /// Hosts reached lately that have been silent since anything was reached, and since when.
    silent: HashMap<IpAddr, Duration>,
    held: VecDeque<(Duration, Sample)>,
    /// By the silence of several.
    is_down: bool,
    /// The last time that the kernel knew no way to a host that was reached before, or to any.
    closed_at: Option<Duration>,
    /// The last time that the silence was general.
    silent_at: Option<Duration>,
    /// What was said last.
    said_down: bool,
}

impl NetworkGuard {
    /// Takes a sample that says something about the network, and gives those that need not wait (any longer). `way` is
    /// asked only about addresses that fell silent.
    pub fn take(
        &mut self,
        now: Duration,
        mut sample: Sample,
        way: impl FnOnce(IpAddr) -> Way,
        out: &mut Vec<Sample>,
    ) {
        match said(&sample) {
            Said::Nothing => out.push(sample),
            Said::Reached => {
                if let Some(ip) = sample.remote_ip {
                    self.learn(ip, now);
                }
                self.silent.clear();
                if std::mem::take(&mut self.is_down) {
                    self.silent_at = Some(now);
                }
                self.release(out);
                out.push(sample);
            }
            Said::Silent => {
                let Some(ip) = sample.remote_ip else {
                    // A name that could not be asked for.
                    return self.doubt(now, sample, out);
                };
                let was_reached = self
                    .reached
                    .get(&ip)
                    .is_some_and(|&at| now.saturating_sub(at) <= LATELY);
                let is_ours = match way(ip) {
                    Way::Open => false,
                    Way::Closed => was_reached,
                    Way::Offline => true,
                };
                if is_ours {
                    self.closed_at = Some(now);
                }
                if is_ours || self.was_down_for(&sample, now) {
                    excuse(&mut sample);
                    out.push(sample);
                    return;
                }
                if was_reached {
                    self.silent.insert(ip, now);
                }
                self.doubt(now, sample, out);
            }
        }
    }

    /// Whether the network was down in the time of a probe that ends now, or just before it. By the kernel's word on any
    /// way: which of them the probe would have gone is not known afterwards.
    fn was_down_for(&self, sample: &Sample, now: Duration) -> bool {
        let took = Duration::from_micros(sample.duration_us.unwrap_or(0).into());
        let began = now.saturating_sub(took);
        let last = self.closed_at.max(self.silent_at);
        last.is_some_and(|at| at + AFTERMATH >= began)
    }

    fn doubt(&mut self, now: Duration, mut sample: Sample, out: &mut Vec<Sample>) {
        self.silent.retain(|_, at| now.saturating_sub(*at) <= HOLD);
        self.is_down = self.is_down || self.is_silence_general();
        if self.is_down {
            for (_, mut held) in self.held.drain(..) {
                excuse(&mut held);
                out.push(held);
            }
            excuse(&mut sample);
            out.push(sample);
            return;
        }
        if self.held.len() == HELD_MAX
            && let Some((_, oldest)) = self.held.pop_front()
        {
            out.push(oldest);
        }
        self.held.push_back((now, sample));
    }

    fn is_silence_general(&self) -> bool {
        if self.silent.len() < HOSTS_MIN {
            return false;
        }
        let mut networks: Vec<[u8; 4]> = self.silent.keys().map(|&ip| network(ip)).collect();
        networks.sort_unstable();
        networks.dedup();
        networks.len() >= NETWORKS_MIN
    }

    /// Gives what was held long enough, as it is.
    pub fn pass(&mut self, now: Duration, out: &mut Vec<Sample>) {
        while let Some((since, _)) = self.held.front()
            && now.saturating_sub(*since) >= HOLD
        {
            out.extend(self.held.pop_front().map(|(_, sample)| sample));
        }
    }

    /// Gives everything that is held, as it is.
    pub fn release(&mut self, out: &mut Vec<Sample>) {
        out.extend(self.held.drain(..).map(|(_, sample)| sample));
    }

    /// What changed since the last call. By the kernel's word it is down until that is as old as the hold: some of the
    /// machine's ways may be open meanwhile.
    pub fn change(&mut self, now: Duration) -> Option<Change> {
        let by_kernel = self
            .closed_at
            .is_some_and(|at| now.saturating_sub(at) <= HOLD * 2);
        let is_down = self.is_down || by_kernel;
        if is_down == self.said_down {
            return None;
        }
        self.said_down = is_down;
        Some(match is_down {
            true => Change::Down {
                hosts: self.silent.len(),
            },
            false => Change::Up,
        })
    }

    /// Samples that wait.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// The oldest tick among them: a death now would take it.
    pub fn oldest_held(&self) -> Option<Timestamp> {
        self.held
            .iter()
            .map(|(_, sample)| sample.scheduled_at)
            .min()
    }

    fn learn(&mut self, ip: IpAddr, now: Duration) {
        if self.reached.len() >= HOSTS_MAX && !self.reached.contains_key(&ip) {
            self.reached
                .retain(|_, at| now.saturating_sub(*at) <= LATELY);
            if self.reached.len() >= HOSTS_MAX {
                return;
            }
        }
        self.reached.insert(ip, now);
    }
}

/// Makes it the network's.
fn excuse(sample: &mut Sample) {
    let was = sample.reason.map_or("", Reason::label);
    let mut excused = Sample::skipped(
        sample.endpoint,
        sample.scheduled_at,
        SkipReason::NetworkDown,
    );
    excused.detail = Some(format!("the agent's own network is down: {was}").into());
    excused.remote_ip = sample.remote_ip;
    excused.bytes_sent = sample.bytes_sent;
    excused.bytes_received = sample.bytes_received;
    excused.cpu_us = sample.cpu_us;
    *sample = excused;
}

fn network(ip: IpAddr) -> [u8; 4] {
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            [a, b, 0, 4]
        }
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.octets();
            [a, b, c, d]
        }
    }
}

#[cfg(test)]
mod tests;
