//! An OCI image layout in a tar, as `ctr images import`, `docker load`, `podman load` and `skopeo` take it.

use std::collections::BTreeMap;

use anyhow::Result;
use jiff::Timestamp;
use serde_json::{Value, json};
use tar::{Builder, EntryType};

use super::blob::Blob;
use super::layer::{Layer, append};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// What an image is, its layers aside.
pub struct Description<'a> {
    /// Without registry and tag.
    pub name: &'a str,
    pub tag: &'a str,
    /// Such as `amd64`.
    pub architecture: &'a str,
    pub entrypoint: Vec<&'a str>,
    pub env: &'a [(&'a str, &'a str)],
    pub user: &'a str,
    pub labels: BTreeMap<&'a str, String>,
    /// Seconds since 1970.
    pub time: u64,
}

/// The tar, and the digest under which a registry would know the image.
pub struct Layout {
    pub tar: Vec<u8>,
    pub digest: String,
}

impl Description<'_> {
    pub fn layout(&self, layers: &[Layer]) -> Result<Layout> {
        let config = Blob::new(serde_json::to_vec(&self.config(layers)?)?);
        let blobs: Vec<Value> = layers.iter().map(|layer| descriptor(LAYER, &layer.blob)).collect();
        let manifest = Blob::new(serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, &config),
            "layers": blobs,
            "annotations": self.labels,
        }))?);
        let mut tar = Builder::new(Vec::new());
        let layout = json!({"imageLayoutVersion": "1.0.0"});
        let mut file = |path: &str, data: &[u8]| append(&mut tar, path, EntryType::Regular, 0o644, self.time, data);
        file("oci-layout", &serde_json::to_vec(&layout)?)?;
        file("index.json", &serde_json::to_vec(&self.index(&manifest))?)?;
        file(
            "manifest.json",
            &serde_json::to_vec(&self.docker_manifest(&config, layers))?,
        )?;
        for blob in layers.iter().map(|layer| &layer.blob).chain([&config, &manifest]) {
            file(&blob.path(), &blob.data)?;
        }
        Ok(Layout {
            tar: tar.into_inner()?,
            digest: manifest.digest,
        })
    }

    fn config(&self, layers: &[Layer]) -> Result<Value> {
        let created = Timestamp::from_second(i64::try_from(self.time)?)?.to_string();
        let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
        let history: Vec<Value> = layers
            .iter()
            .map(|_| json!({"created": created, "created_by": "make image"}))
            .collect();
        let given = self.env.iter().map(|(name, value)| format!("{name}={value}"));
        let env: Vec<String> = std::iter::once("PATH=/".to_owned()).chain(given).collect();
        Ok(json!({
            "created": created,
            "architecture": self.architecture,
            "os": "linux",
            "config": {
                "User": self.user,
                "Entrypoint": self.entrypoint,
                "WorkingDir": "/",
                "Env": env,
                "Labels": self.labels,
            },
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": history,
        }))
    }

    fn index(&self, manifest: &Blob) -> Value {
        let entry = json!({
            "mediaType": MANIFEST,
            "digest": manifest.digest,
            "size": manifest.data.len(),
            "platform": {"architecture": self.architecture, "os": "linux"},
            "annotations": {
                "io.containerd.image.name": format!("docker.io/library/{}:{}", self.name, self.tag),
                "org.opencontainers.image.ref.name": self.tag,
            },
        });
        json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [entry],
        })
    }

    /// What `docker load` looks for where it does not know layouts yet.
    fn docker_manifest(&self, config: &Blob, layers: &[Layer]) -> Value {
        let layers: Vec<String> = layers.iter().map(|layer| layer.blob.path()).collect();
        json!([{
            "Config": config.path(),
            "RepoTags": [format!("{}:{}", self.name, self.tag)],
            "Layers": layers,
        }])
    }
}

fn descriptor(kind: &str, blob: &Blob) -> Value {
    json!({"mediaType": kind, "digest": blob.digest, "size": blob.data.len()})
}
