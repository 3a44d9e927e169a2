//! A DSV tenant for the tutorial: the REST API of the very operator that it is about, which is one too.

use super::world::World;

/// The tenant's namespace, out of the tutorial's way.
pub const NAMESPACE: &str = "vault";

/// What `dsv client create` does: a client that may write below one path. Prints what a shell needs to know of it.
const CLIENT: &str = r#"
ca() { kubectl -n dsv-system get secret dsv-api-ca -o jsonpath='{.data.ca\.crt}' | base64 -d; }
until ca > ca.pem 2>/dev/null && [ -s ca.pem ]; do sleep 0.2; done
call() { curl -sS --fail-with-body --retry 20 --retry-all-errors --cacert ca.pem -H 'Content-Type: application/json' "$@"; }
value() { sed -E "s/.*\"$1\": ?\"([^\"]+)\".*/\1/"; }
until password=$(kubectl -n dsv-system get secret dsv-admin-NAMESPACE -o jsonpath='{.data.password}' 2>/dev/null); do sleep 0.2; done
password=$(echo "$password" | base64 -d)
token=$(call "URL/v1/token" -d "{\"grant_type\": \"password\", \"username\": \"admin\", \"password\": \"$password\"}" | value accessToken)
call() { curl -sS --fail-with-body --cacert ca.pem -H 'Content-Type: application/json' -H "Authorization: $token" "$@"; }
call URL/v1/roles/ -d '{"name": "pusher", "description": "", "provider": "", "externalId": ""}' > /dev/null
document='{\"permissionDocument\": [{\"subjects\": [\"roles:pusher\"], \"effect\": \"allow\", \"actions\": [\"<create|read|update|delete>\"], \"resources\": [\"secrets:billing:<.*>\"]}]}'
call URL/v1/config/policies/ -d "{\"path\": \"secrets:billing\", \"policy\": \"$document\", \"serialization\": \"json\"}" > /dev/null
client=$(call URL/v1/clients/ -d '{"role": "pusher"}')
echo "export TENANT_URL=URL CLIENT_ID=$(echo "$client" | value clientId) CLIENT_SECRET=$(echo "$client" | value clientSecret)"
"#;

/// Makes the client, leaves `ca.pem` where commands run, and gives what is to be run before those that name it.
pub fn client(world: &World) -> String {
    let url = format!("https://{}", world.api());
    let script = CLIENT
        .replace("URL/", &format!("{url}/"))
        .replace("=URL ", &format!("={url} "));
    let said = world.bash("tenant", &script.replace("NAMESPACE", NAMESPACE)).unwrap();
    let exports = said
        .lines()
        .find(|line| line.starts_with("export TENANT_URL="))
        .unwrap();
    exports.to_owned()
}
