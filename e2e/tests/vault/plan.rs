//! What `kubectl dsv plan` says, held against a database.

use dsv::keys::{Password, Verifier};
use e2e::objects::text;
use e2e::postgres::Login;
use serde_json::Value;

use crate::world::World;

/// The plan and the database say the same: an account is in that group alone, the group has these rights on tables and no
/// others, and whoever runs the statements has such an account.
pub async fn is_so(world: &World, plan: &Value, user: &str) {
    let database = world.stack.postgres().connect("orders").await.unwrap();
    let texts = async |query: &str, about: &str| {
        let rows = database.query(query, &[&about]).await.unwrap();
        rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>()
    };
    let group = text(plan, "/group");
    let groups = "SELECT g.rolname::text FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
        JOIN pg_roles u ON u.oid = m.member WHERE u.rolname = $1";
    assert_eq!(texts(groups, user).await, std::slice::from_ref(&group));
    let rights = "SELECT privilege_type || ' on ' || table_schema || '.' || table_name
        FROM information_schema.role_table_grants WHERE grantee = $1 ORDER BY 1";
    let planned = plan["grants"].as_array().unwrap().iter();
    let planned: Vec<String> = planned
        .map(|grant| format!("{} on {}", text(grant, "/what"), text(grant, "/where")))
        .collect();
    assert_eq!(texts(rights, &group).await, planned);
    let (role, password) = (text(plan, "/role"), Password::generate());
    let statements = plan["sql"].as_array().unwrap().iter().map(|one| one.as_str().unwrap());
    let statements = statements.collect::<Vec<_>>().join(";\n");
    let statements = statements.replace("SCRAM-SHA-256$…", Verifier::of(&password).as_str());
    let run = format!("BEGIN;\n{statements};\nCOMMIT");
    database
        .batch_execute(&run)
        .await
        .unwrap_or_else(|error| panic!("{error:?}: {plan}"));
    let login = Login {
        user: role.clone(),
        password: password.reveal().to_owned(),
    };
    let session = world.stack.postgres().connect_as(&login, "orders").await.unwrap();
    assert_eq!(
        session.query("SELECT * FROM public.orders", &[]).await.unwrap().len(),
        3
    );
    assert!(session.query("SELECT * FROM public.invoices", &[]).await.is_err());
    assert_eq!(texts(groups, &role).await, [group]);
    drop(session);
    let drop_role = format!("DROP ROLE \"{role}\"");
    database.batch_execute(&drop_role).await.unwrap();
}
