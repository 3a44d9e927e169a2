//! What an account is like.

use serde_json::json;
use tokio_postgres::error::SqlState;

use crate::modes::scene;

#[tokio::test]
async fn account_settings_reach_the_role() {
    let scene = scene().await;
    let account = json!({
        "connectionLimit": 2,
        "statementTimeout": "1s",
        "idleInTransactionTimeout": "7s",
        "searchPath": ["Odd \"schema\"", "public"],
    });
    scene.ask("app", &json!({"ttl": 30, "account": account})).await.unwrap();
    let credential = scene.wait_credential("app").await.unwrap();
    let session = scene.log_in(&credential.login).await.unwrap();
    for (setting, value) in [
        ("statement_timeout", "1s"),
        ("idle_in_transaction_session_timeout", "7s"),
        ("search_path", "\"Odd \"\"schema\"\"\", public"),
    ] {
        let row = session.query_one(&format!("SHOW {setting}"), &[]).await.unwrap();
        assert_eq!(row.get::<_, String>(0), value, "{setting}");
    }
    let slow = session.batch_execute("SELECT pg_sleep(3)").await.unwrap_err();
    assert_eq!(slow.code(), Some(&SqlState::QUERY_CANCELED));
    session
        .query_one("SELECT count(*) FROM orders", &[])
        .await
        .expect("found by the search path");
    let _second = scene.log_in(&credential.login).await.unwrap();
    let third = scene
        .log_in(&credential.login)
        .await
        .expect_err("two sessions are the limit");
    assert!(format!("{third:#}").contains("too many connections"), "{third:#}");
}
