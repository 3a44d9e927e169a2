//! `NetworkPolicy` objects against what really flows: the connections that operator and engines have are those that the
//! policies admit, and the policies admit nothing else. The plugin that connects the pods here enforces none.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::install::NAMESPACE;
use crate::node::inside::ADDRESS;
use crate::node::world::World;
use crate::objects::text;

const OPERATOR: &str = "dsv-operator";
const ENGINE: &str = "dsv-engine";
/// Where kubelet asks for health; a policy need not admit it, since a node always reaches its own pods.
const HEALTH: u16 = 8080;
const DNS: u16 = 53;
/// What `/proc/net/tcp` calls a connection that is open, and one that listens.
const OPEN: &str = "01";
const LISTENS: &str = "0A";

/// Where engines come in.
const CHANNEL: u16 = 8443;

pub async fn run(world: &World) -> Result<()> {
    as_written(world)?;
    // A moment's look may fall into a change; what is open all the time is seen by the next one.
    let what = "the connections of operator and engines are those that the policies admit";
    world.eventually(what, || async { as_they_flow(world).map(Some) }).await
}

fn as_written(world: &World) -> Result<()> {
    let policies = world.kubectl(&["get", "networkpolicies", "-n", NAMESPACE, "-o=json"])?;
    let policies: Value = serde_json::from_str(&policies)?;
    let items = policies.pointer("/items").and_then(Value::as_array);
    let items = items.context("there are no NetworkPolicies")?;
    let name = |item: &Value| text(item, "/metadata/name");
    let names: Vec<String> = items.iter().map(name).collect();
    ensure!(names == [ENGINE, OPERATOR], "the NetworkPolicies are {names:?}");
    let database = world.postgres.port();
    for policy in items {
        let whose = name(policy);
        selects_its_pods(world, policy, &whose)?;
        let (into, out): (BTreeSet<u16>, BTreeSet<u16>) = if whose == OPERATOR {
            ([CHANNEL].into(), [DNS, 443, 6443].into())
        } else {
            ([].into(), [DNS, CHANNEL, database].into())
        };
        let found = (ports(policy, "ingress"), ports(policy, "egress"));
        ensure!(found == (into, out), "the policy of {whose} admits {found:?}");
    }
    Ok(())
}

/// As the pods themselves see their connections: a Service is dialled by its own address and port.
fn as_they_flow(world: &World) -> Result<()> {
    let api = service(world, "default", "kubernetes")?;
    let channel = service(world, NAMESPACE, "dsv-operator-channel")?;
    let (operators, engines) = (connections(OPERATOR)?, connections(ENGINE)?);
    ensure!(
        operators.from.is_subset(&[CHANNEL, HEALTH].into()) && operators.from.contains(&CHANNEL),
        "operators are reached at {:?}",
        operators.from
    );
    ensure!(operators.to == [api].into(), "operators dial {:?}", operators.to);
    ensure!(
        engines.from.is_subset(&[HEALTH].into()),
        "engines are reached at {:?}",
        engines.from
    );
    let admitted = [channel, (ADDRESS, world.postgres.port())].into();
    ensure!(
        engines.to.is_subset(&admitted) && engines.to.contains(&channel),
        "engines dial {:?}",
        engines.to
    );
    Ok(())
}

/// The policy is for exactly the pods of this name.
fn selects_its_pods(world: &World, policy: &Value, name: &str) -> Result<()> {
    let labels = policy
        .pointer("/spec/podSelector/matchLabels")
        .and_then(Value::as_object);
    let labels = labels.context("a policy selects every pod")?.iter();
    let selector: Vec<String> = labels
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    let pods = |selector: &str| world.kubectl(&["get", "pods", "-n", NAMESPACE, "-l", selector, "-o=name"]);
    let (selected, own) = (
        pods(&selector.join(","))?,
        pods(&format!("app.kubernetes.io/name={name}"))?,
    );
    ensure!(
        selected == own && !own.trim().is_empty(),
        "the policy of {name} selects {selected:?} and not {own:?}"
    );
    Ok(())
}

/// All ports of a direction's rules.
fn ports(policy: &Value, direction: &str) -> BTreeSet<u16> {
    let rules = policy.pointer(&format!("/spec/{direction}")).and_then(Value::as_array);
    let ports = rules
        .into_iter()
        .flatten()
        .filter_map(|rule| rule.pointer("/ports")?.as_array());
    let numbers = ports.flatten().filter_map(|port| port.pointer("/port")?.as_u64());
    numbers.filter_map(|number| u16::try_from(number).ok()).collect()
}

/// Address and port of a Service.
fn service(world: &World, namespace: &str, name: &str) -> Result<(Ipv4Addr, u16)> {
    let field = "-o=jsonpath={.spec.clusterIP} {.spec.ports[0].port}";
    let found = world.kubectl(&["get", "service", name, "-n", namespace, field])?;
    let (address, port) = found.trim().split_once(' ').context("the Service has no address")?;
    Ok((address.parse()?, port.parse()?))
}

#[derive(Debug, Default)]
struct Connections {
    /// Own ports at which others are connected.
    from: BTreeSet<u16>,
    /// Addresses that were dialled.
    to: BTreeSet<(Ipv4Addr, u16)>,
}

/// The open connections of all processes of a program, as their pods' networks see them.
fn connections(program: &str) -> Result<Connections> {
    let mut found = Connections::default();
    for entry in fs::read_dir("/proc")? {
        let folder = entry?.path();
        let name = fs::read_to_string(folder.join("comm")).unwrap_or_default();
        if name.trim() == program {
            add(&mut found, &folder)?;
        }
    }
    Ok(found)
}

fn add(found: &mut Connections, process: &Path) -> Result<()> {
    let table = fs::read_to_string(process.join("net/tcp"))?;
    let sockets: Vec<Vec<&str>> = table
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect())
        .collect();
    let of = |state: &'static str| sockets.iter().filter(move |fields| fields.get(3) == Some(&state));
    let own = |fields: &Vec<&str>| address(fields.get(1)?);
    let listening: BTreeSet<u16> = of(LISTENS).filter_map(|fields| Some(own(fields)?.1)).collect();
    for fields in of(OPEN) {
        let (Some((_, port)), Some(other)) = (own(fields), fields.get(2).and_then(|text| address(text))) else {
            continue;
        };
        if listening.contains(&port) {
            found.from.insert(port);
        } else {
            found.to.insert(other);
        }
    }
    Ok(())
}

/// Such as `0100007F:1F90`, the address in the machine's own order of bytes.
fn address(text: &str) -> Option<(Ipv4Addr, u16)> {
    let (address, port) = text.split_once(':')?;
    let address = u32::from_str_radix(address, 16).ok()?;
    Some((
        Ipv4Addr::from(address.to_ne_bytes()),
        u16::from_str_radix(port, 16).ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn an_address_of_the_kernels_table_is_read() {
        assert_eq!(address("0100007F:1F90"), Some((Ipv4Addr::LOCALHOST, 8080)));
        assert_eq!(address("nonsense"), None);
    }
}
