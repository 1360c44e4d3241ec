//! Allowances: what the user allowed for this command, by which flag or variable.

use std::fmt;

use crate::Network;

/// The truth value of an environment variable: true for `1 true yes on`, false for `0 false no off` (trimmed, in any case), and
/// `None` for everything else.
pub fn truth(value: &str) -> Option<bool> {
    match value.trim().to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Some(true),
        "0" | "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// Something that is denied unless the user allows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Allowance {
    /// Open internet sockets.
    Network,
    /// Run the evaluator without a container.
    HostExecution,
    /// Load third-party plug-ins.
    ThirdPartyPlugins,
    /// Run code that comes with a model.
    RemoteCode,
    /// Accept evidence of unverified origin.
    UnverifiedProvenance,
}

impl Allowance {
    /// All allowances.
    pub const ALL: [Self; 5] = [
        Self::Network,
        Self::HostExecution,
        Self::ThirdPartyPlugins,
        Self::RemoteCode,
        Self::UnverifiedProvenance,
    ];

    /// Its name in a policy object: `allow_network`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Network => "allow_network",
            Self::HostExecution => "allow_host_execution",
            Self::ThirdPartyPlugins => "allow_third_party_plugins",
            Self::RemoteCode => "allow_remote_code",
            Self::UnverifiedProvenance => "allow_unverified_provenance",
        }
    }

    /// The environment variable that allows it.
    pub fn variable(self) -> &'static str {
        match self {
            Self::Network => "INVARLOCK_ALLOW_NETWORK",
            Self::HostExecution => "INVARLOCK_ALLOW_HOST_EXECUTION",
            Self::ThirdPartyPlugins => "INVARLOCK_ALLOW_THIRD_PARTY_PLUGINS",
            Self::RemoteCode => "INVARLOCK_ALLOW_REMOTE_CODE",
            Self::UnverifiedProvenance => "INVARLOCK_ALLOW_UNVERIFIED_PROVENANCE",
        }
    }

    /// The flag that allows it.
    pub fn flag(self) -> &'static str {
        match self {
            Self::Network => "--allow-network",
            Self::HostExecution => "--allow-host-execution",
            Self::ThirdPartyPlugins => "--allow-third-party-plugins",
            Self::RemoteCode => "--allow-remote-code",
            Self::UnverifiedProvenance => "--allow-unverified-provenance",
        }
    }
}

/// What gave an allowance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A flag, by its name.
    Flag(&'static str),
    /// An environment variable, by its name.
    Variable(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) | Self::Variable(name) => f.write_str(name),
        }
    }
}

/// The flags of the command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--allow-network`
    pub network: bool,
    /// `--allow-host-execution`
    pub host_execution: bool,
    /// `--allow-third-party-plugins`
    pub third_party_plugins: bool,
    /// `--allow-remote-code`
    pub remote_code: bool,
    /// `--allow-unverified-provenance`
    pub unverified_provenance: bool,
    /// `--execution-mode`
    pub execution_mode: Option<ExecutionMode>,
}

/// A chosen execution mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecutionMode {
    /// It denies host execution, even if a flag or a variable allows it.
    Container,
    /// As in the Python package, it allows host execution and unverified provenance.
    Host,
}

impl Flags {
    fn source(&self, allowance: Allowance) -> Option<Source> {
        let typed = match allowance {
            Allowance::Network => self.network,
            Allowance::HostExecution => self.host_execution,
            Allowance::ThirdPartyPlugins => self.third_party_plugins,
            Allowance::RemoteCode => self.remote_code,
            Allowance::UnverifiedProvenance => self.unverified_provenance,
        };
        let by_mode = matches!(allowance, Allowance::HostExecution | Allowance::UnverifiedProvenance);
        if typed {
            Some(Source::Flag(allowance.flag()))
        } else if by_mode && self.execution_mode == Some(ExecutionMode::Host) {
            Some(Source::Flag("--execution-mode"))
        } else {
            None
        }
    }
}

/// What is allowed for this command. Resolved once at the start; later changes of the environment have no effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Allowances {
    /// Open internet sockets.
    pub network: bool,
    /// Run the evaluator without a container.
    pub host_execution: bool,
    /// Load third-party plug-ins.
    pub third_party_plugins: bool,
    /// Run code that comes with a model.
    pub remote_code: bool,
    /// Accept evidence of unverified origin.
    pub unverified_provenance: bool,
    /// In the order of [`Allowance::ALL`].
    sources: [Option<Source>; 5],
}

