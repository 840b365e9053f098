//! Devices whose agents answer: the fleet of the database with simulated agents in front of it, and a controller or three.

use std::{net::SocketAddr, time::Duration};

use tokio_postgres::Client;
use trustfleet_model::ids::AgentId;
use trustfleet_wire::{seal::OpeningKey, sign::SigningKey};
use url::Url;

use super::{
    super::BenchError,
    data,
    ground::{DATABASE, Ground, Server},
};
use crate::{
    fleet::simulated::{Sample, Simulated, SimulatedError},
    stack::with_vhost,
    testkit::TestVhost,
};

/// Connections of all simulated agents together.
const CONNECTIONS: usize = 4;

impl From<SimulatedError> for BenchError {
    fn from(error: SimulatedError) -> Self {
        Self::Odd(format!("the simulated agents: {error:?}"))
    }
}

/// A database of its own with so many devices, a virtual host of its own, and agents that answer.
#[derive(Debug)]
pub(crate) struct Crowd {
    /// The superuser's connection to the database.
    pub(crate) client: Client,
    /// Where the agents speak.
    pub(crate) vhost: TestVhost,
    /// The agents; started by [`Crowd::open`].
    pub(crate) agents: Option<Simulated>,
    database: String,
    /// Of the agents, until they are started.
    keys: Vec<(AgentId, SigningKey)>,
}

impl Crowd {
    /// Makes database and virtual host, and keys for the agents.
    ///
    /// # Errors
    /// The server's, the broker's.
    pub(crate) async fn make(ground: &Ground, database: &str, devices: u32) -> Result<Self, BenchError> {
        let cluster = &ground.stack.env().pg_admin_url;
        data::copy(cluster, DATABASE, database).await?;
        data::grow(cluster, database, devices).await?;
        let client = data::superuser(cluster, database).await?;
        let open = OpeningKey::generate().map_err(BenchError::odd("a key for secrets"))?;
        let rows = client
            .query("SELECT agent_id::text FROM agents", &[])
            .await
            .map_err(BenchError::sql("looking for agents"))?;
        let (mut ids, mut public, mut keys) = (Vec::new(), Vec::new(), Vec::new());
        for row in rows {
            let id: String = row.get(0);
            let key = SigningKey::generate().map_err(BenchError::odd("a signing key"))?;
            public.push(key.public_key());
            keys.push((id.parse().map_err(BenchError::odd("an agent's id"))?, key));
            ids.push(id);
        }
        let sql = "UPDATE agents a SET sign_key = k.sign_key, seal_key = $3, last_seen_at = now()
                   FROM unnest($1::text[], $2::bytea[]) AS k(agent_id, sign_key) WHERE a.agent_id = k.agent_id::uuid";
        client
            .execute(sql, &[&ids, &public, &open.public_key()])
            .await
            .map_err(BenchError::sql("giving the agents their keys"))?;
        let vhost = TestVhost::create_at(ground.stack.env()).await?;
        Ok(Self { client, agents: None, database: database.to_owned(), vhost, keys })
    }

    /// A controller on it; `budget`: what may begin in a second at the CA, and at once.
    ///
    /// # Errors
    /// No port, or a file cannot be written.
    pub(crate) fn server(&self, ground: &Ground, budget: (u32, u32)) -> Result<Server, BenchError> {
        let at = |url: &Url| with_vhost(url, self.vhost.name()).to_string();
        let env = ground.stack.env();
        let mut agent_url = with_vhost(&env.amqp_url, self.vhost.name());
        agent_url.set_query(None);
        let _ = (agent_url.set_username(""), agent_url.set_password(None));
        let settings = [
            ("TRUSTFLEET__BROKER__URL", at(&env.amqp_url)),
            ("TRUSTFLEET__BROKER__AGENT_URL", agent_url.to_string()),
            ("TRUSTFLEET__CA_BUDGET__RATE_PER_S", format!("{}.0", budget.0)),
            ("TRUSTFLEET__CA_BUDGET__BURST", budget.1.to_string()),
            ("TRUSTFLEET__CA_BUDGET__CONCURRENCY", "100000".to_owned()),
            // One agent stands for a hundred devices that all report at once here.
            ("TRUSTFLEET__AGENTS__MESSAGES_PER_S", "1000".to_owned()),
            ("TRUSTFLEET__LOG__FILTER", "warn".to_owned()),
        ];
        Server::new(ground, &self.database, &settings)
    }

