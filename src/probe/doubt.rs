//! Whether a probe's end is the target's doing or ours, and how far its duration can be trusted. The rules are in
//! `domain::attention`; this is the one place that applies them, and the one that computes `error_us`.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::timeout;

use super::fault::Stop;
use super::progress::{Phase, Progress, micros};
use crate::domain::attention::{Dependence, Lost, dependence};
use crate::domain::{Reason, Sample};
use crate::net::attention;

/// Turns of the loop that an answer has after a doubtful deadline: one for the socket, one for a task of its connection
/// (HTTP/2), one for the probe. With a sleep between them, the kernel is asked for events each time.
const TURNS: u32 = 3;
const TURN: Duration = Duration::from_millis(2);

/// What `overdue` is, considering that the deadline may have passed because this thread was not there. Where that may be, `rest`,
/// the probe that has not ended, is given three turns: an answer that was there all along shows then.
///
/// The target had its time when hardly anything was lost before it was asked, since the kernel waits for its answer
/// without us; and it did not answer when those turns bring nothing. So even an agent that is always starved finds
/// that a target is silent, but of a stop nothing is believed: the whole machine may have stood still.
pub(super) async fn doubt_deadline<F: Future>(
    overdue: Stop,
    timeout_was: Duration,
    progress: &Progress,
    mut rest: Pin<&mut F>,
) -> Stop {
    let Reason::Failed(_) = overdue.reason else {
        return overdue;
    };
    let Some(lost) = attention::lost_now() else {
        return overdue;
    };
    let lost = progress.lost_of(lost);
    if !lost.excuses_timeout(timeout_was) {
        return overdue;
    }
    let was_asked_in_time = !progress.lost_before_phase().excuses_timeout(timeout_was);
    let waits_for_one_answer = matches!(progress.phase(), Phase::Connect | Phase::Processing);
    let was_stopped = Lost {
        paused: lost.paused,
        ..Lost::default()
    };
    if was_asked_in_time && waits_for_one_answer && !was_stopped.excuses_timeout(timeout_was) {
        let step = progress.step();
        let mut turns = 0;
        let mut ended = false;
        while turns < TURNS && !ended {
            ended = timeout(TURN, rest.as_mut()).await.is_ok();
            turns += 1;
        }
        if !ended && progress.step() == step {
            return overdue;
        }
    }
    excused(lost)
}

/// What `stop` is, considering that the peer may have closed the connection, or a wait may have ended, because this
/// thread was not there.
pub(super) fn doubt_failure(stop: Stop, timeout: Duration, progress: &Progress) -> Stop {
    let Reason::Failed(failure) = stop.reason else {
        return stop;
    };
    let dependence = dependence(failure);
    if dependence == Dependence::None {
        return stop;
    }
    let Some(lost) = attention::lost_now() else {
        return stop;
    };
    let lost = progress.lost_of(lost);
    let is_ours = match dependence {
        Dependence::Time => lost.excuses_timeout(timeout),
        _ => lost.excuses_silence(),
    };
    if is_ours { excused(lost) } else { stop }
}

fn excused(lost: Lost) -> Stop {
    let detail = format!(
        "{} ms of this probe's time were not the agent's to use",
        lost.total().as_millis()
    );
    Stop::skipped(lost.reason(), &detail)
}

/// Sets `error_us` and `suspect`: the bound on what the agent added, and whether it is above `suspect_above`.
pub(super) fn judge_error(sample: &mut Sample, progress: &Progress, suspect_above: Duration) {
    let Some(error) = progress.error() else {
        return;
    };
    let error = error.min(progress.took());
    sample.suspect = error > suspect_above;
    if attention::is_bounded() {
        sample.error_us = Some(micros(error));
    }
}
