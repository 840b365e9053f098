//! Several key-encryption keys: secrets move from one to the next while controllers run, and none is lost on the way.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::json;
use trustfleet_controller::{
    app::{Core, StartError},
    keys,
    rotation::{Rotation, RotationError},
};
use trustfleet_model::{clock::SystemClock, ids::SecretId};
use trustfleet_wire::v1::Task;

use crate::{
    api_house::House,
    fixture::{Fixture, SECRET},
    support::{Place, backend, variable_text},
};

/// A configuration with these key-encryption keys, the first of which encrypts.
fn config_text(place: &Place, keks: &[&Path]) -> String {
    let further: Vec<String> = keks[1..].iter().map(|path| format!("{:?}", path.display().to_string())).collect();
    let mut agent_url = place.amqp_url.clone();
    agent_url.set_username("").unwrap();
    agent_url.set_password(None).unwrap();
    format!(
        "[http]\nlisten = \"127.0.0.1:0\"\nworkers = 1\n\
         [database]\napi_url = \"{}\"\nsystem_url = \"{}\"\nmax_connections = 4\n\
         [broker]\nurl = \"{}\"\nagent_url = \"{agent_url}\"\n\
         [keys]\nsigning_key_file = \"{}\"\nbroker_token_key_file = \"{}\"\nkey_encryption_key_file = {:?}\n\
         further_key_encryption_key_files = [{}]\n",
        place.api_url,
        place.system_url,
        place.amqp_url,
        variable_text("TRUSTFLEET_SIGNING_KEY_FILE"),
        variable_text("TRUSTFLEET_BROKER_TOKEN_KEY_FILE"),
        keks[0].display().to_string(),
        further.join(", "),
    )
}

/// Keys in a folder of their own, and configurations that name them.
struct Keks {
    dir: tempfile::TempDir,
    old: PathBuf,
    new: PathBuf,
    old_id: String,
    new_id: String,
}

impl Keks {
    fn make() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("kek.key"), dir.path().join("kek-2.key"));
        let (old_id, new_id) = (keys::add(&old).unwrap(), keys::add(&new).unwrap());
        Self { dir, old, new, old_id, new_id }
    }

    async fn start(&self, place: &Place, keks: &[&Path]) -> Result<Core, StartError> {
        let config = trustfleet_controller::config::Config::from_toml(&config_text(place, keks)).unwrap();
        Core::start(config, backend().handle(), Arc::new(SystemClock)).await
    }

    fn rotation(&self, place: &Place, keks: &[&Path]) -> Rotation {
        let file = self.dir.path().join("controller.toml");
        fs::write(&file, config_text(place, keks)).unwrap();
        Rotation::open(&file, backend().handle()).unwrap()
    }
}

#[actix::test]
async fn secrets_move_to_a_new_key_while_controllers_with_either_order_of_keys_go_on() {
    let (place, keks) = (Place::make().await, Keks::make());
    let (old, new) = (keks.old.as_path(), keks.new.as_path());
    let core = keks.start(&place, &[old]).await.unwrap();
    let fixture = Fixture::on(place.clone(), core).await;
    for n in 0..30 {
        fixture.add_trustpoint(fixture.device, &format!("tp-{n}")).await.unwrap();
    }
    fixture.core.stop().await;

    // Replicas in the middle of the change: one still writes under the old key, one under the new one already.
    let (before, after) =
        (keks.start(&place, &[old, new]).await.unwrap(), keks.start(&place, &[new, old]).await.unwrap());
    assert_eq!((before.services.keys.at_rest.id(), after.services.keys.at_rest.id()), (&*keks.old_id, &*keks.new_id));
    let rotation = keks.rotation(&place, &[new, old]);
    let refused = rotation.remove(&keks.old_id).await.unwrap_err();
    assert!(matches!(refused, RotationError::InUse { secrets: 31, .. }), "{refused}");
    assert_eq!(rotation.rotate().await.unwrap(), 31);
    assert_eq!(rotation.rotate().await.unwrap(), 0, "the second time there is nothing to move");

    // Either replica reads every secret, wherever it is.
    let admin = place.admin().await;
    let rows = admin.query("SELECT tenant_id, secret_id, kek_id, ciphertext FROM secrets", &[]).await.unwrap();
    assert_eq!(rows.len(), 31);
    for row in rows {
        let (tenant, secret): (uuid::Uuid, uuid::Uuid) = (row.get(0), row.get(1));
        let (kek, stored): (&str, Vec<u8>) = (row.get(2), row.get(3));
        assert_eq!(kek, keks.new_id);
        for core in [&before, &after] {
            let ring = &core.services.keys.at_rest;
            let plain = ring.open(tenant.into(), SecretId::from(secret), kek, &stored).unwrap();
            assert_eq!(plain.expose().as_slice(), SECRET.as_bytes());
        }
    }
    before.stop().await;
    after.stop().await;

    rotation.remove(&keks.old_id).await.unwrap();
    let unknown = rotation.remove(&keks.old_id).await.unwrap_err();
    assert!(matches!(unknown, RotationError::Unknown(_)), "{unknown}");
    let first = rotation.remove(&keks.new_id).await.unwrap_err();
    assert!(matches!(first, RotationError::First(_)), "{first}");
    // What is removed cannot come back by a controller that did not hear of it.
    let late = admin
        .execute(
            "UPDATE secrets SET kek_id = $1 WHERE secret_id = (SELECT secret_id FROM secrets LIMIT 1)",
            &[&keks.old_id],
        )
        .await
        .unwrap_err();
    assert_eq!(late.as_db_error().unwrap().constraint(), Some("secrets_kek_id_fkey"));
    let told: Vec<String> = admin
        .query("SELECT action FROM audit WHERE object_kind = 'keys' ORDER BY audit_id", &[])
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(told, ["secrets_moved", "key_removed"]);
}

