//! Deployments of managed engines: one per engine identity, in the operator's namespace, without a Kubernetes token.

use super::context::Context;
use super::hold::Error;
use crate::api::names::{ENGINE_LABEL, MANAGED_BY, OPERATOR, POOL_LABEL, base32_hash};
use crate::api::pool::{ManagedEngines, Resources, Toleration};
use crate::api::{Engine, EnginePool};
use crate::cluster::{Intention, objects};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EnvFromSource, EnvVar, HTTPGetAction, LocalObjectReference,
    PodSecurityContext, PodSpec, PodTemplateSpec, Probe, ResourceRequirements, SeccompProfile, SecretEnvSource,
    SecurityContext, Toleration as PodToleration,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use std::collections::BTreeMap;

/// Where the engine serves its health.
const HEALTH_PORT: i32 = 8080;
/// Annotation: hash of what we want, so that an unchanged Deployment is not written.
const WANTED: &str = "dsv.dev/wanted";
/// Annotation of the pod: which key it was started with, since a changed Secret alone starts no pod anew.
const KEY: &str = "dsv.dev/key";
/// User and group of the engine's process: nobody on distroless images.
const NONROOT: i64 = 65532;

/// Makes or updates the engine's Deployment. An update waits until all other managed engines of the pool are connected,
/// so that at most one is away at a time; one that is away itself does not wait, or two that fail would wait for each other.
pub async fn apply(ctx: &Context, engine: &Engine, pool: &EnginePool, name: &str) -> Result<(), Error> {
    let Some(managed) = &pool.spec.engines else {
        return Ok(());
    };
    let mut wanted = compose(ctx, engine, pool, managed, name);
    let text = serde_json::to_string(&wanted).unwrap_or_default();
    let hash = base32_hash(&[&text]);
    wanted.annotations_mut().insert(WANTED.to_owned(), hash.clone());
    let home = &ctx.settings.home;
    let found: Option<Deployment> = objects::read(&ctx.client, home, name).await?;
    let as_wanted = |found: &Deployment| found.annotations().get(WANTED) == Some(&hash);
    let works = ctx.hub.session(&engine.uid().unwrap_or_default()).is_some();
    if found.is_some_and(|found| as_wanted(&found) || (works && others_away(ctx, engine, pool))) {
        return Ok(());
    }
    let api: Api<Deployment> = Api::namespaced(ctx.client.clone(), home);
    let params = PatchParams::apply("dsv.dev/engine-deployment").force();
    api.patch(name, &params, &Patch::Apply(&wanted))
        .await
        .to(|| format!("apply deployment {home}/{name}"))?;
    Ok(())
}

fn others_away(ctx: &Context, engine: &Engine, pool: &EnginePool) -> bool {
    let siblings = ctx.stores.engines.state_filter(|other| {
        other.namespace() == engine.namespace()
            && other.spec.pool == pool.name_any()
            && other.uid() != engine.uid()
            && super::engine::is_managed(other)
    });
    siblings
        .iter()
        .any(|other| ctx.hub.session(&other.uid().unwrap_or_default()).is_none())
}

/// Whether there is one that is not about to go.
pub async fn exists(ctx: &Context, name: &str) -> Result<bool, Error> {
    let found: Option<Deployment> = objects::read(&ctx.client, &ctx.settings.home, name).await?;
    Ok(found.is_some_and(|found| found.metadata.deletion_timestamp.is_none()))
}

/// Deletes the engine's Deployment. Absent is success.
pub async fn remove(ctx: &Context, name: &str) -> Result<(), Error> {
    let home = &ctx.settings.home;
    let found: Option<Deployment> = objects::read(&ctx.client, home, name).await?;
    if let Some(ours) = found.filter(|found| found.labels().get(MANAGED_BY).map(String::as_str) == Some(OPERATOR)) {
        objects::delete(&ctx.client, &ours).await?;
    }
    Ok(())
}

