//! The page in a real Chromium without a window. `DSV_SCREENSHOTS` names a folder for pictures of the pages; without it none
//! is kept, so that a run of the tests changes nothing in the sources.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::browser::Browser;
use e2e::engine::Engine;
use e2e::objects::text;
use e2e::programs;
use e2e::say::say;
use serde_json::json;

use crate::person::{login, source};
use crate::world::{World, fresh, world};

const PATIENCE: Duration = Duration::from_mins(3);
/// Long enough to be seen in a list by a slow machine, short enough to be waited for.
const LIFE: u64 = 45;
/// Of the account that is to be blocked at its end.
const SHORT: u64 = 25;

struct Walk<'a> {
    world: &'a World,
    browser: Browser,
    pictures: Option<PathBuf>,
}

impl Walk<'_> {
    async fn go(&self, path: &str) -> Result<()> {
        self.browser.go(&format!("{}{path}", self.world.url())).await
    }

    /// Loads a page until it says something.
    async fn until(&self, path: &str, what: &str, check: impl Fn(&str) -> bool) -> Result<String> {
        let look = || async {
            self.go(path).await?;
            let text = self.browser.read("main").await?;
            ensure!(check(&text), "the page says:\n{text}");
            Ok(Some(text))
        };
        self.world.stack.eventually(what, PATIENCE, look).await
    }

    async fn keep(&self, name: &str) -> Result<()> {
        let Some(folder) = &self.pictures else { return Ok(()) };
        std::fs::create_dir_all(folder)?;
        let file = folder.join(format!("admin-{name}.png"));
        std::fs::write(&file, self.browser.picture().await?).with_context(|| file.display().to_string())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_real_browser_somebody_signs_in_registers_a_tenant_sees_a_push_and_the_end_of_a_lease() {
    let found = tokio::task::spawn_blocking(programs::browser).await.unwrap();
    let programs = match found {
        Ok(programs) => programs,
        Err(why) => {
            say(format!("SKIPPED, the page was not tried in a browser: {why:#}"));
            return;
        }
    };
    let world = world().await;
    let walk = Walk {
        world,
        browser: Browser::start(world.stack.run(), &programs).await.unwrap(),
        pictures: std::env::var_os("DSV_SCREENSHOTS").map(PathBuf::from),
    };
    let run = async {
        let lease = sign_in(&walk).await?;
        register(&walk).await?;
        lease_ends(&walk, &lease).await?;
        sign_out(&walk).await
    };
    let outcome: Result<()> = run.await;
    if let Err(error) = outcome {
        let page = walk.browser.read("body").await.unwrap_or_default();
        panic!("{error:#}\nthe page at last:\n{page}");
    }
    walk.browser.close().await.unwrap();
}

/// Path of a dynamic secret, its account, another one that resists, and the engine that sees to them.
struct Lease {
    path: String,
    account: String,
    stuck: String,
    _engine: Engine,
}

/// An account that ends soon, one that stays, and the page that shows both.
async fn sign_in(walk: &Walk<'_>) -> Result<Lease> {
    let (world, browser) = (walk.world, &walk.browser);
    walk.go("/admin/leases").await?;
    browser.arrive("/admin/sign-in?to=/admin/leases").await?;
    ensure!(
        browser.title().await?.starts_with("Sign in"),
        "the title is another one"
    );
    ensure!(
        browser.heard("Password").await? == "Password",
        "the field is not called by its label"
    );
    // Nobody whose login would be locked by this.
    browser.write("User", "a stranger").await?;
    browser.write("Password", "a guess").await?;
    browser.press("Sign in").await?;
    ensure!(
        browser.read("[role=alert]").await?.contains("password"),
        "a wrong password is not told"
    );
    walk.keep("sign-in").await?;

    let (pool, engine) = world.pool_with_engine().await;
    let base = world.base().await;
    let path = world.dynamic(&base, &pool, &json!({"ttl": LIFE})).await;
    let stays = world.dynamic(&base, &pool, &json!({"ttl": 7200})).await;
    world.read(&format!("secrets/{stays}")).await;
    let stuck = stuck(world, &base, &pool).await?;
    let read = world.read(&format!("secrets/{path}")).await;
    let account = text(&read, "/data/username");
    browser.write("User", "admin").await?;
    browser.write("Password", &world.password).await?;
    browser.press("Sign in").await?;
    // To where he wanted to go.
    browser.arrive(&format!("{}/admin/leases", world.url())).await?;
    let page = browser.read("main").await?;
    ensure!(page.contains(&account), "the lease is not shown:\n{page}");
    walk.keep("leases").await?;
    Ok(Lease {
        path,
        account,
        stuck,
        _engine: engine,
    })
}

/// An account that cannot be dropped at its end: a superuser gave it a right.
async fn stuck(world: &World, base: &str, pool: &str) -> Result<String> {
    let path = world.dynamic(base, pool, &json!({"ttl": SHORT})).await;
    let read = world.read(&format!("secrets/{path}")).await;
    let account = text(&read, "/data/username");
    let superuser = world.stack.postgres().connect("orders").await?;
    superuser
        .batch_execute(&format!("GRANT SELECT ON public.invoices TO \"{account}\""))
        .await?;
    Ok(account)
}

/// A tenant, a secret for it, and the push.
async fn register(walk: &Walk<'_>) -> Result<()> {
    let (world, browser) = (walk.world, &walk.browser);
    let root = match walk.pictures {
        Some(_) => "production".to_owned(),
        None => fresh("production"),
    };
    let (credentials, orders) = (format!("Login for {root}"), format!("Orders of {root}"));
    login(world, &credentials, &root).await;
    source(world, &orders, 2, &[("domain", "corp.example"), ("password", "first")]).await;
    browser.press("DSV tenants").await?;
    browser.arrive("/admin/tenants").await?;
    browser.press("New tenant").await?;
    browser.arrive("/admin/tenants/new").await?;
    browser.write("Name", &root).await?;
    browser.choose("Login", &credentials).await?;
    browser.write("Sync interval", "60").await?;
    walk.keep("tenant-new").await?;
    browser.press("Create").await?;
    let tenant = browser.arrive("?done=made").await?;
    let tenant = tenant
        .split_once('?')
        .map_or(tenant.as_str(), |(path, _)| path)
        .to_owned();
    let tenant = tenant.trim_start_matches(&world.url()).to_owned();
    walk.until(&tenant, "the tenant is connected", |page| page.contains("Connected"))
        .await?;
    walk.keep("tenant").await?;

    browser.press("Secrets").await?;
    browser.arrive(&format!("{tenant}/secrets")).await?;
    browser.press("Add secret").await?;
    browser.arrive(&format!("{tenant}/secrets/new")).await?;
    browser.choose("Secret", &orders).await?;
    browser.write("Path", &format!("{root}/$domain/orders")).await?;
    walk.keep("sync-new").await?;
    browser.press("Add").await?;
    let sync = browser.arrive("?done=made").await?;
    let sync = sync.split_once('?').map_or(sync.as_str(), |(path, _)| path).to_owned();
    let sync = sync.trim_start_matches(&world.url()).to_owned();
    let page = walk
        .until(&sync, "the push is shown", |page| page.contains("Synced"))
        .await?;
    ensure!(
        page.contains(&format!("{root}/corp.example/orders")),
        "the path is another one:\n{page}"
    );
    walk.keep("sync").await?;
    let there = world.get(&format!("secrets/{root}/corp.example/orders")).await;
    ensure!(there.code == 200, "the tenant has nothing: {}", there.text);
    browser.press("Push now").await?;
    browser.arrive("?done=pushed").await?;
    let pushed = |page: &str| page.contains("Version at the tenant\n1") || page.contains("Version at the tenant 1");
    walk.until(&sync, "the second push is shown", pushed).await?;
    walk.go(&format!("{tenant}/secrets")).await?;
    walk.keep("tenant-secrets").await?;
    walk.go(&format!("{tenant}/audit")).await?;
    ensure!(
        browser.read("main").await?.contains("users:admin"),
        "the tenant's audit names nobody"
    );
    walk.keep("tenant-audit").await?;
    walk.go("/admin/tenants").await?;
    walk.keep("tenants").await?;
    walk.go("/admin/syncs").await?;
    walk.keep("syncs").await
}

/// The lease leaves the list when its account is proven gone.
async fn lease_ends(walk: &Walk<'_>, lease: &Lease) -> Result<()> {
    let leases = format!("/admin/leases?secret={}", lease.path);
    walk.until(&leases, "the lease has ended", |page| !page.contains(&lease.account))
        .await?;
    let held_up = |page: &str| page.contains(&lease.stuck) && (page.contains("REVOKE") || page.contains("DROP OWNED"));
    walk.until("/admin/blocked", "what holds up the other one is told", held_up)
        .await?;
    walk.keep("blocked").await?;
    let superuser = walk.world.stack.postgres().connect("orders").await?;
    superuser
        .batch_execute(&format!("DROP OWNED BY \"{}\"", lease.stuck))
        .await?;
    for (name, path) in [
        ("overview", "/admin"),
        ("engines", "/admin/engines"),
        ("dynamic-secrets", "/admin/dynamic-secrets"),
        ("audit", "/admin/audit"),
    ] {
        walk.go(path).await?;
        walk.keep(name).await?;
    }
    walk.browser.dark(true).await?;
    walk.go("/admin").await?;
    walk.keep("overview-dark").await?;
    walk.browser.dark(false).await
}

async fn sign_out(walk: &Walk<'_>) -> Result<()> {
    walk.browser.press("Sign out").await?;
    walk.browser.arrive("/admin/sign-in").await?;
    walk.go("/admin/leases").await?;
    walk.browser.arrive("/admin/sign-in").await?;
    Ok(())
}