    /// Starts the agents; a controller must run.
    ///
    /// # Errors
    /// The broker's.
    pub(crate) async fn open(&mut self, ca: Option<SocketAddr>) -> Result<(), BenchError> {
        let row = self
            .client
            .query_one("SELECT der, chain FROM certificates LIMIT 1", &[])
            .await
            .map_err(BenchError::sql("looking for a certificate"))?;
        let sample = Sample::new(row.get(0), row.get(1))?;
        let agents = std::mem::take(&mut self.keys);
        self.agents = Some(Simulated::start(self.vhost.amqp_url(), CONNECTIONS, agents, sample, ca).await?);
        Ok(())
    }

    /// Makes the certificates of `count` devices that have none under way renewable from `from` on, evenly over `during`; they
    /// end at `ends_in`.
    ///
    /// # Errors
    /// The server's.
    pub(crate) async fn due(
        &self,
        count: u32,
        from: Duration,
        during: Duration,
        ends_in: Duration,
    ) -> Result<(), BenchError> {
        let sql = "WITH chosen AS (
                SELECT tenant_id, trustpoint_id, row_number() OVER (ORDER BY md5(trustpoint_id::text)) AS n FROM trustpoints
                WHERE status = 'active' AND not_after > now() + interval '60 days' AND policy_id IS NOT NULL
                  -- The actor of one that was renewed before may still be awake, and knows nothing of what is written here.
                  AND NOT EXISTS (SELECT FROM jobs j WHERE j.tenant_id = trustpoints.tenant_id
                                  AND j.device_id = trustpoints.device_id AND j.kind = 'kur')
                ORDER BY md5(trustpoint_id::text) LIMIT $1
            ), moved AS (
                UPDATE certificates c SET not_before = now() - interval '30 days', not_after = now() + make_interval(secs => $4::float8)
                FROM chosen h WHERE c.tenant_id = h.tenant_id AND c.trustpoint_id = h.trustpoint_id AND c.slot = 'active'
            )
            UPDATE trustpoints t SET not_after = now() + make_interval(secs => $4::float8),
                next_action_at = now() + make_interval(secs => $2::float8 + $3::float8 * h.n / $1::bigint),
                state = jsonb_set(jsonb_set(jsonb_set(t.state,
                    '{trustpoint,active,not_before}', to_jsonb(now() - interval '30 days')),
                    '{trustpoint,active,not_after}', to_jsonb(now() + make_interval(secs => $4::float8))),
                    '{trustpoint,issued_at}', to_jsonb(now() - interval '30 days'))
            FROM chosen h WHERE t.tenant_id = h.tenant_id AND t.trustpoint_id = h.trustpoint_id";
        let seconds = |duration: Duration| duration.as_secs_f64();
        let moved = self
            .client
            .execute(sql, &[&i64::from(count), &seconds(from), &seconds(during), &seconds(ends_in)])
            .await
            .map_err(BenchError::sql("making renewals due"))?;
        if moved != u64::from(count) {
            return Err(BenchError::Odd(format!("only {moved} certificates can be made due")));
        }
        Ok(())
    }

    /// How many key updates have ended, and how many of them failed.
    ///
    /// # Errors
    /// The server's.
    pub(crate) async fn ended(&self) -> Result<(u64, u64), BenchError> {
        let sql = "SELECT count(*), count(*) FILTER (WHERE state = 'failed') FROM jobs WHERE kind = 'kur' AND finished_at IS NOT NULL";
        let row = self.client.query_one(sql, &[]).await.map_err(BenchError::sql("counting jobs"))?;
        let count = |column| row.get::<_, i64>(column).unsigned_abs();
        Ok((count(0), count(1)))
    }
}
