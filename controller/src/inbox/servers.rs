//! Which server of a CA an exchange went to, as its agent tells: that one's budget is the smaller for it.

use trustfleet_model::ids::{JobId, TenantId};

use super::Inbox;
use crate::{
    db::{DbError, Sender},
    telemetry::chain,
};

/// Longest name of a server, characters.
const SERVER_MAX: usize = 300;

impl Inbox {
    /// Counts an exchange for the server that it goes to, where that is the other one of its CA; gives that server then.
    pub(super) async fn server_used(
        &self,
        tenant: TenantId,
        job: JobId,
        server: Option<String>,
        sender: &Sender,
    ) -> Option<String> {
        let (counted_for, _) = sender.endpoint.as_ref()?;
        let server = server.filter(|server| server != counted_for && server.len() <= SERVER_MAX)?;
        let (name, budget) = (server.clone(), self.ca_budget);
        let moved: Result<bool, DbError> = self
            .store
            .system_tx("ca_endpoint_used", async move |tx| tx.ca_endpoint_used(tenant, job, &name, budget).await)
            .await;
        match moved {
            Ok(true) => {
                tracing::info!(job.id = %job, counted_for, server, "an exchange goes to the other server of its CA");
                Some(server)
            }
            Ok(false) => None,
            Err(error) => {
                tracing::warn!(job.id = %job, server, error = %chain(&error), "an exchange is counted for the wrong server");
                None
            }
        }
    }
}