impl Allowances {
    /// A flag gives an allowance, otherwise a variable that is true. `env` reads a variable. A variable cannot revoke a flag. Nothing gives
    /// host execution if the container was chosen.
    pub fn resolve(flags: &Flags, env: &dyn Fn(&str) -> Option<String>) -> Self {
        let in_container = flags.execution_mode == Some(ExecutionMode::Container);
        let sources = Allowance::ALL.map(|allowance| {
            if in_container && allowance == Allowance::HostExecution {
                return None;
            }
            flags.source(allowance).or_else(|| {
                let value = env(allowance.variable())?;
                (truth(&value) == Some(true)).then(|| Source::Variable(allowance.variable()))
            })
        });
        let [network, host_execution, third_party_plugins, remote_code, unverified_provenance] =
            sources.map(|source| source.is_some());
        Self { network, host_execution, third_party_plugins, remote_code, unverified_provenance, sources }
    }

    /// What gave the allowance, if it is given.
    pub fn source(&self, allowance: Allowance) -> Option<Source> {
        self.sources[allowance as usize]
    }

    /// All given allowances with their sources.
    pub fn iter(&self) -> impl Iterator<Item = (Allowance, Source)> + '_ {
        Allowance::ALL.into_iter().filter_map(|allowance| Some((allowance, self.source(allowance)?)))
    }

    /// The right to open network connections, if it is given.
    pub fn network(&self) -> Option<Network> {
        self.source(Allowance::Network).map(|_| Network::granted())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(vars: &'static [(&'static str, &'static str)]) -> impl Fn(&str) -> Option<String> {
        |name| vars.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn parses_truth_values() {
        for word in ["1", "true", "yes", "on", " ON\n", "True", "YES"] {
            assert_eq!(truth(word), Some(true), "{word:?}");
        }
        for word in ["0", "false", "no", "off", " Off "] {
            assert_eq!(truth(word), Some(false), "{word:?}");
        }
        for word in ["", " ", "2", "y", "enabled", "truely", "11", "on off"] {
            assert_eq!(truth(word), None, "{word:?}");
        }
    }

    #[test]
    fn nothing_is_allowed_by_default() {
        let none = Allowances::resolve(&Flags::default(), &with(&[]));
        assert_eq!(none, Allowances::default());
        assert_eq!(none.iter().count(), 0);
        assert!(none.network().is_none());
    }

    #[test]
    fn each_variable_gives_its_own_allowance() {
        for allowance in Allowance::ALL {
            let env = |name: &str| (name == allowance.variable()).then(|| "yes".to_owned());
            let seen: Vec<_> = Allowances::resolve(&Flags::default(), &env).iter().collect();
            assert_eq!(seen, [(allowance, Source::Variable(allowance.variable()))]);
        }
    }

    #[test]
    fn flags_take_precedence_and_invalid_values_are_unset() {
        let flags = Flags { network: true, ..Flags::default() };
        let env = with(&[("INVARLOCK_ALLOW_NETWORK", "0"), ("INVARLOCK_ALLOW_REMOTE_CODE", "maybe")]);
        let seen = Allowances::resolve(&flags, &env);
        assert_eq!(seen.source(Allowance::Network), Some(Source::Flag("--allow-network")));
        assert!(seen.network().is_some());
        assert!(seen.network && !seen.remote_code);
    }

    #[test]
    fn host_mode_gives_two_allowances() {
        let flags = Flags { execution_mode: Some(ExecutionMode::Host), ..Flags::default() };
        let seen = Allowances::resolve(&flags, &with(&[]));
        let names: Vec<_> = seen.iter().map(|(it, source)| (it.name(), source.to_string())).collect();
        let mode = || "--execution-mode".to_owned();
        assert_eq!(names, [("allow_host_execution", mode()), ("allow_unverified_provenance", mode())]);
    }

    #[test]
    fn container_mode_denies_host_execution() {
        let env = with(&[("INVARLOCK_ALLOW_HOST_EXECUTION", "1"), ("INVARLOCK_ALLOW_NETWORK", "1")]);
        let flags = Flags {
            host_execution: true,
            execution_mode: Some(ExecutionMode::Container),
            ..Flags::default()
        };
        let seen = Allowances::resolve(&flags, &env);
        assert!(!seen.host_execution && seen.network, "{seen:?}");
        assert_eq!(seen.source(Allowance::HostExecution), None);
    }
}
