//! The page for people, as its pages are written: who gets in, what is in each page, and what a form does.

use std::time::Duration;

use e2e::objects::text;
use serde_json::json;

use crate::person::{Person, SESSION, audit_of, place, user};
use crate::world::world;

const PATIENCE: Duration = Duration::from_mins(2);
pub const PAGES: [&str; 8] = [
    "/admin",
    "/admin/tenants",
    "/admin/syncs",
    "/admin/engines",
    "/admin/dynamic-secrets",
    "/admin/leases",
    "/admin/blocked",
    "/admin/audit",
];

#[tokio::test]
async fn nobody_sees_a_page_before_signing_in_and_every_page_is_closed_to_others() {
    let world = world().await;
    let mut nobody = Person::new(world);
    for (path, to) in [
        ("/admin", "/admin/sign-in"),
        ("/admin/leases", "/admin/sign-in?to=/admin/leases"),
        ("/admin/tenants/1/edit", "/admin/sign-in?to=/admin/tenants/1/edit"),
        ("/admin/no-such-page", "/admin/sign-in?to=/admin/no-such-page"),
    ] {
        let answer = nobody.get(path).await;
        assert_eq!((answer.code, place(&answer).as_str()), (303, to), "{path}");
        assert!(answer.text.is_empty() && nobody.cookies.is_empty());
    }
    let answer = nobody.post("/admin/tenants", &[("name", "x")]).await;
    assert_eq!((answer.code, place(&answer).as_str()), (303, "/admin/sign-in"));
    // A token of the API is no session, and a made-up cookie none either.
    let bearer = [("Authorization", world.admin.as_str())];
    assert_eq!(nobody.send("GET", "/admin", &bearer, String::new()).await.code, 303);
    nobody.cookies.insert(SESSION.to_owned(), "a".repeat(43));
    assert_eq!(nobody.get("/admin").await.code, 303);
    assert_eq!(
        nobody.send("DELETE", "/admin/tenants/1", &[], String::new()).await.code,
        405
    );

    let mut person = Person::signed_in(world, "admin", &world.password).await;
    for path in PAGES
        .iter()
        .chain(&["/admin/sign-in", "/admin/no-such-page", "/admin/tenants/987654"])
    {
        let answer = person.get(path).await;
        let header = |name: &str| {
            answer
                .headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default()
        };
        let policy = header("content-security-policy");
        for part in [
            "default-src 'none'",
            "style-src 'self'",
            "form-action 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
        ] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(header("cache-control"), "no-store", "{path}");
        assert_eq!(header("x-content-type-options"), "nosniff");
        assert_eq!(header("referrer-policy"), "no-referrer");
        assert!(header("strict-transport-security").starts_with("max-age="));
        assert!(header("content-type").starts_with("text/html"), "{path}");
        outline(path, &answer.text);
    }
    let sheet = nobody.get("/admin/style.css?v=1").await;
    assert_eq!(sheet.code, 200);
    assert!(sheet.headers["content-type"].to_str().unwrap().starts_with("text/css"));
    assert!(
        sheet.headers["cache-control"]
            .to_str()
            .unwrap()
            .contains("max-age=31536000")
    );
}

/// What helps people who do not see the page, and what would run or load something.
fn outline(path: &str, page: &str) {
    for part in [
        "<!DOCTYPE html>",
        "<html lang=\"en\">",
        "<title>",
        "class=\"skip\" href=\"#main\"",
        "<header",
        "<main",
        "id=\"main\"",
        "<h1>",
    ] {
        assert!(page.contains(part), "{path} lacks {part}");
    }
    for part in [
        "<script",
        "<style",
        " style=",
        " onclick",
        "javascript:",
        "<img",
        "<iframe",
    ] {
        assert!(!page.contains(part), "{path} has {part}");
    }
    assert_eq!(page.matches("<h1>").count(), 1, "{path}");
    for head in page.split("<th").skip(1).filter(|rest| !rest.starts_with("ead")) {
        assert!(head.starts_with(" scope="), "{path}: a head of a table has no scope");
    }
    for form in page
        .split("<form")
        .skip(1)
        .filter(|rest| rest.contains("method=\"post\""))
    {
        let form = form.split("</form>").next().unwrap();
        if form.split('>').next().unwrap().contains("method=\"post\"") {
            assert!(form.contains("name=\"csrf\""), "{path}: a form has no token");
        }
    }
    for control in page.split("<input ").chain(page.split("<select ")).skip(1) {
        let tag = control.split('>').next().unwrap();
        if let Some(id) = tag.split("id=\"").nth(1) {
            let label = format!("for=\"{}\"", id.split('"').next().unwrap());
            assert!(page.contains(&label), "{path}: nothing says {label}");
        }
    }
}

