//! Stories of an agent with hosts `10.<network>.0.<host>`.

use super::*;
use crate::domain::{EndpointId, Timestamp};

const UNREACHABLE: Option<Reason> = Some(Reason::Failed(Failure::ConnectUnreachable));
const TIMEOUT: Option<Reason> = Some(Reason::Failed(Failure::ConnectTimeout));
const REFUSED: Option<Reason> = Some(Reason::Failed(Failure::ConnectRefused));
const EXCUSED: &str = "network_down";

fn host(network: u8, host: u8) -> IpAddr {
    IpAddr::from([10, network, 0, host])
}

#[derive(Default)]
struct Agent {
    guard: NetworkGuard,
    now: Duration,
    way: Option<Way>,
    out: Vec<Sample>,
}

impl Agent {
    /// That has reached two hosts in each of three networks.
    fn settled() -> Self {
        let mut agent = Self::default();
        for network in 1..=3 {
            for n in 1..=2 {
                agent.sees(host(network, n), None);
            }
        }
        agent.stored();
        agent
    }

    fn sees(&mut self, ip: IpAddr, reason: Option<Reason>) {
        self.now += Duration::from_millis(100);
        let mut sample = Sample::new(EndpointId(1), Timestamp::default());
        sample.remote_ip = Some(ip);
        sample.reason = reason;
        let way = self.way.unwrap_or(Way::Open);
        self.guard.take(self.now, sample, |_| way, &mut self.out);
    }

    fn waits(&mut self, time: Duration) {
        self.now += time;
        self.guard.pass(self.now, &mut self.out);
    }

    /// Labels of what was let go since the last call.
    fn stored(&mut self) -> Vec<&'static str> {
        let out = std::mem::take(&mut self.out);
        out.iter()
            .map(|sample| sample.reason.map_or("up", Reason::label))
            .collect()
    }

    fn changes(&mut self) -> Option<Change> {
        self.guard.change(self.now)
    }
}

#[test]
fn one_silent_host_is_down_once_another_was_reached() {
    let mut agent = Agent::settled();
    agent.sees(host(1, 1), TIMEOUT);
    assert_eq!(agent.stored(), [""; 0]);
    agent.sees(host(2, 1), None);
    assert_eq!(agent.stored(), ["connect_timeout", "up"]);
    assert_eq!(agent.changes(), None);
}

#[test]
fn the_only_host_is_down_after_the_hold() {
    let mut agent = Agent::default();
    agent.sees(host(1, 1), None);
    agent.sees(host(1, 1), TIMEOUT);
    agent.waits(HOLD - Duration::from_millis(1));
    assert_eq!(agent.stored(), ["up"]);
    agent.waits(Duration::from_millis(1));
    assert_eq!(agent.stored(), ["connect_timeout"]);
    assert_eq!(agent.changes(), None);
}

#[test]
fn a_refusal_shows_that_the_network_works() {
    let mut agent = Agent::settled();
    agent.sees(host(1, 1), TIMEOUT);
    agent.sees(host(2, 1), REFUSED);
    assert_eq!(agent.stored(), ["connect_timeout", "connect_refused"]);
}

#[test]
fn all_silent_at_once_is_our_network_and_the_first_are_excused_too() {
    let mut agent = Agent::settled();
    for (network, n) in [(1, 1), (2, 1), (3, 1)] {
        agent.sees(host(network, n), TIMEOUT);
    }
    assert_eq!(agent.stored(), [""; 0]);
    agent.sees(host(1, 2), TIMEOUT);
    assert_eq!(agent.stored(), [EXCUSED; 4]);
    assert_eq!(agent.changes(), Some(Change::Down { hosts: 4 }));
    assert_eq!(agent.changes(), None);
    agent.waits(Duration::from_secs(60));
    agent.sees(host(2, 2), TIMEOUT);
    assert_eq!(agent.stored(), [EXCUSED]);
    agent.sees(host(3, 2), None);
    assert_eq!(agent.changes(), Some(Change::Up));
    // It began before the network came back.
    agent.sees(host(1, 1), TIMEOUT);
    assert_eq!(agent.stored(), ["up", EXCUSED]);
    agent.waits(AFTERMATH);
    agent.sees(host(1, 1), TIMEOUT);
    agent.sees(host(3, 2), None);
    assert_eq!(agent.stored(), ["connect_timeout", "up"]);
}

