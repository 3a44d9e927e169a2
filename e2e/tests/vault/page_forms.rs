//! Forms of the page: a tenant, a sync, pushes, and what was wrong. What people wrote is text, and no value is anywhere.

use std::time::Duration;

use e2e::objects::text;
use serde_json::Value;

use crate::page::PAGES;
use crate::person::{Person, SESSION, audit_of, login, place, source};
use crate::world::{fresh, world};

const PATIENCE: Duration = Duration::from_mins(2);

/// Names that would be a script, were they not text.
const SCRIPT: &str = "<script>alert(1)</script>\"'&";
const ESCAPED: &str = "&lt;script&gt;alert(1)&lt;/script&gt;&quot;";

#[tokio::test]
async fn a_tenant_is_made_and_pushed_to_by_forms_and_names_are_text_and_values_are_nowhere() {
    let world = world().await;
    let root = fresh("page");
    let name = format!("{root} {SCRIPT}");
    let (credentials, client_secret) = login(world, &format!("Login {name}"), &root).await;
    let value = fresh("value-that-nobody-may-see");
    let secret = source(world, &name, 2, &[("domain", "corp.example"), ("password", &value)]).await;

    let mut person = Person::signed_in(world, "admin", &world.password).await;
    // A replica hears a moment later of what was made at the other one.
    let label = format!("Login {root} {ESCAPED}");
    let mut seen = vec![person.until("/admin/tenants/new", &label).await];
    // Somebody else's form, and one without a token, do nothing.
    let fields = [
        ("name", name.as_str()),
        ("secret", &credentials),
        ("interval", "60"),
        ("active", "true"),
    ];
    let mut other = Person::signed_in(world, "admin", &world.password).await;
    other.page("/admin").await;
    let theirs = other.csrf.clone();
    for csrf in ["", &theirs] {
        let answer = person.post_with("/admin/tenants", csrf, &[], &fields).await;
        assert_eq!(answer.code, 403, "{}", answer.text);
    }
    person.page("/admin/tenants/new").await;
    let csrf = person.csrf.clone();
    let headers = [("Sec-Fetch-Site", "cross-site")];
    assert_eq!(
        person.post_with("/admin/tenants", &csrf, &headers, &fields).await.code,
        403
    );
    let list = format!("/admin/tenants?name={root}");
    assert!(
        !person.page(&list).await.contains(ESCAPED),
        "a foreign form made a tenant"
    );

    // What is wrong is told beside its field, with what was written.
    let wrong = [
        ("name", name.as_str()),
        ("secret", &secret),
        ("interval", "1"),
        ("active", "true"),
    ];
    let refused = person.post("/admin/tenants", &wrong).await;
    assert_eq!(refused.code, 400, "{}", refused.text);
    assert!(refused.text.contains("aria-invalid=\"true\"") && refused.text.contains("Client Secret and Tenant URL"));
    assert!(refused.text.contains(ESCAPED));
    seen.push(refused.text);
    let made = person.post("/admin/tenants", &fields).await;
    assert_eq!(made.code, 303, "{}", made.text);
    let tenant = place(&made).split_once('?').unwrap().0.to_owned();
    let number = tenant.rsplit('/').next().unwrap().to_owned();
    seen.push(person.page(&place(&made)).await);

    let add = format!("{tenant}/secrets");
    seen.push(person.page(&format!("{add}/new")).await);
    let path = format!("{root}/$password/orders");
    let refused = person
        .post(&add, &[("secret", &secret), ("path", &path), ("active", "true")])
        .await;
    assert!(
        refused.code == 400 && refused.text.contains("must not hold the field password"),
        "{}",
        refused.text
    );
    seen.push(refused.text);
    let path = format!("{root} / $domain/orders");
    let made = person
        .post(&add, &[("secret", &secret), ("path", &path), ("active", "true")])
        .await;
    assert_eq!(made.code, 303, "{}", made.text);
    let sync = place(&made).split_once('?').unwrap().0.to_owned();
    let page = person.until(&sync, ">Synced<").await;
    assert!(page.contains(&format!("{root}/corp.example/orders")), "{page}");
    seen.push(page);
    let there = world.get(&format!("secrets/{root}/corp.example/orders")).await.is(200);
    assert_eq!(
        (text(&there, "/data/password"), text(&there, "/version")),
        (value.clone(), "0".into())
    );

    // Pushing at once; pausing leaves it alone; what nobody changed is not sent.
    let pushed = person.post(&format!("{sync}/push"), &[]).await;
    assert!(
        pushed.code == 303 && place(&pushed).ends_with("?done=pushed"),
        "{}",
        pushed.text
    );
    let again = || async {
        let there = world.get(&format!("secrets/{root}/corp.example/orders")).await.is(200);
        Ok((text(&there, "/version") == "1").then_some(()))
    };
    world
        .stack
        .eventually("it is pushed again", PATIENCE, again)
        .await
        .unwrap();
    let off = person.post(&format!("{sync}/active"), &[("active", "false")]).await;
    assert_eq!(off.code, 303);
    let left = person.post(&format!("{sync}/push"), &[]).await;
    assert!(place(&left).ends_with("?done=left"), "{}", place(&left));
    assert!(person.page(&sync).await.contains(">Inactive<"));
    let change = [("name", name.as_str()), ("secret", &credentials), ("interval", "90")];
    assert_eq!(person.post(&tenant, &change).await.code, 303);
    seen.push(person.page(&tenant).await);
    assert!(seen.last().unwrap().contains("90 min") && seen.last().unwrap().contains(">Inactive<"));
    seen.push(person.page(&format!("{tenant}/audit")).await);
    assert!(
        seen.last().unwrap().contains("syncInterval, active"),
        "only what changed is noted"
    );
    // Changes stand under the API's own addresses, whoever made them and how.
    let lines = [0, 1].map(|replica| audit_of(world, replica, "api/devops-secrets-vault/add-sync"));
    let [one, two] = futures::future::join_all(lines).await.try_into().unwrap();
    assert!(
        one.iter()
            .chain(&two)
            .any(|line: &Value| text(line, "/principal") == "users:admin" && line["status"] == 200)
    );

    for path in PAGES.iter().map(|path| (*path).to_owned()).chain([
        format!("{tenant}/secrets"),
        format!("{tenant}/edit"),
        list,
        format!("/admin/syncs?x={number}"),
        "/admin/audit?principal=%3Cscript%3E".to_owned(),
    ]) {
        seen.push(person.page(&path).await);
    }
    for page in &seen {
        for hidden in [value.as_str(), &client_secret, &world.password, &world.admin, "<script"] {
            assert!(!page.contains(hidden), "a page shows {hidden}:\n{page}");
        }
    }
    let cookie = &person.cookies[SESSION];
    assert!(!seen.iter().any(|page| page.contains(cookie.as_str())));
    for replica in 0..2 {
        let log = std::fs::read_to_string(world.audit_file(replica)).unwrap();
        assert!(!log.contains(&value) && !log.contains(cookie.as_str()) && !log.contains(&person.csrf));
    }
}