#[actix::test]
async fn a_rotation_that_was_interrupted_goes_on_where_it_stopped() {
    let (place, keks) = (Place::make().await, Keks::make());
    let (old, new) = (keks.old.as_path(), keks.new.as_path());
    let core = keks.start(&place, &[old, new]).await.unwrap();
    let fixture = Fixture::on(place.clone(), core).await;
    for n in 0..5 {
        fixture.add_trustpoint(fixture.device, &format!("tp-{n}")).await.unwrap();
    }
    // One row that cannot be read: the rotation stops there, and says which.
    let admin = place.admin().await;
    let broken: (uuid::Uuid, Vec<u8>) = {
        let row = admin.query_one("SELECT secret_id, ciphertext FROM secrets ORDER BY secret_id DESC LIMIT 1", &[]);
        let row = row.await.unwrap();
        (row.get(0), row.get(1))
    };
    let write = "UPDATE secrets SET ciphertext = $2 WHERE secret_id = $1";
    admin.execute(write, &[&broken.0, &vec![0_u8; 40]]).await.unwrap();
    let rotation = keks.rotation(&place, &[new, old]);
    let refused = rotation.rotate().await.unwrap_err();
    assert!(matches!(&refused, RotationError::Secret { secret, .. } if *secret == broken.0.to_string()), "{refused}");
    admin.execute(write, &[&broken.0, &broken.1]).await.unwrap();
    assert_eq!(rotation.rotate().await.unwrap(), 6);
    let (uses, here): (Vec<_>, Vec<_>) = rotation.status().await.unwrap().into_iter().unzip();
    let of = |id: &str| uses.iter().position(|known| known.kek_id == id).map(|i| (uses[i].secrets, here[i])).unwrap();
    assert_eq!((of(&keks.old_id), of(&keks.new_id)), ((0, "decrypts"), (6, "encrypts")));
    fixture.core.stop().await;
}

#[actix::test]
async fn a_controller_without_a_key_that_a_secret_needs_does_not_start() {
    let (place, keks) = (Place::make().await, Keks::make());
    let (old, new) = (keks.old.as_path(), keks.new.as_path());
    let core = keks.start(&place, &[old]).await.unwrap();
    let fixture = Fixture::on(place.clone(), core).await;
    fixture.core.stop().await;
    let refused = keks.start(&place, &[new]).await.unwrap_err();
    let said = refused.to_string();
    assert!(matches!(refused, StartError::MissingKey(_)) && said.contains(&keks.old_id), "{said}");
    keks.start(&place, &[new, old]).await.unwrap().stop().await;
}

#[actix::test]
async fn a_job_whose_secret_is_under_a_key_that_comes_later_waits_and_is_not_lost() {
    let (place, keks) = (Place::make().await, Keks::make());
    let (old, new) = (keks.old.as_path(), keks.new.as_path());
    let core = keks.start(&place, &[old]).await.unwrap();
    tokio::time::timeout(std::time::Duration::from_secs(30), core.services.broker.ready()).await.unwrap();
    let fixture = Fixture::on(place.clone(), core).await;
    // The operator forgot this replica, and moved all secrets.
    keks.rotation(&place, &[new, old]).rotate().await.unwrap();
    let mut queue = fixture.open_queue().await;
    fixture.enroll().await;
    assert!(fixture.next(&mut queue, std::time::Duration::from_secs(3)).await.is_none());
    let state: String = fixture.value("SELECT state FROM jobs").await;
    assert_eq!(state, "awaiting_publish");
    // Another one has the key.
    let second = keks.start(&place, &[new, old]).await.unwrap();
    let job = fixture.next_job(&mut queue).await;
    assert!(matches!(job.task, Task::Enroll(_)));
    second.stop().await;
    fixture.core.stop().await;
}

#[actix::test]
async fn s13_new_mac_credentials_replace_the_old_ones_and_a_weak_secret_is_told_without_being_shown() {
    let house = House::open().await;
    let [_, operator, _] = house.tenant("acme").await;
    house.furnish("acme", "melon-harbour-8841").await;
    let path = "/v1/tenants/acme/devices/ap-1/trustpoints/mgmt";
    let shown = house.get(path, &operator).await.expect(200);
    assert_eq!((&shown.body["mac_secret_stored"], &shown.body["mac_one_time"]), (&json!(true), &json!(false)));
    let put = async |body| house.call("PUT", &format!("{path}/mac"), Some(&operator), Some(body)).await;
    let weak = put(json!({"reference": "ref-2", "secret": "walnut-8842", "one_time": true})).await.expect(200);
    assert!(weak.str("/warnings/0").contains("at most 67 bits"), "{}", weak.text);
    let strong = put(json!({"reference": "ref-3", "secret": "4fQ-".repeat(10)})).await.expect(200);
    assert_eq!(strong.body, json!({"reference": "ref-3", "one_time": false, "warnings": []}));
    let admin = house.place.admin().await;
    let count: i64 = admin.query_one("SELECT count(*) FROM secrets", &[]).await.unwrap().get(0);
    assert_eq!(count, 1, "a former secret stays behind");
    let wrong = put(json!({"reference": "what?", "secret": "pear-8843-".repeat(20)})).await.expect(422);
    assert_eq!(wrong.violations().len(), 2);
    assert!(!house.everything_answered().contains("8842") && !house.everything_answered().contains("8843"));
    house.close().await;
}