#[test]
fn a_dead_rack_is_not_our_network() {
    let mut agent = Agent::default();
    for n in 1..=20 {
        agent.sees(host(1, n), None);
    }
    agent.stored();
    for n in 1..=20 {
        agent.sees(host(1, n), TIMEOUT);
    }
    agent.waits(HOLD);
    assert_eq!(agent.stored(), ["connect_timeout"; 20]);
}

#[test]
fn hosts_that_never_worked_witness_nothing() {
    let mut agent = Agent::default();
    for n in 1..=9 {
        agent.sees(host(n, 1), TIMEOUT);
    }
    agent.waits(HOLD);
    assert_eq!(agent.stored(), ["connect_timeout"; 9]);
}

#[test]
fn silence_at_different_times_is_no_common_cause() {
    let mut agent = Agent::settled();
    for (network, n) in [(1, 1), (2, 1), (3, 1), (1, 2), (2, 2)] {
        agent.sees(host(network, n), TIMEOUT);
        agent.waits(HOLD);
    }
    assert_eq!(agent.stored(), ["connect_timeout"; 5]);
}

#[test]
fn without_a_way_it_is_ours_at_once_even_for_one_host() {
    let mut agent = Agent::default();
    agent.sees(host(1, 1), None);
    agent.way = Some(Way::Closed);
    agent.sees(host(1, 1), UNREACHABLE);
    assert_eq!(agent.stored(), ["up", EXCUSED]);
    assert_eq!(agent.changes(), Some(Change::Down { hosts: 0 }));
    agent.way = None;
    agent.waits(HOLD * 3);
    assert_eq!(agent.changes(), Some(Change::Up));
}

#[test]
fn a_target_to_which_there_never_was_a_way_is_down() {
    let mut agent = Agent::settled();
    agent.way = Some(Way::Closed);
    agent.sees(host(9, 9), UNREACHABLE);
    agent.sees(host(1, 1), None);
    assert_eq!(agent.stored(), ["connect_unreachable", "up"]);
}

#[test]
fn targets_on_this_machine_say_nothing() {
    let mut agent = Agent::settled();
    let here = IpAddr::from([127, 0, 0, 1]);
    agent.sees(here, TIMEOUT);
    assert_eq!(agent.stored(), ["connect_timeout"]);
    agent.sees(host(1, 1), TIMEOUT);
    agent.sees(here, None);
    assert_eq!(agent.stored(), ["up"]);
    assert_eq!(agent.guard.held(), 1);
}

#[test]
fn what_is_held_is_bounded() {
    let mut agent = Agent::default();
    agent.sees(host(1, 1), None);
    for n in 0..HELD_MAX + 10 {
        agent.now = Duration::from_micros(n as u64);
        let mut sample = Sample::new(EndpointId(n as i64), Timestamp::default());
        (sample.remote_ip, sample.reason) = (Some(host(1, 1)), TIMEOUT);
        agent
            .guard
            .take(agent.now, sample, |_| Way::Open, &mut agent.out);
    }
    assert_eq!(agent.guard.held(), HELD_MAX);
    assert_eq!(agent.stored().len(), 1 + 10);
}

#[test]
fn an_agent_that_starts_without_any_network_blames_nobody() {
    let mut agent = Agent {
        way: Some(Way::Offline),
        ..Agent::default()
    };
    agent.sees(host(1, 1), UNREACHABLE);
    assert_eq!(agent.stored(), [EXCUSED]);
}
