//! A whole Trustfleet on one machine for the demonstration and for tests: configuration files, real processes of the
//! controller and of agents, and a client of the public REST API. Nothing here takes the place of a real part.

mod config;
mod rest;
mod running;

pub use self::config::{AgentFiles, ControllerFiles};
pub use self::rest::{Answer, Rest, RestError};
pub use self::running::{AnotherCa, Fleet, House, HouseError, Replica, TENANT, start_agent_process};
