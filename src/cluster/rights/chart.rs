//! The same rights and definitions as the Helm chart carries them: names are filled in by Helm.

use super::{Installation, Manifest, RESTARTS, manifests, render, secrets_everywhere, secrets_in, secrets_role};
use super::{trial, uninstall};
use kube::ResourceExt;

/// Without spaces, so that no line is ever folded inside of them.
const NAMESPACE: &str = "{{.Release.Namespace}}";
const SERVICE_ACCOUNT: &str = "{{.Values.serviceAccount.name}}";
const TRIAL_NAMESPACE: &str = "{{.Values.trial.namespace}}";
/// What `helm uninstall` leaves: with a definition all its objects would go, and nobody would take the accounts back.
const KEEP: (&str, &str) = ("helm.sh/resource-policy", "keep");

/// Files of the chart, with paths inside of it.
pub fn chart() -> Result<Vec<Manifest>, serde_json::Error> {
    let installation = Installation {
        namespace: NAMESPACE.to_owned(),
        service_account: SERVICE_ACCOUNT.to_owned(),
        watch_namespaces: Vec::new(),
    };
    let mut files = Vec::new();
    for manifest in manifests(&installation)? {
        let yaml = match manifest.file.as_str() {
            "secrets.yaml" => secrets(&installation)?,
            "people.yaml" => only_if("rbac.aggregate", &manifest.yaml),
            RESTARTS => only_if("restarts.enabled", &manifest.yaml),
            _ => manifest.yaml,
        };
        let file = manifest.file.trim_start_matches("optional/");
        files.push(template(file, yaml));
    }
    let yaml = uninstall::manifest(&installation)?;
    files.push(template("uninstall.yaml", only_if("uninstall.enabled", &yaml)));
    let yaml = trial::manifest(&installation, TRIAL_NAMESPACE)?;
    files.push(template("trial.yaml", only_if("trial.dynamicSecret", &yaml)));
    for mut definition in crate::api::definitions() {
        let (key, value) = KEEP;
        definition.annotations_mut().insert(key.to_owned(), value.to_owned());
        files.push(Manifest {
            file: format!("files/crds/{}.yaml", definition.spec.names.plural),
            yaml: render(&definition)?,
        });
    }
    Ok(files)
}

/// The role, and its bindings everywhere or in each namespace that is served.
fn secrets(installation: &Installation) -> Result<String, serde_json::Error> {
    // Within a range the dot is the namespace.
    let inside = |text: &str| text.replacen("{{.", "{{$.", 1);
    let of_each = Installation {
        namespace: inside(&installation.namespace),
        service_account: inside(&installation.service_account),
        watch_namespaces: Vec::new(),
    };
    let (role, everywhere) = (render(&secrets_role())?, render(&secrets_everywhere(installation))?);
    let each = render(&secrets_in(&of_each, "{{.}}"))?;
    Ok(format!(
        "{role}{{{{- with .Values.watch.namespaces }}}}\n\
         {{{{- range append . $.Release.Namespace | uniq | sortAlpha }}}}\n---\n{each}{{{{- end }}}}\n\
         {{{{- else }}}}\n---\n{everywhere}{{{{- end }}}}\n"
    ))
}

fn template(file: &str, yaml: String) -> Manifest {
    Manifest {
        file: format!("templates/rights-{file}"),
        yaml,
    }
}

fn only_if(value: &str, yaml: &str) -> String {
    format!("{{{{- if .Values.{value} }}}}\n{yaml}{{{{- end }}}}\n")
}
