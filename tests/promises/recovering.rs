//! Goal: `keybroker recover` works on a database alone. It refuses while a broker lives, also one that delivers nothing; of two
//! recoveries one is told to wait; a broker that slept through one does not undo it.
//! Method: two brokers on PostgreSQL, whose database is taken back to a dump under them; SIGSTOP and SIGCONT for a broker that
//! sleeps, SIGKILL for a recovery.

use crate::continuity::{POOL, SLOTS, names, recover, two_brokers, until_not_ready, until_ready};
use crate::support::mano::By;
use crate::support::postgres::Database;
use crate::support::process::{Finished, keybroker};
use crate::support::site::Site;
use crate::support::{PATIENCE, until};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};

/// What a dump says of leases holds for half a minute: only what is at work now counts from here on.
fn restore(site: &Site, database: &Database) {
    database.restore(&site.path().join("old.dump"));
    database.sql("DELETE FROM leases");
}

async fn try_to_recover(site: &Site) -> Finished {
    let config = site.config().display().to_string();
    site.cli(["recover", "--config", &config, "--yes", "--force"]).await
}

/// A recovery that the test acts on.
fn start_recovery(site: &Site) -> Child {
    let mut command = Command::new(keybroker());
    command.args(["recover", "--yes", "--force", "--config"]).arg(site.config());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

async fn until_under_way(database: &Database) {
    until(PATIENCE, "a recovery", async || {
        let held = "SELECT COUNT(*) FROM leases WHERE name = 'recovery' AND expires_at > 0";
        (database.sql(held) == "1").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recover_refuses_while_brokers_live_that_deliver_nothing() {
    let (mut first, mut second, database) = two_brokers("").await;
    first.full_pool(POOL, 2).await;
    let vnfcis = first.register(&["amf-0", "amf-1"], &SLOTS, By::Certificate).await;
    database.dump(&first.path().join("old.dump"));
    let held = vnfcis[0].boot(&first).await;
    restore(&first, &database);
    // At once: no broker has shown itself on it yet.
    let refused = try_to_recover(&first).await;
    assert_eq!(refused.code, 4, "{refused:?}");
    // And when nothing but that they live is to be seen of them.
    for site in [&mut first, &mut second] {
        until_not_ready(site, "rolled back").await;
    }
    let pids = [&first, &second].map(|site| site.broker().pid().to_string());
    until(PATIENCE, "both to be named", async || {
        let refused = try_to_recover(&first).await;
        assert!(refused.code == 4 && refused.err.contains("stop all of them"), "{refused:?}");
        pids.iter().all(|pid| refused.err.contains(pid.as_str())).then_some(())
    })
    .await;
    assert_eq!(database.sql("SELECT COUNT(*) FROM marks WHERE name = 'recovery'"), "0");
    first.stop().await;
    second.stop().await;
    let done = recover(&first, &["--force"]).await;
    assert_eq!(done["done"], true, "{done}");
    // Nothing of what they found is left.
    for site in [&mut first, &mut second] {
        site.serve().await;
        until_ready(site).await;
    }
    let fresh = first.register_one("fresh", &SLOTS, By::Certificate).await.claim_patiently(&second).await;
    assert_ne!(fresh.keys[0].credential_id, held.keys[0].credential_id, "delivered twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_slept_through_a_recovery_ends_and_leaves_the_database_as_it_is() {
    let (mut first, mut second, database) = two_brokers("").await;
    first.full_pool(POOL, 2).await;
    let vnfcis = first.register(&["amf-0", "amf-1"], &SLOTS, By::Certificate).await;
    database.dump(&first.path().join("old.dump"));
    let held = vnfcis[0].boot(&second).await;
    second.broker().signal(Signal::STOP);
    first.stop().await;
    restore(&first, &database);
    let done = recover(&first, &["--force"]).await;
    assert_eq!(done["done"], true, "{done}");
    first.serve().await;
    second.broker().signal(Signal::CONT);
    let mut broker = second.take_broker();
    let pid = broker.pid();
    let status = until(PATIENCE, "its end", async || broker.ended()).await;
    assert!(!status.success(), "it is to be started again: {status}");
    let said = broker.log_tail(5);
    assert!(said.contains("the database was recovered while this broker ran"), "{said}");
    assert_eq!(database.sql("SELECT value FROM marks WHERE name = 'rolled_back'"), "");
    let taken =
        format!("SELECT COUNT(*) FROM leases WHERE holder LIKE '%/{pid}/%' AND name NOT LIKE 'broker/%'");
    assert_eq!(database.sql(&taken), "0", "it took work up");
    second.serve().await;
    for site in [&mut first, &mut second] {
        until_ready(site).await;
    }
    let fresh = first.register_one("fresh", &SLOTS, By::Certificate).await.claim_patiently(&second).await;
    assert_ne!(fresh.keys[0].credential_id, held.keys[0].credential_id, "delivered twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_recoveries_at_once_one_is_told_that_another_is_under_way() {
    let (mut first, mut second, database) = two_brokers("").await;
    first.full_pool(POOL, 2).await;
    let vnfci = first.register_one("amf-0", &SLOTS, By::Certificate).await;
    database.dump(&first.path().join("old.dump"));
    vnfci.boot(&first).await;
    first.stop().await;
    second.stop().await;
    restore(&first, &database);
    let recoveries = [try_to_recover(&first), try_to_recover(&second)];
    let mut ended = futures_util::future::join_all(recoveries).await;
    ended.sort_by_key(|finished| finished.code);
    assert_eq!([ended[0].code, ended[1].code], [0, 4], "{ended:?}");
    assert!(ended[1].err.contains("another recovery is under way on this database"), "{ended:?}");
    let done = ended.remove(0).object();
    assert_eq!(names(&done["outcome"]["rearm"]), BTreeSet::from(["default/amf-0"]), "{done}");
    first.serve().await;
    until_ready(&mut first).await;
    let recovered = first.events("RECOVERED").await;
    assert_eq!(recovered.len(), 1, "{recovered:?}");
    assert_eq!(recovered[0]["details"]["new_origin"], done["outcome"]["origin"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_that_slept_or_was_killed_leaves_the_database_to_the_next_one() {
    let (mut first, mut second, database) = two_brokers("").await;
    first.full_pool(POOL, 2).await;
    let vnfci = first.register_one("amf-0", &SLOTS, By::Certificate).await;
    database.dump(&first.path().join("old.dump"));
    vnfci.boot(&first).await;
    first.stop().await;
    second.stop().await;
    restore(&first, &database);
    let mut killed = start_recovery(&first);
    until_under_way(&database).await;
    killed.kill().unwrap();
    killed.wait().unwrap();
    let refused = try_to_recover(&first).await;
    assert!(refused.code == 4 && refused.err.contains("another recovery"), "{refused:?}");
    database.sql("DELETE FROM leases");
    // The next one sleeps for longer than its lease.
    let mut slept = start_recovery(&first);
    until_under_way(&database).await;
    let pid = Pid::from_raw(i32::try_from(slept.id()).unwrap()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    let done = recover(&first, &["--force"]).await;
    first.serve().await;
    until_ready(&mut first).await;
    kill_process(pid, Signal::CONT).unwrap();
    let status = until(PATIENCE, "its end", async || slept.try_wait().unwrap()).await;
    assert_eq!(status.code(), Some(4), "{status}");
    // It changed nothing.
    until_ready(&mut first).await;
    let marks = "SELECT value FROM marks WHERE name IN ('audit_origin', 'recovery') ORDER BY name";
    assert_eq!(database.sql(marks).trim(), done["outcome"]["origin"].as_str().unwrap());
    assert_eq!(first.events("RECOVERED").await.len(), 1);
}
