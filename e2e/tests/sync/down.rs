//! A tenant that is down holds up its own syncs, and nothing is lost.

use e2e::faults::relay::{Manner, Relay};
use e2e::objects::text;
use serde_json::json;

use crate::setup::{Setup, peace, says};

#[tokio::test]
async fn a_tenant_that_is_down_gets_everything_when_it_is_back_and_others_do_not_wait() {
    let _peace = peace().await;
    let world = crate::world::world().await;
    let relay = Relay::start(([127, 0, 0, 1], world.port()).into()).await.unwrap();
    let setup = Setup::new(Some(&format!("https://{}", relay.address()))).await;
    for name in ["one", "two", "three", "four", "five", "six"] {
        setup.sync(name, &json!({}));
        setup.version(name, "0").await;
    }
    setup.tenant("other", "login", &json!({"url": world.url()}));
    setup.sync("beside", &json!({"tenant": "other"}));
    setup.version("beside", "0").await;

    relay.behave(Manner::Closed);
    relay.cut();
    setup.secret("source", &json!({"password": "second"}));
    // The other tenant is served as if nothing had happened.
    setup.version("beside", "1").await;
    setup
        .until("DsvTenant", "tenant", "the tenant is told to be down", |tenant| {
            says(tenant) == "TenantUnreachable"
        })
        .await;
    setup
        .until("SecretSync", "six", "a sync is told to wait for it", |sync| {
            says(sync) == "TenantUnreachable"
        })
        .await;

    relay.behave(Manner::Honest);
    for name in ["one", "two", "three", "four", "five", "six"] {
        let there = setup.version(name, "1").await;
        assert_eq!(text(&there, "/data/password"), "second");
        setup.says(name, "Synced").await;
    }
    setup
        .until("DsvTenant", "tenant", "the tenant is told to be back", |tenant| {
            says(tenant) == "Connected"
        })
        .await;
}
