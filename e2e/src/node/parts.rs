//! The programs of a node, and how each is told to work in namespaces of its own.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Value, json};

use super::inside::ADDRESS;
use super::joining::{NAME, PODS};
use super::needs::CNI;
use crate::cluster::find_on_path;
use crate::image::TAG;
use crate::process::Spec;
use crate::programs::Node;

/// Where containerd listens. In the namespaces' own /run, since a run folder's path may be too long for a socket.
pub const SOCKET: &str = "/run/dsv/containerd.sock";
const SERVICES: &str = "10.96.0.0/16";

/// Writes the settings of all parts into `dir` and tells how they are started. `plane` has the kubeconfigs.
pub struct Parts<'a> {
    pub programs: &'a Node,
    pub plane: &'a Path,
    pub dir: &'a Path,
}

impl Parts<'_> {
    pub fn containerd(&self) -> Result<Spec> {
        let (dir, cni) = (self.dir.display(), self.dir.join("cni"));
        fs::create_dir_all(&cni)?;
        self.write("cni/10-pods.conflist", &network())?;
        let config = format!(
            r#"version = 2
root = "{dir}/containerd"
state = "/run/dsv/state"
[grpc]
  address = "{SOCKET}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{dir}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "docker.io/library/dsv-pause:{TAG}"
  # A negative score needs a capability that a machine in a container lacks.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI}"
    conf_dir = "{}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"#,
            cni.display()
        );
        fs::write(self.dir.join("containerd.toml"), config)?;
        let program = find_on_path("containerd").unwrap_or_else(|| PathBuf::from("containerd"));
        Ok(Spec::new("containerd", program, self.dir).args(["--config=containerd.toml", "--log-level=info"]))
    }

    pub fn kubelet(&self) -> Result<Spec> {
        fs::write(self.dir.join("resolv.conf"), format!("nameserver {ADDRESS}\n"))?;
        self.write("kubelet.json", &self.kubelet_settings())?;
        let kubeconfig = format!("--kubeconfig={}", self.plane.join("kubelet.kubeconfig").display());
        Ok(Spec::new("kubelet", self.programs.kubelet(), self.dir).args([
            "--config=kubelet.json".to_owned(),
            kubeconfig,
            format!("--hostname-override={NAME}"),
            format!("--node-ip={ADDRESS}"),
            format!("--root-dir={}", self.dir.join("kubelet").display()),
            "--v=1".to_owned(),
        ]))
    }

    fn kubelet_settings(&self) -> Value {
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": ADDRESS.to_string(),
            "authentication": {
                "anonymous": {"enabled": false},
                "webhook": {"enabled": true},
                "x509": {"clientCAFile": self.plane.join("ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": self.plane.join("kubelet.crt"),
            "tlsPrivateKeyFile": self.plane.join("kubelet.key"),
            "containerRuntimeEndpoint": format!("unix://{SOCKET}"),
            "cgroupDriver": "cgroupfs",
            "failCgroupV1": false,
            "failSwapOn": false,
            "oomScoreAdj": 0,
            "clusterDNS": [ADDRESS.to_string()],
            "clusterDomain": "cluster.local",
            "resolvConf": self.dir.join("resolv.conf"),
            "podLogsDir": self.dir.join("pod-logs"),
            "volumePluginDir": self.dir.join("volume-plugins"),
            "serializeImagePulls": false,
            // A disk that is nearly full is no reason to evict pods of a test.
            "evictionHard": {"memory.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%"},
            "imageGCHighThresholdPercent": 100,
        })
    }

    pub fn proxy(&self) -> Result<Spec> {
        let settings = json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": self.plane.join("proxy.kubeconfig")},
            "hostnameOverride": NAME,
            "clusterCIDR": PODS,
            "mode": "iptables",
            // These are the machine's, and not ours to set.
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        });
        self.write("proxy.json", &settings)?;
        Ok(Spec::new("kube-proxy", self.programs.proxy(), self.dir).args(["--config=proxy.json"]))
    }

    pub fn scheduler(&self) -> Spec {
        let kubeconfig = format!("--kubeconfig={}", self.plane.join("scheduler.kubeconfig").display());
        Spec::new("kube-scheduler", self.programs.scheduler(), self.dir).args([
            kubeconfig,
            "--leader-elect=false".to_owned(),
            "--secure-port=0".to_owned(),
        ])
    }

    pub fn dns(&self) -> Result<Spec> {
        let kubeconfig = self.plane.join("dns.kubeconfig");
        let zones = format!(
            ".:53 {{\n  errors\n  kubernetes cluster.local {SERVICES} {{\n    kubeconfig {} local\n  }}\n}}\n",
            kubeconfig.display()
        );
        fs::write(self.dir.join("Corefile"), zones)?;
        Ok(Spec::new("coredns", self.programs.dns(), self.dir).args(["-conf=Corefile"]))
    }

    fn write(&self, name: &str, settings: &Value) -> Result<()> {
        Ok(fs::write(self.dir.join(name), serde_json::to_vec_pretty(settings)?)?)
    }
}

/// Each pod gets a cable of its own to the node. On a shared bridge the answers of a Service's pod to another pod would go
/// past the node, and nobody would turn the addresses back.
fn network() -> Value {
    json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": false,
                "ipam": {"type": "host-local", "ranges": [[{"subnet": PODS}]], "routes": [{"dst": "0.0.0.0/0"}], "dataDir": "/run/dsv/addresses"},
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}