#[tokio::test]
async fn signing_in_is_held_to_what_a_token_is_held_to() {
    let world = world().await;
    let name = user(world, &[]).await;
    let mut person = Person::new(world);
    // The form is bound to the browser that it was shown to.
    let bare = person
        .post("/admin/sign-in", &[("username", &name), ("password", &name)])
        .await;
    assert_eq!(bare.code, 403, "{}", bare.text);
    person.get("/admin/sign-in").await;
    let mut other = Person::new(world);
    other.get("/admin/sign-in").await;
    let fields = [("username", name.as_str()), ("password", name.as_str())];
    let theirs = other.csrf.clone();
    for csrf in ["", "AAAA", &theirs] {
        assert_eq!(
            person.post_with("/admin/sign-in", csrf, &[], &fields).await.code,
            403,
            "{csrf}"
        );
    }
    person.get("/admin/sign-in").await;
    let csrf = person.csrf.clone();
    for site in ["cross-site", "same-site"] {
        let headers = [("Sec-Fetch-Site", site)];
        assert_eq!(
            person.post_with("/admin/sign-in", &csrf, &headers, &fields).await.code,
            403
        );
    }
    assert!(!person.cookies.contains_key(SESSION));

    let answer = person.sign_in(&name, &name).await;
    assert_eq!(
        (answer.code, place(&answer).as_str()),
        (303, "/admin"),
        "{}",
        answer.text
    );
    let cookies = answer.headers.get_all("set-cookie").iter();
    let cookie = cookies
        .map(|value| value.to_str().unwrap())
        .find(|text| text.starts_with(SESSION))
        .unwrap();
    for part in ["Secure", "HttpOnly", "SameSite=Strict", "Path=/admin", "Max-Age=3600"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    person.known().await;
    let lines = [
        audit_of(world, 0, "admin/sign-in").await,
        audit_of(world, 1, "admin/sign-in").await,
    ]
    .concat();
    let who = format!("users:{name}");
    assert!(
        lines
            .iter()
            .any(|line| text(line, "/principal") == who && line["status"] == 303),
        "{lines:?}"
    );

    // Another password ends the session; an ordinary way out does, too.
    let mut second = Person::signed_in(world, &name, &name).await;
    second.page("/admin").await;
    let kept = second.cookies.clone();
    let out = second.post("/admin/sign-out", &[]).await;
    assert_eq!((out.code, place(&out).as_str()), (303, "/admin/sign-in"));
    assert!(!second.cookies.contains_key(SESSION));
    second.cookies = kept;
    for _ in 0..2 {
        assert_eq!(
            second.get("/admin").await.code,
            303,
            "the cookie is worth nothing any more"
        );
    }
    person.page("/admin").await;
    // Times of passwords are kept in whole seconds.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let change = json!({"currentPassword": name, "newPassword": "another one"});
    let token = world.log_in(&name, &name).await.unwrap().is(200);
    let call = format!("POST users/{name}/password");
    world.at(0, &text(&token, "/accessToken"), &call, &change).await.is(204);
    let gone = || async {
        let mut again = Person::new(world);
        again.cookies.clone_from(&person.cookies);
        let first = again.get("/admin").await.code;
        let both = [first, again.get("/admin").await.code];
        Ok((both == [303, 303]).then_some(()))
    };
    world
        .stack
        .eventually("the old session is void", PATIENCE, gone)
        .await
        .unwrap();

    // Five wrong passwords lock the login, here and there.
    let mut guesser = Person::new(world);
    for _ in 0..5 {
        let answer = guesser.sign_in(&name, "a guess").await;
        assert_eq!(answer.code, 401, "{}", answer.text);
        assert!(answer.text.contains("role=\"alert\"") && !answer.text.contains("a guess"));
    }
    let answer = guesser.sign_in(&name, "another one").await;
    assert!(
        answer.code == 401 && answer.text.contains("locked out"),
        "{}",
        answer.text
    );
    world
        .log_in(&name, "another one")
        .await
        .unwrap()
        .fails(401, "locked out");
    let unknown = guesser.sign_in("nobody-at-all", "a guess").await;
    assert!(unknown.code == 401 && !guesser.cookies.contains_key(SESSION));
}
