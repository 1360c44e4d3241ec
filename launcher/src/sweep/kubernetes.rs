//! A sweep as a Kubernetes Job, each pod of which measures a part of the runs. Kubernetes isolates the pods; the evidence says so and is
//! refused by default.

use super::Runs;
use crate::error::{Context as _, Error, Result};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::{Component, Path};

/// Where the volume is.
const DATA: &str = "/data";
/// The user of the pods.
const USER: u32 = 65_532;

/// A sweep as an indexed Job.
pub struct Kubernetes<'a> {
    /// The plan, below the volume.
    pub plan: &'a Path,
    /// Directory of the sweep, below the volume.
    pub out: &'a Path,
    /// Options of `evaluate` for every run.
    pub shared: &'a [OsString],
    /// Name of the Job.
    pub name: &'a str,
    /// Image that contains `invarlock` and `invarlock-evaluator`, by digest.
    pub image: &'a str,
    /// Name of the persistent volume claim with plan, presets, datasets and checkpoints.
    pub claim: &'a str,
    /// Memory of a pod, as Kubernetes writes it.
    pub memory: &'a str,
    /// Processors of a pod.
    pub cpus: u16,
    /// Pods; none: one for each run.
    pub tasks: Option<usize>,
    /// Pods at the same time.
    pub jobs: Option<u16>,
}

impl Kubernetes<'_> {
    /// The Job and its network policy, as YAML.
    pub fn manifest(&self, runs: &Runs) -> Result<String> {
        let count = self.tasks.unwrap_or(runs.runs.len()).min(runs.runs.len());
        let documents = [self.network_policy(), self.job(count)?];
        let text =
            |document: &Value| serde_norway::to_string(document).map_err(|e| Error::system(e.to_string()));
        let texts = documents.iter().map(text).collect::<Result<Vec<_>>>().context("writing YAML")?;
        Ok(texts.join("---\n"))
    }

    fn labels(&self) -> Value {
        json!({"app.kubernetes.io/name": "invarlock-sweep", "app.kubernetes.io/instance": self.name})
    }

    /// No pod of the Job has a network, if the cluster's network enforces policies.
    fn network_policy(&self) -> Value {
        json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": self.name, "labels": self.labels()},
            "spec": {"podSelector": {"matchLabels": self.labels()}, "policyTypes": ["Ingress", "Egress"]},
        })
    }

    fn job(&self, count: usize) -> Result<Value> {
        Ok(json!({
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": self.name, "labels": self.labels()},
            "spec": {
                "completionMode": "Indexed",
                "completions": count,
                "parallelism": self.jobs.map_or(count, |jobs| count.min(usize::from(jobs))),
                "backoffLimit": 0,
                "template": {"metadata": {"labels": self.labels()}, "spec": self.pod(count)?},
            },
        }))
    }

    fn pod(&self, count: usize) -> Result<Value> {
        let ids = json!({
            "runAsNonRoot": true, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        });
        Ok(json!({
            "restartPolicy": "Never",
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "securityContext": ids,
            "containers": [self.container(count)?],
            "volumes": [
                {"name": "data", "persistentVolumeClaim": {"claimName": self.claim}},
                {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}},
            ],
        }))
    }

    fn container(&self, count: usize) -> Result<Value> {
        let (plan, out) = (below("PLAN", self.plan)?, below("--out", self.out)?);
        let mut args = vec!["sweep".to_owned(), plan.to_owned(), "--out".to_owned(), out.to_owned()];
        args.extend(["--quiet", "--part"].map(str::to_owned));
        args.push(format!("$(JOB_COMPLETION_INDEX)/{count}"));
        args.extend(["--", "--allow-host-execution"].map(str::to_owned));
        for word in self.shared {
            let word = word.to_str().ok_or_else(|| Error::input(format!("{word:?} is not UTF-8")))?;
            // A dollar sign starts a variable in the arguments of a container.
            args.push(word.replace('$', "$$"));
        }
        let resources = json!({"memory": self.memory, "cpu": self.cpus.to_string()});
        Ok(json!({
            "name": "invarlock",
            "image": self.image,
            "command": ["invarlock"],
            "args": args,
            "workingDir": DATA,
            "env": [{"name": "HOME", "value": "/tmp"}, {"name": "INVARLOCK_BOUNDARY", "value": "kubernetes"}],
            "resources": {"requests": resources, "limits": resources},
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"]},
                "privileged": false,
                "readOnlyRootFilesystem": true,
            },
            "volumeMounts": [
                {"name": "data", "mountPath": DATA, "readOnly": true},
                {"name": "data", "mountPath": format!("{DATA}/{out}"), "subPath": out},
                {"name": "tmp", "mountPath": "/tmp"},
            ],
        }))
    }
}

/// A path below the volume, as text.
fn below<'a>(name: &str, path: &'a Path) -> Result<&'a str> {
    let is_below = path.components().all(|part| matches!(part, Component::Normal(_)));
    let text = path.to_str().filter(|text| is_below && !text.is_empty() && !text.contains('$'));
    text.ok_or_else(|| Error::input(format!("{name} {}: not a plain path below the volume", path.display())))
        .hint("run the command in a copy of the volume's root, with relative paths without `..`")
}
