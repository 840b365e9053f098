//! What no server can do without: actix-web, a pool, one transaction with the tenant set, one SELECT.

use actix_web::{App, HttpResponse, HttpServer, web};
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use serde_json::{Value, json};
use tokio_postgres::NoTls;
use trustfleet_controller::config::Config;
use uuid::Uuid;

use super::InsideArgs;
use crate::bench::BenchError;

/// What the controller reads for one trustpoint: it, the names of what it refers to, and its lease.
const SQL: &str = "SELECT t.trustpoint_id, t.state, t.next_action_at, t.updated_at, d.name AS device, e.name AS entity,
        c.name AS ca_server, p.name AS policy, p.spec -> 'auto_update' AS policy_auto_update,
        la.name AS lease_agent, l.given_at AS lease_given_at, l.expires_at AS lease_expires_at,
        coalesce(l.expires_at <= now(), false) AS lease_expired, l.ended_at AS lease_ended_at, l.end_reason AS lease_end_reason,
        l.answer AS lease_answer, l.answered_at AS lease_answered_at, l.answer_reason AS lease_answer_reason,
        coalesce(l.answered_sequence >= l.sequence, false) AS lease_answered
    FROM trustpoints t
    JOIN devices d ON d.tenant_id = t.tenant_id AND d.device_id = t.device_id
    JOIN entities e ON e.tenant_id = t.tenant_id AND e.entity_id = t.entity_id
    JOIN ca_servers c ON c.tenant_id = t.tenant_id AND c.ca_server_id = t.ca_server_id
    JOIN policies p ON p.tenant_id = t.tenant_id AND p.policy_id = t.policy_id
    LEFT JOIN leases l ON l.tenant_id = t.tenant_id AND l.trustpoint_id = t.trustpoint_id
    LEFT JOIN agents la ON la.tenant_id = l.tenant_id AND la.agent_id = l.agent_id
    WHERE t.tenant_id = $1 AND d.name = $2 AND t.name = $3";

/// What the handler works with.
#[derive(Clone)]
struct Shared {
    pool: Pool,
    tenant: Uuid,
}

/// Serves until it is killed; prints where it listens.
pub(super) async fn serve(args: &InsideArgs) -> Result<Value, BenchError> {
    let config = Config::load(&args.config).map_err(BenchError::odd("the configuration"))?;
    let client = crate::stack::connect(&args.database, None).await?;
    let row = client
        .query_one("SELECT tenant_id FROM tenants WHERE name = $1", &[&crate::house::TENANT])
        .await
        .map_err(BenchError::sql("looking for the tenant"))?;
    let connect = config.database.api_url.expose().as_str().parse().map_err(BenchError::sql("reading a URL"))?;
    let recycling_method = RecyclingMethod::Fast;
    let manager = Manager::from_config(connect, NoTls, ManagerConfig { recycling_method });
    let pool = Pool::builder(manager).max_size(config.database.max_connections).build();
    let pool = pool.map_err(BenchError::odd("a pool"))?;
    let shared = Shared { pool, tenant: row.get(0) };
    let server = HttpServer::new(move || {
        App::new()
            .app_data(web::Data::new(shared.clone()))
            .route("/v1/tenants/{tenant}/devices/{device}/trustpoints/{trustpoint}", web::get().to(show))
    });
    let server = server.disable_signals().bind(("127.0.0.1", 0)).map_err(BenchError::io("listening"))?;
    println!("{}", json!({ "address": server.addrs()[0].to_string() }));
    server.run().await.map_err(BenchError::io("serving"))?;
    Ok(Value::Null)
}

async fn show(shared: web::Data<Shared>, path: web::Path<(String, String, String)>) -> HttpResponse {
    match read(&shared, &path.1, &path.2).await {
        Ok(body) => HttpResponse::Ok().json(body),
        Err(error) => HttpResponse::InternalServerError().body(error.to_string()),
    }
}

async fn read(shared: &Shared, device: &str, trustpoint: &str) -> Result<Value, Box<dyn std::error::Error>> {
    let client = shared.pool.get().await?;
    client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
    let set = client.prepare_cached("SELECT set_config('trustfleet.tenant', $1, true)").await?;
    client.query_one(&set, &[&shared.tenant.to_string()]).await?;
    let statement = client.prepare_cached(SQL).await?;
    let row = client.query_one(&statement, &[&shared.tenant, &device, &trustpoint]).await?;
    client.batch_execute("COMMIT").await?;
    let state: Value = row.try_get("state")?;
    let names: [&str; 4] =
        [row.try_get("device")?, row.try_get("entity")?, row.try_get("ca_server")?, row.try_get("policy")?];
    Ok(json!({ "names": names, "trustpoint": state }))
}
