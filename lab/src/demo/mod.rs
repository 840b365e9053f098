//! `trustfleet-lab demo`: the whole system on one machine, from nothing to enrolled and renewed certificates.
//!
//! The real binaries run as child processes beside a private PostgreSQL and RabbitMQ and the lab CA; everything is made
//! through the public REST API, as an operator would. Nothing is mocked, nothing outside of one temporary folder is
//! touched, and nothing stays behind. It must never claim a success that `openssl` and the metrics do not confirm.

mod error;
mod fleet;
mod proof;
mod screen;
mod watch;
mod web;
mod world;

use std::{io, io::IsTerminal as _, path::PathBuf, process::ExitCode, time::Instant};

use clap::builder::FalseyValueParser;
use tokio::signal::unix::{self, SignalKind};

use self::{
    error::DemoError,
    fleet::{AGENTS, DEVICES, Fleet},
    screen::Screen,
    web::Web,
    world::World,
};

/// Arguments of `demo`.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 every certificate was issued and verified; 1 not; 130 and the like when interrupted before."
)]
pub struct DemoArgs {
    /// End when all is shown, also on a terminal; without a terminal it always does
    #[arg(long, env = "DEMO_EXIT", value_parser = FalseyValueParser::new())]
    pub exit: bool,
    /// Encrypt every connection, with certificates of a CA made for it; nothing takes plaintext then
    #[arg(long, env = "DEMO_TLS", value_parser = FalseyValueParser::new())]
    pub tls: bool,
    /// Controllers, 1 to 4; with several one is killed in the middle of the enrolments, which must lose nothing
    #[arg(long, env = "DEMO_REPLICAS", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=4))]
    pub replicas: u8,
    /// Folder below which everything is made and removed again [default: the system's temporary folder]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Runs the demonstration; on a terminal it stays up until Ctrl-C.
pub async fn run(args: DemoArgs) -> ExitCode {
    match Signals::listen() {
        Ok(mut signals) => whole(args, &mut signals).await,
        Err(error) => {
            eprintln!("demo: signals cannot be listened for: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn whole(args: DemoArgs, signals: &mut Signals) -> ExitCode {
    let screen = Screen::new(Instant::now());
    let stay = !args.exit && io::stdout().is_terminal();
    screen.say("starting a private PostgreSQL and RabbitMQ");
    // A future that loses against a signal is dropped, and with it every process that it has started.
    let mut world = tokio::select! {
        world = World::start(args.dir, args.tls) => match world {
            Ok(world) => world,
            Err(error) => return screen::not_begun(&error),
        },
        code = signals.next() => return screen::interrupted(code),
    };
    let outcome = tokio::select! {
        outcome = story(&screen, &mut world, args.replicas) => outcome,
        code = signals.next() => {
            world.stop().await;
            return screen::interrupted(code);
        }
    };
    let outcome = match outcome {
        Ok(fleet) if stay => {
            screen::try_next(&world, &fleet);
            tokio::select! {
                error = world.first_to_end() => Err(error),
                _ = signals.next() => {
                    println!(); // after the terminal's ^C
                    Ok(())
                }
            }
        }
        outcome => outcome.map(|_| ()),
    };
    match outcome {
        Ok(()) => {
            world.stop().await;
            screen.say("done: every certificate was issued and verified; all is stopped and removed");
            ExitCode::SUCCESS
        }
        Err(error) => {
            screen::failure(&error, &mut world);
            world.stop().await;
            ExitCode::FAILURE
        }
    }
}

/// The signals that end the demonstration in order.
struct Signals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    hangup: unix::Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: unix::signal(SignalKind::interrupt())?,
            terminate: unix::signal(SignalKind::terminate())?,
            hangup: unix::signal(SignalKind::hangup())?,
        })
    }

    /// Waits for one; gives the exit code of a process that it ends.
    async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => 130,
            _ = self.terminate.recv() => 143,
            _ = self.hangup.recv() => 129,
        }
    }
}

async fn story(screen: &Screen, world: &mut World, replicas: u8) -> Result<Fleet, DemoError> {
    screen.say(&format!("everything is below {} and goes away at the end", world.dir().display()));
    if let Some(tls) = world.tls() {
        screen.say(&format!("every connection is encrypted and verified by {}", tls.ca.display()));
    }
    let ca = world.start_ca("lab CA", &DEVICES.map(|device| device.name), ["--days", "365"]).await?;
    screen.say(&format!("lab CA answers CMP at {}", ca.url));
    let controller = world.start_controller().await?;
    screen.say(&format!("controller is migrated and listens on {}", controller.url()));
    for name in world::REPLICAS.into_iter().take(usize::from(replicas) - 1) {
        let url = world.start_replica(name).await?;
        screen.say(&format!("{name} works beside it on the same database and broker, at {url}"));
    }

    let fleet = Fleet::create(&controller, &ca)?;
    screen.say("tenant, CA server, entity and CMP policy are created through the REST API");
    let web = Web::prepare(world)?;
    for agent in AGENTS {
        let services = if agent == web::AGENT { web.service() } else { String::new() };
        world.start_agent(agent, controller.url(), &fleet.join_token(agent)?, &services)?;
    }
    fleet.joined(world, screen).await?;
    fleet.register()?;
    screen.say("devices and trustpoints are registered, each with a MAC secret of its own");

    let jobs = DEVICES.iter().map(|device| fleet.enroll(device, "ir")).collect::<Result<Vec<_>, _>>()?;
    if replicas > 1 {
        world.kill(world::REPLICAS[0]).await;
        screen.say(&format!("{} is killed (SIGKILL) while the enrolments are under way", world::REPLICAS[0]));
    }
    watch::until_done(&fleet, jobs, world, screen).await?;
    let first = fleet.in_use(&DEVICES[0]).await?;
    screen.say("all are enrolled by IR; now one is renewed by KUR, signed with the certificate it replaces");
    watch::until_done(&fleet, vec![fleet.enroll(&DEVICES[0], "kur")?], world, screen).await?;
    let mut trustpoints = Vec::new();
    for device in &DEVICES {
        trustpoints.push(fleet.in_use(device).await?);
    }
    proof::renewed(&first, &trustpoints[0])?;

    screen::table(&trustpoints, world.dir());
    proof::certificates(&trustpoints, &ca.dir)?;
    proof::metrics(&controller.rest, replicas == 1).await?;
    proof::openapi(&controller.rest)?;
    println!();
    web.act(world, &fleet, screen).await?;
    Ok(fleet)
}
