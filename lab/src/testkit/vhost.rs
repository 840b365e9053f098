//! A virtual host per test, and RabbitMQ's management API for looking behind the broker's curtain.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use ureq::{Agent, http::Request};
use url::Url;

use super::TestkitError;
use crate::stack::{StackEnv, random_word, with_vhost};

/// A virtual host of one test's own, on which the administrator may do everything; removed when dropped.
#[derive(Debug)]
pub struct TestVhost {
    name: String,
    amqp_url: Url,
    management_url: Url,
}

impl TestVhost {
    /// Makes one at the broker of the run's stack.
    ///
    /// # Errors
    /// [`TestkitError::Stack`] outside a stack, [`TestkitError::Management`].
    pub async fn create() -> Result<Self, TestkitError> {
        Self::create_at(&StackEnv::from_env()?).await
    }

    /// Makes one at the broker of a stack that the test started itself.
    ///
    /// # Errors
    /// [`TestkitError::Management`].
    pub async fn create_at(env: &StackEnv) -> Result<Self, TestkitError> {
        let name = format!("test-{}", random_word(8)?);
        let vhost =
            Self { amqp_url: with_vhost(&env.amqp_url, &name), management_url: env.amqp_management_url.clone(), name };
        vhost.management("PUT", &format!("/api/vhosts/{}", vhost.name), None).await?;
        let everything = json!({"configure": ".*", "write": ".*", "read": ".*"});
        let path = format!("/api/permissions/{}/{}", vhost.name, vhost.amqp_url.username());
        vhost.management("PUT", &path, Some(everything)).await?;
        Ok(vhost)
    }

    /// The virtual host's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The administrator's AMQP URL on this virtual host.
    pub const fn amqp_url(&self) -> &Url {
        &self.amqp_url
    }

    /// The administrator's URL of the management API.
    pub const fn management_url(&self) -> &Url {
        &self.management_url
    }

    /// One request to the management API, such as `("GET", "/api/queues/VHOST")`; `Null` for an empty answer.
    ///
    /// # Errors
    /// [`TestkitError::Management`] for anything but a 2xx status.
    pub async fn management(
        &self,
        method: &'static str,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value, TestkitError> {
        let (url, for_call) = (self.management_url.clone(), path.to_owned());
        let failed = |detail: String| TestkitError::Management { method, path: path.to_owned(), detail };
        tokio::task::spawn_blocking(move || request(&url, method, &for_call, body))
            .await
            .map_err(|error| failed(error.to_string()))?
            .map_err(failed)
    }
}

impl Drop for TestVhost {
    fn drop(&mut self) {
        let _ = request(&self.management_url, "DELETE", &format!("/api/vhosts/{}", self.name), None);
    }
}

fn request(base: &Url, method: &'static str, path: &str, body: Option<Value>) -> Result<Value, String> {
    let agent: Agent = Agent::config_builder().timeout_global(Some(Duration::from_secs(30))).build().into();
    let credentials = format!("{}:{}", base.username(), base.password().unwrap_or_default());
    let host = format!("http://{}:{}", base.host_str().unwrap_or_default(), base.port().unwrap_or_default());
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    let request = Request::builder()
        .method(method)
        .uri(format!("{host}{path}"))
        .header("authorization", format!("Basic {}", STANDARD.encode(credentials)))
        .header("content-type", "application/json")
        .body(body)
        .map_err(|error| error.to_string())?;
    let text = agent
        .run(request)
        .and_then(|mut response| response.body_mut().read_to_string())
        .map_err(|error| error.to_string())?;
    if text.is_empty() { Ok(Value::Null) } else { serde_json::from_str(&text).map_err(|error| error.to_string()) }
}