fn compose(ctx: &Context, engine: &Engine, pool: &EnginePool, managed: &ManagedEngines, name: &str) -> Deployment {
    let selector: BTreeMap<String, String> = [(ENGINE_LABEL.to_owned(), engine.uid().unwrap_or_default())].into();
    let mut labels = managed.pod_labels.clone();
    labels.extend(selector.clone());
    labels.extend(
        [
            (MANAGED_BY, OPERATOR.to_owned()),
            ("app.kubernetes.io/name", "dsv-engine".to_owned()),
            ("app.kubernetes.io/component", "engine".to_owned()),
            (POOL_LABEL, pool.uid().unwrap_or_default()),
        ]
        .map(|(key, value)| (key.to_owned(), value)),
    );
    let mut annotations = managed.pod_annotations.clone();
    annotations.extend(
        engine
            .spec
            .public_key
            .as_ref()
            .map(|key| (KEY.to_owned(), base32_hash(&[key]))),
    );
    Deployment {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(ctx.settings.home.clone()),
            labels: Some(labels.clone()),
            ..ObjectMeta::default()
        },
        spec: Some(DeploymentSpec {
            replicas: Some(1),
            // Two processes must not use one key at a time.
            strategy: Some(DeploymentStrategy {
                type_: Some("Recreate".into()),
                ..DeploymentStrategy::default()
            }),
            selector: LabelSelector {
                match_labels: Some(selector),
                ..LabelSelector::default()
            },
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels),
                    annotations: Some(annotations),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod(ctx, managed, name)),
            },
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

fn pod(ctx: &Context, managed: &ManagedEngines, name: &str) -> PodSpec {
    let pull: Vec<_> = managed
        .image_pull_secrets
        .iter()
        .map(|name| LocalObjectReference { name: name.clone() })
        .collect();
    PodSpec {
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        containers: vec![container(ctx, managed, name)],
        node_selector: (!managed.node_selector.is_empty()).then(|| managed.node_selector.clone()),
        tolerations: (!managed.tolerations.is_empty()).then(|| managed.tolerations.iter().map(toleration).collect()),
        priority_class_name: managed.priority_class_name.clone(),
        image_pull_secrets: (!pull.is_empty()).then_some(pull),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(NONROOT),
            run_as_group: Some(NONROOT),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".into(),
                localhost_profile: None,
            }),
            ..PodSecurityContext::default()
        }),
        ..PodSpec::default()
    }
}

fn container(ctx: &Context, managed: &ManagedEngines, name: &str) -> Container {
    let probe = |path: &str| Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::Int(HEALTH_PORT),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(10),
        ..Probe::default()
    };
    Container {
        name: "engine".into(),
        image: Some(ctx.settings.engine_image.clone()),
        args: Some(vec![
            "run".into(),
            "--health-addr".into(),
            format!("0.0.0.0:{HEALTH_PORT}"),
        ]),
        env: Some(variables(ctx, managed)),
        env_from: Some(vec![EnvFromSource {
            secret_ref: Some(SecretEnvSource {
                name: name.to_owned(),
                optional: None,
            }),
            ..EnvFromSource::default()
        }]),
        ports: Some(vec![ContainerPort {
            name: Some("health".into()),
            container_port: HEALTH_PORT,
            ..ContainerPort::default()
        }]),
        liveness_probe: Some(probe("/livez")),
        readiness_probe: Some(probe("/readyz")),
        resources: managed.resources.as_ref().map(resources),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".into()]),
                add: None,
            }),
            ..SecurityContext::default()
        }),
        ..Container::default()
    }
}

/// The endpoint stands in the registration Secret as well, as it was when that was made; this one wins and follows the
/// installation.
fn variables(ctx: &Context, managed: &ManagedEngines) -> Vec<EnvVar> {
    let variable = |name: &str, value: &str| EnvVar {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        ..EnvVar::default()
    };
    let mut all = vec![variable("DSV_ENDPOINT", &ctx.settings.engine_endpoints.join(","))];
    if let Some(proxy) = &managed.proxy {
        all.push(variable("HTTPS_PROXY", &proxy.https_proxy));
        all.extend(proxy.no_proxy.iter().map(|hosts| variable("NO_PROXY", hosts)));
    }
    all
}

fn resources(resources: &Resources) -> ResourceRequirements {
    let quantities = |map: &BTreeMap<String, IntOrString>| {
        let each = map.iter().map(|(key, value)| {
            let text = match value {
                IntOrString::Int(number) => number.to_string(),
                IntOrString::String(text) => text.clone(),
            };
            (key.clone(), Quantity(text))
        });
        (!map.is_empty()).then(|| each.collect::<BTreeMap<_, _>>())
    };
    ResourceRequirements {
        requests: quantities(&resources.requests),
        limits: quantities(&resources.limits),
        ..ResourceRequirements::default()
    }
}

fn toleration(toleration: &Toleration) -> PodToleration {
    PodToleration {
        key: toleration.key.clone(),
        operator: toleration.operator.clone(),
        value: toleration.value.clone(),
        effect: toleration.effect.clone(),
        toleration_seconds: toleration.toleration_seconds,
    }
}
