//! The type of a stored credential.

use std::fmt;

/// A credential for one registry.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credential {
    /// User name and password.
    Password(String, String),
    /// An identity token, which is exchanged for access tokens.
    Refresh(String),
}

impl fmt::Debug for Credential {
    /// Prints no secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential")
    }
}

impl Credential {
    /// A credential from the user name and secret of a credential file or helper. The name `<token>` marks an identity token.
    pub fn from_pair(name: String, secret: String) -> Self {
        if name == "<token>" { Self::Refresh(secret) } else { Self::Password(name, secret) }
    }
}
