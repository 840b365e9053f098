//! RabbitMQ as the rest of the controller sees it: publish with confirm, subscribe, declare an agent's queue.
//!
//! The connection is made again whenever it is lost, with growing and scattered pauses; until then everything here
//! answers [`BrokerError::Away`], and what was unconfirmed is sent again by whoever wanted it sent.

mod amqp;
mod management;

pub use self::{
    amqp::{BrokerHandle, Delivery, Subscription},
    management::Management,
};

/// A message to publish; always persistent.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The exchange; empty: straight to the queue of the routing key's name.
    pub exchange: &'static str,
    /// The routing key.
    pub routing_key: String,
    /// The message.
    pub body: Vec<u8>,
    /// How often it was taken from its queue in vain: it goes back with that number. 0 for what is new.
    pub deliveries: u32,
}

/// What became of a published message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// In a queue.
    Confirmed,
    /// No queue is bound to the key: the agent has no session yet, or was away for very long.
    Returned,
}

/// The broker did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// There is no connection at the moment.
    #[error("the broker cannot be reached at the moment")]
    Away,
    /// No confirmation in time, or a refusal: the message may be in its queue or not.
    #[error("the broker has not confirmed the message")]
    Unconfirmed,
    /// The broker's or the library's own error.
    #[error("the broker refused")]
    Refused {
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
