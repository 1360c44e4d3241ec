//! Where this program runs. Only advice depends on it: every fact comes from the environment, which can be wrong.

use std::path::Path;

/// The kind of environment around this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A pod of Kubernetes.
    Kubernetes,
    /// A container of Docker.
    Docker,
    /// A container of Podman, or of a program that marks its containers in the same way.
    Podman,
    /// Another container.
    Container,
    /// A step of a Slurm job.
    SlurmStep,
    /// The Windows Subsystem for Linux, version 2.
    Wsl2,
    /// None of these.
    Machine,
}

impl Place {
    /// That of this process.
    pub fn find() -> Self {
        let file = |path: &str| Path::new(path).exists();
        let variable = |name: &str| std::env::var_os(name).is_some();
        let release = crate::procfs::read("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self::of(file, variable, &release)
    }

    fn of(file: impl Fn(&str) -> bool, variable: impl Fn(&str) -> bool, release: &str) -> Self {
        match () {
            () if variable("KUBERNETES_SERVICE_HOST") => Self::Kubernetes,
            () if file("/.dockerenv") => Self::Docker,
            () if file("/run/.containerenv") => Self::Podman,
            // systemd-nspawn, LXC and others set it.
            () if variable("container") => Self::Container,
            () if variable("SLURM_JOB_ID") => Self::SlurmStep,
            () if release.to_ascii_lowercase().contains("microsoft") => Self::Wsl2,
            () => Self::Machine,
        }
    }

    /// A noun with its article.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kubernetes => "a pod of Kubernetes",
            Self::Docker => "a container of Docker",
            Self::Podman => "a container of Podman, or like it",
            Self::Container => "a container",
            Self::SlurmStep => "a step of a Slurm job",
            Self::Wsl2 => "WSL 2",
            Self::Machine => "a machine",
        }
    }

    /// What to change so that runs can be isolated there; none where the remedies of the controls say it.
    pub fn advice(self) -> Option<&'static str> {
        match self {
            Self::Kubernetes => Some(
                "in the pod, set hostUsers: false; in the container's securityContext, set procMount: Unmasked, runAsUser: 1000, and a \
                 seccompProfile that lets the launcher create namespaces and mount (Localhost or Unconfined)",
            ),
            Self::Docker => Some(
                "start it with `docker run --user 1000 --security-opt systempaths=unconfined --security-opt seccomp=FILE`, where FILE lets \
                 the launcher create namespaces and mount (or `unconfined`); on Ubuntu also with `--security-opt apparmor=unconfined`",
            ),
            Self::Podman => Some(
                "start it with `podman run --user 1000` (or rootless, with `--userns keep-id`) and `--security-opt unmask=ALL --security-opt seccomp=FILE`, where FILE is Podman's profile \
                 with sethostname and setdomainname allowed (or `unconfined`)",
            ),
            Self::Container => Some(
                "start it with an unmasked /proc, and with a filter that lets the launcher create namespaces and mount",
            ),
            Self::SlurmStep | Self::Wsl2 | Self::Machine => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Place;

    #[test]
    fn the_place_is_the_innermost_one() {
        let place = |marks: &[&str], release: &str| {
            let has = |name: &str| marks.contains(&name);
            Place::of(has, has, release)
        };
        let wsl = "6.6.87.2-microsoft-standard-WSL2";
        assert_eq!(place(&[], "6.18.44"), Place::Machine);
        assert_eq!(place(&[], wsl), Place::Wsl2);
        assert_eq!(place(&["SLURM_JOB_ID"], "6.1"), Place::SlurmStep);
        assert_eq!(place(&["SLURM_JOB_ID", "/run/.containerenv"], "6.1"), Place::Podman);
        assert_eq!(place(&["/.dockerenv"], wsl), Place::Docker);
        assert_eq!(place(&["container"], "6.1"), Place::Container);
        assert_eq!(place(&["KUBERNETES_SERVICE_HOST", "/.dockerenv"], "6.1"), Place::Kubernetes);
    }
}
