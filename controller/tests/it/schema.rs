//! Migrations as an upgrade runs them: by several at once, on whatever they find.

use trustfleet_controller::{config::SecretUrl, db};

use crate::support::{connect, random, variable, with_path};

#[tokio::test]
async fn of_two_migrations_at_once_one_waits_for_the_other_and_finds_nothing_to_do() {
    let name = format!("m_{}", hex::encode(random()));
    let admin = connect(&variable("TRUSTFLEET_PG_ADMIN_URL")).await;
    admin.batch_execute(&format!("CREATE DATABASE {name} OWNER trustfleet_owner")).await.unwrap();
    let owner = || SecretUrl::from(with_path(&variable("TRUSTFLEET_DB_OWNER_URL"), &name));

    let (one, two) = (owner(), owner());
    let (one, two) = tokio::join!(db::migrate(&one, None), db::migrate(&two, None));

    let applied = [one.unwrap().len(), two.unwrap().len()];
    let all = std::fs::read_dir("../migrations").unwrap().count();
    assert!(applied == [all, 0] || applied == [0, all], "{applied:?}");
    assert!(db::migrate(&owner(), None).await.unwrap().is_empty());
}
