//! Follows jobs and shows each change of their state.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::{
    DemoError, Screen,
    fleet::{Fleet, Job, word},
    world::World,
};

const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

/// Waits until all jobs have succeeded.
///
/// # Errors
/// The first that fails, or that a process ended, or that it takes too long.
pub(super) async fn until_done(
    fleet: &Fleet,
    jobs: Vec<Job>,
    world: &mut World,
    screen: &Screen,
) -> Result<(), DemoError> {
    let begin = Instant::now();
    let mut open: Vec<_> = jobs.into_iter().map(|job| (job, String::new())).collect();
    while !open.is_empty() {
        world.all_alive()?;
        for (job, shown) in &mut open {
            let answer = fleet.job(&job.id)?;
            let state = word(&answer, "/state")?;
            if state != *shown {
                screen.say(&format!("{:14} {:4} {}", label(job), job.kind, in_words(&state)));
            }
            if state == "failed" {
                let what = format!("{} of {}", job.kind, label(job));
                return Err(DemoError::JobFailed { what, failure: format!("{:#}", answer["failure"]) });
            }
            *shown = state;
        }
        open.retain(|(_, state)| state != "succeeded");
        if let (Some((job, state)), true) = (open.first(), begin.elapsed() > LIMIT) {
            let what = format!("the end of {} of {} (it is {state})", job.kind, label(job));
            return Err(DemoError::Late { what, limit: LIMIT });
        }
        sleep(PAUSE).await;
    }
    Ok(())
}

fn label(job: &Job) -> String {
    format!("{}/{}", job.device.name, job.device.trustpoint)
}

fn in_words(state: &str) -> &str {
    match state {
        "awaiting_publish" => "accepted, waits to be sent",
        "awaiting_agent" => "sent to the agent",
        "awaiting_ca" => "the agent has made its key and asks the CA",
        "awaiting_poll" => "the CA said waiting, the agent polls",
        "succeeded" => "certificate issued, confirmed and stored on the device",
        other => other,
    }
}
